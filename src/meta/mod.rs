//! The Raft group that replicates the topology: who the nodes are, where their doors are, which node holds
//! which shard.
//!
//! Its state machine is a value of `ring`; its proposals are few and small. Everybody above learns of a
//! change through a watch.

mod command;
mod machine;

pub use command::Command;
pub use machine::TopologyMachine;

/// The messages of this room. Codes are part of the wire format: append only.
pub mod kind {
    use crate::transport::Kind;

    /// A [`Command`](super::Command) for the meta leader; answered with nothing once it is applied there.
    pub const PROPOSE: Kind = Kind(48);
    /// Asks a voter for the topology as it has it; answered with [`Command::Create`](super::Command) of it.
    pub const FETCH: Kind = Kind(49);
}
