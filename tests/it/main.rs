//! Black-box tests: real kvorum processes, real sockets, real kills.
//!
//! One binary, so that it links once. Every wait is for a condition with a deadline, every port is chosen at
//! run time, every random choice comes from a printed seed (`KVORUM_SEED` repeats it). `KVORUM_LONG=1` runs
//! the heavier loops.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::needless_for_each,
    clippy::format_push_string,
    reason = "the whole crate is tests: a broken assumption ends the test with its line"
)]

mod support;

mod cluster;
mod disk;
mod doors;
mod durability;
mod failover;
mod golden;
mod heavy;
mod linearizability;
mod memory;
mod peer_door;
mod power;
mod readmission;
mod sessions;
mod slow_disk;
mod smoke;
mod snapshots;
mod soak;
mod stale_reads;
mod time;
