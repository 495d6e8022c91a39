//! What changes from one topology to the next: the replicas that move, and each node's totals.

use std::collections::BTreeMap;

use crate::ids::{NodeId, ShardId};
use crate::ring::{Placement, Topology};

/// One replica of one shard that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// The node that stops holding it; `None` where shards get one replica more.
    pub from: Option<NodeId>,
    /// The node that starts holding it; `None` where shards get one replica less.
    pub to: Option<NodeId>,
}

/// How many replicas a node gains and loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeTotals {
    /// Replicas it starts holding.
    pub gained: u64,
    /// Replicas it stops holding.
    pub lost: u64,
}

/// The difference between two topologies of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The replicas that move, by shard. Within a shard those who leave are paired in preference order
    /// with those who come.
    pub moves: Vec<Move>,
    /// Totals of every node of either topology, also of those with nothing to move.
    pub totals: BTreeMap<NodeId, NodeTotals>,
    /// The shards whose preferred leader changes.
    pub leaders: Vec<ShardId>,
}

impl Diff {
    /// What it takes to get from `old` to `new`. Shards that only one of the two has are left out.
    pub fn between(old: &Topology, new: &Topology) -> Self {
        let ids = old.nodes().keys().chain(new.nodes().keys());
        let mut diff = Self {
            totals: ids.map(|&id| (id, NodeTotals::default())).collect(),
            ..Self::default()
        };
        for ((shard, before), (_, after)) in old.placements().zip(new.placements()) {
            diff.add_shard(shard, before, after);
        }
        diff
    }

    /// How many replicas have to be copied to a node that has not got them.
    pub fn copies(&self) -> u64 {
        self.totals.values().map(|totals| totals.gained).sum()
    }

    /// How many replicas are given up.
    pub fn drops(&self) -> u64 {
        self.totals.values().map(|totals| totals.lost).sum()
    }

    fn add_shard(&mut self, shard: ShardId, before: &Placement, after: &Placement) {
        let missing_in = |other: &Placement| {
            let other = other.replicas.clone();
            move |id: &&NodeId| !other.contains(id)
        };
        let mut leaving = before.replicas.iter().filter(missing_in(after)).copied();
        let mut coming = after.replicas.iter().filter(missing_in(before)).copied();
        loop {
            let (from, to) = (leaving.next(), coming.next());
            if from.is_none() && to.is_none() {
                break;
            }
            if let Some(from) = from {
                self.totals.entry(from).or_default().lost += 1;
            }
            if let Some(to) = to {
                self.totals.entry(to).or_default().gained += 1;
            }
            self.moves.push(Move { shard, from, to });
        }
        if before.leader != after.leader {
            self.leaders.push(shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::{node, topology};

    #[test]
    fn nothing_moves_between_equals() {
        let topology = topology(16, 3, &[("n1", 1, ""), ("n2", 1, "")]);
        let diff = Diff::between(&topology, &topology);
        assert_eq!((diff.moves, diff.leaders), (vec![], vec![]));
        assert_eq!(diff.totals.len(), 2);
    }

    #[test]
    fn growth_copies_and_drops_nothing() {
        let two = topology(16, 3, &[("n1", 1, ""), ("n2", 1, "")]);
        let three = two.with_node(node("n3", 1, "")).unwrap();
        let diff = Diff::between(&two, &three);
        assert_eq!((diff.copies(), diff.drops()), (16, 0));
        let id = Some(NodeId::of_name("n3"));
        assert!(diff.moves.iter().all(|m| m.from.is_none() && m.to == id));
        let back = Diff::between(&three, &two);
        assert_eq!((back.copies(), back.drops()), (0, 16));
    }

    #[test]
    fn moves_lead_from_the_old_to_the_new_placement() {
        let names: Vec<String> = (0..6).map(|i| format!("n{i}")).collect();
        let nodes: Vec<_> = names.iter().map(|name| (name.as_str(), 1, "")).collect();
        let old = topology(64, 3, &nodes);
        let new = old.without_node(NodeId::of_name("n3")).unwrap();
        let diff = Diff::between(&old, &new);
        for (shard, placement) in old.placements() {
            let mut held: Vec<NodeId> = placement.replicas.clone();
            for step in diff.moves.iter().filter(|step| step.shard == shard) {
                held.retain(|&id| Some(id) != step.from);
                held.extend(step.to);
            }
            held.sort_unstable();
            let mut expected = new.placement(shard).replicas.clone();
            expected.sort_unstable();
            assert_eq!(held, expected);
        }
        assert_eq!(diff.totals[&NodeId::of_name("n3")], NodeTotals { gained: 0, lost: 32 });
    }
}
