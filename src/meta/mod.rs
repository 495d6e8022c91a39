//! The Raft group that replicates the topology.
