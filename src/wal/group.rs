//! What the log remembers in memory of one group: its span of indexes and where they lie.
//!
//! Entries are found by **runs**: a run is a stretch of one segment that begins with an entry of the
//! group and is at most about `RUN_BYTES` long. There is never a row per entry.
//!
//! **Invariant:** runs are ordered by index and by position; entry `i` lies in the last run whose
//! index is ≤ `i`, within that run's segment. Entries that a truncation dropped lie behind the last
//! entry their run still answers for, so a reader that stops where the next run begins never sees them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::{GroupId, RaftId};

use super::error::WalError;
use super::limits::RUN_BYTES;
use super::record::Position;

/// What the log held for a group when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The replica that lives here; `None` for a group the log did not know.
    pub raft_id: Option<RaftId>,
    /// The end of its entries may be missing, and nothing has mended that since: it must not vote.
    pub is_short: bool,
    /// The last vote saved.
    pub vote: Option<Bytes>,
    /// The last index purged and the marker given with it.
    pub purged: Option<(u64, Bytes)>,
    /// The index of the first entry there is; when there is none, the index the next one must have
    /// (0 when nothing was ever written: then the next may be 0 or 1).
    pub first_index: u64,
    /// The index of the last entry there is.
    pub last_index: Option<u64>,
}

/// A stretch of the log that begins with an entry of the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) index: u64,
    pub(super) position: Position,
    /// Bytes of the group's entries ever appended before this run.
    pub(super) bytes_before: u64,
}

/// The memory of one group that lives here: born and not ended.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) raft_id: RaftId,
    pub(super) is_short: bool,
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    /// Entries are `first..next`.
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) runs: VecDeque<Run>,
    /// Where the last entry ends.
    pub(super) end: Position,
    bytes_total: u64,
    /// The last entry was truncated away: the next one must begin a run.
    is_run_cut: bool,
}

impl Group {
    /// A group as it is born: with nothing.
    pub(super) const fn born(raft_id: RaftId) -> Self {
        Self {
            raft_id,
            is_short: false,
            vote: None,
            purged: None,
            first: 0,
            next: 0,
            runs: VecDeque::new(),
            end: Position { segment: 0, offset: 0 },
            bytes_total: 0,
            is_run_cut: false,
        }
    }

    /// The lowest index that may be truncated or appended: all below are purged.
    fn floor(&self) -> u64 {
        self.purged.as_ref().map_or(0, |(upto, _)| upto.saturating_add(1))
    }

    /// Whether `index` may be the next entry; the error says which would have been right.
    pub(super) fn check_next(&self, group: GroupId, index: u64) -> Result<(), WalError> {
        let is_first_ever = self.first == self.next && self.purged.is_none();
        let fits = index == self.next || (is_first_ever && index <= 1);
        if fits && index < u64::MAX {
            return Ok(());
        }
        Err(WalError::Misplaced { group, index, expected: self.next })
    }

    /// Whether everything from `from` on may be dropped.
    pub(super) fn check_truncate(&self, group: GroupId, from: u64) -> Result<(), WalError> {
        let floor = self.floor();
        if from >= floor {
            return Ok(());
        }
        Err(WalError::Misplaced { group, index: from, expected: floor })
    }

    /// Notes the entry `index` whose record of `bytes` lies at `position`. The caller has checked `index`.
    pub(super) fn note_entry(&mut self, index: u64, position: Position, bytes: u64) {
        if self.first == self.next {
            self.first = index;
        }
        let is_covered = self.runs.back().is_some_and(|run| {
            run.position.segment == position.segment
                && position.offset - run.position.offset < RUN_BYTES
        });
        if !is_covered || self.is_run_cut {
            self.runs.push_back(Run { index, position, bytes_before: self.bytes_total });
            self.is_run_cut = false;
        }
        self.next = index + 1;
        self.bytes_total = self.bytes_total.saturating_add(bytes);
        self.end = Position { segment: position.segment, offset: position.offset + bytes };
    }

    /// Forgets the entries from `from` on.
    pub(super) fn note_truncate(&mut self, from: u64) {
        if self.first == self.next {
            // Only while recovering: the entries themselves went with an older segment.
            self.first = from.max(self.floor());
            self.next = self.first;
            return;
        }
        if from >= self.next {
            return;
        }
        self.first = self.first.min(from);
        self.next = from;
        while let Some(run) = self.runs.pop_back_if(|run| run.index >= from) {
            self.bytes_total = run.bytes_before;
        }
        self.is_run_cut = true;
    }

