//! The words that bytes on disk and on the wire are spelled with: varints, byte strings and numbers of a fixed width.
//!
//! The rooms spell their messages with these, so there is one place that decides how. Reading never trusts a length or a
//! count: nothing is reserved by it. A varint has exactly one spelling, so equal values have equal bytes.
//!
//! | word | bytes |
//! | --- | --- |
//! | varint | LEB128: seven bits per byte, lowest first, high bit set on all but the last; 1–10 bytes, shortest form only |
//! | signed | zigzag (0, −1, 1, −2 … → 0, 1, 2, 3 …), then varint |
//! | bytes | varint length, then the bytes |
//! | u8, u32, u64, u128, f64 | 1, 4, 8, 16, 8 bytes, little-endian; f64 as its IEEE 754 bits |
//! | length u32 | a length or a count as u32, where it has to be known where it ends |

use bytes::Bytes;
use thiserror::Error;

/// The longest varint: 9 bytes of seven bits and one more for the last bit of a `u64`.
pub const VARINT_BYTES_MAX: usize = 10;

/// The longest byte string that is read, in bytes. Far beyond the 512 MiB to which clients are held by
/// default: whatever was stored under a raised limit must be readable again.
pub const BYTES_LENGTH_MAX: usize = u32::MAX as usize;

/// Why a word could not be read. The reader's position is unspecified afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}", self.what())]
pub enum CodecError {
    /// The bytes end in the middle of a word.
    Truncated,
    /// A varint that is longer than necessary or does not fit 64 bits.
    BadVarint,
    /// A length or count beyond its limit.
    TooLong,
}

impl CodecError {
    /// What is wrong, for errors that say it in words of their own.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Truncated => "the bytes end too early",
            Self::BadVarint => "a varint is not in its shortest form or exceeds 64 bits",
            Self::TooLong => "a length exceeds its limit",
        }
    }
}

/// Where words go: to memory, or into a hash.
pub trait Sink {
    /// Takes the next bytes of a word.
    fn put(&mut self, bytes: &[u8]);

    /// Takes the next bytes of a word, which it may share instead of copying them.
    #[inline]
    fn put_shared(&mut self, bytes: &Bytes) {
        self.put(bytes);
    }

    /// Makes room for so many bytes more, where room is made ahead.
    #[inline]
    fn reserve(&mut self, _bytes: usize) {}
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn reserve(&mut self, bytes: usize) {
        Vec::reserve(self, bytes);
    }
}

/// Appends `number` as a varint.
#[inline]
pub fn put_varint<S: Sink>(out: &mut S, number: u64) {
    // One byte is the rule, and a copy of known length is no call.
    if number < 0x80 {
        return out.put(&number.to_le_bytes()[..1]);
    }
    put_long_varint(out, number);
}

fn put_long_varint<S: Sink>(out: &mut S, mut number: u64) {
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
#[inline]
pub fn put_length<S: Sink>(out: &mut S, length: usize) {
    put_varint(out, length as u64);
}

/// Appends `number` as a zigzag varint.
pub fn put_signed<S: Sink>(out: &mut S, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Appends the length of `bytes` and `bytes`.
#[inline]
pub fn put_bytes<S: Sink>(out: &mut S, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put(bytes);
}

/// Appends `number` in 4 bytes.
#[inline]
pub fn put_u32<S: Sink>(out: &mut S, number: u32) {
    out.put(&number.to_le_bytes());
}

/// Appends `length` in 4 bytes.
///
/// # Panics
/// From 4 Gi on: whatever is spelled so is bounded far below, by the room that spells it.
#[inline]
pub fn put_length_u32<S: Sink>(out: &mut S, length: usize) {
    put_u32(
        out,
        u32::try_from(length).expect("what is counted in 4 bytes is bounded far below 4 Gi"),
    );
}

/// Appends `number` in 8 bytes.
#[inline]
pub fn put_u64<S: Sink>(out: &mut S, number: u64) {
    out.put(&number.to_le_bytes());
}

/// Appends `number` in 16 bytes.
#[inline]
pub fn put_u128<S: Sink>(out: &mut S, number: u128) {
    out.put(&number.to_le_bytes());
}

/// Appends the bits of `number` in 8 bytes.
pub fn put_f64<S: Sink>(out: &mut S, number: f64) {
    put_u64(out, number.to_bits());
}

/// Takes the next `N` bytes.
///
/// # Errors
/// [`CodecError::Truncated`] when fewer follow.
#[inline]
pub fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(CodecError::Truncated)?;
    *bytes = rest;
    Ok(*taken)
}

/// Takes the next `length` bytes without copying them.
///
/// # Errors
/// [`CodecError::Truncated`] when fewer follow.
#[inline]
pub fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], CodecError> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(CodecError::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes one byte.
///
/// # Errors
/// [`CodecError::Truncated`] when none is left.
#[inline]
pub fn take_u8(bytes: &mut &[u8]) -> Result<u8, CodecError> {
    let (&first, rest) = bytes.split_first().ok_or(CodecError::Truncated)?;
    *bytes = rest;
    Ok(first)
}

/// Takes a varint.
///
/// # Errors
/// [`CodecError::Truncated`], or [`CodecError::BadVarint`] for a spelling other than the shortest.
#[inline]
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    // As in [`put_varint`].
    if let [byte @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    take_long_varint(bytes)
}

fn take_long_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    let mut number = 0_u64;
    for position in 0..VARINT_BYTES_MAX {
        let byte = take_u8(bytes)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the one bit that nine groups of seven leave over.
        if position == VARINT_BYTES_MAX - 1 && bits > 1 {
            return Err(CodecError::BadVarint);
        }
        number |= bits << (7 * position);
        if byte & 0x80 == 0 {
            let is_shortest = position == 0 || byte != 0;
            return if is_shortest { Ok(number) } else { Err(CodecError::BadVarint) };
        }
    }
    Err(CodecError::BadVarint)
}

