//! A small sorted set: a vector of members in their order.

use std::cmp::Ordering;

use super::Insertion;
use crate::keyspace::Bin;
use crate::keyspace::dense::Keyed;
use crate::keyspace::error::DecodeError;

/// The most members of a sorted vector.
pub(super) const SORTED_MEMBERS_MAX: usize = 128;
/// The longest member of a sorted vector, in bytes.
pub(super) const SORTED_BYTES_MAX: usize = 64;

pub(super) const BEYOND_LIMITS: DecodeError =
    DecodeError::Invalid("a small sorted set is beyond its limits");

/// A member with its score.
#[derive(Clone, Debug)]
pub(super) struct Scored {
    pub(super) score: f64,
    pub(super) member: Bin,
}

impl Keyed for Scored {
    fn key(&self) -> &[u8] {
        &self.member
    }
}

impl Scored {
    pub(super) fn new(score: f64, member: &[u8]) -> Self {
        Self { score, member: member.into() }
    }

    pub(super) fn as_pair(&self) -> (&[u8], f64) {
        (&self.member, self.score)
    }

    pub(super) fn order(&self, score: f64, member: &[u8]) -> Ordering {
        order((self.score, &self.member), (score, member))
    }
}

/// The order of a sorted set. Not `f64::total_cmp`, for which −0.0 is less than 0.0.
pub(super) fn order(left: (f64, &[u8]), right: (f64, &[u8])) -> Ordering {
    left.0.partial_cmp(&right.0).unwrap_or(Ordering::Equal).then_with(|| left.1.cmp(right.1))
}

pub(super) fn find(sorted: &[Scored], member: &[u8]) -> Option<usize> {
    sorted.iter().position(|scored| *scored.member == *member)
}

pub(super) fn insert_sorted(sorted: &mut Vec<Scored>, new: Scored) {
    let rank = sorted.partition_point(|other| other.order(new.score, &new.member).is_lt());
    sorted.insert(rank, new);
}

#[expect(clippy::float_cmp, reason = "the same score is the same, and 0.0 is −0.0, as in Redis")]
pub(super) fn update_sorted(sorted: &mut Vec<Scored>, rank: usize, score: f64) -> Insertion {
    if sorted[rank].score == score {
        return Insertion::Unchanged;
    }
    let scored = sorted.remove(rank);
    insert_sorted(sorted, Scored { score, ..scored });
    Insertion::Updated
}

pub(super) fn load_sorted(sorted: &mut Vec<Scored>, scored: Scored) -> Result<(), DecodeError> {
    if scored.member.len() > SORTED_BYTES_MAX {
        return Err(BEYOND_LIMITS);
    }
    if find(sorted, &scored.member).is_some() {
        return Err(DecodeError::Duplicate("member"));
    }
    if sorted.last().is_some_and(|last| last.order(scored.score, &scored.member).is_gt()) {
        return Err(DecodeError::Invalid("a sorted set is not sorted"));
    }
    sorted.push(scored);
    Ok(())
}
