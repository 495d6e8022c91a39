//! What a key can hold.

use smallvec::SmallVec;
use thiserror::Error;

use crate::stdx::codec::Sink;

use super::dense::MemberKey;
use super::parts::{Cursor, Elements, Spelling};
use super::string::StrForm;
use super::{Hash, List, Set, Str, Stream, ZSet};

/// A key, a field or a member: bytes, kept inline up to 16 of them.
pub type Bin = SmallVec<[u8; 16]>;

/// The most parts of a value that is freed where it goes: a larger one is kept for others to free.
pub const VALUE_PARTS_SMALL_MAX: usize = 4096;

/// The codes by which snapshots tell types apart. None is ever given a second meaning.
pub(super) mod type_code {
    pub(crate) const TEXT: u8 = 0;
    pub(crate) const INTEGER: u8 = 1;
    pub(crate) const EDITED: u8 = 2;
    pub(crate) const LIST: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    pub(crate) const SET: u8 = 5;
    pub(crate) const ZSET: u8 = 6;
    pub(crate) const STREAM: u8 = 7;
}

/// The key holds a value of another type than the command works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the key holds a value of another type")]
pub struct WrongType;

/// A value of any type. The big ones are boxed, so that an entry stays one cache line.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the variants are Redis' types and say so")]
pub enum Value {
    Str(Str),
    List(Box<List>),
    Hash(Box<Hash>),
    Set(Box<Set>),
    ZSet(Box<ZSet>),
    Stream(Box<Stream>),
}

impl Value {
    /// The type as the TYPE command names it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Str(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::ZSet(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    /// Whether this is a collection that Redis deletes when it is empty, and is empty.
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Self::Str(_) | Self::Stream(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::ZSet(zset) => zset.is_empty(),
        }
    }

    /// Whether freeing it takes long: it has many parts. (One piece of memory goes at once, however long it is.)
    pub(super) fn is_large(&self) -> bool {
        self.parts() > VALUE_PARTS_SMALL_MAX
    }

    /// How many elements it has; 1 for a string.
    pub fn parts(&self) -> usize {
        match self {
            Self::Str(_) => 1,
            Self::List(list) => list.len(),
            Self::Hash(hash) => hash.len(),
            Self::Set(set) => set.len(),
            Self::ZSet(zset) => zset.len(),
            Self::Stream(stream) => stream.len(),
        }
    }

    /// The code of the type.
    pub(super) fn type_code(&self, spelling: Spelling) -> u8 {
        match self {
            Self::Str(string) => match string.form_in(spelling) {
                StrForm::Text => type_code::TEXT,
                StrForm::Integer => type_code::INTEGER,
                StrForm::Edited => type_code::EDITED,
            },
            Self::List(_) => type_code::LIST,
            Self::Hash(_) => type_code::HASH,
            Self::Set(_) => type_code::SET,
            Self::ZSet(_) => type_code::ZSET,
            Self::Stream(_) => type_code::STREAM,
        }
    }

    /// Writes what comes before the elements.
    pub(super) fn put_head<S: Sink>(&self, spelling: Spelling, sink: &mut S) {
        match self {
            Self::Str(string) => string.put(spelling, sink),
            Self::List(list) => list.put_head(sink),
            Self::Hash(hash) => hash.put_head(sink),
            Self::Set(set) => set.put_head(sink),
            Self::ZSet(zset) => zset.put_head(sink),
            Self::Stream(stream) => stream.put_head(sink),
        }
    }

    /// Writes elements, those from `cursor` on, as far as there is room; whether those were all.
    pub(super) fn put_elements<S: Elements>(&self, cursor: &mut Cursor, sink: &mut S) -> bool {
        match self {
            Self::Str(_) => true,
            Self::List(list) => list.put_elements(cursor, sink),
            Self::Hash(hash) => hash.put_elements(cursor, sink),
            Self::Set(set) => set.put_elements(cursor, sink),
            Self::ZSet(zset) => zset.put_elements(cursor, sink),
            Self::Stream(stream) => stream.put_elements(cursor, sink),
        }
    }
}

/// A type that a key can hold: how to find it in a [`Value`] and how to become one.
pub(super) trait Stored: Sized {
    /// A value as a command creates it for a missing key.
    fn empty(member_key: MemberKey) -> Value;
    fn of(value: &Value) -> Result<&Self, WrongType>;
    fn of_mut(value: &mut Value) -> Result<&mut Self, WrongType>;
}

/// One row per type; each is the same four lines, which the compiler checks better than a reader.
macro_rules! stored {
    ($($type:ident => $empty:expr;)*) => {$(
        impl Stored for $type {
            fn empty(member_key: MemberKey) -> Value {
                $empty(member_key).into()
            }

            fn of(value: &Value) -> Result<&Self, WrongType> {
                if let Value::$type(inner) = value { Ok(inner) } else { Err(WrongType) }
            }

            fn of_mut(value: &mut Value) -> Result<&mut Self, WrongType> {
                if let Value::$type(inner) = value { Ok(inner) } else { Err(WrongType) }
            }
        }

        impl From<$type> for Value {
            fn from(inner: $type) -> Self {
                Self::$type(inner.into())
            }
        }
    )*};
}

stored! {
    Str => |_| Str::new();
    List => |_| List::new();
    Hash => Hash::new;
    Set => Set::new;
    ZSet => ZSet::new;
    Stream => |_| Stream::new();
}
