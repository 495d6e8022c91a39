//! Small clusters for the tests of this room.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use crate::ids::{Incarnation, NodeId, Session};
use crate::ring::{ListedNode, Topology, TopologySpec, VIRTUAL_NODES_DEFAULT};
use crate::stdx::hash_key::HashKey;

/// The node called `n` and a number.
pub(crate) fn node(number: u64) -> NodeId {
    NodeId::of_name(&format!("n{number}"))
}

/// `nodes` nodes, n1 and on, with `shards` shards of at most three replicas.
pub(crate) fn topology(id: u64, nodes: u64, shards: u32) -> Topology {
    let nodes = (1..=nodes).map(|number| ListedNode {
        id: node(number),
        name: format!("n{number}"),
        host: "127.0.0.1".into(),
        peer_port: 1,
        weight: 1,
        zone: String::new(),
        doors: None,
    });
    let spec = TopologySpec {
        cluster_id: id,
        shard_count: shards,
        replication_factor: 3,
        virtual_nodes: VIRTUAL_NODES_DEFAULT,
        nodes: nodes.collect(),
    };
    Topology::new(spec).unwrap()
}

/// The first start of a directory.
pub(crate) fn first_session() -> Session {
    Session { number: 1, random: 7 }
}

/// A cluster that begins on directories numbered as its nodes.
pub(crate) fn cluster(topology: Topology) -> Cluster {
    let count = topology.nodes().len() as u64;
    let holders: BTreeMap<_, _> = (1..=count)
        .map(|number| (node(number), (Incarnation(u128::from(number)), first_session())))
        .collect();
    Cluster::begin(topology, &holders, HashKey::new([3, 4])).unwrap()
}
