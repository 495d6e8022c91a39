//! The log's face: appending, saving votes, reading, closing.
//!
//! One lock guards the tail. With `appendfsync always` an append only encodes its records under it;
//! the log's thread takes what has gathered, writes it at once, syncs once and completes everyone who
//! waited: **group commit**. On a node alone a caller does all that, where it is short (`caller.rs`).
//! With the other policies the caller writes to the page cache itself, which costs less than waking a
//! thread, and is done; but not while a sync is under way, nor where a segment has to be made or the disk
//! is crowded (`haste.rs`): then it might wait for the disk, with everyone behind it who wants the lock,
//! and the writer does it (`writer.rs`), beside the sync.
//!
//! **Invariants:** the lock is never held across a sync, a read of the disk, the making of a file or a
//! callback. One writes at a time, so that all before `State::written` is in the files. A failed
//! write or sync is never retried: the kernel may have dropped the dirty pages, and a second fsync that
//! succeeds would prove nothing (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
//!
//! What waits in memory to be written is bounded by the callers, under every policy: a shard has at most
//! `ENTRIES_IN_FLIGHT_MAX` entries of its own in flight, a leader at most `APPEND_PIPELINE_MAX` messages to a follower
//! that are not answered, of `APPEND_ENTRIES_BYTES_MAX` or one larger entry each, and an entry is answered for only once
//! it is written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{JoinHandle, ThreadId};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::ids::{GroupId, Incarnation, RaftId, Session};
use crate::stdx::clock::BootInstant;
use crate::stdx::disk::{Disk, DiskFile};
use crate::stdx::fs::SystemDisk;

use super::caller::{Spare, SyncOwed};
use super::data_dir::lock_dir;
use super::error::WalError;
use super::group::GroupState;
use super::haste::Haste;
use super::limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use super::opening::{BootId, Opening};
use super::record::{Kind, Position, RECORD_HEAD_BYTES};
use super::recovery::{Recovered, note_failed_opening, recover};
use super::segment::{Segment, Window};
use super::syncer::{self, Stepper, SyncMarkFile, Syncer};
use super::tail::{Batch, Held, Tail};
use super::writer::{self, Writer};

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
    /// [`SEGMENT_BYTES_MIN`]. One bigger record gets a bigger file.
    pub segment_bytes: u64,
    /// Write the position of every sync to the file `synced`, for tests that cut power
    /// (`wal-sync-mark`); see [`cut_to_last_sync`](super::cut_to_last_sync).
    pub sync_mark: bool,
    /// The data directory the log lies in: one of another directory is refused.
    pub incarnation: Incarnation,
    /// This start of the node.
    pub session: Session,
    /// This start of the machine; `None` counts as another one than any before.
    pub boot_id: Option<BootId>,
    /// With [`SyncPolicy::Always`], who appends is asked to sync ([`SyncOwed`]) where that is short and the disk is fast:
    /// it saves waking a thread and being woken by it. Not for threads that beat hearts, nor beside `sync_mark`.
    pub callers_sync: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::EverySecond,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            sync_mark: false,
            incarnation: Incarnation::NONE,
            session: Session::default(),
            boot_id: None,
            callers_sync: false,
        }
    }
}

/// An entry to append. Its payload is `head` and `body` joined, at most
/// [`RECORD_BYTES_MAX`](super::limits::RECORD_BYTES_MAX) together.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its place in the group's log.
    pub index: u64,
    /// First part of the payload.
    pub head: &'a [u8],
    /// The rest of it.
    pub body: &'a [u8],
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

/// What became of the bytes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    /// A thread of the log will write them.
    Gathered,
}

/// What a change lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frees {
    Nothing,
    /// Some segments may hold nothing else any more.
    Segments,
}

/// Who works for the log beside its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worker {
    Threads,
    /// Whoever steps.
    Steps,
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
        let Recovered { tail, is_clean, opened_before } = recover(
            disk.as_ref(),
            dir,
            segment_bytes,
            options.incarnation,
            Opening { session: options.session, boot: options.boot_id, policy: options.sync },
        )
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
        let handle = Handle {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
            was_closed_cleanly: is_clean,
            opened_before,
        };
        let wal = Wal { handle: Arc::new(handle) };
        Ok(Self { wal, groups, syncer: Syncer::new(shared, sync_mark) })
    }
}

/// Owns the threads: when the last handle goes, they are stopped and joined.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    was_closed_cleanly: bool,
    opened_before: Option<Session>,
}

