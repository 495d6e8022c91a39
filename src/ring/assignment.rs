//! Giving every shard its number of distinct items (nodes, or zones) without exceeding any quota.
//!
//! Walking and passing over full items can end where the only items with room are in the shard already.
//! Then replicas change places along a chain: the shard takes a full item, which leaves another shard,
//! which takes another item, until one with room is reached. This always succeeds: take any placement
//! that fits (it exists, see [`complete`]); in the difference between it and the present one, the path
//! that starts at the lacking shard, or at the item over its quota, can only end at an item with room.
//! A breadth-first search finds the shortest such chain, in a fixed order.
//!
//! Source: augmenting paths of bipartite b-matching; Gale 1957, Ryser 1957 (when one exists).

use std::collections::VecDeque;

/// How a search for a chain came to an item.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reached {
    /// The chain may begin with it.
    AsStart,
    /// It would take the place of `item` in `shard`.
    From { item: usize, shard: usize },
}

/// What [`complete`] has to reach.
#[derive(Debug)]
pub(super) struct Goal<'a> {
    /// How many distinct items each shard needs; no two differ by more than one.
    pub(super) needs: &'a [usize],
    /// How many shards each item serves: at most all of them, in sum exactly what shards need.
    pub(super) quotas: &'a [u64],
    /// For each shard, all items, best first.
    pub(super) walks: &'a [Vec<usize>],
}

/// Changes `held`, the items of each shard, until every need is met and every quota kept.
///
/// What already fits stays, items are taken in the order of the shard's walk.
///
/// # Panics
/// When no solution exists. One does whenever the rules of [`Goal`] hold: any `k` items outside a set
/// T can be asked for at most Σ max(0, need − |T|) ≤ Σ need − S·|T|, or for nothing once T is as large as
/// every need; and quotas of at most S each that sum to Σ need leave them that much.
pub(super) fn complete(held: &mut [Vec<usize>], goal: &Goal<'_>) {
    let mut loads = vec![0_u64; goal.quotas.len()];
    for &item in held.iter().flatten() {
        loads[item] += 1;
    }
    let mut work = Work { held, loads, goal };
    for shard in 0..goal.needs.len() {
        work.trim(shard);
    }
    for shard in 0..goal.needs.len() {
        while work.held[shard].len() < goal.needs[shard] {
            work.fill_one(shard);
        }
    }
    for item in 0..goal.quotas.len() {
        while work.loads[item] > goal.quotas[item] {
            work.shed_one(item);
        }
    }
}

#[derive(Debug)]
struct Work<'a, 'g> {
    held: &'a mut [Vec<usize>],
    loads: Vec<u64>,
    goal: &'a Goal<'g>,
}

impl Work<'_, '_> {
    /// Takes from `shard` what it holds beyond its need, from the most overloaded item first.
    fn trim(&mut self, shard: usize) {
        while self.held[shard].len() > self.goal.needs[shard] {
            let surplus = |item: usize| self.loads[item].saturating_sub(self.goal.quotas[item]);
            let leaving = self.goal.walks[shard]
                .iter()
                .filter(|item| self.held[shard].contains(item))
                .max_by_key(|&&item| surplus(item))
                .copied()
                .expect("a shard that holds more than it needs holds something");
            self.held[shard].retain(|&item| item != leaving);
            self.loads[leaving] -= 1;
        }
    }

    fn fill_one(&mut self, shard: usize) {
        let absent: Vec<usize> = self.goal.walks[shard]
            .iter()
            .filter(|item| !self.held[shard].contains(item))
            .copied()
            .collect();
        let first = self.pull_chain(&absent);
        self.held[shard].push(first);
    }

    fn shed_one(&mut self, item: usize) {
        self.pull_chain(&[item]);
        self.loads[item] -= 1;
    }

    /// Lets the nearest item with room take one more by moving replicas along a shortest chain from one
    /// of `starts`, and returns that start: its load is as before, but for what the caller does with it.
    fn pull_chain(&mut self, starts: &[usize]) -> usize {
        let mut reached: Vec<Option<Reached>> = vec![None; self.loads.len()];
        let mut queue = VecDeque::new();
        for &start in starts {
            reached[start] = Some(Reached::AsStart);
            queue.push_back(start);
        }
        let mut with_room = None;
        while let Some(item) = queue.pop_front() {
            if self.loads[item] < self.goal.quotas[item] {
                with_room = Some(item);
                break;
            }
            for (shard, held) in self.held.iter().enumerate() {
                if !held.contains(&item) {
                    continue;
                }
                for &next in &self.goal.walks[shard] {
                    if reached[next].is_none() && !held.contains(&next) {
                        reached[next] = Some(Reached::From { item, shard });
                        queue.push_back(next);
                    }
                }
            }
        }
        let mut at = with_room.expect("needs and quotas that fit together always leave a chain");
        self.loads[at] += 1;
        while let Some(Reached::From { item: from, shard }) = reached[at] {
            let place = self.held[shard].iter().position(|&item| item == from);
            self.held[shard][place.expect("the chain was found over what shards hold")] = at;
            at = from;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mut held: Vec<Vec<usize>>, needs: &[usize], quotas: &[u64]) -> Vec<Vec<usize>> {
        let walks = vec![(0..quotas.len()).collect::<Vec<_>>(); needs.len()];
        complete(&mut held, &Goal { needs, quotas, walks: &walks });
        for (shard, items) in held.iter().enumerate() {
            assert_eq!(items.len(), needs[shard]);
        }
        for (item, quota) in quotas.iter().enumerate() {
            let load = held.iter().filter(|items| items.contains(&item)).count();
            assert_eq!(load as u64, *quota, "item {item}: {held:?}");
        }
        held
    }

    #[test]
    fn empty_shards_fill_in_walk_order() {
        assert_eq!(run(vec![vec![]; 2], &[1, 1], &[1, 1]), [[0], [1]]);
    }

    #[test]
    fn dead_ends_are_resolved_by_a_chain() {
        // Shards 0 and 1 take items 0 and 1; for shard 2 only item 2 has room, twice.
        let held = run(vec![vec![]; 3], &[2, 2, 2], &[2, 2, 2]);
        assert_eq!(held.iter().flatten().count(), 6);
        run(vec![vec![]; 4], &[2; 4], &[4, 2, 1, 1]);
        run(vec![vec![]; 5], &[3; 5], &[5, 5, 3, 1, 1]);
    }

    #[test]
    fn what_fits_stays() {
        let held = vec![vec![1], vec![0], vec![2]];
        assert_eq!(run(held.clone(), &[1, 1, 1], &[1, 1, 1]), held);
    }

    #[test]
    fn surplus_moves_to_the_newcomer_alone() {
        let held = vec![vec![0], vec![0], vec![1], vec![1], vec![0], vec![1]];
        let after = run(held.clone(), &[1; 6], &[2, 2, 2]);
        let moved = held.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!(moved, 2);
    }

    #[test]
    fn shrunk_needs_drop_the_overloaded_item() {
        let after = run(vec![vec![0, 1], vec![0, 1]], &[1, 1], &[0, 2]);
        assert_eq!(after, [[1], [1]]);
    }
}
