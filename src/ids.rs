//! Identifiers that everyone may name: nodes and their directories, replicas, shards, databases.
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

/// One data directory, and so one memory: 128 random bits, drawn when the directory is made.
///
/// A node that comes back with another directory under its old name is another incarnation: it may have voted for and
/// acknowledged what it no longer knows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u128);

impl Incarnation {
    /// No directory: what is said where none is known or meant.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A cluster: 64 random bits, drawn when it is born. Public; it opens no door.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// No cluster: what a directory that was never adopted by one says.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One start of a node from one directory: numbered, and drawn at random, so that the starts of two copies of a
/// directory differ.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Session {
    /// How many starts this directory has seen, this one included: 1, 2, …
    pub number: u64,
    /// Random bits of this start.
    pub random: u64,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.random)
    }
}

/// One replica of one group in one directory: what Raft calls a server. Given out by meta, never used twice in a
/// cluster, so that votes and acknowledgements of a lost log are never taken for those of the log that replaces it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RaftId(pub u64);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Who holds a replica: a directory, and the node that works with it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its directory.
    pub incarnation: Incarnation,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.incarnation)
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

    /// The shard it serves; `None` for meta.
    pub const fn shard(self) -> Option<ShardId> {
        match self.0 {
            0 => None,
            number => Some(ShardId(number - 1)),
        }
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
