//! Why the bytes of a keyspace could not be read.

use thiserror::Error;

use crate::stdx::codec::CodecError;

/// Why bytes could not be read. The reader's position is unspecified afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a word, or a count promises more than follows.
    #[error("{}", CodecError::Truncated)]
    Truncated,
    /// A varint that is longer than necessary or does not fit 64 bits.
    #[error("{}", CodecError::BadVarint)]
    BadVarint,
    /// A length or count beyond its limit.
    #[error("{}", CodecError::TooLong)]
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

impl From<CodecError> for DecodeError {
    /// Flat: whoever reads piece by piece asks for one of these at every word.
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Truncated => Self::Truncated,
            CodecError::BadVarint => Self::BadVarint,
            CodecError::TooLong => Self::TooLong,
        }
    }
}