/// Takes a zigzag varint.
///
/// # Errors
/// As [`take_varint`].
pub fn take_signed(bytes: &mut &[u8]) -> Result<i64, CodecError> {
    let number = take_varint(bytes)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// Takes how many things follow. Nothing may be reserved by it: the things need not come.
///
/// # Errors
/// As [`take_varint`]; [`CodecError::TooLong`] beyond the address space.
#[inline]
pub fn take_count(bytes: &mut &[u8]) -> Result<usize, CodecError> {
    usize::try_from(take_varint(bytes)?).map_err(|_| CodecError::TooLong)
}

/// Takes the length of a byte string that follows.
///
/// # Errors
/// As [`take_varint`]; [`CodecError::TooLong`] beyond [`BYTES_LENGTH_MAX`].
#[inline]
pub fn take_length(bytes: &mut &[u8]) -> Result<usize, CodecError> {
    let length = take_count(bytes)?;
    if length > BYTES_LENGTH_MAX { Err(CodecError::TooLong) } else { Ok(length) }
}

/// Takes a byte string without copying it.
///
/// # Errors
/// As [`take_length`]; [`CodecError::Truncated`] when less follows.
#[inline]
pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let length = take_length(bytes)?;
    take_slice(bytes, length)
}

/// Takes a number of 4 bytes.
///
/// # Errors
/// [`CodecError::Truncated`].
#[inline]
pub fn take_u32(bytes: &mut &[u8]) -> Result<u32, CodecError> {
    take_array(bytes).map(u32::from_le_bytes)
}

/// Takes a length or a count of 4 bytes. Nothing may be reserved by it: the things need not come.
///
/// # Errors
/// [`CodecError::Truncated`].
#[inline]
pub fn take_length_u32(bytes: &mut &[u8]) -> Result<usize, CodecError> {
    take_u32(bytes).map(|length| length as usize)
}

/// Takes a number of 8 bytes.
///
/// # Errors
/// [`CodecError::Truncated`].
#[inline]
pub fn take_u64(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    take_array(bytes).map(u64::from_le_bytes)
}

/// Takes a number of 16 bytes.
///
/// # Errors
/// [`CodecError::Truncated`].
#[inline]
pub fn take_u128(bytes: &mut &[u8]) -> Result<u128, CodecError> {
    take_array(bytes).map(u128::from_le_bytes)
}

/// Takes a floating-point number of 8 bytes. It may be anything, NaN included: the caller judges.
///
/// # Errors
/// [`CodecError::Truncated`].
pub fn take_f64(bytes: &mut &[u8]) -> Result<f64, CodecError> {
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
        put_u32(&mut out, 0x0102_0304);
        put_length_u32(&mut out, 2);
        put_u128(&mut out, 9);
        assert_eq!(out[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(out[20..28], [4, 3, 2, 1, 2, 0, 0, 0]);
        assert_eq!(out[28..], [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut rest = &out[..];
        assert_eq!(take_u64(&mut rest), Ok(0x0102_0304_0506_0708));
        assert_eq!(take_f64(&mut rest).map(f64::to_bits), Ok((-0.0_f64).to_bits()));
        assert_eq!(take_bytes(&mut rest), Ok(&b"abc"[..]));
        assert_eq!(take_u32(&mut rest), Ok(0x0102_0304));
        assert_eq!(take_length_u32(&mut rest), Ok(2));
        assert_eq!(take_u128(&mut rest), Ok(9));
        assert_eq!(take_u8(&mut rest), Err(CodecError::Truncated));
    }

    #[test]
    fn bad_varints_are_refused() {
        let rows: [(&[u8], CodecError); 6] = [
            (&[], CodecError::Truncated),
            (&[0x80], CodecError::Truncated),
            (&[0x80, 0], CodecError::BadVarint),
            (&[0xff, 0x80, 0], CodecError::BadVarint),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], CodecError::BadVarint),
            (&[0x80; 11], CodecError::BadVarint),
        ];
        for (bytes, error) in rows {
            assert_eq!(take_varint(&mut &bytes[..]), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_are_not_trusted() {
        assert_eq!(take_bytes(&mut &[4, 1, 2, 3][..]), Err(CodecError::Truncated));
        let mut huge = Vec::new();
        put_varint(&mut huge, u64::MAX);
        assert_eq!(take_bytes(&mut &huge[..]), Err(CodecError::TooLong));
        assert_eq!(take_count(&mut &huge[..]), Ok(usize::MAX));
        assert_eq!(take_u64(&mut &[0; 7][..]), Err(CodecError::Truncated));
        assert_eq!(take_slice(&mut &[1, 2][..], 3), Err(CodecError::Truncated));
        assert_eq!(take_slice(&mut &[1, 2][..], usize::MAX), Err(CodecError::Truncated));
    }

    #[test]
    fn words_that_are_cut_short_are_refused() {
        let mut words = Vec::new();
        put_u32(&mut words, 1);
        put_u64(&mut words, 2);
        put_u128(&mut words, 3);
        put_bytes(&mut words, &[b'x'; 200]);
        let take_all = |bytes: &mut &[u8]| {
            take_length_u32(bytes)?;
            take_u64(bytes)?;
            take_u128(bytes)?;
            take_bytes(bytes).map(<[u8]>::len)
        };
        assert_eq!(take_all(&mut &words[..]), Ok(200));
        for length in 0..words.len() {
            assert_eq!(take_all(&mut &words[..length]), Err(CodecError::Truncated), "{length}");
        }
    }
}
