//! Values and databases: Redis without the wire.
