//! A set of integers: the numbers themselves, ascending.

use std::borrow::Cow;

use crate::keyspace::error::DecodeError;
use crate::keyspace::parts::{Cursor, Elements};
use crate::stdx::codec;
use crate::stdx::num;

/// The most members of a set of integers.
pub(super) const INTEGERS_MAX: usize = 512;

/// What came of adding a member to integers.
pub(super) enum Attempt {
    /// It is there now.
    Done {
        /// Whether it was not before.
        is_new: bool,
    },
    /// It is no integer in its canonical spelling.
    NotAnInteger,
    /// It is one too many.
    Full,
}

/// Adds `member` where it belongs, if it can be one of `numbers`.
pub(super) fn insert(numbers: &mut Vec<i64>, member: &[u8]) -> Attempt {
    let Some(number) = num::parse_i64(member) else { return Attempt::NotAnInteger };
    match numbers.binary_search(&number) {
        Ok(_) => Attempt::Done { is_new: false },
        Err(at) if numbers.len() < INTEGERS_MAX => {
            numbers.insert(at, number);
            Attempt::Done { is_new: true }
        }
        Err(_) => Attempt::Full,
    }
}

/// Where `member` stands in `numbers`.
pub(super) fn position(numbers: &[i64], member: &[u8]) -> Option<usize> {
    num::parse_i64(member).and_then(|number| numbers.binary_search(&number).ok())
}

/// The member that `number` is.
pub(super) fn text(number: i64) -> Cow<'static, [u8]> {
    Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec())
}

/// Writes the first number and then the distance of each to the one before, those from `cursor` on, as far as there is
/// room; whether those were all.
pub(super) fn put<S: Elements>(numbers: &[i64], cursor: &mut Cursor, sink: &mut S) -> bool {
    while let Some(&number) = numbers.get(cursor.element) {
        let before = cursor.element.checked_sub(1).map(|before| numbers[before]);
        let is_written = cursor.put_element(sink, |sink| match before {
            None => codec::put_signed(sink, number),
            Some(before) => codec::put_varint(sink, number.wrapping_sub(before).cast_unsigned()),
        });
        if !is_written {
            return false;
        }
    }
    true
}

/// Takes the integer of a set that follows `last`.
pub(super) fn take(bytes: &mut &[u8], last: Option<i64>) -> Result<i64, DecodeError> {
    let Some(last) = last else { return Ok(codec::take_signed(bytes)?) };
    match codec::take_varint(bytes)? {
        0 => Err(DecodeError::Duplicate("member")),
        distance => i64::checked_add_unsigned(last, distance)
            .ok_or(DecodeError::Invalid("an integer of a set exceeds 64 bits")),
    }
}
