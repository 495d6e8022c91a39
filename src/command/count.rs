//! The count of elements that LPOP, SPOP, ZPOPMIN and their kin take.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_integers_from_zero_on() {
        assert_eq!(parse_count(b"0"), Ok(0));
        assert_eq!(parse_count(b"12"), Ok(12));
        for text in [&b"-1"[..], b"", b"x", b"1.0", b"9223372036854775808"] {
            assert_eq!(parse_count(text), Err(ErrorReply::NOT_POSITIVE));
        }
    }
}
