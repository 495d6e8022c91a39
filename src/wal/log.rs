//! The log's face: appending, saving votes, reading, closing.
//!
//! One lock guards the tail (`shared.rs`). With `appendfsync always` an append only encodes its records under it;
//! the log's thread takes what has gathered, writes it at once, syncs once and completes everyone who
//! waited: **group commit**. On a node alone a caller does all that, where it is short (`caller.rs`).
//! With the other policies the caller writes to the page cache itself, which costs less than waking a
//! thread, and is done; but not while a sync is under way, nor where a segment has to be made or the disk
//! is crowded (`haste.rs`): then it might wait for the disk, with everyone behind it who wants the lock,
//! and the writer does it (`writer.rs`), beside the sync.
//!
//! What waits in memory to be written is bounded by the callers, under every policy: a shard has at most
//! `ENTRIES_IN_FLIGHT_MAX` entries of its own in flight, a leader at most `APPEND_PIPELINE_MAX` messages to a follower
//! that are not answered, of `APPEND_ENTRIES_BYTES_MAX` or one larger entry each, and an entry is answered for only once
//! it is written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::ids::{GroupId, RaftId, Session};
use crate::stdx::disk::Disk;
use crate::stdx::fs::SystemDisk;

use super::caller::SyncOwed;
use super::data_dir::lock_dir;
use super::error::WalError;
use super::group::GroupState;
use super::limits::SEGMENT_BYTES_MIN;
use super::options::{SyncPolicy, WalOptions};
use super::reader;
use super::recovery::{Recovered, note_failed_opening, recover};
use super::shared::{Landing, Shared, Stop, Worker};
use super::syncer::{self, Stepper, SyncMarkFile, Syncer};
use super::tail::Tail;
use super::writer::{self, Writer};

/// An entry to append. Its payload is `head` and `body` joined, at most
/// [`RECORD_BYTES_MAX`](super::limits::RECORD_BYTES_MAX) together.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its place in the group's log.
    pub index: u64,
    /// First part of the payload.
    pub head: &'a [u8],
    /// The rest of it. Where it is long it is not copied, but kept until it is written.
    pub body: &'a Bytes,
}

/// Called once with the outcome of an append, on the caller's thread or on one of the log's. Must be short
/// and must not panic: on a thread of the log that ends it.
pub type Done = Box<dyn FnOnce(Result<(), Arc<WalError>>) + Send>;

/// What the log did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Times fdatasync was called on a segment.
    pub syncs: u64,
    /// Writes to segments.
    pub writes: u64,
    /// Segment files newly created.
    pub segments_created: u64,
    /// Segment files used again.
    pub segments_recycled: u64,
}

/// The write-ahead log of a node, shared by all its groups. A clone is another handle of the same log.
///
/// Dropping the last handle writes and syncs what is pending but leaves no clean-stop mark: for that,
/// [`close`](Self::close) it.
#[derive(Clone, Debug)]
pub struct Wal {
    pub(super) handle: Arc<Handle>,
}

/// What a change lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frees {
    Nothing,
    /// Some segments may hold nothing else any more.
    Segments,
}

/// A log that was opened and has nobody yet who works for it.
struct Opened {
    wal: Wal,
    groups: BTreeMap<GroupId, GroupState>,
    syncer: Syncer,
}

impl Opened {
    fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: WalOptions,
        worker: Worker,
    ) -> Result<Self, WalError> {
        disk.make_dir(dir).map_err(WalError::io("create", dir))?;
        let lock = lock_dir(disk.as_ref(), dir)?;
        let segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        let options = WalOptions { segment_bytes, ..options };
        let Recovered { tail, is_clean, opened_before } = recover(disk.as_ref(), dir, &options)
            .inspect_err(|error| note_failed_opening(disk.as_ref(), dir, error))?;
        let mut sync_mark =
            options.sync_mark.then(|| SyncMarkFile::create(disk.as_ref(), dir)).transpose()?;
        if let Some(file) = &mut sync_mark {
            file.note(tail.synced)?;
        }
        let groups: BTreeMap<_, _> =
            tail.groups.iter().map(|(id, group)| (*id, group.state())).collect();
        // Each sync is to be marked.
        let callers_sync = options.callers_sync && !options.sync_mark;
        let how = (options.sync, callers_sync, worker);
        let shared = Arc::new(Shared::new(Arc::clone(disk), how, tail, lock));
        let (working, is_working) = watch::channel(());
        let handle = Handle {
            shared: Arc::clone(&shared),
            working: is_working,
            threads: Mutex::default(),
            was_closed_cleanly: is_clean,
            opened_before,
        };
        let wal = Wal { handle: Arc::new(handle) };
        Ok(Self { wal, groups, syncer: Syncer::new(shared, sync_mark, working) })
    }
}

