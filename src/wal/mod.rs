//! The write-ahead log all groups of a node share, and small durable files. Knows bytes and positions only.
//!
//! A group is a number here and an entry is an index with bytes; what they mean is `raft`'s affair.
//!
//! **Invariants:** what was synced is read back or the log refuses to open; what was never synced may be
//! missing after a power cut, but only from the end. Votes are on the disk before they count. The log
//! never retries a failed write or sync: it fails, says why, and stays failed.
//!
//! The disk format is in `record.rs` (log) and `snapshot_file.rs` (snapshots).

pub mod limits;
pub mod snapshot_file;

mod caller;
mod cut;
mod data_dir;
mod descriptors;
mod error;
mod group;
mod haste;
mod log;
mod loss;
mod opening;
mod options;
mod privacy;
mod reader;
mod record;
mod recovery;
mod sealed_file;
mod segment;
mod shared;
mod starts;
mod syncer;
mod tail;
mod writer;

pub use caller::SyncOwed;
pub use cut::cut_to_last_sync;
pub use data_dir::{Claim, DataDir};
pub use error::WalError;
pub use group::GroupState;
pub use log::{Done, Record, Wal, WalStats};
pub use opening::BootId;
pub use options::{SyncPolicy, WalOptions};
pub use snapshot_file::{
    CompleteSnapshot, Covered, SnapshotDir, SnapshotFile, SnapshotReader, SnapshotWriter,
};
pub use syncer::{Next, Stepper, Woken};

#[cfg(test)]
mod tests;
