//! Reading words out of pieces that are cut anywhere.
//!
//! A word that has not come whole is an error, [`DecodeError::Truncated`]: then all of the piece is taken, and the same
//! call with the next piece goes on. Whoever reads several words notes which of them he has.
//!
//! Memory: what came of one word. A length promises nothing; memory is asked for as bytes come, never more than [`AHEAD`]
//! times as many, which nobody touches before they come, and what is returned is as long as it claims to be.

use std::borrow::Cow;

use crate::stdx::codec;

use super::Bin;
use super::error::DecodeError;

/// The longest run of small words that is read as one, in bytes: the deadline of an entry and the head of a stream.
const SMALL_BYTES_MAX: usize = 8 * codec::VARINT_BYTES_MAX;

/// How many times what came is asked for when there is no room for more. To double it would leave half of a large value,
/// copied and let go, beside the whole for a while, for the allocator gives back late: a node with little more memory than
/// its one value of 512 MiB died at its start.
const AHEAD: usize = 16;

/// The beginning of a word, to be continued with the next piece.
#[derive(Debug, Default)]
pub(super) struct Begun {
    small: Vec<u8>,
    long: Option<Long>,
}

impl Begun {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.long.is_none()
    }
}

/// A byte string that is coming.
#[derive(Debug)]
struct Long {
    length: usize,
    bytes: Vec<u8>,
}

/// The words of one piece.
#[derive(Debug)]
pub(super) struct Words<'a, 'b> {
    piece: &'a [u8],
    begun: &'b mut Begun,
}

impl<'a, 'b> Words<'a, 'b> {
    /// The words of `piece`, the first of which may have `begun`.
    pub(super) fn new(piece: &'a [u8], begun: &'b mut Begun) -> Self {
        Self { piece, begun }
    }

    /// Whether the piece is read.
    pub(super) fn is_empty(&self) -> bool {
        self.piece.is_empty()
    }

    /// Reads with `parse`, which reads at most [`SMALL_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Those of `parse`.
    pub(super) fn small<T, E: Into<DecodeError>>(
        &mut self,
        parse: impl Fn(&mut &[u8]) -> Result<T, E>,
    ) -> Result<T, DecodeError> {
        let before = self.begun.small.len();
        if before == 0 {
            let mut rest = self.piece;
            let parsed = parse(&mut rest).map_err(Into::into);
            if matches!(parsed, Err(DecodeError::Truncated)) {
                self.begun.small.extend_from_slice(self.piece);
                rest = &[];
            }
            self.piece = rest;
            return parsed;
        }
        let more = self.piece.len().min(SMALL_BYTES_MAX - before.min(SMALL_BYTES_MAX));
        self.begun.small.extend_from_slice(&self.piece[..more]);
        let mut rest = &self.begun.small[..];
        let parsed = parse(&mut rest).map_err(Into::into);
        let unread = if matches!(parsed, Err(DecodeError::Truncated)) { 0 } else { rest.len() };
        self.piece = &self.piece[more.saturating_sub(unread)..];
        if parsed.is_ok() {
            self.begun.small = Vec::new();
        }
        parsed
    }

    /// Reads a byte string; it is copied only where it did not come in one piece.
    ///
    /// # Errors
    /// As [`codec::take_bytes`].
    pub(super) fn bytes(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let mut long = if let Some(long) = self.begun.long.take() {
            long
        } else {
            let length = self.small(codec::take_length)?;
            if let Some((bytes, rest)) = self.piece.split_at_checked(length) {
                self.piece = rest;
                return Ok(Cow::Borrowed(bytes));
            }
            Long { length, bytes: Vec::new() }
        };
        self.piece = long.take(self.piece);
        if long.bytes.len() < long.length {
            self.begun.long = Some(long);
            return Err(DecodeError::Truncated);
        }
        Ok(Cow::Owned(long.bytes))
    }
}

