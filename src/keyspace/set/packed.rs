//! A small set: its members in one packed run.

use super::integers::text;
use crate::keyspace::error::DecodeError;
use crate::keyspace::packed::Packed;

/// The most members of a packed set.
pub(super) const PACKED_MEMBERS_MAX: usize = 128;
/// The longest member of a packed set, in bytes.
pub(super) const PACKED_BYTES_MAX: usize = 64;

pub(super) const BEYOND_LIMITS: DecodeError =
    DecodeError::Invalid("a packed set is beyond its limits");

/// The run of the members that `numbers` are, in their order.
pub(super) fn of_integers(numbers: &[i64]) -> Packed {
    let mut run = Packed::new();
    for &number in numbers {
        run.push_back(&text(number));
    }
    run
}

/// Adds `member` and says whether it is new; `None`, and nothing is done, where that is for a table.
pub(super) fn insert(run: &mut Packed, member: &[u8]) -> Option<bool> {
    if position(run, member).is_some() {
        return Some(false);
    }
    if run.len() < PACKED_MEMBERS_MAX && member.len() <= PACKED_BYTES_MAX {
        run.push_back(member);
        return Some(true);
    }
    None
}

/// Where `member` stands in `run`.
pub(super) fn position(run: &Packed, member: &[u8]) -> Option<usize> {
    run.iter().position(|other| other == member)
}
