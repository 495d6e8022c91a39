//! CLUSTER MYID and NODES: the nodes, a line each.

use std::fmt::Write;

use super::BASE;
use crate::command::{Spec, Tip};
use crate::node::command::Outcome;
use crate::node::{Client, ClusterView, Node};
use crate::resp::Reply;

pub(super) const MYID: Spec =
    Spec { name: "cluster|myid", summary: "Returns the id of this node.", ..BASE };

pub(super) const NODES: Spec = Spec {
    name: "cluster|nodes",
    summary: "Returns the nodes with the slots they lead, one line each.",
    complexity: "O(N) for N nodes and shards",
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

pub(super) fn myid(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::text(node.wire_id()))
}

pub(super) fn nodes(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::verbatim_text(nodes_text(&ClusterView::of(node))))
}

/// Fields: id, address, flags, master, ping sent, pong received, epoch, link, then the slots led. Ping and pong
/// are 0: nodes here have no such times.
pub(super) fn nodes_text(view: &ClusterView) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::view;

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
}
