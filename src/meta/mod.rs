//! The Raft group that replicates the cluster: who the nodes are, where their doors are, whose directory holds which
//! replica of which shard.
//!
//! Its state machine is a value ([`Cluster`]); its proposals are few and small. Everybody above learns of a change
//! through a watch. What is to happen next is decided by its leader, by a pure function ([`next_plan`]).

mod cluster;
mod command;
mod machine;
mod plan;

#[cfg(test)]
pub(crate) mod testing;

pub use cluster::{
    Assignment, COPIES_MAX, Cluster, ClusterError, LEVEL, META_VOTERS_MAX, Member, Standing, Step,
};
pub use command::{Command, JoinRequest, MalformedCommand};
pub use machine::ClusterMachine;
pub use plan::next_plan;

/// The messages of this room. Codes are part of the wire format: append only.
pub mod kind {
    use crate::transport::Kind;

    /// A [`Command`](super::Command) for the meta leader; answered with nothing once it is applied there.
    pub const PROPOSE: Kind = Kind(48);
    /// Asks for the cluster as the other node has it; answered with [`Command::Create`](super::Command) of it.
    pub const FETCH: Kind = Kind(49);
    /// An empty directory asks to be let into a cluster that exists: a [`JoinRequest`](super::JoinRequest); answered
    /// with a sentence.
    pub const JOIN: Kind = Kind(51);
}
