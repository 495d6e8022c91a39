//! The value a command answers with: RESP3's types, of which RESP2's are a part.
//!
//! A command says what it means here, never how a protocol writes it; the downgrade to RESP2 is
//! [`encode`](fn@super::encode)'s alone.

use std::borrow::Cow;

use bytes::Bytes;

use super::error::ErrorReply;

/// One reply. Borrows its texts from the keyspace where it can, see [`Reply::into_owned`]; long ones are lent to it and go on to
/// the socket as they are.
///
/// Source: the RESP3 specification; names follow it.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// A status such as `OK`: a fixed text of this program without CR and LF.
    Simple(&'static str),
    /// A string of any bytes.
    Bulk(Cow<'a, [u8]>),
    /// The same, lent by whoever keeps it. (In a box, for that is smaller than the others and seldom.)
    Lent(Box<Bytes>),
    /// A signed 64-bit integer.
    Integer(i64),
    /// A floating point number. In RESP2 a bulk of its text.
    Double(f64),
    /// True or false. In RESP2 the integer 1 or 0.
    Boolean(bool),
    /// Nothing: the missing string. In RESP2 `$-1`.
    Null,
    /// Nothing: the missing array. In RESP2 `*-1`, in RESP3 the same as [`Reply::Null`].
    NullArray,
    /// Replies in order.
    Array(Vec<Reply<'a>>),
    /// Pairs in order. In RESP2 an array of twice the length.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// Pairs in order, each an array of two: members with their scores. In RESP2 one array of twice the
    /// length.
    Pairs(Vec<(Reply<'a>, Reply<'a>)>),
    /// Replies whose order means nothing. In RESP2 an array.
    Set(Vec<Reply<'a>>),
    /// A message that answers no request. In RESP2 an array.
    Push(Vec<Reply<'a>>),
    /// A text for people with its format. In RESP2 a bulk of the text.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text itself.
        text: Cow<'a, [u8]>,
    },
    /// An integer of any size as decimal digits without CR and LF. In RESP2 a bulk.
    BigNumber(Cow<'a, [u8]>),
    /// A refusal, see [`ErrorReply`].
    Error(ErrorReply),
}

// One for each element of an answer.
const _: () = assert!(size_of::<Reply<'_>>() == 32);

impl<'a> Reply<'a> {
    /// The status `OK`.
    pub const OK: Self = Self::Simple("OK");

    /// A bulk of `bytes`.
    pub fn bulk(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// A bulk of `bytes`, which are lent.
    pub fn lent(bytes: Bytes) -> Self {
        Self::Lent(Box::new(bytes))
    }

    /// A bulk of `text`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(Cow::Owned(text.into().into_bytes()))
    }

    /// The integer `count`; `i64::MAX` where it would not fit, which no collection in memory reaches.
    pub fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The integer 1 for true and 0 for false: how commands older than RESP3 say yes and no.
    pub fn bool_int(yes: bool) -> Self {
        Self::Integer(i64::from(yes))
    }

    /// A verbatim string of plain text (format `txt`), the form of INFO and its kin.
    pub fn verbatim_text(text: impl Into<String>) -> Self {
        Self::Verbatim { format: *b"txt", text: Cow::Owned(text.into().into_bytes()) }
    }

    /// An array of bulks in the order of `items`.
    pub fn bulks<T: Into<Cow<'a, [u8]>>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::Array(items.into_iter().map(Self::bulk).collect())
    }

    /// Whether this is an error at its top.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The same reply with every borrowed text copied, but for what is lent, so that it outlives the keyspace's lock.
    pub fn into_owned(self) -> Reply<'static> {
        match self {
            Self::Simple(text) => Reply::Simple(text),
            Self::Bulk(bytes) => Reply::Bulk(own(bytes)),
            Self::Lent(bytes) => Reply::Lent(bytes),
            Self::Integer(number) => Reply::Integer(number),
            Self::Double(number) => Reply::Double(number),
            Self::Boolean(yes) => Reply::Boolean(yes),
            Self::Null => Reply::Null,
            Self::NullArray => Reply::NullArray,
            Self::Array(items) => Reply::Array(own_all(items)),
            Self::Map(pairs) => Reply::Map(own_pairs(pairs)),
            Self::Pairs(pairs) => Reply::Pairs(own_pairs(pairs)),
            Self::Set(items) => Reply::Set(own_all(items)),
            Self::Push(items) => Reply::Push(own_all(items)),
            Self::Verbatim { format, text } => Reply::Verbatim { format, text: own(text) },
            Self::BigNumber(digits) => Reply::BigNumber(own(digits)),
            Self::Error(error) => Reply::Error(error),
        }
    }
}

fn own(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
    Cow::Owned(bytes.into_owned())
}

fn own_all(items: Vec<Reply<'_>>) -> Vec<Reply<'static>> {
    items.into_iter().map(Reply::into_owned).collect()
}

fn own_pairs(pairs: Vec<(Reply<'_>, Reply<'_>)>) -> Vec<(Reply<'static>, Reply<'static>)> {
    pairs.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
}

impl From<ErrorReply> for Reply<'_> {
    fn from(error: ErrorReply) -> Self {
        Self::Error(error)
    }
}

impl<'a> From<Result<Reply<'a>, ErrorReply>> for Reply<'a> {
    fn from(outcome: Result<Reply<'a>, ErrorReply>) -> Self {
        outcome.unwrap_or_else(Self::Error)
    }
}

impl From<i64> for Reply<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a> From<&'a [u8]> for Reply<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bulk(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Reply<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bulk(Cow::Owned(bytes))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Reply<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        Self::Bulk(bytes)
    }
}

impl<'a, T: Into<Reply<'a>>> From<Option<T>> for Reply<'a> {
    /// `None` is [`Reply::Null`].
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_are_null() {
        assert_eq!(Reply::from(None::<i64>), Reply::Null);
        assert_eq!(Reply::from(Some(&b"x"[..])), Reply::bulk(&b"x"[..]));
        assert_eq!(Reply::from(Some(b"x".to_vec())), Reply::text("x"));
        assert_eq!(Reply::from(Some(3)), Reply::Integer(3));
    }

    #[test]
    fn refusals_become_error_replies() {
        let refused: Result<Reply<'_>, ErrorReply> = Err(ErrorReply::SYNTAX);
        assert_eq!(Reply::from(refused), Reply::Error(ErrorReply::SYNTAX));
        assert!(Reply::from(ErrorReply::SYNTAX).is_error());
        assert_eq!(Reply::from(Ok(Reply::OK)), Reply::Simple("OK"));
    }

    #[test]
    fn owned_copies_equal_what_they_copy() {
        let text = b"borrowed".to_vec();
        let replies = [
            Reply::OK,
            Reply::bulk(&text[..]),
            Reply::lent(Bytes::from(text.clone())),
            Reply::count(7),
            Reply::bool_int(true),
            Reply::Double(1.5),
            Reply::Boolean(false),
            Reply::Null,
            Reply::NullArray,
            Reply::bulks([&text[..], &text[..]]),
            Reply::Map(vec![(Reply::Integer(1), Reply::bulk(&text[..]))]),
            Reply::Pairs(vec![(Reply::bulk(&text[..]), Reply::Double(1.5))]),
            Reply::Set(vec![Reply::bulk(&text[..])]),
            Reply::Push(vec![Reply::bulk(&text[..])]),
            Reply::verbatim_text("hi"),
            Reply::BigNumber(Cow::Borrowed(b"123")),
            Reply::Error(ErrorReply::SYNTAX),
        ];
        for reply in replies {
            assert_eq!(reply.clone().into_owned(), reply);
        }
    }
}
