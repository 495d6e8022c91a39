//! Opens the doors: sockets, admin HTTP, start and stop.
//!
//! The only room that sees the whole house. Reading order: `server` builds it bottom-up and tears it down
//! top-down; `descriptors` shares out what the process may open; `house` is the node as doors see it; `lobby` answers
//! clients until it may serve, `listener` lets them in, `protection` says whom not; `admin` answers operators over HTTP; `ring_command` answers them
//! without a node.

#[expect(clippy::module_inception, reason = "the room is named after its main file")]
mod server;

mod descriptors;

mod house;

mod lobby;

mod listener;

mod admin;

mod protection;

mod ring_command;

#[cfg(test)]
mod readme;

pub use listener::{Ends, let_in};
pub use ring_command::{RING_USAGE, RingCommandError, ring};
pub use server::{ServerError, SetLogLevel, run};
