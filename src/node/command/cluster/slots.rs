//! CLUSTER SLOTS: ranges of slots and who holds them, as most clients ask for it.

use super::BASE;
use crate::command::{Flag, Spec, Tip};
use crate::node::command::Outcome;
use crate::node::{Client, ClusterView, Member, Node, ShardView};
use crate::resp::Reply;

pub(super) const SLOTS: Spec = Spec {
    name: "cluster|slots",
    summary: "Returns the ranges of slots with the nodes that hold them, the leader first.",
    complexity: "O(N) for N shards",
    flags: &[Flag::Loading, Flag::Stale],
    tips: &[Tip::NondeterministicOutput],
    history: &[("7.0.0", "Tells further names of a node.")],
    ..BASE
};

pub(super) fn slots(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(slots_reply(&ClusterView::of(node)))
}

/// One entry per shard with a leader: first slot, last slot, leader, other replicas.
pub(super) fn slots_reply(view: &ClusterView) -> Reply<'static> {
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
