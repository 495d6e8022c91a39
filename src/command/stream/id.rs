//! Ids of stream entries as clients write them.

use crate::keyspace::StreamId;
use crate::resp::ErrorReply;

/// The longest text that is looked at, in bytes.
const ID_BYTES_MAX: usize = 127;

/// The id that XADD asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewId {
    /// `*`: now, or right after the last one.
    Auto,
    /// `ms-*`: the next one of this millisecond.
    AutoSeq(u64),
    /// `ms-seq`, or `ms` for `ms-0`.
    Given(StreamId),
}

impl NewId {
    /// Reads `*`, `ms-*`, `ms-seq` or `ms`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ErrorReply> {
        match text {
            b"*" => Ok(Self::Auto),
            [ms @ .., b'-', b'*'] => parse_number(ms).map(Self::AutoSeq),
            _ => parse_id(text, 0).map(Self::Given),
        }
    }
}

/// Reads `ms-seq`, or `ms` with `missing_seq`.
pub(super) fn parse_id(text: &[u8], missing_seq: u64) -> Result<StreamId, ErrorReply> {
    if text.len() > ID_BYTES_MAX {
        return Err(ErrorReply::STREAM_ID_INVALID);
    }
    match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => {
            Ok(StreamId::new(parse_number(&text[..dash])?, parse_number(&text[dash + 1..])?))
        }
        None => Ok(StreamId::new(parse_number(text)?, missing_seq)),
    }
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RangeEnd {
    pub(super) id: StreamId,
    pub(super) is_excluded: bool,
}

/// Reads `-`, `+`, an id, or `(` and an id that is excluded; `missing_seq` completes an id without one.
pub(super) fn parse_range_end(text: &[u8], missing_seq: u64) -> Result<RangeEnd, ErrorReply> {
    let (id, is_excluded) = match text {
        b"-" => (StreamId::MIN, false),
        b"+" => (StreamId::MAX, false),
        [b'(', id @ ..] if !id.is_empty() => (parse_id(id, missing_seq)?, true),
        id => (parse_id(id, missing_seq)?, false),
    };
    Ok(RangeEnd { id, is_excluded })
}

/// A number as C reads one: leading spaces, a plus and zeros do no harm.
fn parse_number(text: &[u8]) -> Result<u64, ErrorReply> {
    let digits = text.trim_ascii_start();
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    let number = if digits.iter().all(u8::is_ascii_digit) {
        str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok())
    } else {
        None
    };
    number.ok_or(ErrorReply::STREAM_ID_INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_read() {
        let id = StreamId::new;
        let rows: [(&[u8], Option<NewId>); 16] = [
            (b"*", Some(NewId::Auto)),
            (b"5-*", Some(NewId::AutoSeq(5))),
            (b"5", Some(NewId::Given(id(5, 0)))),
            (b"5-6", Some(NewId::Given(id(5, 6)))),
            (b"18446744073709551615-18446744073709551615", Some(NewId::Given(StreamId::MAX))),
            (b"007-+08", Some(NewId::Given(id(7, 8)))),
            (b" 8", Some(NewId::Given(id(8, 0)))),
            (b"", None),
            (b"-", None),
            (b"+", None),
            (b"-*", None),
            (b"5-", None),
            (b"5-6-7", None),
            (b"5--6", None),
            (b"0x5", None),
            (b"18446744073709551616", None),
        ];
        for (text, expected) in rows {
            assert_eq!(NewId::parse(text).ok(), expected, "{}", text.escape_ascii());
        }
        assert!(NewId::parse(&[b'0'; ID_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn range_ends_are_read() {
        let end = |ms, seq, is_excluded| Some(RangeEnd { id: StreamId::new(ms, seq), is_excluded });
        let rows: [(&[u8], Option<RangeEnd>); 9] = [
            (b"-", end(0, 0, false)),
            (b"+", end(u64::MAX, u64::MAX, false)),
            (b"5", end(5, 9, false)),
            (b"5-6", end(5, 6, false)),
            (b"(5", end(5, 9, true)),
            (b"(5-6", end(5, 6, true)),
            (b"(-", None),
            (b"(", None),
            (b"", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_range_end(text, 9).ok(), expected, "{}", text.escape_ascii());
        }
    }
}
