//! Encoded replies as bytes: where one ends, and which elements it has, without building it.
//!
//! For joining the replies of several shards and splitting what arrived in one piece. Invariant: no recursion, and no
//! memory beyond the result.
//!
//! Source: the RESP3 specification. Streamed types (`$?`, `*?`) are refused: neither kvorum nor Redis sends them.

use thiserror::Error;

use super::limits::FRAME_DEPTH_MAX;
use crate::stdx::num;

/// Why bytes are no encoded reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No type of RESP2 or RESP3 starts with this byte.
    #[error("unknown reply type {0:#04x}")]
    UnknownType(u8),
    /// A length that is no number, or negative where nothing may be missing.
    #[error("bad length in a reply")]
    BadLength,
    /// A line or a string does not end in CR LF where it should.
    #[error("reply element without its CR LF")]
    Unterminated,
    /// More than [`FRAME_DEPTH_MAX`] aggregates inside one another.
    #[error("reply nested too deep")]
    TooDeep,
    /// [`array_elements`] was given a reply of another type.
    #[error("reply is not an array")]
    NotAnArray,
    /// [`array_elements`] was given a part of a reply.
    #[error("reply is not whole")]
    Incomplete,
}

/// The bytes of the first whole reply in `bytes`; `None` when it is not all there.
///
/// Starts over at each call: for bytes that are known to be whole replies, not for reading a socket.
///
/// # Errors
/// [`FrameError`] when the bytes cannot become a reply.
pub fn reply_length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    // Elements still to come at each depth; the reply itself is the one element of depth 0.
    let mut missing = [0_u64; FRAME_DEPTH_MAX + 1];
    missing[0] = 1;
    let mut depth = 0;
    let mut position = 0;
    loop {
        while missing[depth] == 0 {
            let Some(above) = depth.checked_sub(1) else {
                return Ok(Some(position));
            };
            depth = above;
        }
        let Some(element) = element_at(&bytes[position..])? else {
            return Ok(None);
        };
        position += element.bytes;
        if !element.is_attribute {
            missing[depth] -= 1;
        }
        if element.children > 0 {
            depth += 1;
            *missing.get_mut(depth).ok_or(FrameError::TooDeep)? = element.children;
        }
    }
}

/// The encoded elements of the array, set or push that `bytes` is; of a map its keys and values in turn.
///
/// Bytes behind the reply are ignored. A missing array (`*-1`) has no elements.
///
/// # Errors
/// [`FrameError::NotAnArray`], [`FrameError::Incomplete`], or what [`reply_length`] says.
pub fn array_elements(bytes: &[u8]) -> Result<Vec<&[u8]>, FrameError> {
    match bytes.first() {
        Some(b'*' | b'~' | b'>' | b'%') => {}
        Some(_) => return Err(FrameError::NotAnArray),
        None => return Err(FrameError::Incomplete),
    }
    let header = element_at(bytes)?.ok_or(FrameError::Incomplete)?;
    let mut rest = &bytes[header.bytes..];
    let mut elements = Vec::new();
    for _ in 0..header.children {
        let length = reply_length(rest)?.ok_or(FrameError::Incomplete)?;
        let (element, behind) = rest.split_at(length);
        elements.push(element);
        rest = behind;
    }
    Ok(elements)
}

/// A scalar whole, or the header of an aggregate.
struct Element {
    bytes: usize,
    children: u64,
    /// An attribute decorates the element behind it and counts for none itself.
    is_attribute: bool,
}

fn element_at(bytes: &[u8]) -> Result<Option<Element>, FrameError> {
    let Some(kind) = bytes.first().copied() else {
        return Ok(None);
    };
    if !b"+-:_,#($=!*~>%|".contains(&kind) {
        return Err(FrameError::UnknownType(kind));
    }
    let Some(line_end) = line_end(bytes)? else {
        return Ok(None);
    };
    let text = &bytes[1..line_end];
    let header_bytes = line_end + 2;
    match kind {
        b'$' | b'=' | b'!' => string(bytes, header_bytes, text, kind == b'$'),
        b'*' => Ok(Some(aggregate(header_bytes, length_or_missing(text)?.unwrap_or(0)))),
        b'~' | b'>' => Ok(Some(aggregate(header_bytes, length(text)?))),
        b'%' => Ok(Some(aggregate(header_bytes, pairs(text)?))),
        b'|' => Ok(Some(Element { is_attribute: true, ..aggregate(header_bytes, pairs(text)?) })),
        _ => Ok(Some(aggregate(header_bytes, 0))),
    }
}

fn aggregate(bytes: usize, children: u64) -> Element {
    Element { bytes, children, is_attribute: false }
}