/// What handles and the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) policy: SyncPolicy,
    /// Who appends syncs what is short.
    pub(super) callers_sync: bool,
    pub(super) worker: Worker,
    pub(super) state: Mutex<State>,
    /// Wakes the thread that syncs.
    pub(super) work: Condvar,
    /// Wakes the thread that writes beside it.
    pub(super) to_write: Condvar,
    /// Wakes readers of entries that were not written yet.
    pub(super) written: Condvar,
    pub(super) failure: OnceLock<Arc<WalError>>,
    pub(super) syncs: AtomicU64,
    pub(super) writes: AtomicU64,
    /// Held for as long as the log is open.
    _lock: Box<dyn DiskFile>,
}

/// What the lock guards.
#[expect(clippy::struct_excessive_bools, reason = "each is set and cleared by somebody else")]
pub(super) struct State {
    pub(super) tail: Tail,
    /// All before is written to the files (not necessarily synced).
    pub(super) written: Position,
    /// Done with the next sync.
    pub(super) waiting: Vec<Done>,
    /// Done once the batch is written; none under `Always`.
    pub(super) unwritten: Vec<Done>,
    /// Somebody writes without the lock, or tells who waited for that: nobody else writes meanwhile.
    pub(super) is_writing: bool,
    /// A sync is under way, or about to begin: a write might wait for it.
    pub(super) is_syncing: bool,
    /// The thread that synced has not told all who waited: a caller that synced now could tell later ones before them.
    pub(super) is_telling: bool,
    /// It is time for a sync, which waits for a write to end.
    pub(super) is_due: bool,
    /// A purge may have freed segments.
    pub(super) is_purged: bool,
    pub(super) haste: Haste,
    /// The threads that are going to sync what they appended: each owes that once.
    pub(super) owing: Vec<ThreadId>,
    /// Buffers of callers that sync, to be used again.
    pub(super) spare: Spare,
    /// The thread that syncs has found nothing to do, and nothing to mark either: it sleeps until it is told, so who syncs
    /// in its place clears this and tells it that there is something to mark when the log is idle.
    pub(super) is_resting: bool,
    pub(super) stop: Option<Stop>,
}

