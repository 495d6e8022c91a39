//! Limits of a topology: what a configuration file, a peer or the disk may ask this room to compute.

/// Shards a cluster may have, 1..=this. Each is a Raft group, and groups are not free.
pub const SHARDS_MAX: u32 = 1024;

/// Nodes a cluster may have, 1..=this.
pub const NODES_MAX: usize = 256;

/// Replicas of one shard, 1..=this (`replication-factor`).
pub const REPLICAS_MAX: u8 = 9;

/// Weight of one node, 1..=this.
pub const WEIGHT_MAX: u16 = 100;

/// Virtual nodes of a node of weight 1, unless the topology says otherwise.
pub const VIRTUAL_NODES_DEFAULT: u16 = 128;

/// Virtual nodes of a node of weight 1, 1..=this.
pub const VIRTUAL_NODES_MAX: u16 = 1024;

/// Tokens on one ring: virtual nodes times the sum of the weights. Bounds the time of a placement.
pub const TOKENS_MAX: u64 = 1 << 20;

/// Bytes of a node's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a host: the longest DNS name.
pub const HOST_BYTES_MAX: usize = 255;

/// Bytes of a zone's name.
pub const ZONE_BYTES_MAX: usize = 64;

/// ε of the bounded loads in percent: no node holds more than 1 + ε times its fair share, rounded up.
pub const LOAD_SLACK_PERCENT: u32 = 25;
