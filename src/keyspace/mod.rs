//! Values and databases: Redis without the wire.

pub mod codec;
mod hash;
mod list;
mod set;
mod stream;
mod zset;

pub use hash::Hash;
pub use list::List;
pub use set::Set;
pub use stream::Stream;
pub use zset::ZSet;
