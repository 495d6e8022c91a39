//! This process: the shards it hosts, its peers, what operators ask of it.
//!
//! Reading order: `start` says how a node comes to be; `node` what it is; `upkeep` what it does by itself;
//! `clients` who is connected; `command` what operators can ask.

#[expect(clippy::module_inception, reason = "the room is named after its main type")]
mod node;

mod start;

mod upkeep;

mod clients;

mod command;

pub use clients::{Client, ClientGuard, ClientState, Clients};
pub use command::{COMMANDS, NodeCommand, NodeFn};
pub use node::Node;
pub use start::{NodeError, NodeOptions, Started, start};
