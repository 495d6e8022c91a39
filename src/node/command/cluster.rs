//! CLUSTER: the cluster in the words of Redis Cluster, for clients that compute slots themselves.
//!
//! Announces the cluster door of every node. Commands that would change the cluster do not exist here: placement
//! is the ring's, leadership is Raft's. Source: Redis docs, CLUSTER NODES, SLOTS and SHARDS.

use std::fmt::Write;
use std::net::IpAddr;

use super::{NodeCommand, NodeFn, Outcome};
use crate::command::{Arg, Arity, Flag, Group, Row, Spec, Tip, parse_i64, specs};
use crate::ids::DbIndex;
use crate::node::{Client, ClusterView, Member, Node, ShardView};
use crate::resp::{ErrorReply, Reply};
use crate::slot::Slot;

pub(super) const CLUSTER: NodeCommand = NodeCommand::container(&SPEC, &SUBCOMMANDS);

const SUBCOMMANDS: [Row<NodeFn>; 9] = [
    Row::new(&COUNTKEYSINSLOT, countkeysinslot),
    Row::new(&GETKEYSINSLOT, getkeysinslot),
    Row::new(&HELP, help),
    Row::new(&INFO, info),
    Row::new(&KEYSLOT, keyslot),
    Row::new(&MYID, myid),
    Row::new(&NODES, nodes),
    Row::new(&SHARDS, shards),
    Row::new(&SLOTS, slots),
];

/// Keys that GETKEYSINSLOT returns at most, whatever it is asked for: its reply is built at once.
const KEYS_IN_SLOT_MAX: usize = 1024 * 1024;

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

const COUNTKEYSINSLOT: Spec = Spec {
    name: "cluster|countkeysinslot",
    summary: "Returns how many keys of a slot are on this node.",
    arity: Arity::Exactly(3),
    args: &[Arg::integer("slot")],
    ..BASE
};

const GETKEYSINSLOT: Spec = Spec {
    name: "cluster|getkeysinslot",
    summary: "Returns names of keys of a slot that are on this node.",
    complexity: "O(N) for N names asked for",
    arity: Arity::Exactly(4),
    tips: &[Tip::NondeterministicOutput],
    args: &[Arg::integer("slot"), Arg::integer("count")],
    ..BASE
};

const HELP: Spec = Spec {
    name: "cluster|help",
    since: "5.0.0",
    summary: "Returns what the subcommands do.",
    flags: &[Flag::Loading, Flag::Stale],
    ..BASE
};

const INFO: Spec = Spec {
    name: "cluster|info",
    summary: "Returns the state of the cluster as this node sees it.",
    complexity: "O(N) for N shards",
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

const KEYSLOT: Spec = Spec {
    name: "cluster|keyslot",
    summary: "Returns the slot of a key.",
    complexity: "O(N) for N bytes of the key",
    arity: Arity::Exactly(3),
    args: &[Arg::string("key")],
    ..BASE
};

const MYID: Spec = Spec { name: "cluster|myid", summary: "Returns the id of this node.", ..BASE };

const NODES: Spec = Spec {
    name: "cluster|nodes",
    summary: "Returns the nodes with the slots they lead, one line each.",
    complexity: "O(N) for N nodes and shards",
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

const SHARDS: Spec = Spec {
    name: "cluster|shards",
    since: "7.0.0",
    summary: "Returns the shards with their slots and nodes.",
    complexity: "O(N) for N shards",
    flags: &[Flag::Loading, Flag::Stale],
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

const SLOTS: Spec = Spec {
    name: "cluster|slots",
    summary: "Returns the ranges of slots with the nodes that hold them, the leader first.",
    complexity: "O(N) for N shards",
    flags: &[Flag::Loading, Flag::Stale],
    tips: &[Tip::NondeterministicOutput],
    history: &[("7.0.0", "Tells further names of a node.")],
    ..BASE
};

fn help(_node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(SPEC.help())
}

fn myid(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::text(node.wire_id()))
}

fn keyslot(_node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    Ok(Reply::Integer(Slot::of(argv[2]).number().into()))
}

/// As in Redis only this node's keys count, of which it has none where it holds no replica of the shard.
fn countkeysinslot(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let number = parse_i64(argv[2])?;
    let slot = slot(number).ok_or_else(|| ErrorReply::new("ERR", "Invalid slot"))?;
    let shard = node.shard(node.topology().shard_of(slot));
    let count =
        shard.read(node.clock().monotonic(), |keys, _| keys.count_in_slot(DbIndex(0), slot));
    count.map(Reply::count).ok_or(ErrorReply::SHARD_BUSY)
}

fn getkeysinslot(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let invalid = || ErrorReply::new("ERR", "Invalid slot or number of keys");
    let (number, count) = (parse_i64(argv[2])?, parse_i64(argv[3])?);
    let slot = slot(number).ok_or_else(invalid)?;
    let count = usize::try_from(count).map_err(|_| invalid())?.min(KEYS_IN_SLOT_MAX);
    let shard = node.shard(node.topology().shard_of(slot));
    let found = shard.read(node.clock().monotonic(), |keys, _| {
        let keys = keys.keys_in_slot(DbIndex(0), slot, count);
        Reply::bulks(keys.into_iter().map(<[u8]>::to_vec))
    });
    found.ok_or(ErrorReply::SHARD_BUSY)
}

fn slot(number: i64) -> Option<Slot> {
    u16::try_from(number).ok().and_then(Slot::new)
}

fn info(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::verbatim_text(info_text(&ClusterView::of(node))))
}

fn nodes(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::verbatim_text(nodes_text(&ClusterView::of(node))))
}

