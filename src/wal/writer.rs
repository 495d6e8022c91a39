//! The log's second thread, under `everysec` and `no`: writes what gathered while callers could not write it themselves.
//!
//! A write may take as long as the sync it runs beside, and making a segment as long as the file system likes. Those who
//! append also beat hearts: they leave both to this one, which writes while the other thread syncs, so that nobody waits
//! for a sync but who asked for one.

use std::sync::Arc;

use super::log::Done;
use super::shared::{Shared, State};
use super::syncer::FailOnPanic;
use super::tail::Backlog;

/// What that thread does, without the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Buffers to be used again.
    backlog: Backlog,
    unwritten: Vec<Done>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, backlog: Backlog::default(), unwritten: Vec::new() }
    }

    /// Writes what has gathered and tells who waited for that; whether there was anything to do.
    pub(super) fn step(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        if !shared.is_for_writer(&state) {
            return false;
        }
        std::mem::swap(&mut state.tail.backlog, &mut self.backlog);
        std::mem::swap(&mut state.unwritten, &mut self.unwritten);
        let end = state.tail.end;
        state.is_writing = true;
        drop(state);
        let outcome = shared.write_backlog(&mut self.backlog, end);
        // Nobody writes before they are told: what a caller appends next, and is done with at once, comes behind these.
        for done in self.unwritten.drain(..) {
            done(outcome.clone());
        }
        let mut state = shared.state.lock();
        state.is_writing = false;
        if outcome.is_err() {
            // Under the lock, or a reader that has just looked for a failure would sleep through this.
            shared.written.notify_all();
        }
        // The other thread notes a failure.
        let has_work = shared.has_work(&state) || outcome.is_err();
        drop(state);
        if has_work {
            shared.work.notify_one();
        }
        true
    }

    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _on_panic = FailOnPanic(&shared);
        while self.step() || shared.wait_to_write() {}
    }
}

/// Starts the thread.
pub(super) fn spawn(writer: Writer) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("kvorum-writer".to_owned()).spawn(move || writer.run())
}

impl Shared {
    /// Blocks until there is something to write; false when the log ends, and then the other thread writes the rest.
    fn wait_to_write(&self) -> bool {
        let mut state = self.state.lock();
        while state.stop.is_none() {
            if self.is_for_writer(&state) {
                return true;
            }
            self.to_write.wait(&mut state);
        }
        false
    }

    /// Whether there is something to write that the other thread is not about to write, before it syncs it.
    fn is_for_writer(&self, state: &State) -> bool {
        if state.is_writing {
            false
        } else if self.failure.get().is_some() {
            !state.unwritten.is_empty()
        } else {
            let has_gathered = !state.tail.backlog.is_empty() || !state.unwritten.is_empty();
            has_gathered && (state.is_syncing || !self.wants_turn(state))
        }
    }
}
