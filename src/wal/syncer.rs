//! The log's thread: writes what gathered, syncs it, completes who waited, gives free what was purged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::stdx::disk::{Disk, DiskFile, Open};

use super::error::WalError;
use super::limits::SPARES_MAX;
use super::log::{Done, Job, Shared, State, Stop, SyncPolicy};
use super::record::Position;
use super::segment::{Segment, segment_path, spare_path};
use super::tail::Held;

/// How often `everysec` syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A log that nobody writes to for this long gets a mark behind what was synced last.
const IDLE_DELAY: Duration = Duration::from_secs(1);

/// Name of the file that holds the position of the last sync.
pub(super) const SYNC_MARK_FILE: &str = "synced";

/// Starts the thread of a log.
pub(super) fn spawn(
    shared: Arc<Shared>,
    sync_mark: Option<SyncMarkFile>,
) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("kvorum-wal".to_owned());
    thread.spawn(move || Syncer { shared, sync_mark }.run())
}

struct Syncer {
    shared: Arc<Shared>,
    sync_mark: Option<SyncMarkFile>,
}

impl Syncer {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _on_panic = FailOnPanic(Arc::clone(&shared));
        loop {
            let mut state = shared.state.lock();
            let waited = self.wait_for_work(&mut state);
            if waited == Waited::InVain {
                self.mark(&mut state);
            }
            let stop = state.stop;
            if stop == Some(Stop::Clean) {
                self.write_last_committed(&mut state);
            }
            let job = state.take_job();
            drop(state);
            self.perform(job);
            if let Some(stop) = stop {
                self.end(stop);
                return;
            }
        }
    }

    fn wait_for_work(&self, state: &mut parking_lot::MutexGuard<'_, State>) -> Waited {
        loop {
            let has_failed = self.shared.failure.get().is_some();
            if has_work(state, has_failed) {
                return Waited::ForWork;
            }
            let is_ticking = self.shared.policy == SyncPolicy::EverySecond;
            if !is_ticking && (has_failed || !state.tail.has_unmarked()) {
                self.shared.work.wait(state);
                continue;
            }
            let delay = if is_ticking { SYNC_INTERVAL } else { IDLE_DELAY };
            if self.shared.work.wait_for(state, delay).timed_out() {
                return Waited::InVain;
            }
            if is_ticking {
                // Woken for whatever reason, it syncs: waiting anew might put that off for ever.
                return Waited::ForWork;
            }
        }
    }

    /// Vouches for what was synced last, where no append has come to do it: until then, damage there passes for a torn
    /// tail. The mark is synced as any record; nothing vouches for it, so an idle log writes one and no more.
    fn mark(&self, state: &mut State) {
        if self.shared.failure.get().is_some() {
            return;
        }
        let put = state.tail.put_mark();
        let written = put.map_err(|error| self.shared.fail(error)).and_then(|()| {
            // Under the lock, as a caller's bytes are: what it appends next must find no hole before it.
            if self.shared.policy == SyncPolicy::Always {
                Ok(())
            } else {
                self.shared.write_out(state)
            }
        });
        if written.is_err() {
            self.shared.written.notify_all();
        }
    }

    /// Does one turn. Once the log has failed, nothing is written or synced any more.
    fn perform(&mut self, mut job: Job) {
        let outcome = match self.shared.failure.get() {
            Some(failure) => Err(Arc::clone(failure)),
            None => self.write_and_sync(&mut job).map_err(|error| self.shared.fail(error)),
        };
        if outcome.is_err() {
            // Under the lock, or a reader that has just looked for a failure would sleep through this.
            let _state = self.shared.state.lock();
            self.shared.written.notify_all();
        }
        for done in job.waiting.drain(..) {
            done(outcome.clone());
        }
        self.give_back(job.waiting);
        drop(job.segments);
        if outcome.is_ok()
            && !job.dead.is_empty()
            && let Err(error) = self.free(job.dead)
        {
            let _failure = self.shared.fail(error);
        }
    }

    fn write_and_sync(&mut self, job: &mut Job) -> Result<(), WalError> {
        let shared = &self.shared;
        if !job.batch.is_empty() {
            let writes = job.batch.write()?;
            shared.writes.fetch_add(writes, Ordering::Relaxed);
        }
        let mut state = shared.state.lock();
        state.spare_batch = std::mem::take(&mut job.batch);
        state.written = state.written.max(job.end);
        let dir = job.is_dir_dirty.then(|| state.tail.dir.clone());
        drop(state);
        shared.written.notify_all();
        if let Some(dir) = dir {
            self.shared.disk.sync_dir(&dir).map_err(WalError::io("sync", &dir))?;
        }
        self.sync_all(&job.segments)?;
        let mut state = shared.state.lock();
        state.tail.synced = state.tail.synced.max(job.end);
        drop(state);
        if let Some(file) = self.sync_mark.as_mut().filter(|_| !job.segments.is_empty()) {
            file.note(job.end)?;
        }
        Ok(())
    }

    fn sync_all(&self, segments: &[Arc<Segment>]) -> Result<(), WalError> {
        for segment in segments {
            let synced = segment.file.sync_data();
            synced.map_err(WalError::io("sync", &segment.path))?;
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn give_back(&self, waiting: Vec<Done>) {
        self.shared.state.lock().spare_waiting = waiting;
    }

    /// Puts purged segments aside for reuse, or deletes them. The purge is on the disk by now.
    fn free(&self, dead: Vec<Held>) -> Result<(), WalError> {
        let state = self.shared.state.lock();
        let (dir, segment_bytes) = (state.tail.dir.clone(), state.tail.segment_bytes);
        let room = SPARES_MAX.saturating_sub(state.tail.spares.len());
        drop(state);
        let mut spares = Vec::new();
        for Held { segment, .. } in dead {
            let path = &segment.path;
            // Off the log, the file can get no new reader: if this is its last holder, no read can
            // see it being written anew.
            let is_unread = Arc::strong_count(&segment) == 1;
            if spares.len() < room && is_unread && segment.bytes == segment_bytes {
                let spare = spare_path(&dir, segment.sequence);
                self.shared.disk.rename(path, &spare).map_err(WalError::io("rename", path))?;
                spares.push(spare);
            } else {
                self.shared.disk.remove_file(path).map_err(WalError::io("delete", path))?;
            }
        }
        // Before any of them is written anew: a power cut must not bring the old name back with new
        // bytes under it.
        self.shared.disk.sync_dir(&dir).map_err(WalError::io("sync", &dir))?;
        self.shared.state.lock().tail.spares.append(&mut spares);
        Ok(())
    }

    /// Brings waiting committed markers into the last batch.
    fn write_last_committed(&self, state: &mut State) {
        if self.shared.failure.get().is_some() {
            return;
        }
        let groups: Vec<_> = state.tail.groups.keys().copied().collect();
        for group in groups {
            if let Err(error) = state.tail.put_committed(group) {
                let _failure = self.shared.fail(error);
                return;
            }
        }
    }

    /// Ends the log; after the last job nothing can have been added any more.
    fn end(&mut self, stop: Stop) {
        if stop == Stop::Dropped || self.shared.failure.get().is_some() {
            return;
        }
        let mut state = self.shared.state.lock();
        let put = state.tail.put_clean_stop();
        let job = state.take_job();
        drop(state);
        match put {
            Ok(()) => self.perform(job),
            Err(error) => drop(self.shared.fail(error)),
        }
    }
}

/// Why the thread turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// Somebody wants something.
    ForWork,
    /// Time has passed and nobody wanted anything.
    InVain,
}

