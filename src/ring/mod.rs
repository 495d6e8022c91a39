//! Consistent hashing: which nodes hold which shard. Pure arithmetic over the topology.
