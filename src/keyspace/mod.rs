//! Values and databases: Redis without the wire.

pub mod codec;
mod digest;
mod hash;
mod list;
mod packed;
mod set;
mod stream;
mod zset;

pub use hash::Hash;
pub use list::{End, List, ListRange};
pub use set::Set;
pub use stream::Stream;
pub use zset::ZSet;