/// Should a callback panic, the log fails rather than let everyone wait for a thread that is gone.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _failure = self.0.fail(WalError::Closed);
            // Dropped uncalled: a vote's future learns of it, and a second panic would abort.
            let waiting = std::mem::take(&mut self.0.state.lock().waiting);
            self.0.written.notify_all();
            drop(waiting);
        }
    }
}

/// Whether the thread has a reason to turn before its time.
fn has_work(state: &State, has_failed: bool) -> bool {
    state.stop.is_some()
        || !state.waiting.is_empty()
        || (!has_failed
            && (state.is_purged || !state.tail.unsynced.is_empty() || !state.tail.batch.is_empty()))
}

/// The file `synced`: where the last sync ended, as one line of fixed length written in place.
#[derive(Debug)]
pub(super) struct SyncMarkFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    dir: PathBuf,
}

impl SyncMarkFile {
    pub(super) fn create(disk: &dyn Disk, dir: &Path) -> Result<Self, WalError> {
        let path = dir.join(SYNC_MARK_FILE);
        let file = disk.open(&path, Open::Write).map_err(WalError::io("open", &path))?;
        Ok(Self { file, path, dir: dir.to_owned() })
    }

    /// Notes that all before `position` is on the disk. One small write: a killed process leaves the
    /// old line or the new one.
    pub(super) fn note(&mut self, position: Position) -> Result<(), WalError> {
        let path = segment_path(&self.dir, position.segment);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let line = format!("{name} {:020}\n", position.offset);
        self.file.write_all_at(line.as_bytes(), 0).map_err(WalError::io("write", &self.path))
    }
}
