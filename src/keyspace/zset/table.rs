//! A larger sorted set: a dense table from member to score, and a counted tree of (score, position in the table).

use super::sorted::{Scored, order};
use super::{Extreme, Insertion};
use crate::keyspace::dense::{Dense, MemberKey};
use crate::keyspace::ranked::{Item, Ranked};

/// A table from member to score, and the order beside it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) members: Dense<Scored>,
    pub(super) order: Ranked,
}

impl Table {
    pub(super) fn of_sorted(sorted: &mut Vec<Scored>, key: MemberKey) -> Self {
        let mut members = Dense::with_capacity(key, sorted.len() + 1);
        for scored in sorted.drain(..) {
            let member = scored.member.clone();
            members.insert_with(&member, || scored);
        }
        Self::of_members(members)
    }

    pub(super) fn of_members(members: Dense<Scored>) -> Self {
        let entries = members.as_slice();
        let mut items: Vec<Item> = (0_u32..)
            .zip(entries)
            .map(|(position, scored)| Item { score: scored.score, position })
            .collect();
        items.sort_unstable_by(|left, right| {
            let member = |item: &Item| &*entries[item.position as usize].member;
            order((left.score, member(left)), (right.score, member(right)))
        });
        Self { order: Ranked::build(&items), members }
    }

    pub(super) fn find(&self, member: &[u8]) -> Option<(usize, f64)> {
        let position = self.members.position(member)?;
        self.members.get(position).map(|scored| (position, scored.score))
    }

    pub(super) fn member(&self, item: Item) -> &[u8] {
        self.members.get(item.position as usize).map_or(&[], |scored| &scored.member)
    }

    /// How many members stand before `member` with `score`, be it there or not.
    pub(super) fn rank(&self, score: f64, member: &[u8]) -> usize {
        self.order
            .partition_point(|item| order((item.score, self.member(item)), (score, member)).is_lt())
    }

    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Insertion {
        let (position, is_new) = self.members.insert_with(member, || Scored::new(score, member));
        let item = Item { score, position: as_u32(position) };
        if is_new {
            self.order.insert(self.rank(score, member), item);
            return Insertion::Added;
        }
        let old = self.members.get(position).map_or(score, |scored| scored.score);
        #[expect(
            clippy::float_cmp,
            reason = "the same score is the same, and 0.0 is −0.0, as in Redis"
        )]
        if old == score {
            return Insertion::Unchanged;
        }
        self.order.remove(self.rank(old, member));
        self.order.insert(self.rank(score, member), item);
        if let Some(scored) = self.members.get_mut(position) {
            scored.score = score;
        }
        Insertion::Updated
    }

    /// Removes `count` members from one end, as so many calls of [`Self::take_rank`]; the order is built anew of the rest.
    pub(super) fn take_many(&mut self, count: usize, from: Extreme) -> Vec<Scored> {
        let len = self.members.len();
        let (going, staying) = match from {
            Extreme::Lowest => (0..count, count..len),
            Extreme::Highest => (len - count..len, 0..len - count),
        };
        let going = self.order.range(going).map(|item| item.position);
        let (taken, moves) = match from {
            Extreme::Lowest => self.members.take_positions(going),
            Extreme::Highest => self.members.take_positions(going.rev()),
        };
        let follow = |item: Item| Some(Item { position: moves.of(item.position)?, ..item });
        let rest: Vec<Item> = self.order.range(staying).filter_map(follow).collect();
        self.order = Ranked::build(&rest);
        taken
    }

    pub(super) fn take_rank(&mut self, rank: usize) -> Scored {
        let item = self.order.get(rank).expect("the caller checked the rank");
        self.remove(rank, item.position as usize)
    }

    /// Removes the member with this rank, which stands at `position`.
    pub(super) fn remove(&mut self, rank: usize, position: usize) -> Scored {
        let last = self.members.len() - 1;
        if position != last {
            // The last member moves to `position`: its item must follow it.
            let moved = &self.members.as_slice()[last];
            let (score, moved_rank) = (moved.score, self.rank(moved.score, &moved.member));
            self.order.replace(moved_rank, Item { score, position: as_u32(position) });
        }
        self.order.remove(rank);
        self.members.swap_remove(position)
    }
}

fn as_u32(position: usize) -> u32 {
    u32::try_from(position).expect("a dense table has fewer than 2^32 entries")
}
