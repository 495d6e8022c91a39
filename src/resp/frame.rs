//! Encoded replies as bytes: where one ends, and which elements it has, without building it.
//!
//! For joining the replies of several shards and splitting what arrived in one piece. They may be in several
//! pieces, see [`Rope`]. Invariant: no recursion, and no memory beyond the result, but for a line that is in two pieces.
//!
//! Source: the RESP3 specification. Streamed types (`$?`, `*?`) are refused: neither kvorum nor Redis sends them.

use std::borrow::Cow;
use std::ops::Range;

use thiserror::Error;

use super::limits::FRAME_DEPTH_MAX;
use crate::stdx::num;
use crate::stdx::rope::Rope;

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

/// Bytes, which may not lie together.
trait Text {
    fn length(&self) -> usize;

    /// The bytes of `part`, which is not beyond the end.
    fn bytes_of(&self, part: Range<usize>) -> Cow<'_, [u8]>;
}

impl Text for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn bytes_of(&self, part: Range<usize>) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self[part])
    }
}

impl Text for Rope {
    fn length(&self) -> usize {
        self.len()
    }

    fn bytes_of(&self, part: Range<usize>) -> Cow<'_, [u8]> {
        self.bytes(part)
    }
}

/// The bytes of the first whole reply in `bytes`; `None` when it is not all there.
///
/// Starts over at each call: for bytes that are known to be whole replies, not for reading a socket.
///
/// # Errors
/// [`FrameError`] when the bytes cannot become a reply.
pub fn reply_length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    reply_end(bytes, 0)
}

/// The encoded elements of the array, set or push that `text` is, by where they are; of a map its keys and values in turn.
///
/// Bytes behind the reply are ignored. A missing array (`*-1`) has no elements.
///
/// # Errors
/// [`FrameError::NotAnArray`], [`FrameError::Incomplete`], or what [`reply_length`] says.
pub fn array_elements(text: &Rope) -> Result<Vec<Range<usize>>, FrameError> {
    match text.run_at(0).first() {
        Some(b'*' | b'~' | b'>' | b'%') => {}
        Some(_) => return Err(FrameError::NotAnArray),
        None => return Err(FrameError::Incomplete),
    }
    let header = element_at(text, 0)?.ok_or(FrameError::Incomplete)?;
    let mut start = header.end;
    let mut elements = Vec::new();
    for _ in 0..header.children {
        let end = reply_end(text, start)?.ok_or(FrameError::Incomplete)?;
        elements.push(start..end);
        start = end;
    }
    Ok(elements)
}

/// Where the reply ends that begins at `start`; `None` when it is not all there.
fn reply_end<T: Text + ?Sized>(text: &T, start: usize) -> Result<Option<usize>, FrameError> {
    // Elements still to come at each depth; the reply itself is the one element of depth 0.
    let mut missing = [0_u64; FRAME_DEPTH_MAX + 1];
    missing[0] = 1;
    let mut depth = 0;
    let mut position = start;
    loop {
        while missing[depth] == 0 {
            let Some(above) = depth.checked_sub(1) else {
                return Ok(Some(position));
            };
            depth = above;
        }
        let Some(element) = element_at(text, position)? else {
            return Ok(None);
        };
        position = element.end;
        if !element.is_attribute {
            missing[depth] -= 1;
        }
        if element.children > 0 {
            depth += 1;
            *missing.get_mut(depth).ok_or(FrameError::TooDeep)? = element.children;
        }
    }
}

/// A scalar whole, or the header of an aggregate.
struct Element {
    end: usize,
    children: u64,
    /// An attribute decorates the element behind it and counts for none itself.
    is_attribute: bool,
}

fn element_at<T: Text + ?Sized>(text: &T, at: usize) -> Result<Option<Element>, FrameError> {
    if at == text.length() {
        return Ok(None);
    }
    let kind = text.bytes_of(at..at + 1)[0];
    if !b"+-:_,#($=!*~>%|".contains(&kind) {
        return Err(FrameError::UnknownType(kind));
    }
    let Some(line) = line_at(text, at)? else {
        return Ok(None);
    };
    let header_end = at + line.len() + 2;
    let number = &line[1..];
    match kind {
        b'$' | b'=' | b'!' => string(text, header_end, number, kind == b'$'),
        b'*' => Ok(Some(aggregate(header_end, length_or_missing(number)?.unwrap_or(0)))),
        b'~' | b'>' => Ok(Some(aggregate(header_end, length(number)?))),
        b'%' => Ok(Some(aggregate(header_end, pairs(number)?))),
        b'|' => Ok(Some(Element { is_attribute: true, ..aggregate(header_end, pairs(number)?) })),
        _ => Ok(Some(aggregate(header_end, 0))),
    }
}

