//! Consistent hashing: which nodes hold which shard. Pure arithmetic over the topology.
//!
//! `key → slot → shard → replicas`. A shard's point on the ring, walked clockwise, ranks the nodes;
//! quotas bound what each node takes; a change of the node set starts from the placement that is
//! there and moves only what the change makes necessary. Same inputs, same placement, everywhere.
//!
//! Must not read a clock, draw randomness or iterate over a hash map.
//!
//! Source: `DeCandia` et al. 2007 (Dynamo) §4.2–4.3; Mirrokni, Thorup, Zadimoghaddam 2016.

mod limits;
mod token;

#[expect(clippy::module_inception, reason = "the room is named after its central thing")]
mod ring;
mod share;

mod assignment;
mod preference;

mod leaders;

mod topology;

mod diff;

mod node_spec;

pub mod cli;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;

pub use diff::{Diff, Move, NodeTotals};
pub use limits::{
    HOST_BYTES_MAX, LOAD_SLACK_PERCENT, NAME_BYTES_MAX, NODES_MAX, REPLICAS_MAX, SHARDS_MAX,
    TOKENS_MAX, VIRTUAL_NODES_DEFAULT, VIRTUAL_NODES_MAX, WEIGHT_MAX, ZONE_BYTES_MAX,
};
pub use node_spec::{NodeSpec, NodeSpecError};
pub use ring::Ring;
pub use share::Share;
pub use token::Token;
pub use topology::{
    Doors, ListedNode, Placement, Topology, TopologyError, TopologySpec, auto_shard_count,
};
