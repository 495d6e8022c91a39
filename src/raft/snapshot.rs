//! Snapshots of a group: built beside the running machine, kept as files, streamed to lagging replicas.
//!
//! The file's meta bytes are openraft's `SnapshotMeta` (postcard); its chunks are one stream of the machine's bytes,
//! cut anywhere.
//!
//! **Invariants:** the best snapshot that was accepted is on the disk under its name until a better one is. A file of a
//! lesser position is never published. Nothing here ends a group: openraft takes an error of a build, or of reading
//! the current snapshot, as the end of the replica, so it gets none. A build that fails tells it of no snapshot and is
//! tried again; what is installed was read, checked and loaded beforehand.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::inbound_snapshots::SnapshotDesk;
use super::limits::SNAPSHOT_LONG_STEP_CHUNKS;
use super::state_machine::{AppliedTerm, Restored, SnapshotProgress, SnapshotTicket, StateMachine};
use super::type_config::{LogId, Snapshot, SnapshotMeta, TypeConfig};
use super::workers::{aside, blocking};
use crate::ids::GroupId;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::{Work, Workers};
use crate::wal::Wal;
use crate::wal::snapshot_file::{
    CompleteSnapshot, Covered, SnapshotDir, SnapshotFile, SnapshotReader, SnapshotWriter,
};

/// What openraft hands around as a snapshot.
#[derive(Clone, Debug)]
pub(super) enum SnapshotHandle {
    /// A file that counts.
    Published(Arc<SnapshotFile>),
    /// One that a leader sent: whole, but it counts only once openraft takes it.
    Received(Arc<Mutex<Option<Received>>>),
    /// A build that failed or was overtaken.
    Nothing,
}

/// A received snapshot that was checked and loaded, beside the state there is.
pub(super) struct Received {
    pub(super) file: CompleteSnapshot,
    pub(super) restored: Restored,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("file", &self.file).finish_non_exhaustive()
    }
}

impl SnapshotHandle {
    pub(super) fn received(received: Received) -> Self {
        Self::Received(Arc::new(Mutex::new(Some(received))))
    }
}

/// The verified chunks of a snapshot file, in order.
pub(super) struct Chunks {
    reader: SnapshotReader,
    failed: bool,
}

impl Chunks {
    pub(super) fn of(reader: SnapshotReader) -> Self {
        Self { reader, failed: false }
    }
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
    directory: SnapshotDir,
    group: GroupId,
    shared: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Held while a file gets its name and older ones go; by threads that may wait for the disk.
    publishing: Mutex<()>,
    /// The best snapshot: in memory, because it is asked for where nobody may wait for a disk.
    best: Mutex<Option<Best>>,
}

#[derive(Clone, Debug)]
struct Best {
    meta: SnapshotMeta,
    file: Arc<SnapshotFile>,
    /// Reading it failed: another of the same position may take its place.
    is_damaged: bool,
}

impl SnapshotStore {
    /// The snapshots of `group` in `directory`.
    pub fn new(directory: SnapshotDir, group: GroupId) -> Self {
        Self { directory, group, shared: Arc::default() }
    }

    /// Whose snapshots these are.
    pub(super) const fn group(&self) -> GroupId {
        self.group
    }

    /// Size of the best snapshot in bytes; 0 before there is one.
    pub(super) fn best_bytes(&self) -> u64 {
        self.shared.best.lock().as_ref().map_or(0, |best| best.file.bytes)
    }

    /// Index of the last entry that the best snapshot covers; 0 before there is one.
    pub(super) fn covered_index(&self) -> u64 {
        self.shared.best.lock().as_ref().map_or(0, |best| best.file.covered.index)
    }

    /// The best snapshot.
    pub(super) fn best(&self) -> Option<Snapshot> {
        let best = self.shared.best.lock().clone()?;
        Some(Snapshot { meta: best.meta, snapshot: SnapshotHandle::Published(best.file) })
    }

    /// Whether a snapshot that covers `meta` would be better than the best.
    pub(super) fn wants(&self, meta: &SnapshotMeta) -> bool {
        let Some(covered) = covered(meta) else { return false };
        self.wants_covered(covered)
    }

    fn wants_covered(&self, covered: Covered) -> bool {
        let is_any_better = is_planted(Bug::LesserSnapshot);
        is_any_better
            || self.shared.best.lock().as_ref().is_none_or(|best| {
                covered > best.file.covered || (best.is_damaged && covered == best.file.covered)
            })
    }

    /// Reading `file` failed: when it is the best still, it is to be written anew.
    pub(super) fn note_damage(&self, handle: &SnapshotHandle) {
        let SnapshotHandle::Published(file) = handle else { return };
        if let Some(best) = &mut *self.shared.best.lock()
            && Arc::ptr_eq(&best.file, file)
        {
            best.is_damaged = true;
        }
    }

    /// Whether the best snapshot cannot be read.
    pub(super) fn is_damaged(&self) -> bool {
        self.shared.best.lock().as_ref().is_some_and(|best| best.is_damaged)
    }

