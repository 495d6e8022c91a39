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

pub use crate::transport::kinds::meta as kind;