/// How the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// With a clean-stop mark.
    Clean,
    /// Without one.
    Dropped,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("tail", &self.tail)
            .field("written", &self.written)
            .field("waiting", &self.waiting.len())
            .field("unwritten", &self.unwritten.len())
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
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
    /// [`Stepper`]. What blocks until something is on the disk ([`sync`](Self::sync)) must not be called where nobody
    /// steps meanwhile; [`close`](Self::close) only says that the log ends, and the steps after it do it.
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
            Ok(((), Fate::Gathered)) => state.unwritten.push(done),
            Ok(((), Fate::Written)) => {
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
        let stretches = self.handle.shared.plan(group, range, bytes_max)?;
        // What a failed log cannot read was never written, rather than damaged.
        let entries = read_stretches(group, &stretches, bytes_max);
        entries.map_err(|error| self.failure().unwrap_or_else(|| Arc::new(error)))
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

    /// Blocks until everything appended so far is on stable storage.
    ///
    /// # Errors
    /// [`WalError::Closed`], or the log's failure.
    pub fn sync(&self) -> Result<(), Arc<WalError>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let shared = &self.handle.shared;
        let state = shared.state.lock();
        shared.check_open(&state)?;
        shared.enqueue(state, Box::new(move |outcome| drop(sender.send(outcome))));
        receiver.recv().unwrap_or_else(|_| Err(Arc::new(WalError::Closed)))
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
        let shared = &self.handle.shared;
        shared.state.lock().haste.allows(bytes, BootInstant::now(), shared.disk.as_ref())
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

/// A stretch of one segment to read, and which of the group's entries to take from it.
#[derive(Debug)]
struct Stretch {
    segment: Arc<Segment>,
    offset: u64,
    first: u64,
    wanted: Range<u64>,
}

impl Shared {
    fn new(
        disk: Arc<dyn Disk>,
        (policy, callers_sync, worker): (SyncPolicy, bool, Worker),
        tail: Tail,
        lock: Box<dyn DiskFile>,
    ) -> Self {
        let state = State {
            written: tail.end,
            tail,
            waiting: Vec::new(),
            unwritten: Vec::new(),
            is_writing: false,
            is_syncing: false,
            is_telling: false,
            is_due: false,
            // What became free before a crash is given free now.
            is_purged: true,
            haste: Haste::default(),
            owing: Vec::new(),
            spare: Spare::default(),
            is_resting: false,
            stop: None,
        };
        Self {
            disk,
            policy,
            callers_sync: callers_sync && policy == SyncPolicy::Always,
            worker,
            state: Mutex::new(state),
            work: Condvar::new(),
            to_write: Condvar::new(),
            written: Condvar::new(),
            failure: OnceLock::new(),
            syncs: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            _lock: lock,
        }
    }

    /// Why nothing may be written any more, if so.
    pub(super) fn check_open(&self, state: &State) -> Result<(), Arc<WalError>> {
        if let Some(failure) = self.failure.get() {
            return Err(Arc::clone(failure));
        }
        if state.stop.is_some() { Err(Arc::new(WalError::Closed)) } else { Ok(()) }
    }

    /// Applies `change` to the tail and writes what it encoded, where that cannot take long; else a thread of the log will.
    fn change<T>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Tail) -> Result<T, WalError>,
    ) -> Result<(T, Fate), Arc<WalError>> {
        self.check_open(state)?;
        let is_free = !state.is_writing
            && !state.is_syncing
            && state.tail.batch.is_empty()
            && state.unwritten.is_empty();
        let segment = state.tail.end.segment;
        // Nothing here has touched the disk: an error is the caller's, and the log is as it was.
        let value = change(&mut state.tail).map_err(Arc::new)?;
        if self.policy == SyncPolicy::Always {
            return Ok((value, Fate::Gathered));
        }
        if state.tail.end.segment != segment {
            // The one left behind is synced in the background.
            self.work.notify_one();
        }
        if is_free && state.tail.active().is_made() && self.write_in_haste(state)? {
            return Ok((value, Fate::Written));
        }
        self.to_write.notify_one();
        Ok((value, Fate::Gathered))
    }

    /// Writes the batch on the caller's thread, unless that may take long; whether it did.
    fn write_in_haste(&self, state: &mut State) -> Result<bool, Arc<WalError>> {
        let disk = self.disk.as_ref();
        if self.worker == Worker::Steps {
            // In a simulation the disk alone decides, and no clock.
            let may = !disk.is_crowded();
            return if may { self.write_out(state).map(|()| true) } else { Ok(false) };
        }
        let begun = BootInstant::now();
        if !state.haste.allows(state.tail.batch.bytes(), begun, disk) {
            return Ok(false);
        }
        self.write_out(state)?;
        state.haste.note(begun, BootInstant::now());
        Ok(true)
    }

    /// Writes the batch on the caller's thread, under the lock.
    fn write_out(&self, state: &mut State) -> Result<(), Arc<WalError>> {
        let writes =
            state.tail.batch.write(self.disk.as_ref()).map_err(|error| self.fail(error))?;
        self.writes.fetch_add(writes, Ordering::Relaxed);
        state.written = state.tail.end;
        Ok(())
    }

    /// Writes `batch`, which ends at `end`, without the lock, and empties it. Only for who has set `is_writing`.
    pub(super) fn write_batch(
        &self,
        batch: &mut Batch,
        end: Position,
    ) -> Result<(), Arc<WalError>> {
        let outcome = match self.failure.get() {
            Some(failure) => Err(Arc::clone(failure)),
            None => batch.write(self.disk.as_ref()).map_err(|error| self.fail(error)),
        };
        batch.clear();
        self.writes.fetch_add(outcome?, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.written = state.written.max(end);
        drop(state);
        self.written.notify_all();
        Ok(())
    }

    /// Lets `done` wait for the next sync.
    fn enqueue(&self, mut state: MutexGuard<'_, State>, done: Done) {
        state.waiting.push(done);
        // Where callers sync, those before may wait for one that is in no hurry.
        let must_tell = state.waiting.len() == 1 || self.callers_sync;
        drop(state);
        if must_tell {
            self.work.notify_one();
        }
    }

    /// The log fails now, or has failed before: with the first error.
    pub(super) fn fail(&self, error: WalError) -> Arc<WalError> {
        let failure = self.failure.get_or_init(|| {
            tracing::error!(%error, "the write-ahead log has failed and accepts nothing any more");
            Arc::new(error)
        });
        self.work.notify_one();
        self.to_write.notify_one();
        self.written.notify_all();
        Arc::clone(failure)
    }

    /// Decides under the lock what a read has to look at, and waits until that is in the files.
    fn plan(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Stretch>, Arc<WalError>> {
        let mut state = self.state.lock();
        let Some(known) = state.tail.groups.get(&group) else { return Ok(Vec::new()) };
        let wanted = range.start..range.end.min(known.next);
        if wanted.start < known.first && !range.is_empty() {
            let (index, first) = (range.start, known.first);
            return Err(Arc::new(WalError::NotInLog { group, index, first }));
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut stretches = Vec::new();
        // Bytes before the second run: from there on, runs are taken whole and can be added up.
        let mut bytes_skipped = 0;
        for (run, end) in known.runs_of(wanted.start, wanted.end) {
            let Some(segment) = state.tail.segment(run.position.segment) else { continue };
            stretches.push(Stretch {
                segment: Arc::clone(segment),
                offset: run.position.offset,
                first: run.index,
                wanted: wanted.start.max(run.index)..wanted.end.min(end),
            });
            match stretches.len() {
                1 => {}
                2 => bytes_skipped = run.bytes_before,
                _ if run.bytes_before.saturating_sub(bytes_skipped) > bytes_max as u64 => break,
                _ => {}
            }
        }
        let end = known.end;
        if self.worker == Worker::Steps && state.written < end {
            // Nobody else would, while the caller waits here.
            self.write_out(&mut state)?;
        }
        while state.written < end && self.failure.get().is_none() {
            self.written.wait(&mut state);
        }
        Ok(stretches)
    }
}

/// Reads the entries of `group` that `stretches` want, in order, until `bytes_max` is passed.
fn read_stretches(
    group: GroupId,
    stretches: &[Stretch],
    bytes_max: usize,
) -> Result<Vec<(u64, Bytes)>, WalError> {
    let mut entries = Vec::new();
    let mut bytes = 0usize;
    for stretch in stretches {
        let mut window = Window::open(Arc::clone(&stretch.segment))?;
        let mut offset = stretch.offset;
        let mut next = stretch.first;
        while next < stretch.wanted.end {
            let damaged = |what| WalError::corrupt(&stretch.segment.path, offset, what);
            let Some(head) = window.head(offset)? else { return Err(damaged("no record")) };
            let start = offset;
            offset += head.record_bytes() as u64;
            if head.kind != Kind::Entry || head.group != group {
                continue;
            }
            if head.index != next {
                return Err(WalError::corrupt(
                    &stretch.segment.path,
                    start,
                    "not the entry sought",
                ));
            }
            next += 1;
            if head.index < stretch.wanted.start {
                continue;
            }
            if !entries.is_empty() && bytes.saturating_add(head.payload_bytes) > bytes_max {
                return Ok(entries);
            }
            let record = window.record(start)?;
            let Some((_, payload)) = record else {
                return Err(WalError::corrupt(&stretch.segment.path, start, "not intact"));
            };
            bytes = bytes.saturating_add(head.payload_bytes + RECORD_HEAD_BYTES);
            entries.push((head.index, Bytes::copy_from_slice(payload)));
        }
    }
    Ok(entries)
}

impl State {
    /// Takes off what is to be written and synced next, and puts these empty buffers in its place.
    pub(super) fn take_job(&mut self, buffers: Buffers) -> Job {
        let Buffers { batch, waiting, unwritten } = buffers;
        let mut segments = std::mem::take(&mut self.tail.unsynced);
        if self.tail.end > self.tail.synced {
            segments.push(Arc::clone(self.tail.active()));
        }
        let is_purged = std::mem::take(&mut self.is_purged);
        Job {
            batch: std::mem::replace(&mut self.tail.batch, batch),
            waiting: std::mem::replace(&mut self.waiting, waiting),
            unwritten: std::mem::replace(&mut self.unwritten, unwritten),
            segments,
            is_dir_dirty: std::mem::take(&mut self.tail.is_dir_dirty),
            dead: if is_purged { self.tail.take_dead() } else { Vec::new() },
            end: self.tail.end,
            stop: self.stop,
            outcome: Ok(()),
        }
    }
}

/// What a turn gives back when it is over.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) batch: Batch,
    pub(super) waiting: Vec<Done>,
    pub(super) unwritten: Vec<Done>,
}

/// One turn of the log.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) waiting: Vec<Done>,
    pub(super) unwritten: Vec<Done>,
    /// To sync, oldest first.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) is_dir_dirty: bool,
    /// To give free after the sync.
    pub(super) dead: Vec<Held>,
    pub(super) end: Position,
    /// The log ends behind it.
    pub(super) stop: Option<Stop>,
    /// Of writing the batch.
    pub(super) outcome: Result<(), Arc<WalError>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("waiting", &self.waiting.len())
            .field("end", &self.end)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