fn slots(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(slots_reply(&ClusterView::of(node)))
}

fn shards(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(shards_reply(&ClusterView::of(node)))
}

fn info_text(view: &ClusterView) -> String {
    let led = view.slots_led();
    let lines = [
        ("cluster_state", if led == usize::from(Slot::COUNT) { "ok" } else { "fail" }.to_owned()),
        ("cluster_slots_assigned", Slot::COUNT.to_string()),
        ("cluster_slots_ok", led.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", (usize::from(Slot::COUNT) - led).to_string()),
        ("cluster_known_nodes", view.members.len().to_string()),
        ("cluster_size", view.masters().to_string()),
        ("cluster_current_epoch", view.epoch.to_string()),
        ("cluster_my_epoch", view.epoch.to_string()),
        ("kvorum_groups_stopped", view.stopped.to_string()),
    ];
    lines.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _infallible = write!(text, "{name}:{value}\r\n");
        text
    })
}

/// Fields: id, address, flags, master, ping sent, pong received, epoch, link, then the slots led. Ping and pong
/// are 0: nodes here have no such times.
fn nodes_text(view: &ClusterView) -> String {
    let mut text = String::new();
    for member in &view.members {
        let master = view.master_of(member.id).and_then(|id| view.member(id));
        let ranges = view.led_by(member.id);
        let mut flags: Vec<&str> = Vec::new();
        if member.is_self {
            flags.push("myself");
        }
        flags.push(if master.is_some() { "slave" } else { "master" });
        // A leader that this node has lost its connection to may be well: who says otherwise is an election.
        if !member.is_connected && ranges.is_empty() {
            flags.push("fail");
        }
        let _infallible = write!(
            text,
            "{} {}:{}@{} {} {} 0 0 {} {}",
            member.wire_id,
            member.host,
            member.port,
            member.peer_port,
            flags.join(","),
            master.map_or("-", |master| &master.wire_id),
            view.epoch,
            if member.is_connected { "connected" } else { "disconnected" },
        );
        for range in ranges {
            let _infallible = match (range.start(), range.end()) {
                (start, end) if start == end => write!(text, " {start}"),
                (start, end) => write!(text, " {start}-{end}"),
            };
        }
        text.push('\n');
    }
    text
}

/// One entry per shard with a leader: first slot, last slot, leader, other replicas.
fn slots_reply(view: &ClusterView) -> Reply<'static> {
    let entry = |shard: &ShardView| {
        shard.leader?;
        let members = shard.replicas.iter().filter_map(|id| view.member(*id));
        let range = [*shard.slots.start(), *shard.slots.end()];
        let range = range.into_iter().map(|slot| Reply::Integer(slot.into()));
        Some(Reply::Array(range.chain(members.map(slot_member)).collect()))
    };
    Reply::Array(view.shards.iter().filter_map(entry).collect())
}

fn slot_member(member: &Member) -> Reply<'static> {
    Reply::Array(vec![
        Reply::text(&*member.host),
        Reply::Integer(member.port.into()),
        Reply::text(&*member.wire_id),
        Reply::Map(Vec::new()),
    ])
}