    /// Opens the published file of `handle` and walks its verified chunks.
    pub(super) fn chunks(&self, handle: &SnapshotHandle) -> io::Result<Chunks> {
        match handle {
            SnapshotHandle::Published(file) => {
                Ok(Chunks::of(self.directory.open(&file.path).map_err(io::Error::other)?))
            }
            SnapshotHandle::Received(_) | SnapshotHandle::Nothing => {
                Err(io::Error::other("not a published snapshot"))
            }
        }
    }

    /// Restores from the best file that can be read, by `load`; what it covers. Damaged ones stay where they are, until
    /// a better one is published.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(super) fn recover(
        &self,
        mut load: impl FnMut(&mut Chunks) -> io::Result<()>,
    ) -> io::Result<Option<SnapshotMeta>> {
        let files = self.directory.published(self.group);
        for file in files.map_err(io::Error::other)? {
            let read = self.read_meta(&file).and_then(|(meta, mut chunks)| {
                load(&mut chunks)?;
                Ok(meta)
            });
            match read {
                Ok(meta) => {
                    let best = Best { meta: meta.clone(), file: Arc::new(file), is_damaged: false };
                    *self.shared.best.lock() = Some(best);
                    return Ok(Some(meta));
                }
                Err(error) => {
                    tracing::error!(group = %self.group, path = %file.path.display(), %error,
                        "a snapshot cannot be used");
                }
            }
        }
        Ok(None)
    }

    fn read_meta(&self, file: &SnapshotFile) -> io::Result<(SnapshotMeta, Chunks)> {
        let reader = self.directory.open(&file.path).map_err(io::Error::other)?;
        let meta = decode_meta(reader.meta())?;
        let agrees = reader.group() == self.group
            && reader.covered() == file.covered
            && covered(&meta) == Some(file.covered);
        if !agrees {
            return Err(invalid("its name is that of another snapshot"));
        }
        Ok((meta, Chunks::of(reader)))
    }

    /// A writer for a snapshot that covers `meta`.
    pub(super) fn create(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        let covered = covered(meta).ok_or_else(|| invalid("a snapshot that covers nothing"))?;
        self.directory.create(self.group, covered, &encode_meta(meta)?).map_err(io::Error::other)
    }

    /// Makes `file` the best snapshot, unless there is a better one by now; then it is left to be dropped. Older ones
    /// are deleted behind it; a file being read by a transfer stays readable until closed.
    ///
    /// # Errors
    /// When the disk refuses; it may be tried again.
    pub(super) fn publish(
        &self,
        file: &mut CompleteSnapshot,
        meta: &SnapshotMeta,
    ) -> io::Result<Option<Arc<SnapshotFile>>> {
        let publishing = self.shared.publishing.lock();
        if !self.wants_covered(file.covered()) {
            return Ok(None);
        }
        let published = Arc::new(file.publish().map_err(io::Error::other)?);
        let (meta, file) = (meta.clone(), Arc::clone(&published));
        *self.shared.best.lock() = Some(Best { meta, file, is_damaged: false });
        let removed = self.directory.remove_older(self.group, published.covered);
        drop(publishing);
        if let Err(error) = removed {
            // They cost room, nothing else; the next one tries again.
            tracing::warn!(group = %self.group, %error, "an old snapshot stays behind");
        }
        Ok(Some(published))
    }

    /// Forgets all snapshots: the replica has ended.
    ///
    /// # Errors
    /// When the directory cannot be listed, or a file not deleted.
    pub fn forget_all(&self) -> io::Result<()> {
        let _publishing = self.shared.publishing.lock();
        *self.shared.best.lock() = None;
        self.directory.remove_all(self.group).map_err(io::Error::other)
    }
}

/// What `meta` covers; `None`: nothing.
pub(super) fn covered(meta: &SnapshotMeta) -> Option<Covered> {
    let LogId { leader_id, index } = meta.last_log_id?;
    Some(Covered { term: leader_id.term, index })
}

pub(super) fn encode_meta(meta: &SnapshotMeta) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(meta).map_err(io::Error::other)
}

pub(super) fn decode_meta(bytes: &[u8]) -> io::Result<SnapshotMeta> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes the state fixed at its creation to a file, a step at a time, while the machine keeps applying.
pub(super) struct SnapshotBuilder<S: StateMachine> {
    machine: Arc<S>,
    snapshots: SnapshotStore,
    wal: Wal,
    workers: Arc<dyn Workers>,
    applied: Arc<AppliedTerm>,
    desk: SnapshotDesk,
    meta: SnapshotMeta,
    ticket: SnapshotTicket,
    chunk_bytes: usize,
    has_ended: bool,
    /// All of the state is out: the machine has forgotten the ticket.
    is_out: bool,
}

