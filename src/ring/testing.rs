//! Test support: golden files and small topologies.

use crate::ids::NodeId;
use crate::ring::{ListedNode, Topology, TopologySpec};

/// Compares `$actual` with `tests/golden/ring/$file`; `UPDATE_GOLDEN=1` rewrites the file instead.
macro_rules! golden {
    ($file:literal, $actual:expr) => {
        $crate::ring::testing::check_golden(
            $file,
            include_str!(concat!("../../tests/golden/ring/", $file)),
            &$actual,
        )
    };
}
pub(super) use golden;

#[track_caller]
pub(super) fn check_golden(file: &str, expected: &str, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        let path = format!("{}/tests/golden/ring/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, actual).unwrap();
    } else {
        assert_eq!(expected, actual, "{file} differs; UPDATE_GOLDEN=1 rewrites it");
    }
}

/// A node called `name`, of `weight`, in `zone`.
pub(super) fn node(name: &str, weight: u16, zone: &str) -> ListedNode {
    ListedNode {
        id: NodeId::of_name(name),
        name: name.to_owned(),
        host: format!("{name}.example"),
        peer_port: 16_379,
        weight,
        zone: zone.to_owned(),
        doors: None,
    }
}

pub(super) fn spec(
    shard_count: u32,
    replication_factor: u8,
    nodes: Vec<ListedNode>,
) -> TopologySpec {
    TopologySpec { cluster_id: 7, shard_count, replication_factor, virtual_nodes: 128, nodes }
}

/// A topology of `(name, weight, zone)` nodes.
pub(super) fn topology(shards: u32, replicas: u8, nodes: &[(&str, u16, &str)]) -> Topology {
    let nodes = nodes.iter().map(|&(name, weight, zone)| node(name, weight, zone)).collect();
    Topology::new(spec(shards, replicas, nodes)).unwrap()
}
