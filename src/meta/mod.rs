//! The Raft group that replicates the cluster: who the nodes are, where their doors are, whose directory holds which
//! replica of which shard.
//!
//! Everybody above speaks to a [`Meta`], follows the [`Cluster`] by a watch, and has it changed by a [`Change`]; these are
//! few and small. What is to happen next is decided by its leader, by a pure function ([`next_plan`]).

mod change;
mod cluster;
mod machine;
#[expect(clippy::module_inception, reason = "the room is named after its main type")]
mod meta;
mod plan;

#[cfg(test)]
pub(crate) mod testing;

pub use change::{Change, JoinRequest, MalformedChange};
pub use cluster::{
    Assignment, COPIES_MAX, Cluster, ClusterError, LEVEL, META_VOTERS_MAX, Member, Standing, Step,
};
pub use meta::Meta;
pub use plan::next_plan;

/// The messages of this room. Codes are part of the wire format: append only.
pub mod kind {
    use crate::transport::Kind;

    /// A [`Change`](super::Change) for the meta leader; answered with nothing once it is applied there.
    pub const PROPOSE: Kind = Kind(48);
    /// Asks for the cluster as the other node has it; answered with [`Change::Create`](super::Change) of it.
    pub const FETCH: Kind = Kind(49);
    /// An empty directory asks to be let into a cluster that exists: a [`JoinRequest`](super::JoinRequest); answered
    /// with a sentence.
    pub const JOIN: Kind = Kind(51);
}
