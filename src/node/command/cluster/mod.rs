//! CLUSTER: the cluster in the words of Redis Cluster, for clients that compute slots themselves.
//!
//! Announces the cluster door of every node. Commands that would change the cluster do not exist here: placement
//! is the ring's, leadership is Raft's. Source: Redis docs, CLUSTER NODES, SLOTS and SHARDS.

mod info;
mod keys;
mod nodes;
mod shards;
mod slots;

use super::{NodeCommand, NodeFn, Outcome};
use crate::command::{Arity, Flag, Group, Row, Spec, specs};
use crate::node::{Client, Node};

pub(super) const CLUSTER: NodeCommand = NodeCommand::container(&SPEC, &SUBCOMMANDS);

const SUBCOMMANDS: [Row<NodeFn>; 9] = [
    Row::new(&keys::COUNTKEYSINSLOT, keys::countkeysinslot),
    Row::new(&keys::GETKEYSINSLOT, keys::getkeysinslot),
    Row::new(&HELP, help),
    Row::new(&info::INFO, info::info),
    Row::new(&keys::KEYSLOT, keys::keyslot),
    Row::new(&nodes::MYID, nodes::myid),
    Row::new(&nodes::NODES, nodes::nodes),
    Row::new(&shards::SHARDS, shards::shards),
    Row::new(&slots::SLOTS, slots::slots),
];

const SPEC: Spec = Spec {
    name: "cluster",
    group: Group::Cluster,
    since: "3.0.0",
    summary: "A container of commands that tell how the cluster is made up.",
    arity: Arity::AtLeast(2),
    subcommands: &specs(&SUBCOMMANDS),
    ..Spec::EMPTY
};

/// What the subcommands have in common.
const BASE: Spec = Spec {
    group: Group::Cluster,
    since: "3.0.0",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Flag::Stale],
    ..Spec::EMPTY
};

const HELP: Spec = Spec {
    name: "cluster|help",
    since: "5.0.0",
    summary: "Returns what the subcommands do.",
    flags: &[Flag::Loading, Flag::Stale],
    ..BASE
};

fn help(_node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(SPEC.help())
}

#[cfg(test)]
mod tests {
    use super::nodes::nodes_text;
    use super::shards::shards_reply;
    use super::slots::slots_reply;
    use crate::node::ClusterView;
    use crate::node::testing::{TestNode, view};
    use crate::resp::Reply;
    use crate::resp::testing::Value;

    #[test]
    fn nodes_slots_and_shards_name_the_same_ids() {
        let view = view(&["n1", "", "n3", "n2"]);
        let text = nodes_text(&view);
        let ids: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        let Reply::Array(ranges) = slots_reply(&view) else { panic!("an array") };
        assert_eq!(ranges.len(), 3, "a shard without a leader is left out");
        let compact = Value::of(&ranges[1]).compact();
        assert!(
            compact.starts_with(&format!("*5 :8192 :12287 *4 $10.0.0.1 :7003 ${} *0", ids[2])),
            "{compact}"
        );
        let Reply::Array(shards) = shards_reply(&view) else { panic!("an array") };
        assert_eq!(shards.len(), 4);
        let compact = Value::of(&shards[2]).compact();
        assert!(
            compact.starts_with("*4 $slots *2 :8192 :12287 $nodes *3 *14 $id $n3x"),
            "{compact}"
        );
        assert_eq!(compact.matches("$master").count(), 1);
        assert_eq!(compact.matches("$role $replica").count(), 2);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_single_node_is_a_cluster_of_its_own() {
        let test = TestNode::start(&[]).await;
        let id = test.run("CLUSTER MYID").trim_start_matches('$').trim_matches('"').to_owned();
        assert_eq!(id.len(), 40);
        let range = |from, to| format!("*3 :{from} :{to} *4 $127.0.0.1 :7379 $ID *0");
        let slots = test.run("CLUSTER SLOTS").replace(&id, "ID").replace("$\"ID\"", "$ID");
        assert_eq!(slots, format!("*2 {} {}", range(0, 8191), range(8192, 16383)));
        let view = ClusterView::of(&test.started.node);
        let line = nodes_text(&view);
        assert!(line.starts_with(&format!("{id} 127.0.0.1:7379@")), "{line}");
        assert!(line.ends_with(" connected 0-16383\n"), "{line}");
        let table = [
            ("CLUSTER KEYSLOT foo", ":12182"),
            ("CLUSTER KEYSLOT x{foo}y", ":12182"),
            ("CLUSTER COUNTKEYSINSLOT 12182", ":0"),
            ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range"),
            ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
            ("CLUSTER COUNTKEYSINSLOT -1", "-ERR Invalid slot"),
            ("CLUSTER GETKEYSINSLOT 0 10", "*0"),
            ("CLUSTER GETKEYSINSLOT 0 x", "-ERR value is not an integer or out of range"),
            ("CLUSTER GETKEYSINSLOT 0 -1", "-ERR Invalid slot or number of keys"),
            ("CLUSTER GETKEYSINSLOT 70000 1", "-ERR Invalid slot or number of keys"),
            ("CLUSTER MEET a 1", "-ERR unknown subcommand 'MEET'. Try CLUSTER HELP."),
        ];
        for (line, expected) in table {
            assert_eq!(test.run(line), expected, "{line}");
        }
    }
}
