#![doc = include_str!("../ARCHITECTURE.md")]

// Modules stand in floor order: a module imports only from the rooms that its row of the table above names.

pub mod ids;
pub mod slot;
pub mod stdx;

pub mod keyspace;
pub mod resp;
pub mod ring;
pub mod transport;
pub mod wal;

pub mod command;
pub mod raft;

pub mod meta;
pub mod shard;

pub mod router;

pub mod config;
pub mod node;

pub mod session;

pub mod server;
