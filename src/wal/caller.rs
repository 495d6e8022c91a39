//! The log's work where its callers append: on a node alone, with `appendfsync always`, who appends syncs what is short.
//!
//! To wake the log's thread and be woken by it costs as much as a fast disk's sync. So who appends first on its thread owes
//! a sync: it lets the others there append what they have, then writes and syncs everything that waits, of other threads
//! too, and tells them. Each thread owes one of its own, since nobody knows for how long another one is busy. What is long,
//! what needs a segment made or removed, and all for some time after a slow sync (`haste.rs`), is left to the log's thread.
//!
//! **Invariant:** an append waits either for the log's thread, which was told, or for the sync that its own thread owes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::ThreadId;

use parking_lot::MutexGuard;

use crate::stdx::clock::BootInstant;

use super::error::WalError;
use super::limits::SYNC_BYTES_MAX;
use super::log::{Done, Wal};
use super::shared::{Shared, State, Worker};
use super::syncer::FailOnPanic;
use super::tail::Backlog;

/// Buffers of a turn that a caller takes.
#[derive(Default)]
pub(super) struct Spare {
    backlog: Backlog,
    waiting: Vec<Done>,
}

/// The sync that a thread owes for what it has appended; see [`Wal::append`].
#[derive(Debug)]
pub struct SyncOwed {
    wal: Wal,
    /// `None` once it is paid.
    thread: Option<ThreadId>,
}

impl SyncOwed {
    /// What this thread owes for an append; nothing more when it owes one already.
    pub(super) fn new(wal: &Wal, state: &mut State) -> Option<Self> {
        let thread = std::thread::current().id();
        if state.owing.contains(&thread) {
            return None;
        }
        state.owing.push(thread);
        Some(Self { wal: wal.clone(), thread: Some(thread) })
    }

    /// Syncs all that waits for it, here, unless that might take long or somebody is at it: then a thread of the log will.
    pub fn sync(mut self) {
        let shared = &self.wal.handle.shared;
        let mut state = shared.state.lock();
        state.note_paid(self.thread.take());
        if !shared.may_sync_here(&state) {
            shared.leave_to_thread(state);
        } else if !state.waiting.is_empty() {
            shared.sync_here(state);
        }
    }
}

impl Drop for SyncOwed {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if thread.is_some() {
            let shared = &self.wal.handle.shared;
            let mut state = shared.state.lock();
            state.note_paid(thread);
            shared.leave_to_thread(state);
        }
    }
}

impl State {
    fn note_paid(&mut self, thread: Option<ThreadId>) {
        self.owing.retain(|owing| Some(*owing) != thread);
    }
}

impl Shared {
    /// Whether a sync is for a caller: nobody is at it, it is short, and there is nothing to do beside it.
    fn may_sync_here(&self, state: &State) -> bool {
        let is_free = !state.is_writing
            && !state.is_syncing
            && !state.is_telling
            && self.check_open(state).is_ok();
        let is_simple = !state.is_purged
            && !state.tail.is_dir_dirty
            && state.tail.unsynced.is_empty()
            && state.tail.active().is_made();
        // In a simulation no clock decides.
        let is_fast =
            || self.worker == Worker::Steps || state.haste.allows_sync(BootInstant::now());
        is_free && is_simple && state.tail.backlog.bytes() <= SYNC_BYTES_MAX && is_fast()
    }

    /// Tells the thread that something waits, unless whoever is at work looks for that when it is over.
    fn leave_to_thread(&self, state: MutexGuard<'_, State>) {
        let must_tell = self.has_work(&state) && !state.is_syncing && !state.is_telling;
        drop(state);
        if must_tell {
            self.work.notify_one();
        }
    }

    /// Writes what has gathered, syncs it, and tells who waited.
    fn sync_here(&self, mut state: MutexGuard<'_, State>) {
        let _on_panic = FailOnPanic(self);
        let Spare { mut backlog, mut waiting } = std::mem::take(&mut state.spare);
        std::mem::swap(&mut state.tail.backlog, &mut backlog);
        std::mem::swap(&mut state.waiting, &mut waiting);
        let (end, segment) = (state.tail.end, Arc::clone(state.tail.active()));
        // Nobody else begins either meanwhile.
        state.is_writing = true;
        state.is_syncing = true;
        drop(state);
        let begun = BootInstant::now();
        let outcome = self.write_backlog(&mut backlog, end).and_then(|()| {
            let synced = segment
                .file()
                .and_then(|file| file.sync_data().map_err(WalError::io("sync", &segment.path)));
            synced.map_err(|error| self.fail(error))
        });
        let ended = BootInstant::now();
        drop(segment);
        let mut state = self.state.lock();
        state.is_syncing = false;
        if outcome.is_ok() {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            state.tail.synced = state.tail.synced.max(end);
            state.haste.note_sync(begun, ended);
        } else {
            // Under the lock, or a reader that has just looked for a failure would sleep through this.
            self.written.notify_all();
        }
        drop(state);
        // Nobody begins another turn before: those who wait are told in the order in which they came.
        for done in waiting.drain(..) {
            done(outcome.clone());
        }
        let mut state = self.state.lock();
        state.is_writing = false;
        state.spare = Spare { backlog, waiting };
        let must_mark = std::mem::take(&mut state.is_resting);
        let must_tell = must_mark || self.has_work(&state);
        drop(state);
        if must_tell {
            self.work.notify_one();
        }
    }
}
