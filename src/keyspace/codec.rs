//! The small words of the snapshot format: varints, byte strings and fixed-width numbers.
//!
//! Everything that leaves a value for the disk or the wire is spelled with these functions, so there is one
//! place that decides how. Reading never trusts a length or a count: nothing is reserved by it but in proportion to
//! what has come (`words.rs`). A varint has exactly one spelling, so equal values have equal bytes.
//!
//! | word | bytes |
//! | --- | --- |
//! | varint | LEB128: seven bits per byte, lowest first, high bit set on all but the last; 1–10 bytes, shortest form only |
//! | signed | zigzag (0, −1, 1, −2 … → 0, 1, 2, 3 …), then varint |
//! | bytes | varint length, then the bytes |
//! | u64, f64 | 8 bytes, little-endian; f64 as its IEEE 754 bits |

use thiserror::Error;

/// The longest varint: 9 bytes of seven bits and one more for the last bit of a `u64`.
pub const VARINT_BYTES_MAX: usize = 10;

/// The longest byte string that is read, in bytes. Far beyond the 512 MiB to which clients are held by
/// default: whatever was stored under a raised limit must be readable again.
pub const BYTES_LENGTH_MAX: usize = u32::MAX as usize;

/// Why bytes could not be read. The reader's position is unspecified afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a word, or a count promises more than follows.
    #[error("the bytes end too early")]
    Truncated,
    /// A varint that is longer than necessary or does not fit 64 bits.
    #[error("a varint is not in its shortest form or exceeds 64 bits")]
    BadVarint,
    /// A length or count beyond its limit.
    #[error("a length exceeds its limit")]
    TooLong,
    /// A format version this build cannot read.
    #[error("format version {0} is not known")]
    UnknownFormat(u8),
    /// A type code this build cannot read.
    #[error("type code {0} is not known")]
    UnknownType(u8),
    /// Something occurs twice that may occur once: a key, a field, a member.
    #[error("a {0} occurs twice")]
    Duplicate(&'static str),
    /// A value that contradicts itself or its place.
    #[error("{0}")]
    Invalid(&'static str),
    /// Bytes are left over after the last word.
    #[error("bytes are left over at the end")]
    TrailingBytes,
}

/// Where words go: to memory, or into a hash.
pub trait Sink {
    /// Takes the next bytes of a word.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends `number` as a varint.
pub fn put_varint<S: Sink>(out: &mut S, mut number: u64) {
    let (mut word, mut length) = ([0; VARINT_BYTES_MAX], 0);
    while number >= 0x80 {
        word[length] = number.to_le_bytes()[0] | 0x80;
        length += 1;
        number >>= 7;
    }
    word[length] = number.to_le_bytes()[0];
    out.put(&word[..=length]);
}

/// Appends `length` as a varint.
pub fn put_length<S: Sink>(out: &mut S, length: usize) {
    put_varint(out, length as u64);
}

/// Appends `number` as a zigzag varint.
pub fn put_signed<S: Sink>(out: &mut S, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Appends the length of `bytes` and `bytes`.
pub fn put_bytes<S: Sink>(out: &mut S, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put(bytes);
}

/// Appends `number` in 8 bytes.
pub fn put_u64<S: Sink>(out: &mut S, number: u64) {
    out.put(&number.to_le_bytes());
}

/// Appends the bits of `number` in 8 bytes.
pub fn put_f64<S: Sink>(out: &mut S, number: f64) {
    put_u64(out, number.to_bits());
}

/// Takes one byte.
///
/// # Errors
/// [`DecodeError::Truncated`] when none is left.
pub fn take_u8(bytes: &mut &[u8]) -> Result<u8, DecodeError> {
    let (&first, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(first)
}

/// Takes a varint.
///
/// # Errors
/// [`DecodeError::Truncated`], or [`DecodeError::BadVarint`] for a spelling other than the shortest.
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for position in 0..VARINT_BYTES_MAX {
        let byte = take_u8(bytes)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the one bit that nine groups of seven leave over.
        if position == VARINT_BYTES_MAX - 1 && bits > 1 {
            return Err(DecodeError::BadVarint);
        }
        number |= bits << (7 * position);
        if byte & 0x80 == 0 {
            let is_shortest = position == 0 || byte != 0;
            return if is_shortest { Ok(number) } else { Err(DecodeError::BadVarint) };
        }
    }
    Err(DecodeError::BadVarint)
}

/// Takes a zigzag varint.
///
/// # Errors
/// As [`take_varint`].
pub fn take_signed(bytes: &mut &[u8]) -> Result<i64, DecodeError> {
    let number = take_varint(bytes)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// Takes how many things follow. Nothing may be reserved by it: the things need not come.
///
/// # Errors
/// As [`take_varint`]; [`DecodeError::TooLong`] beyond the address space.
pub fn take_count(bytes: &mut &[u8]) -> Result<usize, DecodeError> {
    usize::try_from(take_varint(bytes)?).map_err(|_| DecodeError::TooLong)
}

/// Takes the length of a byte string that follows.
///
/// # Errors
/// As [`take_varint`]; [`DecodeError::TooLong`] beyond [`BYTES_LENGTH_MAX`].
pub fn take_length(bytes: &mut &[u8]) -> Result<usize, DecodeError> {
    let length = take_count(bytes)?;
    if length > BYTES_LENGTH_MAX { Err(DecodeError::TooLong) } else { Ok(length) }
}

/// Takes a byte string without copying it.
///
/// # Errors
/// As [`take_length`]; [`DecodeError::Truncated`] when less follows.
pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = take_length(bytes)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes a number of 8 bytes.
///
/// # Errors
/// [`DecodeError::Truncated`].
pub fn take_u64(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let (taken, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*taken))
}

/// Takes a floating-point number of 8 bytes. It may be anything, NaN included: the caller judges.
///
/// # Errors
/// [`DecodeError::Truncated`].
pub fn take_f64(bytes: &mut &[u8]) -> Result<f64, DecodeError> {
    take_u64(bytes).map(f64::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_these_bytes() {
        let rows: [(u64, &[u8]); 7] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (number, bytes) in rows {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out, bytes, "{number}");
            let mut rest = &out[..];
            assert_eq!(take_varint(&mut rest), Ok(number));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn signed_numbers_come_back() {
        for (number, first) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (63, 126), (-64, 127)] {
            let mut out = Vec::new();
            put_signed(&mut out, number);
            assert_eq!(out, [first], "{number}");
        }
        for number in [i64::MIN, i64::MIN + 1, -65, 64, i64::MAX] {
            let mut out = Vec::new();
            put_signed(&mut out, number);
            assert_eq!(take_signed(&mut &out[..]), Ok(number));
        }
    }

    #[test]
    fn fixed_words_come_back() {
        let mut out = Vec::new();
        put_u64(&mut out, 0x0102_0304_0506_0708);
        put_f64(&mut out, -0.0);
        put_bytes(&mut out, b"abc");
        assert_eq!(out[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        let mut rest = &out[..];
        assert_eq!(take_u64(&mut rest), Ok(0x0102_0304_0506_0708));
        assert_eq!(take_f64(&mut rest).map(f64::to_bits), Ok((-0.0_f64).to_bits()));
        assert_eq!(take_bytes(&mut rest), Ok(&b"abc"[..]));
        assert_eq!(take_u8(&mut rest), Err(DecodeError::Truncated));
    }

    #[test]
    fn bad_varints_are_refused() {
        let rows: [(&[u8], DecodeError); 6] = [
            (&[], DecodeError::Truncated),
            (&[0x80], DecodeError::Truncated),
            (&[0x80, 0], DecodeError::BadVarint),
            (&[0xff, 0x80, 0], DecodeError::BadVarint),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], DecodeError::BadVarint),
            (&[0x80; 11], DecodeError::BadVarint),
        ];
        for (bytes, error) in rows {
            assert_eq!(take_varint(&mut &bytes[..]), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_are_not_trusted() {
        assert_eq!(take_bytes(&mut &[4, 1, 2, 3][..]), Err(DecodeError::Truncated));
        let mut huge = Vec::new();
        put_varint(&mut huge, u64::MAX);
        assert_eq!(take_bytes(&mut &huge[..]), Err(DecodeError::TooLong));
        assert_eq!(take_count(&mut &huge[..]), Ok(usize::MAX));
        assert_eq!(take_u64(&mut &[0; 7][..]), Err(DecodeError::Truncated));
    }
}