fn aggregate(end: usize, children: u64) -> Element {
    Element { end, children, is_attribute: false }
}

/// A string of announced length behind its header.
fn string<T: Text + ?Sized>(
    text: &T,
    header_end: usize,
    announced: &[u8],
    may_be_missing: bool,
) -> Result<Option<Element>, FrameError> {
    let Some(length) = length_or_missing(announced)? else {
        return if may_be_missing {
            Ok(Some(aggregate(header_end, 0)))
        } else {
            Err(FrameError::BadLength)
        };
    };
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| header_end.checked_add(length)?.checked_add(2))
        .ok_or(FrameError::BadLength)?;
    if end > text.length() {
        return Ok(None);
    }
    if *text.bytes_of(end - 2..end) == *b"\r\n" {
        Ok(Some(aggregate(end, 0)))
    } else {
        Err(FrameError::Unterminated)
    }
}

/// The line that begins at `at`, without its CR LF; `None` when that is still to come.
fn line_at<T: Text + ?Sized>(text: &T, at: usize) -> Result<Option<Cow<'_, [u8]>>, FrameError> {
    // Only errors and the like are longer: what lies together is not copied, and what does not is short.
    let mut look = 64;
    let left = text.length() - at;
    loop {
        let bytes = text.bytes_of(at..at + left.min(look));
        match line_end(&bytes)? {
            Some(end) => {
                return Ok(Some(match bytes {
                    Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..end]),
                    Cow::Owned(bytes) => Cow::Owned(bytes[..end].to_vec()),
                }));
            }
            None if look >= left => return Ok(None),
            None => look *= 2,
        }
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
    use bytes::Bytes;

    use super::*;
    use crate::stdx::codec::Sink;
    use crate::stdx::rope::LENT_BYTES_MIN;

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
        let array_elements = |bytes: &[u8]| {
            let text = Rope::from(bytes.to_vec());
            let elements = super::array_elements(&text)?;
            Ok(elements.into_iter().map(|it| text.bytes(it).into_owned()).collect::<Vec<_>>())
        };
        let parts: [&[u8]; 3] = [b"$1\r\nx\r\n", b"*1\r\n:1\r\n", b"$-1\r\n"];
        let array = [&b"*3\r\n"[..], &parts.concat()].concat();
        assert_eq!(array_elements(&array).unwrap(), parts);
        assert_eq!(array_elements(&[&array[..], b"+behind\r\n"].concat()).unwrap(), parts);
        assert_eq!(array_elements(b"%1\r\n+k\r\n:1\r\n").unwrap(), [b"+k\r\n", b":1\r\n"]);
        assert_eq!(array_elements(b"*0\r\n").unwrap(), [b""; 0]);
        assert_eq!(array_elements(b"*-1\r\n").unwrap(), [b""; 0]);
        assert_eq!(array_elements(b":1\r\n"), Err(FrameError::NotAnArray));
        assert_eq!(array_elements(b""), Err(FrameError::Incomplete));
        assert_eq!(array_elements(&array[..array.len() - 1]), Err(FrameError::Incomplete));
        assert_eq!(array_elements(b"*99999999999\r\n"), Err(FrameError::Incomplete));
    }

    /// Also where a line or the end of a string is in two pieces, which no encoder makes.
    #[test]
    fn elements_are_found_wherever_their_bytes_lie() {
        let parts: [&[u8]; 5] = [
            b"$3\r\nabc\r\n",
            &[&b"$131072\r\n"[..], &vec![b'x'; 131_072], b"\r\n"].concat(),
            b"*2\r\n:1\r\n+OK\r\n",
            &[&b"-ERR "[..], &vec![b'x'; 70_000], b"\r\n"].concat(),
            b"$-1\r\n",
        ];
        let array = [&b"*5\r\n"[..], &parts.concat()].concat();
        let whole = Bytes::from(array.clone());
        for cut in
            (LENT_BYTES_MIN..array.len() - LENT_BYTES_MIN).step_by(997).chain(131_090..131_120)
        {
            let mut text = Rope::new();
            text.put_shared(&whole.slice(..cut));
            text.put_shared(&whole.slice(cut..));
            let elements = array_elements(&text).unwrap();
            let found: Vec<_> = elements.into_iter().map(|it| text.bytes(it)).collect();
            assert!(found == parts, "cut at {cut}");
        }
    }
}
