//! Preference lists: the nodes of each shard, nearest on the ring first, distinct zones first.
//!
//! Each shard takes the first nodes of its clockwise walk, zones that it has not met first, and passes
//! over nodes whose quota is full. Where that ends with a gap, [`assignment::complete`] closes it: first
//! which zones, then which nodes within each zone. The two steps are independent, because a zone's
//! quota is the sum of its nodes' and each node's quota is at most one replica of every shard.
//!
//! **A change starts from the placement there is.** Plain bounded loads computed afresh for the new node
//! set cascade: every cap changes, full nodes spill onto others, and a join may move several times the
//! newcomer's share (measured in `properties.rs`). So a placement is a function of the one before and
//! of the change: nodes over their new quota hand replicas to nodes with room, preferring the shards
//! whose walk meets the taker soonest. Because a join lowers every other quota and raises none, what
//! moves is the newcomer's quota, which is at most ceil(fair share).
//!
//! Measured over random clusters of 3 to 20 nodes: plain bounded loads copy up to 5 times the share on a
//! join; this copies at most the share rounded up (1800 joins of equal nodes, at most 1.08 times any share
//! of ten replicas or more). With mixed weights and zones, detours that keep zones apart cost up to
//! 1.3 times the share on a join and 1.65 times on a leave, again for shares of ten or more.
//!
//! Source: Dynamo §4.3; Mirrokni, Thorup, Zadimoghaddam 2016.

use std::collections::VecDeque;

use crate::ring::assignment::{self, Goal, Reached};
use crate::ring::share::Demand;

/// The nodes of each shard in preference order, given the nodes each had before (empty: none).
///
/// `walks` has, for every shard, all members in the order of its clockwise walk.
pub(super) fn place(
    demand: &Demand,
    walks: &[Vec<usize>],
    before: Vec<Vec<usize>>,
) -> Vec<Vec<usize>> {
    let quotas = demand.quotas();
    let mut loads = vec![0_u64; quotas.len()];
    for &node in before.iter().flatten() {
        loads[node] += 1;
    }
    let mut work = Work { demand, walks, quotas, loads, held: before };
    work.hand_over(Which::OnlyMisplaced);
    work.hand_over(Which::All);
    work.walk_all();
    work.repair_zones();
    for shard in 0..walks.len() {
        work.sort_by_preference(shard);
    }
    work.held
}

/// Shards that may hand replicas over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Those that break the zones' spread as it is.
    OnlyMisplaced,
    All,
}

#[derive(Debug)]
struct Work<'a> {
    demand: &'a Demand,
    walks: &'a [Vec<usize>],
    quotas: Vec<u64>,
    loads: Vec<u64>,
    held: Vec<Vec<usize>>,
}

