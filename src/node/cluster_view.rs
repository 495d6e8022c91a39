//! The cluster as this node sees it now: the topology's placement with the leaders there really are.
//!
//! In Redis' words a shard's leader is a master and its other replicas are slaves of it. A node can be both at
//! once here; it counts as a master as soon as it leads anything.

use std::ops::RangeInclusive;

use super::node::Node;
use crate::ids::{ClusterId, Incarnation, NodeId, ShardId};

/// A node of the cluster as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its id as the CLUSTER commands write it: 40 hexadecimal digits, the same on every node for as long as it keeps
    /// its directory. With an empty one it is another node, as in Redis.
    pub wire_id: String,
    /// Its name.
    pub name: String,
    /// The host of its doors.
    pub host: String,
    /// Its cluster door, or its plain door where that is closed.
    pub port: u16,
    /// The door for other nodes.
    pub peer_port: u16,
    /// Whether this node is it.
    pub is_self: bool,
    /// Whether this node has a connection to it, or is it.
    pub is_connected: bool,
}

/// A shard with its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardView {
    /// Which.
    pub shard: ShardId,
    /// Its slots.
    pub slots: RangeInclusive<u16>,
    /// Its leader, when one is known and is one of the members.
    pub leader: Option<NodeId>,
    /// Its replicas that are members, the leader first.
    pub replicas: Vec<NodeId>,
    /// Whether that leader works, as far as this node can tell.
    pub is_served: bool,
}

/// Members and shards at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The topology's epoch.
    pub epoch: u64,
    /// The nodes whose doors are known, by name.
    pub members: Vec<Member>,
    /// All shards, by slot.
    pub shards: Vec<ShardView>,
    /// How many replicas on this node have stopped for good.
    pub stopped: usize,
}

impl ClusterView {
    /// As `node` sees it now.
    pub fn of(node: &Node) -> Self {
        let topology = node.topology();
        let cluster = node.cluster();
        let wire_id_of = |id: NodeId| {
            let cluster = cluster.as_deref()?;
            Some(wire_id(cluster.members().get(&id)?.incarnation, cluster.id()))
        };
        let mut members: Vec<Member> = topology
            .nodes()
            .values()
            .filter_map(|member| {
                let doors = member.doors.as_ref()?;
                let is_self = member.id == node.id();
                let is_connected = || node.peers().get(member.id).is_some_and(|p| p.is_connected());
                Some(Member {
                    id: member.id,
                    wire_id: wire_id_of(member.id)?,
                    name: member.name.clone(),
                    host: doors.host.clone(),
                    port: if doors.cluster_port > 0 { doors.cluster_port } else { doors.port },
                    peer_port: member.peer_port,
                    is_self,
                    is_connected: is_self || is_connected(),
                })
            })
            .collect();
        members.sort_by(|left, right| left.name.cmp(&right.name));
        let is_member = |id: &NodeId| members.iter().any(|member| member.id == *id);
        let shards = topology
            .placements()
            .map(|(shard, placement)| {
                let leader = node.leader_of(shard).filter(is_member);
                let others = placement.replicas.iter().copied().filter(|id| Some(*id) != leader);
                ShardView {
                    shard,
                    slots: topology.slots_of(shard),
                    leader,
                    replicas: leader.into_iter().chain(others.filter(is_member)).collect(),
                    is_served: node.shard(shard).is_served(),
                }
            })
            .collect();
        Self { epoch: topology.epoch(), members, shards, stopped: node.stopped_groups().len() }
    }

    /// The member called `id`.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The slots that `id` leads, neighbours joined.
    pub fn led_by(&self, id: NodeId) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for shard in self.shards.iter().filter(|shard| shard.leader == Some(id)) {
            match ranges.last_mut() {
                Some(last) if u32::from(*last.end()) + 1 == u32::from(*shard.slots.start()) => {
                    *last = *last.start()..=*shard.slots.end();
                }
                Some(_) | None => ranges.push(shard.slots.clone()),
            }
        }
        ranges
    }

    /// Whose slave `id` counts as: the leader of the first shard it holds, when it leads none itself.
    pub fn master_of(&self, id: NodeId) -> Option<NodeId> {
        if self.shards.iter().any(|shard| shard.leader == Some(id)) {
            return None;
        }
        let mut held = self.shards.iter().filter(|shard| shard.replicas.contains(&id));
        held.find_map(|shard| shard.leader)
    }

    /// How many nodes lead something.
    pub fn masters(&self) -> usize {
        self.members.iter().filter(|member| !self.led_by(member.id).is_empty()).count()
    }

    /// Slots of shards with a leader that works.
    pub fn slots_led(&self) -> usize {
        let is_led = |shard: &&ShardView| shard.leader.is_some() && shard.is_served;
        self.shards.iter().filter(is_led).map(|shard| shard.slots.len()).sum()
    }
}

