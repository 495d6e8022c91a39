//! The whole cluster in one process, under one seed: real nodes in virtual time, on a network and on disks in memory.
//!
//! `scripts/sim` builds and runs it. It is compiled under `cfg(kvorum_sim)` alone; without it there is nothing here.
//! ARCHITECTURE.md tells how it works and how to read its trace.

#![cfg_attr(
    kvorum_sim,
    expect(
        clippy::unwrap_used,
        clippy::wildcard_enum_match_arm,
        clippy::format_push_string,
        reason = "the whole crate is a test: a broken assumption ends the run with its line"
    )
)]

#[cfg(kvorum_sim)]
mod client;
#[cfg(kvorum_sim)]
mod clock;
#[cfg(kvorum_sim)]
mod dice;
#[cfg(kvorum_sim)]
mod disk;
#[cfg(kvorum_sim)]
mod host;
#[cfg(kvorum_sim)]
mod invariants;
#[cfg(kvorum_sim)]
mod network;
#[cfg(kvorum_sim)]
mod plan;
#[cfg(kvorum_sim)]
mod run;
#[cfg(kvorum_sim)]
mod support;
#[cfg(kvorum_sim)]
mod trace;
#[cfg(kvorum_sim)]
mod world;

#[cfg(kvorum_sim)]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(kvorum_sim))]
fn main() {}
