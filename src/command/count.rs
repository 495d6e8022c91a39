//! The count of elements that LPOP, SPOP, ZPOPMIN and their kin take.

use crate::keyspace::{VALUE_PARTS_SMALL_MAX, WrongType};
use crate::resp::ErrorReply;
use crate::stdx::num;

/// `text` as a count of elements.
///
/// # Errors
/// `ERR value is out of range, must be positive` for anything but an integer from 0 on.
pub(super) fn parse_count(text: &[u8]) -> Result<usize, ErrorReply> {
    let count = num::parse_i64(text).and_then(|count| usize::try_from(count).ok());
    count.ok_or(ErrorReply::NOT_POSITIVE)
}

/// Whether `count` elements are all of a large collection: that goes whole, which a snapshot must know before it changes. Its
/// length is asked for only when so many are to go that it may be, so that others pay for no further look at the key.
///
/// # Errors
/// Those of `len`.
pub(super) fn is_all_of_large(
    count: Option<usize>,
    len: impl FnOnce() -> Result<Option<usize>, WrongType>,
) -> Result<bool, WrongType> {
    match count {
        Some(count) if count > VALUE_PARTS_SMALL_MAX => {
            Ok(len()?.is_some_and(|len| len > VALUE_PARTS_SMALL_MAX && len <= count))
        }
        Some(_) | None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_may_take_all_of_a_large_one_asks_for_its_length() {
        const LEN: usize = VALUE_PARTS_SMALL_MAX + 1;
        let is_all = |count, len| is_all_of_large(count, || Ok(len));
        for (count, len, expected) in [
            (LEN, Some(LEN), true),
            (usize::MAX, Some(LEN), true),
            (LEN, Some(LEN + 1), false),
            (LEN, Some(LEN - 1), false),
            (LEN, None, false),
        ] {
            assert_eq!(is_all(Some(count), len), Ok(expected), "{count} of {len:?}");
        }
        for count in [None, Some(0), Some(LEN - 1)] {
            assert_eq!(is_all_of_large(count, || unreachable!("{count:?}")), Ok(false));
        }
        assert_eq!(is_all_of_large(Some(LEN), || Err(WrongType)), Err(WrongType));
    }

    #[test]
    fn counts_are_integers_from_zero_on() {
        assert_eq!(parse_count(b"0"), Ok(0));
        assert_eq!(parse_count(b"12"), Ok(12));
        for text in [&b"-1"[..], b"", b"x", b"1.0", b"9223372036854775808"] {
            assert_eq!(parse_count(text), Err(ErrorReply::NOT_POSITIVE));
        }
    }
}
