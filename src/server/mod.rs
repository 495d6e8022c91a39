//! Opens the doors: sockets, admin HTTP, start and stop.
//!
//! The only room that sees the whole house. Reading order: `server` builds it bottom-up and tears it down
//! top-down; `listener` lets clients in; `admin` answers operators over HTTP.

#[expect(clippy::module_inception, reason = "the room is named after its main file")]
mod server;

mod listener;

#[cfg(test)]
mod readme;

pub use server::{ServerError, run};
