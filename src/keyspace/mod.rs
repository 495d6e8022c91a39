//! Values and databases: Redis without the wire.

pub mod codec;