    /// Forgets the entries up to and including `upto`; whether there was anything to do.
    pub(super) fn note_purge(&mut self, upto: u64, marker: Bytes) -> bool {
        if upto < self.floor() || upto == u64::MAX {
            return false;
        }
        self.purged = Some((upto, marker));
        self.first = self.first.max(upto + 1);
        if self.next <= self.first {
            self.next = self.first;
            self.runs.clear();
        }
        while self.runs.get(1).is_some_and(|run| run.index <= self.first) {
            self.runs.pop_front();
        }
        true
    }

    /// Bytes of the entries not purged, to the nearest run.
    pub(super) fn live_bytes(&self) -> u64 {
        self.runs.front().map_or(0, |run| self.bytes_total - run.bytes_before)
    }

    /// Bytes of the entries behind `index`, less at most the rest of its run.
    pub(super) fn bytes_after(&self, index: u64) -> u64 {
        let next = self.runs.partition_point(|run| run.index <= index);
        self.runs.get(next).map_or(0, |run| self.bytes_total - run.bytes_before)
    }

    /// Up to where to purge so that of what `covered` covers no more than `kept` bytes stay, to the nearest run;
    /// `None` when no more than that is there.
    pub(super) fn purgeable(&self, covered: u64, kept: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|run| run.index <= covered);
        let end = self.runs.get(behind).map_or(self.bytes_total, |run| run.bytes_before);
        let first = self.runs.front().filter(|run| run.index <= covered)?;
        if end - first.bytes_before <= kept {
            return None;
        }
        let first_kept =
            self.runs.partition_point(|run| run.bytes_before.saturating_add(kept) < end);
        let upto = self.runs.get(first_kept).map_or(covered, |run| run.index.saturating_sub(1));
        Some(upto.min(covered)).filter(|upto| *upto >= self.first)
    }

    /// The runs that answer for `from..upto`, both inside the span, and where each ends.
    pub(super) fn runs_of(&self, from: u64, upto: u64) -> impl Iterator<Item = (Run, u64)> {
        let first = self.runs.partition_point(|run| run.index <= from).saturating_sub(1);
        let ends = self.runs.iter().skip(first + 1).map(|run| run.index).chain([self.next]);
        let runs = self.runs.iter().skip(first).copied().zip(ends);
        runs.take_while(move |(run, _)| run.index < upto)
    }

    /// Whether the entries reach back to where the group was purged, as they must.
    pub(super) fn is_whole(&self) -> bool {
        self.first == self.next || self.first <= self.floor().max(1)
    }

    /// What the group's owner is told at open.
    pub(super) fn state(&self) -> GroupState {
        let is_empty = self.first == self.next;
        GroupState {
            raft_id: Some(self.raft_id),
            is_short: self.is_short,
            vote: self.vote.clone(),
            purged: self.purged.clone(),
            first_index: self.first,
            last_index: (!is_empty).then(|| self.next - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY_BYTES: u64 = RUN_BYTES;

    fn group(entries: u64) -> Group {
        let mut group = Group::born(RaftId(1));
        for index in 1..=entries {
            let offset = index * ENTRY_BYTES;
            group.note_entry(index, Position { segment: 1, offset }, ENTRY_BYTES);
        }
        group
    }

    /// Fault R13: a snapshot was due by all the log there is, and a number of entries was always kept, so large ones
    /// made one due again at once, for ever.
    #[test]
    fn what_is_kept_behind_a_snapshot_is_bounded_by_bytes_and_makes_none_due() {
        let mut group = group(100);
        assert_eq!(group.bytes_after(0), 100 * ENTRY_BYTES);
        assert_eq!(group.bytes_after(90), 10 * ENTRY_BYTES);
        assert_eq!(group.bytes_after(100), 0);
        assert_eq!(group.purgeable(90, 8 * ENTRY_BYTES), Some(82));
        assert_eq!(group.purgeable(90, 90 * ENTRY_BYTES), None);
        assert_eq!(group.purgeable(90, ENTRY_BYTES / 2), Some(90), "not one entry fits");
        assert!(group.note_purge(82, Bytes::new()));
        assert_eq!(group.purgeable(90, 8 * ENTRY_BYTES), None, "nothing to gain any more");
        assert_eq!((group.bytes_after(90), group.bytes_after(100)), (10 * ENTRY_BYTES, 0));
        assert_eq!(group.purgeable(0, 0), None, "without a snapshot nothing goes");
    }
}
