//! What can go wrong between the log and the disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::{GroupId, Incarnation, RaftId};

/// Why the log, the data directory or a snapshot file refused.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system refused; after a failed write or sync the log stays failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were once safely on disk are not what was written: this copy must not be served.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage begins, in bytes from the start of the file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The file was written by another version of this program.
    #[error("{path} has format version {found}; this program reads version {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says it has.
        found: u32,
        /// The version this program knows.
        known: u32,
    },
    /// A segment file is gone, or a group's entries do not reach back to where it was purged.
    #[error("the log in {path} has a hole: {what}")]
    Hole {
        /// The log's directory.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// Another process (or another part of this one) has the directory open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory belongs to a node of another name.
    #[error("{path} belongs to node {found:?}, not to {expected:?}")]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The name written in it.
        found: String,
        /// The name of this node.
        expected: String,
    },
    /// A payload, marker, chunk or name is longer than its limit.
    #[error("{bytes} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An index that does not follow, or that cannot be truncated any more.
    #[error("{group}: index {index} does not fit, expected {expected}")]
    Misplaced {
        /// The group.
        group: GroupId,
        /// The index given.
        index: u64,
        /// The index that would have been right, or the lowest allowed.
        expected: u64,
    },
    /// The entry was purged or never written.
    #[error("{group}: index {index} is not in the log, which begins at {first}")]
    NotInLog {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
        /// The first index there is.
        first: u64,
    },
    /// No test run with `sync_mark` has left its mark in this directory.
    #[error("{path} has no record of its last sync")]
    NoSyncMark {
        /// The log's directory.
        path: PathBuf,
    },
    /// The group was never born here, or has ended.
    #[error("{group} does not live here")]
    Unborn {
        /// The group.
        group: GroupId,
    },
    /// The group lives here under another id.
    #[error("{group} lives here as {lives}, not as {meant}")]
    OtherReplica {
        /// The group.
        group: GroupId,
        /// The replica there is.
        lives: RaftId,
        /// The replica that was meant.
        meant: RaftId,
    },
    /// A replica that ended here cannot begin again: what it promised is forgotten.
    #[error("{group} lived here as {ended}, which has ended: {meant} cannot begin after it")]
    HasEnded {
        /// The group.
        group: GroupId,
        /// The last replica that ended.
        ended: RaftId,
        /// The replica that was to be born.
        meant: RaftId,
    },
    /// The log was written in another data directory.
    #[error("the log in {path} belongs to data directory {found}, not to {expected}")]
    OtherIncarnation {
        /// The log's directory.
        path: PathBuf,
        /// Whose it says it is.
        found: Incarnation,
        /// The directory it lies in.
        expected: Incarnation,
    },
    /// The data directory was written by the first, unfinished version of this program.
    #[error(
        "{path} was written by an earlier version (format {found}) whose data cannot be read any more: empty it to begin anew"
    )]
    Outdated {
        /// The directory.
        path: PathBuf,
        /// The version it says it has.
        found: u32,
    },
    /// The data directory moved to another place on disk while it was in use.
    #[error(
        "{path} is a copy of a data directory that was not stopped in order: the original goes on, empty the copy"
    )]
    Copied {
        /// The directory.
        path: PathBuf,
    },
    /// A part of the data directory is gone, and no other node has the data.
    #[error(
        "{path} has lost {what}, and no other node has its data: bring that back, or empty the directory to begin anew"
    )]
    LostDisk {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A cluster adopted this directory before, and another one wants to.
    #[error("{path} belongs to a cluster already")]
    AdoptedBefore {
        /// The directory.
        path: PathBuf,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    /// For `map_err`: the error of doing `action` to `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether bytes that were written before may be gone with it: the kernel drops what it cannot write, and says so to
    /// whoever syncs next. A disk without room refuses what is new.
    pub(super) fn may_drop_what_was_written(&self) -> bool {
        const EIO: i32 = 5;
        let Self::Io { action, source, .. } = self else { return false };
        *action == "sync" || source.raw_os_error() == Some(EIO)
    }

    /// Damage in `path` at `offset`.
    pub(super) fn corrupt(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what }
    }
}
