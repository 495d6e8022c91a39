//! Values and databases: Redis without the wire.

pub mod codec;
mod dense;
mod digest;
mod hash;
mod list;
mod packed;
mod ranked;
mod set;
mod stream;
mod zset;

pub use hash::{Hash, HashIter};
pub use list::{End, List, ListRange};
pub use set::{Set, SetIter};
pub use stream::Stream;
pub use zset::{Insertion, ZSet, ZSetRange};

/// A key, a field, a member: short ones inline.
pub type Bin = smallvec::SmallVec<[u8; 16]>;