/// A string of announced length behind its header.
fn string(
    bytes: &[u8],
    header_bytes: usize,
    text: &[u8],
    may_be_missing: bool,
) -> Result<Option<Element>, FrameError> {
    let Some(length) = length_or_missing(text)? else {
        return if may_be_missing {
            Ok(Some(aggregate(header_bytes, 0)))
        } else {
            Err(FrameError::BadLength)
        };
    };
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| header_bytes.checked_add(length)?.checked_add(2))
        .ok_or(FrameError::BadLength)?;
    match bytes.get(end - 2..end) {
        Some(b"\r\n") => Ok(Some(aggregate(end, 0))),
        Some(_) => Err(FrameError::Unterminated),
        None => Ok(None),
    }
}

/// Where the CR of the first line stands; `None` when its CR LF is still to come.
fn line_end(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match (bytes[end], bytes.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(end)),
        (b'\r', None) => Ok(None),
        _ => Err(FrameError::Unterminated),
    }
}

fn length(text: &[u8]) -> Result<u64, FrameError> {
    num::parse_i64(text).and_then(|length| u64::try_from(length).ok()).ok_or(FrameError::BadLength)
}

/// A length; `None` for -1.
fn length_or_missing(text: &[u8]) -> Result<Option<u64>, FrameError> {
    if text == b"-1" { Ok(None) } else { length(text).map(Some) }
}

fn pairs(text: &[u8]) -> Result<u64, FrameError> {
    length(text)?.checked_mul(2).ok_or(FrameError::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_reply_is_measured_whatever_follows() {
        let replies: &[&[u8]] = &[
            b"+OK\r\n",
            b"-ERR x\r\n",
            b":1\r\n",
            b"_\r\n",
            b",1.5\r\n",
            b"#t\r\n",
            b"(123\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$0\r\n\r\n",
            b"$4\r\na\r\nb\r\n",
            b"=7\r\ntxt:hey\r\n",
            b"!3\r\nERR\r\n",
            b"*0\r\n",
            b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
            b"%1\r\n+k\r\n~1\r\n:1\r\n",
            b">2\r\n+a\r\n+b\r\n",
            b"|1\r\n+ttl\r\n:9\r\n$1\r\nx\r\n",
        ];
        for reply in replies {
            let shown = reply.escape_ascii();
            assert_eq!(reply_length(reply), Ok(Some(reply.len())), "{shown}");
            assert_eq!(
                reply_length(&[reply, &b"junk"[..]].concat()),
                Ok(Some(reply.len())),
                "{shown}"
            );
            for have in 0..reply.len() {
                assert_eq!(reply_length(&reply[..have]), Ok(None), "{shown} up to {have}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let table: &[(&[u8], FrameError)] = &[
            (b"x\r\n", FrameError::UnknownType(b'x')),
            (b"$x\r\n", FrameError::BadLength),
            (b"$-2\r\n", FrameError::BadLength),
            (b"=-1\r\n", FrameError::BadLength),
            (b"%-1\r\n", FrameError::BadLength),
            (b"%9223372036854775808\r\n", FrameError::BadLength),
            (b"$?\r\n", FrameError::BadLength),
            (b"*1\r\nx", FrameError::UnknownType(b'x')),
            (b"+a\nb\r\n", FrameError::Unterminated),
            (b"$1\r\nxyz", FrameError::Unterminated),
        ];
        for (bytes, error) in table {
            assert_eq!(reply_length(bytes), Err(*error), "{}", bytes.escape_ascii());
        }
        // A length that fits is believed until the bytes are there.
        assert_eq!(reply_length(b"$9223372036854775807\r\nx"), Ok(None));
        assert_eq!(reply_length(b"%9223372036854775807\r\n"), Ok(None));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        let deepest = nested(FRAME_DEPTH_MAX);
        assert_eq!(reply_length(&deepest), Ok(Some(deepest.len())));
        assert_eq!(reply_length(&nested(FRAME_DEPTH_MAX + 1)), Err(FrameError::TooDeep));
        assert_eq!(reply_length(&nested(1_000_000)), Err(FrameError::TooDeep));
    }

    #[test]
    fn elements_are_the_encoded_parts() {
        let parts: [&[u8]; 3] = [b"$1\r\nx\r\n", b"*1\r\n:1\r\n", b"$-1\r\n"];
        let array = [&b"*3\r\n"[..], &parts.concat()].concat();
        assert_eq!(array_elements(&array).unwrap(), parts);
        assert_eq!(array_elements(&[&array[..], b"+behind\r\n"].concat()).unwrap(), parts);
        assert_eq!(array_elements(b"%1\r\n+k\r\n:1\r\n").unwrap(), [&b"+k\r\n"[..], b":1\r\n"]);
        assert_eq!(array_elements(b"*0\r\n").unwrap(), [b""; 0]);
        assert_eq!(array_elements(b"*-1\r\n").unwrap(), [b""; 0]);
        assert_eq!(array_elements(b":1\r\n"), Err(FrameError::NotAnArray));
        assert_eq!(array_elements(b""), Err(FrameError::Incomplete));
        assert_eq!(array_elements(&array[..array.len() - 1]), Err(FrameError::Incomplete));
        assert_eq!(array_elements(b"*99999999999\r\n"), Err(FrameError::Incomplete));
    }
}
