//! Values and databases: Redis without the wire.
//!
//! A [`Keyspace`] is what one shard holds: sixteen databases of keys in the shard's slots. It returns Rust
//! values and [`WrongType`]; replies are made elsewhere.
//!
//! **Invariant:** nothing here reads a clock, an entropy source or the history of a hash table. What is
//! visible, picked, listed or written to a snapshot depends on the logical state and on the arguments
//! alone, so replicas agree byte for byte. (One exception: the order of [`Keyspace::due_keys`], which is
//! only ever a proposal.)

mod error;

mod parts;
mod words;

mod dense;
mod hash;
mod list;
mod packed;
mod ranked;
mod set;
mod stream;
mod string;
mod zset;

mod value;

mod entry;

mod key;

mod compact;
mod table;

mod at;
mod database;

#[expect(clippy::module_inception, reason = "the room is named after its main type")]
mod keyspace;

mod typed;

mod expire;
mod loader;
mod scan;
mod snapshot;

pub use at::At;
pub use database::Graveyard;
pub use entry::Entry;
pub use error::DecodeError;
pub use expire::DueKeys;
pub use hash::{Hash, HashIter};
pub use key::Key;
pub use keyspace::{KEYS_AHEAD_MAX, Keyspace};
pub use list::{End, List, ListRange};
pub use loader::Loader;
pub use scan::ScanCursor;
pub use set::{Set, SetIter};
pub use snapshot::{FORMAT, SnapshotProgress};
pub use stream::{AppendError, Keep, Stream, StreamEntry, StreamFields, StreamId, Trimming};
pub use string::Str;
pub use value::{Bin, VALUE_PARTS_SMALL_MAX, Value, WrongType};
pub use zset::{Extreme, Insertion, ZSet, ZSetRange};

#[cfg(test)]
mod large_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod testing;
