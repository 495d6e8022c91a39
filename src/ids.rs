//! Identifiers that everyone may name: nodes, shards, databases.
//!
//! Newtypes, so that a node can never be passed where a shard is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node of the cluster: the xxh3-64 hash of its configured name (`node-id`).
///
/// The name is what people see; the hash is what travels. Two names with one hash are refused when
/// the cluster's configuration is read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id of the node called `name`.
    pub fn of_name(name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A shard: a contiguous range of slots served by one Raft group. Shards are numbered from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A Raft group of this process as the log and the wire number it: 0 is meta, shard `n` is `n + 1`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group that replicates the topology.
    pub const META: Self = Self(0);

    /// The group that serves `shard`.
    pub const fn of_shard(shard: ShardId) -> Self {
        Self(shard.0 + 1)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// A Redis database chosen with SELECT: 0..16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbIndex(pub u8);

impl DbIndex {
    /// How many databases there are (`databases` in redis.conf; fixed at Redis' default).
    pub const COUNT: u8 = 16;
}