impl Long {
    /// Takes of `piece` what belongs to it and returns the rest.
    fn take<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let missing = self.length - self.bytes.len();
        let (taken, rest) = piece.split_at(missing.min(piece.len()));
        if self.bytes.capacity() - self.bytes.len() < taken.len() {
            // Never beyond the end, so that none is left over.
            let more = self.bytes.len().saturating_mul(AHEAD - 1);
            self.bytes.reserve_exact(taken.len().max(more).min(missing));
        }
        self.bytes.extend_from_slice(taken);
        rest
    }
}

/// A key, field or member of `bytes`.
pub(super) fn into_bin(bytes: Cow<'_, [u8]>) -> Bin {
    match bytes {
        Cow::Borrowed(bytes) => Bin::from_slice(bytes),
        Cow::Owned(bytes) => Bin::from_vec(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::put_varint(&mut bytes, u64::MAX);
        codec::put_bytes(&mut bytes, b"");
        codec::put_bytes(&mut bytes, &[b'x'; 300]);
        codec::put_signed(&mut bytes, -5);
        codec::put_f64(&mut bytes, 1.5);
        bytes
    }

    #[test]
    fn words_are_the_same_however_they_are_cut() {
        let bytes = stream();
        for length in 1..=bytes.len() {
            let mut begun = Begun::default();
            let (mut read, mut strings) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(length) {
                let mut words = Words::new(piece, &mut begun);
                loop {
                    let word = match read.len() {
                        0 => words.small(codec::take_varint).map(|number| number.to_string()),
                        1 | 2 => words.bytes().map(|bytes| {
                            strings.push(bytes.to_vec());
                            bytes.len().to_string()
                        }),
                        3 => words.small(codec::take_signed).map(|number| number.to_string()),
                        4 => words.small(codec::take_f64).map(|number| number.to_string()),
                        _ => break,
                    };
                    match word {
                        Ok(word) => read.push(word),
                        Err(error) => {
                            assert_eq!(error, DecodeError::Truncated);
                            assert!(words.is_empty());
                            break;
                        }
                    }
                }
            }
            assert_eq!(read, ["18446744073709551615", "0", "300", "-5", "1.5"], "{length}");
            assert!(strings[0].is_empty() && strings[1] == [b'x'; 300]);
            assert!(begun.is_empty());
        }
    }

    #[test]
    fn memory_follows_what_came() {
        let mut head = Vec::new();
        codec::put_length(&mut head, codec::BYTES_LENGTH_MAX);
        let mut begun = Begun::default();
        assert_eq!(Words::new(&head, &mut begun).bytes(), Err(DecodeError::Truncated));
        for came in (0..1 << 20).step_by(1000) {
            let long = begun.long.as_ref().unwrap();
            assert!(long.bytes.len() == came && long.bytes.capacity() <= AHEAD * came.max(1000));
            assert_eq!(Words::new(&[0; 1000], &mut begun).bytes(), Err(DecodeError::Truncated));
        }
        let mut begun = Begun::default();
        let mut whole = Vec::new();
        codec::put_bytes(&mut whole, &vec![b'x'; 1_000_000]);
        let mut pieces = whole.chunks(4096).map(|piece| {
            let bytes = Words::new(piece, &mut begun).bytes();
            bytes.map(Cow::into_owned)
        });
        let bytes = pieces.find_map(Result::ok).unwrap();
        assert_eq!((bytes.len(), bytes.capacity()), (1_000_000, 1_000_000));
    }

    #[test]
    fn what_is_wrong_is_told_at_once() {
        let mut begun = Begun::default();
        let mut huge = Vec::new();
        codec::put_varint(&mut huge, u64::MAX);
        assert_eq!(Words::new(&huge[..3], &mut begun).bytes(), Err(DecodeError::Truncated));
        assert_eq!(Words::new(&huge[3..], &mut begun).bytes(), Err(DecodeError::TooLong));
        let mut begun = Begun::default();
        assert_eq!(Words::new(&[0x80], &mut begun).bytes(), Err(DecodeError::Truncated));
        assert_eq!(Words::new(&[0], &mut begun).bytes(), Err(DecodeError::BadVarint));
    }
}