/// Owns the threads: when the last handle goes, they are stopped and joined.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    /// Closed when the one who syncs is gone.
    working: watch::Receiver<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    was_closed_cleanly: bool,
    opened_before: Option<Session>,
}

impl Wal {
    /// Opens the log in `dir` on the machine's disk, creating it when there is none, and says what it holds of each group.
    ///
    /// A directory made here has its name on the disk only once the caller syncs the one above; a [`DataDir`](super::DataDir) has.
    ///
    /// A torn tail (bytes that were never synced) is cut; everything that remains is synced. Where the machine was
    /// started anew since the log was opened last, which was neither closed in order nor kept with
    /// [`SyncPolicy::Always`], every group becomes [short](GroupState::is_short) until [`whole`](Self::whole).
    ///
    /// # Errors
    /// [`WalError::Corrupt`] and [`WalError::Hole`] when bytes that were once synced are not what was
    /// written; [`WalError::OtherIncarnation`], [`WalError::Version`], [`WalError::InUse`], and [`WalError::Io`].
    pub fn open(
        dir: &Path,
        options: WalOptions,
    ) -> Result<(Self, BTreeMap<GroupId, GroupState>), WalError> {
        Self::open_on(&SystemDisk::shared(), dir, options)
    }

    /// [`open`](Self::open) on a disk of the caller's choice.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: WalOptions,
    ) -> Result<(Self, BTreeMap<GroupId, GroupState>), WalError> {
        let opened = Opened::open(disk, dir, options, Worker::Threads)?;
        let handle = &opened.wal.handle;
        let writer = (options.sync != SyncPolicy::Always)
            .then(|| writer::spawn(Writer::new(Arc::clone(&handle.shared))));
        let threads = [Some(syncer::spawn(opened.syncer)), writer].into_iter().flatten();
        let threads: Result<Vec<_>, _> = threads.collect();
        *handle.threads.lock() = threads.map_err(WalError::io("start the threads of", dir))?;
        Ok((opened.wal, opened.groups))
    }

    /// [`open_on`](Self::open_on), without threads: nothing is written or synced beside the callers but by the
    /// [`Stepper`]. [`close`](Self::close) only says that the log ends, and the steps after it do it; who drops the stepper
    /// then lets [`closed`](Self::closed) know.
    ///
    /// # Errors
    /// As there.
    pub fn open_stepped(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: WalOptions,
    ) -> Result<(Self, BTreeMap<GroupId, GroupState>, Stepper), WalError> {
        let opened = Opened::open(disk, dir, options, Worker::Steps)?;
        let writer = Writer::new(Arc::clone(&opened.wal.handle.shared));
        Ok((opened.wal, opened.groups, Stepper::new(opened.syncer, writer)))
    }

    /// The last replica of `group` that ended here: none up to it may begin.
    pub fn last_ended(&self, group: GroupId) -> Option<RaftId> {
        self.handle.shared.state.lock().tail.ended.get(&group).copied()
    }

    /// The start that opened the log before this one; `None` for a new log.
    pub fn opened_before(&self) -> Option<Session> {
        self.handle.opened_before
    }

    /// Whether the log ended with a clean-stop mark when it was opened: then nothing that was
    /// appended is missing, whatever the sync policy and whatever became of the machine.
    pub fn was_closed_cleanly(&self) -> bool {
        self.handle.was_closed_cleanly
    }

    /// Appends `records`, whose indexes follow each other and the last one of the group without a gap
    /// (a group that never had an entry or a purge begins at 0 or 1), and calls `done` once they are
    /// where the sync policy wants them: with `Always` later and on the log's thread or that of another caller; else
    /// before this returns, or, where the disk may be busy, later and on another thread. Of one group in the order of
    /// the calls. They can be read as soon as this returns. All of them are appended, or none. Those of the meta group are
    /// always synced first: what it decides, as the ids it gives out, is never to be decided otherwise.
    ///
    /// Errors reach `done`: [`WalError::Misplaced`] and [`WalError::TooLarge`] leave the log as it was,
    /// [`WalError::Unborn`] and [`WalError::Closed`] too; any other is final, see [`failure`](Self::failure).
    ///
    /// What is returned is for the caller to sync, soon, once it has appended what else there is: there is some with
    /// [`WalOptions::callers_sync`], when its thread owes none yet. Dropped, it is left to the log's thread.
    pub fn append(&self, group: GroupId, records: &[Record<'_>], done: Done) -> Option<SyncOwed> {
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        let put = shared.change(&mut state, |tail| tail.append(group, records));
        match put {
            Ok(((), _)) if shared.callers_sync => {
                state.waiting.push(done);
                return SyncOwed::new(self, &mut state);
            }
            Ok(((), _)) if shared.policy == SyncPolicy::Always || group == GroupId::META => {
                shared.enqueue(state, done);
            }
            Ok(((), Landing::Gathered)) => state.unwritten.push(done),
            Ok(((), Landing::Written)) => {
                drop(state);
                done(Ok(()));
            }
            Err(error) => {
                drop(state);
                done(Err(error));
            }
        }
        None
    }

    /// Drops every entry of `group` behind `last_kept`; all of them for `None`. Ordered with appends.
    ///
    /// # Errors
    /// [`WalError::Misplaced`] when purged entries would have to go; else as
    /// [`append`](Self::append).
    pub fn truncate_after(
        &self,
        group: GroupId,
        last_kept: Option<u64>,
    ) -> Result<(), Arc<WalError>> {
        let from = last_kept.map_or(0, |last| last.saturating_add(1));
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        shared.change(&mut state, |tail| tail.truncate(group, from))?;
        drop(state);
        if shared.policy == SyncPolicy::Always {
            shared.work.notify_one();
        }
        Ok(())
    }

    /// Drops every entry of `group` up to and including `upto`, which may lie behind the last one: the
    /// next then follows `upto`. What they stood for must be durable elsewhere. `marker` (at most
    /// [`MARKER_BYTES_MAX`](super::limits::MARKER_BYTES_MAX)) comes back at recovery. Going back is no error and does nothing.
    ///
    /// Segments that held nothing else are given free once this record is synced.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    #[expect(clippy::needless_pass_by_value, reason = "it is kept, only by a clone")]
    pub fn purge(&self, group: GroupId, upto: u64, marker: Bytes) -> Result<(), Arc<WalError>> {
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        let (is_new, _) = shared.change(&mut state, |tail| tail.purge(group, upto, &marker))?;
        state.is_purged |= is_new;
        drop(state);
        shared.work.notify_one();
        Ok(())
    }

    /// Saves the vote of `group` (at most [`MARKER_BYTES_MAX`](super::limits::MARKER_BYTES_MAX)). It takes its place in the
    /// log when this is called; the future resolves once it is on stable storage, whatever the sync policy.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn save_vote(
        &self,
        group: GroupId,
        vote: Bytes,
    ) -> impl Future<Output = Result<(), Arc<WalError>>> + Send + use<> {
        durable(self.put(|tail| tail.vote(group, vote).map(|()| Frees::Nothing)))
    }

    /// Says that `group` lives here from now on as the replica `id`, with an empty log; nothing else can be written for it
    /// before. It takes its place in the log when this is called; the future resolves once it is on stable storage. Saying
    /// it again for the same id does no harm.
    ///
    /// # Errors
    /// [`WalError::OtherReplica`] while it lives here under another id, [`WalError::HasEnded`] when that replica or a later one
    /// has ended here; else as [`append`](Self::append).
    pub fn born(
        &self,
        group: GroupId,
        id: RaftId,
    ) -> impl Future<Output = Result<(), Arc<WalError>>> + Send + use<> {
        durable(self.put(|tail| tail.born(group, id).map(|()| Frees::Nothing)))
    }

    /// Ends the replica `id` of `group`: its entries, vote and markers are gone at once, for good when the future
    /// resolves, and their segments are given free. For a group that does not live here it changes nothing, and still
    /// waits until what was changed before is on stable storage.
    ///
    /// # Errors
    /// [`WalError::OtherReplica`] when it lives here under another id; else as [`append`](Self::append).
    pub fn ended(
        &self,
        group: GroupId,
        id: RaftId,
    ) -> impl Future<Output = Result<(), Arc<WalError>>> + Send + use<> {
        durable(self.put(|tail| {
            let was_there = tail.ended(group, id)?;
            Ok(if was_there { Frees::Segments } else { Frees::Nothing })
        }))
    }

    /// Notes that nothing is missing of `group` any more: it is no longer short.
    ///
    /// This waits for no sync. Should a power cut take it away, the group is short at the next start, and is mended once
    /// more; and whatever it does as a whole replica, as giving a vote, is synced behind this record.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn whole(&self, group: GroupId) -> Result<(), Arc<WalError>> {
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        shared.change(&mut state, |tail| tail.whole(group))?;
        drop(state);
        if shared.policy == SyncPolicy::Always {
            shared.work.notify_one();
        }
        Ok(())
    }

    /// Makes a change that takes its place in the log now; what is returned hears when it is on stable storage.
    fn put(
        &self,
        change: impl FnOnce(&mut Tail) -> Result<Frees, WalError>,
    ) -> Result<oneshot::Receiver<Result<(), Arc<WalError>>>, Arc<WalError>> {
        let (sender, receiver) = oneshot::channel();
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        let (frees, _) = shared.change(&mut state, change)?;
        state.is_purged |= frees == Frees::Segments;
        // A receiver that is gone does not want to know.
        shared.enqueue(state, Box::new(move |outcome| drop(sender.send(outcome))));
        Ok(receiver)
    }

    /// Reads the entries of `group` in `range`, as far as there are any and they stay within
    /// `bytes_max` together, but at least one if it exists. Blocks on the disk, and on entries
    /// still on their way to the file.
    ///
    /// # Errors
    /// [`WalError::NotInLog`] when the range begins before the group's first entry;
    /// [`WalError::Corrupt`] when the disk returns other bytes than were written; [`WalError::Io`].
    pub fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, Arc<WalError>> {
        reader::read(&self.handle.shared, group, range, bytes_max)
    }

    /// Whether an append is done only when it is on stable storage (`appendfsync always`).
    pub fn syncs_appends(&self) -> bool {
        self.handle.shared.policy == SyncPolicy::Always
    }

    /// Bytes of the log that are kept, from its oldest record to its end.
    pub fn live_bytes(&self) -> u64 {
        self.handle.shared.state.lock().tail.live_bytes()
    }

    /// The group whose entries keep the oldest segment, when giving that one free waits for a purge.
    pub fn pinned_by(&self) -> Option<GroupId> {
        self.handle.shared.state.lock().tail.pin().map(|(_, group)| group)
    }

    /// Bytes that the unpurged entries of `group` take in the log, to the nearest 256 KiB or so.
    pub fn group_bytes(&self, group: GroupId) -> u64 {
        let state = self.handle.shared.state.lock();
        state.tail.groups.get(&group).map_or(0, super::group::Group::live_bytes)
    }

    /// Bytes of `group`'s entries behind `index`, less at most a run.
    pub fn group_bytes_after(&self, group: GroupId, index: u64) -> u64 {
        let state = self.handle.shared.state.lock();
        state.tail.groups.get(&group).map_or(0, |group| group.bytes_after(index))
    }

    /// Up to where to purge `group` so that of what a snapshot up to `covered` covers no more than `kept` bytes stay;
    /// `None` when there is nothing to gain.
    pub fn purgeable(&self, group: GroupId, covered: u64, kept: u64) -> Option<u64> {
        let state = self.handle.shared.state.lock();
        state.tail.groups.get(&group)?.purgeable(covered, kept)
    }

    /// Resolves once everything that was appended before this call is on stable storage.
    ///
    /// # Errors
    /// [`WalError::Closed`], or the log's failure.
    pub fn synced(&self) -> impl Future<Output = Result<(), Arc<WalError>>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let asked = self.on_sync(Box::new(move |outcome| drop(sender.send(outcome))));
        durable(asked.map(|()| receiver))
    }

    /// The same, with this thread blocked meanwhile.
    #[cfg(test)]
    pub(crate) fn sync(&self) -> Result<(), Arc<WalError>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.on_sync(Box::new(move |outcome| drop(sender.send(outcome))))?;
        receiver.recv().unwrap_or_else(|_| Err(Arc::new(WalError::Closed)))
    }

    /// Has `done` called once everything appended so far is on stable storage.
    fn on_sync(&self, done: Done) -> Result<(), Arc<WalError>> {
        let shared = &self.handle.shared;
        let state = shared.state.lock();
        shared.check_open(&state)?;
        shared.enqueue(state, done);
        Ok(())
    }

    /// Writes and syncs what is pending, ends the log with a clean-stop mark and joins its thread.
    /// Other handles get [`WalError::Closed`] from now on; they can still read.
    ///
    /// # Errors
    /// The log's failure: then there is no mark.
    pub fn close(self) -> Result<(), Arc<WalError>> {
        self.handle.stop(Stop::Clean);
        self.failure().map_or(Ok(()), Err)
    }

    /// Resolves once nobody works for the log any more: all that [`close`](Self::close) promises is done, or the log has
    /// failed. Never before it is closed, or every handle of it is gone.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut working = self.handle.working.clone();
        async move {
            // Nothing is ever sent: what is waited for is that the sender goes.
            let _gone = working.changed().await;
        }
    }

    /// Why the log accepts nothing any more, once a write, a sync or a reservation of disk space
    /// has failed.
    pub fn failure(&self) -> Option<Arc<WalError>> {
        self.handle.shared.failure.get().cloned()
    }

    /// Whether something may be damaged on the disk without the log noticing, until the next append or an idle moment.
    #[cfg(test)]
    pub(super) fn has_unmarked(&self) -> bool {
        let state = self.handle.shared.state.lock();
        state.tail.marked < state.tail.content || state.tail.synced < state.tail.end
    }

    /// Whether the log's thread sleeps until it is told although there is something to mark: then nobody will.
    #[cfg(test)]
    pub(super) fn forgets_to_mark(&self) -> bool {
        let state = self.handle.shared.state.lock();
        // Whoever syncs the rest will tell it.
        let is_all_synced = state.tail.synced >= state.tail.end;
        let is_well = self.failure().is_none();
        state.is_resting && state.tail.has_unmarked() && is_all_synced && is_well
    }

    /// Whether an append of `bytes` would be written by its caller, were the disk idle.
    #[cfg(test)]
    pub(super) fn writes_at_once(&self, bytes: usize) -> bool {
        let (shared, now) = (&self.handle.shared, crate::stdx::clock::BootInstant::now());
        shared.state.lock().haste.allows(bytes, now, shared.disk.as_ref())
    }

    /// Whether all that was encoded is in the files.
    #[cfg(test)]
    pub(super) fn is_written(&self) -> bool {
        let state = self.handle.shared.state.lock();
        state.written >= state.tail.end
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> WalStats {
        let shared = &self.handle.shared;
        let state = shared.state.lock();
        WalStats {
            syncs: shared.syncs.load(Ordering::Relaxed),
            writes: shared.writes.load(Ordering::Relaxed),
            segments_created: state.tail.segments_created,
            segments_recycled: state.tail.segments_recycled,
        }
    }
}

impl Handle {
    fn stop(&self, stop: Stop) {
        self.shared.state.lock().stop.get_or_insert(stop);
        self.shared.work.notify_one();
        self.shared.to_write.notify_one();
        let threads = std::mem::take(&mut *self.threads.lock());
        // The last handle may die inside a callback, on a thread it would wait for; and one may wait for the other.
        let own = std::thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == own) {
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log has panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop(Stop::Dropped);
    }
}

/// Waits for a change that [`Wal::put`] made.
async fn durable(
    put: Result<oneshot::Receiver<Result<(), Arc<WalError>>>, Arc<WalError>>,
) -> Result<(), Arc<WalError>> {
    put?.await.unwrap_or_else(|_| Err(Arc::new(WalError::Closed)))
}