fn shards_reply(view: &ClusterView) -> Reply<'static> {
    let shard = |shard: &ShardView| {
        let range = [*shard.slots.start(), *shard.slots.end()];
        let members = shard.replicas.iter().filter_map(|id| view.member(*id));
        let nodes = members.map(|member| shard_member(member, shard.leader == Some(member.id)));
        Reply::Map(vec![
            pair("slots", Reply::Array(range.map(|slot| Reply::Integer(slot.into())).into())),
            pair("nodes", Reply::Array(nodes.collect())),
        ])
    };
    Reply::Array(view.shards.iter().map(shard).collect())
}

/// All offsets are 0: a replica's place in a log is not told to other nodes.
fn shard_member(member: &Member, is_leader: bool) -> Reply<'static> {
    let is_ip = member.host.parse::<IpAddr>().is_ok();
    let mut pairs = vec![
        pair("id", Reply::text(&*member.wire_id)),
        pair("port", Reply::Integer(member.port.into())),
        pair("ip", Reply::text(if is_ip { &*member.host } else { "" })),
        pair("endpoint", Reply::text(&*member.host)),
    ];
    if !is_ip {
        pairs.push(pair("hostname", Reply::text(&*member.host)));
    }
    pairs.push(pair("role", Reply::text(if is_leader { "master" } else { "replica" })));
    pairs.push(pair("replication-offset", Reply::Integer(0)));
    let health = if member.is_connected { "online" } else { "fail" };
    pairs.push(pair("health", Reply::text(health)));
    Reply::Map(pairs)
}

fn pair(name: &'static str, value: Reply<'static>) -> (Reply<'static>, Reply<'static>) {
    (Reply::bulk(name.as_bytes()), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Wire;
    use crate::node::testing::{TestNode, view};

    #[test]
    fn a_node_with_several_shards_is_one_line() {
        let (n1, n2, n3) = (
            "n1".to_owned() + &"x".repeat(38),
            "n2".to_owned() + &"x".repeat(38),
            "n3".to_owned() + &"x".repeat(38),
        );
        let expected = format!(
            "{n1} 10.0.0.1:7001@7101 myself,master - 0 0 7 connected 0-4095 8192-12287\n\
             {n2} 10.0.0.1:7002@7102 master - 0 0 7 connected 4096-8191 12288-16383\n\
             {n3} 10.0.0.1:7003@7103 slave,fail {n1} 0 0 7 disconnected\n"
        );
        assert_eq!(nodes_text(&view(&["n1", "n2", "n1", "n2"])), expected);
        // Nobody leads: everybody is a master without slots.
        let text = nodes_text(&view(&[""]));
        assert_eq!(text.matches("master -").count(), 2, "{text}");
    }

    #[test]
    fn nodes_slots_and_shards_name_the_same_ids() {
        let view = view(&["n1", "", "n3", "n2"]);
        let text = nodes_text(&view);
        let ids: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        let Reply::Array(ranges) = slots_reply(&view) else { panic!("an array") };
        assert_eq!(ranges.len(), 3, "a shard without a leader is left out");
        let compact = Wire::of(&ranges[1]).compact();
        assert!(
            compact.starts_with(&format!("*5 :8192 :12287 *4 $10.0.0.1 :7003 ${} *0", ids[2])),
            "{compact}"
        );
        let Reply::Array(shards) = shards_reply(&view) else { panic!("an array") };
        assert_eq!(shards.len(), 4);
        let compact = Wire::of(&shards[2]).compact();
        assert!(
            compact.starts_with("*4 $slots *2 :8192 :12287 $nodes *3 *14 $id $n3x"),
            "{compact}"
        );
        assert_eq!(compact.matches("$master").count(), 1);
        assert_eq!(compact.matches("$role $replica").count(), 2);
    }

    #[test]
    fn the_state_is_ok_only_when_every_slot_is_led() {
        let text = info_text(&view(&["n1", "n2"]));
        assert!(text.starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"), "{text}");
        assert!(text.contains("cluster_size:2\r\n") && text.contains("cluster_known_nodes:3\r\n"));
        let text = info_text(&view(&["n1", ""]));
        assert!(text.starts_with("cluster_state:fail\r\n"), "{text}");
        assert!(text.contains("cluster_slots_fail:8192\r\n"), "{text}");
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
