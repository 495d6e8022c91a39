//! What bounds a string.

use crate::resp::ErrorReply;

/// The longest string that APPEND and SETRANGE may make, in bytes: Redis' default `proto-max-bulk-len`.
pub(in crate::command) const STRING_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Refuses a string of `length` and `more` bytes when that is too long.
pub(super) fn check_length(length: usize, more: usize) -> Result<(), ErrorReply> {
    match length.checked_add(more) {
        Some(total) if total <= STRING_BYTES_MAX => Ok(()),
        Some(_) | None => Err(ErrorReply::STRING_TOO_BIG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed() {
        assert_eq!(check_length(STRING_BYTES_MAX - 1, 1), Ok(()));
        assert_eq!(check_length(STRING_BYTES_MAX, 1), Err(ErrorReply::STRING_TOO_BIG));
        assert_eq!(check_length(usize::MAX, 1), Err(ErrorReply::STRING_TOO_BIG));
    }
}
