//! How a log is kept: what it is told when it is opened.

use crate::ids::{Incarnation, Session};

use super::opening::BootId;

/// When entries are forced to the disk: `appendfsync`. Votes always are, before they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// `always`: an append is done once it is on stable storage.
    Always,
    /// `everysec`: an append is done once the kernel has it; synced about once a second.
    EverySecond,
    /// `no`: an append is done once the kernel has it; synced with votes and when a segment is full.
    Never,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// When entries are forced to the disk.
    pub sync: SyncPolicy,
    /// Size of a segment file in bytes, at least
    /// [`SEGMENT_BYTES_MIN`](super::limits::SEGMENT_BYTES_MIN). One bigger record gets a bigger file.
    pub segment_bytes: u64,
    /// Write the position of every sync to the file `synced`, for tests that cut power
    /// (`wal-sync-mark`); see [`cut_to_last_sync`](super::cut_to_last_sync).
    pub sync_mark: bool,
    /// The data directory the log lies in: one of another directory is refused.
    pub incarnation: Incarnation,
    /// This start of the node.
    pub session: Session,
    /// A number nobody can guess, for a log that there is not yet. One in a data directory was made with it.
    pub nonce: u64,
    /// This start of the machine; `None` counts as another one than any before.
    pub boot_id: Option<BootId>,
    /// With [`SyncPolicy::Always`], who appends is asked to sync ([`SyncOwed`](super::SyncOwed)) where that is short and the
    /// disk is fast: it saves waking a thread and being woken by it. Not for threads that beat hearts, nor beside `sync_mark`.
    pub callers_sync: bool,
}

/// In tests alone: elsewhere nobody can forget the nonce.
#[cfg(test)]
impl Default for WalOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::EverySecond,
            segment_bytes: super::limits::SEGMENT_BYTES_DEFAULT,
            sync_mark: false,
            incarnation: Incarnation::NONE,
            session: Session::default(),
            nonce: 0,
            boot_id: None,
            callers_sync: false,
        }
    }
}