impl<S: StateMachine> SnapshotBuilder<S> {
    /// Writes out what `machine` has fixed as the ticket, the state at `meta`, in chunks of `chunk_bytes`.
    pub(super) fn new(
        machine: Arc<S>,
        snapshots: SnapshotStore,
        (wal, workers): (Wal, Arc<dyn Workers>),
        applied: Arc<AppliedTerm>,
        desk: SnapshotDesk,
        (meta, ticket): (SnapshotMeta, SnapshotTicket),
        chunk_bytes: usize,
    ) -> Self {
        Self {
            machine,
            snapshots,
            wal,
            workers,
            applied,
            desk,
            meta,
            ticket,
            chunk_bytes,
            has_ended: false,
            is_out: false,
        }
    }

    /// A step that waits for whoever has the state: were each only to look whether it is free, reads that overlap would
    /// let none through. A long one, since there is a wait before each.
    async fn step_long(&self, mut bytes: Vec<u8>) -> io::Result<(SnapshotProgress, Vec<u8>)> {
        let (machine, ticket) = (Arc::clone(&self.machine), self.ticket);
        let budget = SNAPSHOT_LONG_STEP_CHUNKS * self.chunk_bytes;
        blocking(&*self.workers, Work::State, move || {
            let progress = machine.snapshot_step_long(ticket, budget, &mut bytes);
            Ok((progress, bytes))
        })
        .await
    }

    /// Writes and publishes; `None` when a better snapshot was published meanwhile.
    async fn build(&mut self) -> io::Result<Option<Snapshot>> {
        let (snapshots, meta, chunk_bytes) =
            (self.snapshots.clone(), self.meta.clone(), self.chunk_bytes);
        let workers = Arc::clone(&self.workers);
        let mut writer = blocking(&*workers, Work::Disk, move || snapshots.create(&meta)).await?;
        let mut bytes = Vec::with_capacity(2 * chunk_bytes);
        loop {
            if self.desk.lock().is_stopped() {
                return Err(io::Error::other("the replica stops"));
            }
            let budget = chunk_bytes.saturating_sub(bytes.len());
            let mut progress = self.machine.snapshot_step(self.ticket, budget, &mut bytes);
            if progress == SnapshotProgress::Busy {
                (progress, bytes) = self.step_long(bytes).await?;
            }
            let is_last = match progress {
                SnapshotProgress::More => false,
                SnapshotProgress::Done => true,
                SnapshotProgress::Busy | SnapshotProgress::Lost => {
                    return Err(io::Error::other("the state was replaced meanwhile"));
                }
            };
            let rest = if is_last { 0 } else { bytes.len() % chunk_bytes };
            let whole = bytes.len() - rest;
            // Disk writes leave this runtime, so commands go on between two steps.
            (writer, bytes) = blocking(&*workers, Work::Disk, move || {
                for chunk in bytes[..whole].chunks(chunk_bytes) {
                    writer.write_chunk(chunk).map_err(io::Error::other)?;
                }
                bytes.drain(..whole);
                bytes.shrink_to(2 * chunk_bytes);
                Ok((writer, bytes))
            })
            .await?;
            if is_last {
                self.is_out = true;
                break;
            }
        }
        let complete = move || writer.complete().map_err(io::Error::other);
        let mut complete = blocking(&*workers, Work::Disk, complete).await?;
        // The log it covers may have replaced another end of it, which was synced. Were the snapshot to survive a power
        // cut and the truncation not, the next start would find both.
        if !is_planted(Bug::SnapshotUnsynced) {
            self.wal.synced().await.map_err(io::Error::other)?;
        }
        let (snapshots, meta) = (self.snapshots.clone(), self.meta.clone());
        let applied = Arc::clone(&self.applied);
        let published = blocking(&*workers, Work::Disk, move || {
            applied.publish_unless_ended(|| snapshots.publish(&mut complete, &meta))
        })
        .await?;
        Ok(published.map(|file| Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotHandle::Published(file),
        }))
    }
}

impl<S: StateMachine> Drop for SnapshotBuilder<S> {
    fn drop(&mut self) {
        if !self.is_out {
            let (machine, ticket) = (Arc::clone(&self.machine), self.ticket);
            // It may have to wait for whoever has the state.
            aside(&*self.workers, Work::State, move || machine.abort_snapshot(ticket));
        }
        if !self.has_ended {
            self.desk.lock().drop_build();
        }
    }
}

impl<S: StateMachine> RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder<S> {
    type SnapshotData = SnapshotHandle;

    /// Never an error: openraft would end the replica. One that covers nothing changes nothing there, and the shard
    /// asks again.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let built = self.build().await;
        self.has_ended = true;
        let mut desk = self.desk.lock();
        match built {
            Ok(snapshot) => {
                desk.finish_build();
                if let Some(snapshot) = snapshot {
                    return Ok(snapshot);
                }
            }
            Err(error) => {
                desk.fail_build(Instant::now());
                tracing::warn!(group = %self.snapshots.group, %error, "a snapshot was not built");
            }
        }
        Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotHandle::Nothing })
    }
}