/// A node's id in the CLUSTER commands: its directory, then the cluster's first eight digits.
fn wire_id(incarnation: Incarnation, cluster: ClusterId) -> String {
    format!("{incarnation}{:08x}", cluster.0 >> 32)
}

impl Node {
    /// Its id in the CLUSTER commands, see [`Member::wire_id`].
    pub fn wire_id(&self) -> String {
        wire_id(self.incarnation(), ClusterId(self.topology().cluster_id()))
    }

    /// The groups whose replica on this node has stopped for good, `meta` or a shard, and why: the others carry on without
    /// it, and this node needs help.
    pub fn stopped_groups(&self) -> Vec<(String, String)> {
        let meta = self.meta().stopped().map(|why| ("meta".to_owned(), why));
        let shards = self.shards().iter();
        let shards =
            shards.filter_map(|shard| Some((shard.id().to_string(), shard.status()?.stopped?)));
        meta.into_iter().chain(shards).collect()
    }

    /// Who leads `shard`: whoever this node knows of. Where it neither holds a replica nor has heard of a leader
    /// yet, the one that the topology prefers, who will forward to the real one.
    pub fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        let known = self.shard(shard);
        let preferred = || self.topology().preferred_leader(shard);
        known.leader().or_else(|| (!known.is_replica()).then(preferred))
    }

    /// Why this node is not ready to serve every key; `None` when it is.
    pub fn unready_reason(&self) -> Option<String> {
        if let Some(failure) = self.wal().failure() {
            return Some(format!("the log has failed: {failure}"));
        }
        if let Some(waits_for) = self.progress().waits_for() {
            return Some(waits_for);
        }
        if let Some((group, why)) = self.stopped_groups().into_iter().next() {
            return Some(format!("the replica of {group} here has stopped: {why}"));
        }
        for shard in self.shards() {
            let Some(leader) = self.leader_of(shard.id()) else {
                return Some(format!("shard {} has no leader", shard.id()));
            };
            let is_reached =
                leader == self.id() || self.peers().get(leader).is_some_and(|p| p.is_connected());
            if !is_reached {
                return Some(format!("the leader of shard {} cannot be reached", shard.id()));
            }
            if !shard.is_served() {
                return Some(if leader == self.id() {
                    format!("shard {} has no quorum", shard.id())
                } else {
                    format!("the leader of shard {} is silent", shard.id())
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::view;

    #[test]
    fn ids_on_the_wire_are_forty_digits_and_stable() {
        for incarnation in [1, u128::MAX, 0x0123_4567_89ab_cdef] {
            let id = wire_id(Incarnation(incarnation), ClusterId(7 << 32));
            assert_eq!(id.len(), 40);
            assert!(id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        }
        // Clients keep these ids in their configuration, so their form must never change.
        assert_eq!(
            wire_id(Incarnation(0xabc), ClusterId(0x0123_4567_89ab_cdef)),
            "00000000000000000000000000000abc01234567"
        );
    }

    #[test]
    fn neighbouring_shards_of_one_leader_are_one_range() {
        let view = view(&["n1", "n1", "n2", "n1"]);
        let id = NodeId::of_name;
        assert_eq!(view.led_by(id("n1")), [0..=8191, 12288..=16383]);
        assert_eq!(view.led_by(id("n2")), [8192..=12287]);
        assert_eq!(view.led_by(id("n3")), []);
        assert_eq!(view.master_of(id("n1")), None);
        assert_eq!(view.master_of(id("n3")), Some(id("n1")));
        assert_eq!((view.masters(), view.slots_led()), (2, 16384));
    }

    #[test]
    fn a_shard_without_a_leader_is_led_by_nobody() {
        let view = view(&["", "n2"]);
        assert_eq!(view.slots_led(), 8192);
        assert_eq!(view.master_of(NodeId::of_name("n1")), Some(NodeId::of_name("n2")));
        let view = crate::node::testing::view(&["", ""]);
        assert_eq!(view.master_of(NodeId::of_name("n1")), None);
        assert_eq!(view.masters(), 0);
    }
}
