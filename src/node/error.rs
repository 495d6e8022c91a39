//! Why a node does not start, or ends: one line for whoever runs it.

use std::sync::Arc;

use crate::ids::GroupId;
use crate::meta::ClusterError;
use crate::raft::StartError;
use crate::ring::{NodeSpecError, TopologyError};
use crate::transport::BindError;
use crate::wal::WalError;

/// Why a node cannot start, or go on: one line that says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its data cannot be used.
    #[error(transparent)]
    Data(#[from] WalError),
    /// Its log has failed.
    #[error(transparent)]
    Log(Arc<WalError>),
    /// The snapshots of a replica that has ended cannot be deleted.
    #[error("the snapshots of a replica that has ended cannot be deleted: {0}")]
    Snapshots(std::io::Error),
    /// A group's data cannot be used.
    #[error(transparent)]
    Group(#[from] StartError),
    /// `cluster-nodes` is wrong.
    #[error("cluster-nodes: {0}")]
    Nodes(#[from] NodeSpecError),
    /// The cluster described cannot be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The nodes there are do not make a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The peer port is taken.
    #[error("{0}: {source}", source = .0.source)]
    Bind(BindError),
    /// A thread of the node has ended.
    #[error("a runtime of the node has stopped")]
    Runtime,
    /// The record of its cluster is not one this version writes.
    #[error("the record of the cluster in the data directory cannot be read")]
    Record,
    /// The cluster counts on replicas that this directory has lost.
    #[error(
        "the data directory has lost replicas that the cluster counts on; empty it, and the node is let in again"
    )]
    LostReplicas,
    /// The node died while its directory was being adopted, and the cluster has been drawn otherwise since.
    #[error(
        "the data directory holds replicas, but of another cluster than this node would enter: its file `cluster` is gone, or the node died while the cluster began; put the file back, or, in a cluster of several nodes, empty the directory"
    )]
    StrayReplicas,
    /// The log holds a replica of a group that the cluster does not have.
    #[error("the log holds a replica of {0}, which this cluster does not have")]
    UnknownGroup(GroupId),
    /// Another directory took its place.
    #[error(
        "another directory has taken the place of this one under the name {0}; empty it, and the node is let in again"
    )]
    Gone(String),
    /// A copy of its directory was started, or a later state of it.
    #[error(
        "another copy of this data directory was started as {0}, or this is an old backup of it; empty it, and the node is let in again"
    )]
    Copy(String),
}
