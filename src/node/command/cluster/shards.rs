//! CLUSTER SHARDS: the same by shard, with names for what it says.

use std::net::IpAddr;

use super::BASE;
use crate::command::{Flag, Spec, Tip};
use crate::node::command::Outcome;
use crate::node::{Client, ClusterView, Member, Node, ShardView};
use crate::resp::Reply;

pub(super) const SHARDS: Spec = Spec {
    name: "cluster|shards",
    since: "7.0.0",
    summary: "Returns the shards with their slots and nodes.",
    complexity: "O(N) for N shards",
    flags: &[Flag::Loading, Flag::Stale],
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

pub(super) fn shards(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(shards_reply(&ClusterView::of(node)))
}

pub(super) fn shards_reply(view: &ClusterView) -> Reply<'static> {
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