impl Work<'_> {
    /// Moves replicas from nodes over their quota straight to nodes with room, where zones allow it.
    fn hand_over(&mut self, which: Which) {
        let takers: Vec<usize> =
            (0..self.quotas.len()).filter(|&node| self.has_room(node)).collect();
        let mut offers = Vec::new();
        for (shard, walk) in self.walks.iter().enumerate() {
            let wanted = which == Which::All || self.is_misplaced(shard);
            for (rank, node) in walk.iter().enumerate().filter(|_| wanted) {
                if takers.contains(node) && !self.held[shard].contains(node) {
                    offers.push((rank, shard, *node));
                }
            }
        }
        offers.sort_unstable();
        for (_, shard, taker) in offers {
            if self.has_room(taker) && !self.held[shard].contains(&taker) {
                self.hand_over_one(shard, taker);
            }
        }
    }

    fn hand_over_one(&mut self, shard: usize, taker: usize) {
        let surplus = |node: usize| self.loads[node].saturating_sub(self.quotas[node]);
        let giver = self.walks[shard]
            .iter()
            .copied()
            .filter(|&node| self.held[shard].contains(&node) && surplus(node) > 0)
            .filter(|&node| self.may_replace(shard, node, taker))
            .max_by_key(|&node| surplus(node));
        if let Some(giver) = giver {
            self.held[shard].retain(|&node| node != giver);
            self.held[shard].push(taker);
            self.loads[giver] -= 1;
            self.loads[taker] += 1;
        }
    }

    /// Fills every shard from its walk: zones it holds least of first, full nodes passed over.
    fn walk_all(&mut self) {
        let before = self.held.clone();
        for shard in 0..self.walks.len() {
            while self.held[shard].len() < self.demand.replicas() {
                let extras_left = self.extras_left(shard);
                let next = self.walks[shard]
                    .iter()
                    .copied()
                    .filter(|&node| self.has_room(node) && !self.held[shard].contains(&node))
                    .filter(|&node| self.may_add(shard, node, extras_left))
                    .min_by_key(|&node| self.count(shard, self.zone(node)));
                if let Some(next) = next {
                    self.held[shard].push(next);
                    self.loads[next] += 1;
                } else if !self.trade(shard, &before) {
                    break;
                }
            }
        }
    }

    /// Fills a place of `shard` where no node with room fits: it takes a full node from a shard that was
    /// given that node just now, and that shard takes another, until one with room is reached.
    ///
    /// Only replicas that are new since `before` change places, so this costs no copy; each shard is
    /// touched once, so that zones stay as spread as they are. False when there is no such chain.
    fn trade(&mut self, shard: usize, before: &[Vec<usize>]) -> bool {
        let mut reached: Vec<Option<Reached>> = vec![None; self.quotas.len()];
        let mut used = vec![false; self.walks.len()];
        used[shard] = true;
        let extras_left = self.extras_left(shard);
        let mut queue = VecDeque::new();
        for &node in &self.walks[shard] {
            if !self.held[shard].contains(&node) && self.may_add(shard, node, extras_left) {
                reached[node] = Some(Reached::AsStart);
                queue.push_back(node);
            }
        }
        while let Some(node) = queue.pop_front() {
            if self.has_room(node) {
                self.trade_along(shard, node, &reached);
                return true;
            }
            for other in 0..self.walks.len() {
                let is_new = self.held[other].contains(&node) && !before[other].contains(&node);
                if used[other] || !is_new {
                    continue;
                }
                for &next in &self.walks[other] {
                    if reached[next].is_none()
                        && !self.held[other].contains(&next)
                        && self.may_replace(other, node, next)
                    {
                        used[other] = true;
                        reached[next] = Some(Reached::From { item: node, shard: other });
                        queue.push_back(next);
                    }
                }
            }
        }
        false
    }

    fn trade_along(&mut self, shard: usize, end: usize, reached: &[Option<Reached>]) {
        self.loads[end] += 1;
        let mut node = end;
        while let Some(Reached::From { item: from, shard: other }) = reached[node] {
            self.held[other].retain(|&held| held != from);
            self.held[other].push(node);
            node = from;
        }
        self.held[shard].push(node);
    }

    /// Closes what gaps are left: which zones hold an extra replica, then which nodes in each zone.
    fn repair_zones(&mut self) {
        let extras = self.complete_extras();
        let members = self.demand.members();
        for (zone, spread) in self.demand.spreads().iter().enumerate() {
            let nodes: Vec<usize> =
                (0..members.len()).filter(|&i| members[i].zone == zone).collect();
            let local = |node: usize| nodes.binary_search(&node).ok();
            let localize =
                |list: &Vec<usize>| list.iter().filter_map(|&node| local(node)).collect();
            let mut held: Vec<Vec<usize>> = self.held.iter().map(localize).collect();
            let walks: Vec<Vec<usize>> = self.walks.iter().map(localize).collect();
            let needs: Vec<usize> = extras
                .iter()
                .map(|zones| spread.least + usize::from(zones.contains(&zone)))
                .collect();
            let quotas: Vec<u64> = nodes.iter().map(|&node| self.quotas[node]).collect();
            assignment::complete(
                &mut held,
                &Goal { needs: &needs, quotas: &quotas, walks: &walks },
            );
            for (shard, chosen) in held.into_iter().enumerate() {
                self.held[shard].retain(|&node| members[node].zone != zone);
                self.held[shard].extend(chosen.into_iter().map(|local| nodes[local]));
            }
        }
    }

    /// For each shard, the zones that hold one replica more than their least.
    fn complete_extras(&self) -> Vec<Vec<usize>> {
        let spreads = self.demand.spreads();
        let shards = self.walks.len() as u64;
        let mut quotas: Vec<u64> = vec![0; spreads.len()];
        for (node, quota) in self.quotas.iter().enumerate() {
            quotas[self.zone(node)] += quota;
        }
        for (quota, spread) in quotas.iter_mut().zip(spreads) {
            *quota -= shards * spread.least as u64;
        }
        let is_extra = |shard: usize, zone: usize| {
            spreads[zone].most > spreads[zone].least
                && self.count(shard, zone) > spreads[zone].least
        };
        let mut extras: Vec<Vec<usize>> = (0..self.walks.len())
            .map(|shard| (0..spreads.len()).filter(|&zone| is_extra(shard, zone)).collect())
            .collect();
        let walks: Vec<Vec<usize>> = self.walks.iter().map(|walk| self.zones_met(walk)).collect();
        let needs = vec![self.demand.extras(); self.walks.len()];
        assignment::complete(&mut extras, &Goal { needs: &needs, quotas: &quotas, walks: &walks });
        extras
    }

    /// Puts the nodes of `shard` in preference order: by walk, but each zone once before any twice.
    fn sort_by_preference(&mut self, shard: usize) {
        let mut met = vec![0; self.demand.spreads().len()];
        let mut ranked: Vec<(usize, usize, usize)> = Vec::with_capacity(self.held[shard].len());
        for (rank, &node) in self.walks[shard].iter().enumerate() {
            if self.held[shard].contains(&node) {
                ranked.push((met[self.zone(node)], rank, node));
                met[self.zone(node)] += 1;
            }
        }
        ranked.sort_unstable();
        self.held[shard] = ranked.into_iter().map(|(_, _, node)| node).collect();
    }

    /// The zones in the order in which `walk` meets them.
    fn zones_met(&self, walk: &[usize]) -> Vec<usize> {
        let mut zones = Vec::with_capacity(self.demand.spreads().len());
        for &node in walk {
            if !zones.contains(&self.zone(node)) {
                zones.push(self.zone(node));
            }
        }
        zones
    }

    /// How many zones of `shard` may still take one more than their least.
    fn extras_left(&self, shard: usize) -> usize {
        let spreads = self.demand.spreads().iter().enumerate();
        let used =
            spreads.map(|(zone, spread)| self.count(shard, zone).saturating_sub(spread.least));
        self.demand.extras().saturating_sub(used.sum())
    }

    /// Whether `shard` can still keep the zones' spread after taking `node`.
    fn may_add(&self, shard: usize, node: usize, extras_left: usize) -> bool {
        let zone = self.zone(node);
        let (count, spread) = (self.count(shard, zone), self.demand.spreads()[zone]);
        count < spread.least || (count < spread.most && extras_left > 0)
    }

    /// Whether `taker` in the place of `giver` breaks no zone's spread.
    fn may_replace(&self, shard: usize, giver: usize, taker: usize) -> bool {
        let (from, to) = (self.zone(giver), self.zone(taker));
        let spreads = self.demand.spreads();
        from == to
            || (self.count(shard, from) > spreads[from].least
                && self.count(shard, to) < spreads[to].most)
    }

    fn is_misplaced(&self, shard: usize) -> bool {
        self.demand.spreads().iter().enumerate().any(|(zone, spread)| {
            let count = self.count(shard, zone);
            count < spread.least || count > spread.most
        })
    }

    fn has_room(&self, node: usize) -> bool {
        self.loads[node] < self.quotas[node]
    }

    fn count(&self, shard: usize, zone: usize) -> usize {
        self.held[shard].iter().filter(|&&node| self.zone(node) == zone).count()
    }

    fn zone(&self, node: usize) -> usize {
        self.demand.members()[node].zone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::share::Member;

    fn demand(zones: &[usize], shards: u32, replicas: u8) -> Demand {
        let members = zones.iter().map(|&zone| Member { weight: 1, zone }).collect();
        Demand::new(members, shards, replicas)
    }

    #[test]
    fn the_walk_decides_while_there_is_room() {
        let walks = vec![vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1]];
        let held = place(&demand(&[0, 0, 0], 3, 2), &walks, vec![vec![]; 3]);
        assert_eq!(held, [[0, 1], [1, 2], [2, 0]]);
    }

    #[test]
    fn a_full_node_is_passed_over() {
        let walks = vec![vec![0, 1, 2]; 3];
        let held = place(&demand(&[0, 0, 0], 3, 1), &walks, vec![vec![]; 3]);
        assert_eq!(held, [[0], [1], [2]]);
    }

    #[test]
    fn another_zone_comes_before_a_nearer_node() {
        let walks = vec![vec![0, 1, 2, 3], vec![3, 2, 1, 0]];
        let held = place(&demand(&[0, 0, 1, 1], 2, 2), &walks, vec![vec![]; 2]);
        assert_eq!(held, [[0, 2], [3, 1]]);
    }

    #[test]
    fn a_dead_end_still_fills_every_list() {
        // Every shard prefers the same nodes, so the last finds room only on nodes it holds.
        let walks = vec![vec![0, 1, 2, 3]; 5];
        let held = place(&demand(&[0, 0, 0, 0], 5, 3), &walks, vec![vec![]; 5]);
        assert!(held.iter().all(|nodes| nodes.len() == 3));
    }

    #[test]
    fn a_newcomer_takes_only_its_quota() {
        let walks = vec![vec![0, 1, 2]; 6];
        let before = vec![vec![0], vec![1], vec![0], vec![1], vec![0], vec![1]];
        let after = place(&demand(&[0, 0, 0], 6, 1), &walks, before.clone());
        assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 2);
    }
}
