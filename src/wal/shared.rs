//! What handles of the log and its threads share: the tail under its lock, who waits for what, and how the log ends.
//!
//! **Invariants:** the lock is never held across a sync, a read of the disk, the making of a file or a
//! callback. One writes at a time, so that all before `State::written` is in the files. A failed
//! write or sync is never retried: the kernel may have dropped the dirty pages, and a second fsync that
//! succeeds would prove nothing (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::stdx::clock::BootInstant;
use crate::stdx::disk::{Disk, DiskFile};

use super::caller::Spare;
use super::error::WalError;
use super::haste::Haste;
use super::log::Done;
use super::options::SyncPolicy;
use super::record::Position;
use super::segment::Segment;
use super::tail::{Backlog, Held, Tail};

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
    /// Done once the backlog is written; none under `Always`.
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

/// Who works for the log beside its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worker {
    Threads,
    /// Whoever steps.
    Steps,
}

/// What became of the bytes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    Written,
    /// A thread of the log will write them.
    Gathered,
}

impl Shared {
    pub(super) fn new(
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
    pub(super) fn change<T>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Tail) -> Result<T, WalError>,
    ) -> Result<(T, Landing), Arc<WalError>> {
        self.check_open(state)?;
        let is_free = !state.is_writing
            && !state.is_syncing
            && state.tail.backlog.is_empty()
            && state.unwritten.is_empty();
        let segment = state.tail.end.segment;
        // Nothing here has touched the disk: an error is the caller's, and the log is as it was.
        let value = change(&mut state.tail).map_err(Arc::new)?;
        if self.policy == SyncPolicy::Always {
            return Ok((value, Landing::Gathered));
        }
        if state.tail.end.segment != segment {
            // The one left behind is synced in the background.
            self.work.notify_one();
        }
        if is_free && state.tail.active().is_made() && self.write_in_haste(state)? {
            return Ok((value, Landing::Written));
        }
        self.to_write.notify_one();
        Ok((value, Landing::Gathered))
    }

    /// Writes the backlog on the caller's thread, unless that may take long; whether it did.
    fn write_in_haste(&self, state: &mut State) -> Result<bool, Arc<WalError>> {
        let disk = self.disk.as_ref();
        if self.worker == Worker::Steps {
            // In a simulation the disk alone decides, and no clock.
            let may = !disk.is_crowded();
            return if may { self.write_out(state).map(|()| true) } else { Ok(false) };
        }
        let begun = BootInstant::now();
        if !state.haste.allows(state.tail.backlog.bytes(), begun, disk) {
            return Ok(false);
        }
        self.write_out(state)?;
        state.haste.note(begun, BootInstant::now());
        Ok(true)
    }

    /// Writes the backlog on the caller's thread, under the lock.
    pub(super) fn write_out(&self, state: &mut State) -> Result<(), Arc<WalError>> {
        let writes =
            state.tail.backlog.write(self.disk.as_ref()).map_err(|error| self.fail(error))?;
        self.writes.fetch_add(writes, Ordering::Relaxed);
        state.written = state.tail.end;
        Ok(())
    }

    /// Writes `backlog`, which ends at `end`, without the lock, and empties it. Only for who has set `is_writing`.
    pub(super) fn write_backlog(
        &self,
        backlog: &mut Backlog,
        end: Position,
    ) -> Result<(), Arc<WalError>> {
        let outcome = match self.failure.get() {
            Some(failure) => Err(Arc::clone(failure)),
            None => backlog.write(self.disk.as_ref()).map_err(|error| self.fail(error)),
        };
        backlog.clear();
        self.writes.fetch_add(outcome?, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.written = state.written.max(end);
        drop(state);
        self.written.notify_all();
        Ok(())
    }

    /// Lets `done` wait for the next sync.
    pub(super) fn enqueue(&self, mut state: MutexGuard<'_, State>, done: Done) {
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
}

impl State {
    /// Takes off what is to be written and synced next, and puts these empty buffers in its place.
    pub(super) fn take_job(&mut self, buffers: Buffers) -> Job {
        let Buffers { backlog, waiting, unwritten } = buffers;
        let mut segments = std::mem::take(&mut self.tail.unsynced);
        if self.tail.end > self.tail.synced {
            segments.push(Arc::clone(self.tail.active()));
        }
        let is_purged = std::mem::take(&mut self.is_purged);
        Job {
            backlog: std::mem::replace(&mut self.tail.backlog, backlog),
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
    pub(super) backlog: Backlog,
    pub(super) waiting: Vec<Done>,
    pub(super) unwritten: Vec<Done>,
}

/// One turn of the log.
pub(super) struct Job {
    pub(super) backlog: Backlog,
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
    /// Of writing the backlog.
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
