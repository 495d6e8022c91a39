//! What a key can hold.

use smallvec::SmallVec;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use super::dense::MemberKey;
use super::digest::feed_bytes;
use super::{Hash, List, Set, Str, Stream, ZSet};

/// A key, a field or a member: bytes, kept inline up to 16 of them.
pub type Bin = SmallVec<[u8; 16]>;

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
        const PARTS_SMALL_MAX: usize = 4096;
        let parts = match self {
            Self::Str(_) => 1,
            Self::List(list) => list.len(),
            Self::Hash(hash) => hash.len(),
            Self::Set(set) => set.len(),
            Self::ZSet(zset) => zset.len(),
            Self::Stream(stream) => stream.len(),
        };
        parts > PARTS_SMALL_MAX
    }

    /// Feeds the type and the value: the same bytes for equal values whatever their history.
    pub fn digest(&self, hasher: &mut Xxh3) {
        feed_bytes(hasher, self.type_name().as_bytes());
        match self {
            Self::Str(string) => string.digest(hasher),
            Self::List(list) => list.digest(hasher),
            Self::Hash(hash) => hash.digest(hasher),
            Self::Set(set) => set.digest(hasher),
            Self::ZSet(zset) => zset.digest(hasher),
            Self::Stream(stream) => stream.digest(hasher),
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
