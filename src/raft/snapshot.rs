//! Snapshots of a group: built beside the running machine, kept as files, streamed to lagging replicas.
//!
//! The file's meta bytes are openraft's `SnapshotMeta` (postcard); its chunks belong to the machine.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;

use super::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOTS_KEPT};
use super::state_machine::{SnapshotProgress, StateMachine};
use super::type_config::{Snapshot, SnapshotMeta, TypeConfig};
use crate::ids::GroupId;
use crate::wal::snapshot_file::{self, SnapshotFile, SnapshotReader, SnapshotWriter};

/// A complete snapshot file.
#[derive(Clone, Debug)]
pub(super) struct SnapshotHandle {
    file: Arc<SnapshotFile>,
}

impl SnapshotHandle {
    pub(super) fn new(file: SnapshotFile) -> Self {
        Self { file: Arc::new(file) }
    }

    /// Opens the file and walks its verified chunks.
    pub(super) fn chunks(&self) -> io::Result<Chunks> {
        let reader = SnapshotReader::open(&self.file.path).map_err(io::Error::other)?;
        Ok(Chunks { reader, failed: false })
    }
}

/// The verified chunks of a snapshot file, in order.
pub(super) struct Chunks {
    reader: SnapshotReader,
    failed: bool,
}

impl Iterator for Chunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.reader.next_chunk().map_err(io::Error::other).transpose();
        self.failed = matches!(item, Some(Err(_)));
        item.map(|item| item.map(Bytes::from))
    }
}

/// Where one group's snapshots live.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    directory: PathBuf,
    group: GroupId,
    newest_bytes: Arc<AtomicU64>,
}

impl SnapshotStore {
    /// The snapshots of `group` in `directory`.
    pub fn new(directory: PathBuf, group: GroupId) -> Self {
        Self { directory, group, newest_bytes: Arc::default() }
    }

    /// Size of the newest snapshot in bytes; 0 before there is one.
    pub(super) fn newest_bytes(&self) -> u64 {
        self.newest_bytes.load(Ordering::Relaxed)
    }

    /// The newest complete snapshot.
    pub(super) fn latest(&self) -> io::Result<Option<Snapshot>> {
        let Some(file) =
            snapshot_file::latest(&self.directory, self.group).map_err(io::Error::other)?
        else {
            return Ok(None);
        };
        let reader = SnapshotReader::open(&file.path).map_err(io::Error::other)?;
        let meta = decode_meta(reader.meta())?;
        self.newest_bytes.store(file.bytes, Ordering::Relaxed);
        Ok(Some(Snapshot { meta, snapshot: SnapshotHandle::new(file) }))
    }

    /// A writer for a snapshot that covers `meta`.
    pub(super) fn create(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        SnapshotWriter::create(&self.directory, self.group, &encode_meta(meta)?)
            .map_err(io::Error::other)
    }

    /// Forgets all snapshots: the replica has ended.
    ///
    /// # Errors
    /// When a file cannot be deleted.
    pub fn forget_all(&self) -> io::Result<()> {
        snapshot_file::keep(&self.directory, self.group, 0).map_err(io::Error::other)
    }

    /// Forgets all but the newest snapshot. A file being read by a transfer stays readable until closed.
    pub(super) fn forget_older(&self) -> io::Result<()> {
        snapshot_file::keep(&self.directory, self.group, SNAPSHOTS_KEPT).map_err(io::Error::other)
    }
}

pub(super) fn encode_meta(meta: &SnapshotMeta) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(meta).map_err(io::Error::other)
}

pub(super) fn decode_meta(bytes: &[u8]) -> io::Result<SnapshotMeta> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes the state fixed at its creation to a file, a step at a time, while the machine keeps applying.
pub(super) struct SnapshotBuilder<S: StateMachine> {
    machine: Arc<S>,
    snapshots: SnapshotStore,
    meta: SnapshotMeta,
    finished: bool,
}

impl<S: StateMachine> SnapshotBuilder<S> {
    /// Fixes the machine's present state. Called between two entries, by openraft's worker.
    pub(super) fn begin(machine: Arc<S>, snapshots: SnapshotStore, meta: SnapshotMeta) -> Self {
        machine.begin_snapshot();
        Self { machine, snapshots, meta, finished: false }
    }
}

impl<S: StateMachine> Drop for SnapshotBuilder<S> {
    fn drop(&mut self) {
        if !self.finished {
            self.machine.abort_snapshot();
        }
    }
}

impl<S: StateMachine> RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder<S> {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut writer = self.snapshots.create(&self.meta)?;
        loop {
            let mut chunk = Vec::with_capacity(SNAPSHOT_CHUNK_BYTES);
            let progress = self.machine.snapshot_step(SNAPSHOT_CHUNK_BYTES, &mut chunk);
            // Disk writes leave this runtime, so commands go on between two steps.
            writer = tokio::task::spawn_blocking(move || {
                if !chunk.is_empty() {
                    writer.write_chunk(&chunk).map_err(io::Error::other)?;
                }
                Ok::<_, io::Error>(writer)
            })
            .await
            .map_err(io::Error::other)??;
            if progress == SnapshotProgress::Done {
                break;
            }
        }
        self.finished = true;
        let snapshots = self.snapshots.clone();
        let file = tokio::task::spawn_blocking(move || {
            let file = writer.finish().map_err(io::Error::other)?;
            snapshots.forget_older()?;
            snapshots.newest_bytes.store(file.bytes, Ordering::Relaxed);
            Ok::<_, io::Error>(file)
        })
        .await
        .map_err(io::Error::other)??;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: SnapshotHandle::new(file) })
    }
}
