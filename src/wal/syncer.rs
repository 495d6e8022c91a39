//! The log's work beside its callers: writes what gathered, syncs it, completes who waited, gives free what was purged.
//!
//! It is a function of steps, which a thread calls or a simulation: [`Syncer::step`] says what the next one waits for, and
//! waits for nothing but the disk itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::stdx::disk::{Disk, DiskFile, Open, write_durably};

use super::descriptors::patiently;
use super::error::WalError;
use super::limits::SPARES_MAX;
use super::options::SyncPolicy;
use super::record::Position;
use super::recovery::FAILED_FILE;
use super::segment::{Segment, segment_path, spare_path};
use super::shared::{Buffers, Job, Shared, State, Stop};
use super::tail::Held;
use super::writer::Writer;
use crate::stdx::planted::{Bug, is_planted};

/// How often `everysec` syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A log that nobody writes to for this long gets a mark behind what was synced last.
const IDLE_DELAY: Duration = Duration::from_secs(1);

/// Name of the file that holds the position of the last sync.
pub(super) const SYNC_MARK_FILE: &str = "synced";

/// What the log's work waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: there is more to do.
    More,
    /// That somebody wants something.
    Work,
    /// The same, but no longer than this.
    WorkWithin(Duration),
    /// Nothing any more: the log has ended.
    Ended,
}

/// Why a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There is more to do, or somebody wants something.
    ByWork,
    /// Time has passed and nobody wanted anything.
    ByTime,
}

/// The work of a log that has no thread, done a step at a time by whoever holds this: for simulations, where nothing may
/// happen by itself.
#[derive(Debug)]
pub struct Stepper {
    syncer: Syncer,
    writer: Writer,
}

impl Stepper {
    pub(super) fn new(syncer: Syncer, writer: Writer) -> Self {
        Self { syncer, writer }
    }

    /// Writes what gathered while callers might not: what is done beside a sync. Whether there was anything.
    pub fn write(&mut self) -> bool {
        self.writer.step()
    }

    /// Whether what the log waits for by itself is there: then its thread, had it one, would take the next step. `next` is what
    /// the last step said; time is for the caller to count.
    pub fn is_wanted(&self, next: Next) -> bool {
        self.syncer.shared.is_wanted(next)
    }

    /// Does one step, and says what the next one waits for. A turn of the log has two: what gathered is written, then it
    /// is synced and who waited is told; others may use the log in between, as they may beside the thread.
    pub fn step(&mut self, woken: Woken) -> Next {
        self.syncer.step(woken)
    }
}

/// Starts the thread of a log.
pub(super) fn spawn(syncer: Syncer) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("kvorum-wal".to_owned());
    thread.spawn(move || run(syncer))
}

fn run(mut syncer: Syncer) {
    let shared = Arc::clone(&syncer.shared);
    let _on_panic = FailOnPanic(&shared);
    let mut woken = Woken::ByWork;
    loop {
        woken = match syncer.step(woken) {
            Next::More => Woken::ByWork,
            Next::Work => shared.wait_for_work(None),
            Next::WorkWithin(delay) => shared.wait_for_work(Some(delay)),
            Next::Ended => return,
        };
    }
}

/// What the log's thread does, without the thread: it waits for nothing but the disk.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    sync_mark: Option<SyncMarkFile>,
    /// What was written and is to be synced.
    job: Option<Job>,
    buffers: Buffers,
    is_failure_noted: bool,
    /// Goes with this: see [`Wal::closed`](super::Wal::closed).
    _working: watch::Sender<()>,
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Syncer {
    pub(super) fn new(
        shared: Arc<Shared>,
        sync_mark: Option<SyncMarkFile>,
        working: watch::Sender<()>,
    ) -> Self {
        let buffers = Buffers::default();
        Self { shared, sync_mark, job: None, buffers, is_failure_noted: false, _working: working }
    }

    /// Does one step: begins a turn by writing, or ends it by syncing.
    pub(super) fn step(&mut self, woken: Woken) -> Next {
        match self.job.take() {
            None => self.begin(woken),
            Some(job) => self.finish(job),
        }
    }

    /// Leaves a note of a failure for the next opening, as well as that goes: where an append does not wait for a sync, what
    /// was acknowledged may be missing then, although the machine was never started anew.
    fn note_failure(&mut self) {
        let Some(failure) = self.shared.failure.get() else { return };
        if self.is_failure_noted || self.shared.policy == SyncPolicy::Always {
            return;
        }
        self.is_failure_noted = true;
        if !failure.may_drop_what_was_written() {
            return;
        }
        let path = self.shared.state.lock().tail.dir.join(FAILED_FILE);
        let noted = write_durably(self.shared.disk.as_ref(), &path, failure.to_string().as_bytes());
        if let Err(error) = noted {
            tracing::error!(%error, path = %path.display(), "cannot note that the log has failed");
        }
    }

    /// Takes what there is to do and writes it. Once the log has failed, nothing is written or synced any more.
    fn begin(&mut self, woken: Woken) -> Next {
        let shared = Arc::clone(&self.shared);
        self.note_failure();
        let mut state = shared.state.lock();
        let has_failed = shared.failure.get().is_some();
        let is_asked = shared.wants_turn(&state);
        // With `everysec`, woken for whatever reason, it syncs: waiting anew might put that off for ever.
        if !is_asked && woken == Woken::ByWork && shared.policy != SyncPolicy::EverySecond {
            return self.rest(&mut state);
        }
        if state.is_writing && !has_failed {
            // What is being written may not pass for synced. The writer takes nothing more before this turn.
            state.is_due = true;
            state.is_resting = true;
            return Next::Work;
        }
        let is_idle = !is_asked && woken == Woken::ByTime && !has_failed;
        if is_idle && !is_planted(Bug::NoIdleMark) {
            // Vouches for what was synced last, where no append has come to do it: until then, damage there passes for a
            // torn tail. The mark is synced as any record; nothing vouches for it, so an idle log writes one and no more.
            state.tail.put_mark();
        }
        let mut job = self.take_job(&mut state);
        drop(state);
        job.outcome = self.write(&mut job);
        self.job = Some(job);
        Next::More
    }

    fn take_job(&mut self, state: &mut State) -> Job {
        let job = state.take_job(std::mem::take(&mut self.buffers));
        state.is_due = false;
        state.is_writing = !job.backlog.is_empty() || !job.unwritten.is_empty();
        state.is_telling = !job.waiting.is_empty();
        state.is_syncing = !job.segments.is_empty() || job.is_dir_dirty || !job.dead.is_empty();
        job
    }

    /// What is waited for when no turn is under way.
    fn rest(&self, state: &mut State) -> Next {
        let has_failed = self.shared.failure.get().is_some();
        let next = if self.shared.has_work(state) {
            Next::More
        } else if self.shared.policy == SyncPolicy::EverySecond {
            Next::WorkWithin(SYNC_INTERVAL)
        } else if has_failed || !self.shared.may_be_to_mark(state) {
            Next::Work
        } else {
            Next::WorkWithin(IDLE_DELAY)
        };
        state.is_resting = next == Next::Work;
        next
    }

    /// Writes the backlog of `job` and tells who waited for that alone.
    fn write(&self, job: &mut Job) -> Result<(), Arc<WalError>> {
        let shared = &self.shared;
        if job.backlog.is_empty() && job.unwritten.is_empty() {
            return shared.failure.get().map_or(Ok(()), |failure| Err(Arc::clone(failure)));
        }
        let outcome = shared.write_backlog(&mut job.backlog, job.end);
        for done in job.unwritten.drain(..) {
            done(outcome.clone());
        }
        shared.state.lock().is_writing = false;
        shared.to_write.notify_one();
        outcome
    }

    /// Syncs what was written, tells who waited, gives free what was purged.
    fn finish(&mut self, mut job: Job) -> Next {
        let outcome = std::mem::replace(&mut job.outcome, Ok(()));
        if is_planted(Bug::ToldBeforeSync) {
            job.waiting.drain(..).for_each(|done| done(outcome.clone()));
        }
        let outcome =
            outcome.and_then(|()| self.sync(&job).map_err(|error| self.shared.fail(error)));
        if job.dead.is_empty() || outcome.is_err() {
            self.end_sync();
        }
        if outcome.is_err() {
            // Before anybody can act on it, and before the process may go.
            self.note_failure();
            // Under the lock, or a reader that has just looked for a failure would sleep through this.
            let _state = self.shared.state.lock();
            self.shared.written.notify_all();
        }
        for done in job.waiting.drain(..) {
            done(outcome.clone());
        }
        self.shared.state.lock().is_telling = false;
        drop(job.segments);
        let Job { backlog, waiting, unwritten, .. } = job;
        self.buffers = Buffers { backlog, waiting, unwritten };
        if outcome.is_ok() && !job.dead.is_empty() {
            // Files that go keep the disk as busy as a sync does.
            let freed = self.free(job.dead);
            self.end_sync();
            if let Err(error) = freed {
                let _failure = self.shared.fail(error);
            }
        }
        match job.stop {
            Some(stop) => self.end(stop),
            None => self.rest(&mut self.shared.state.lock()),
        }
    }

    fn end_sync(&self) {
        self.shared.state.lock().is_syncing = false;
        self.shared.to_write.notify_one();
    }

    fn sync(&mut self, job: &Job) -> Result<(), WalError> {
        let shared = &self.shared;
        if job.is_dir_dirty {
            let dir = shared.state.lock().tail.dir.clone();
            sync_dir(&*shared.disk, &dir)?;
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
            let synced = segment.file()?.sync_data();
            synced.map_err(WalError::io("sync", &segment.path))?;
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
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
        sync_dir(&*self.shared.disk, &dir)?;
        self.shared.state.lock().tail.spares.append(&mut spares);
        Ok(())
    }

    /// Ends the log; after the last job nothing can have been added any more.
    fn end(&mut self, stop: Stop) -> Next {
        if stop == Stop::Dropped || self.shared.failure.get().is_some() {
            return Next::Ended;
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        state.tail.put_clean_stop();
        let mut job = self.take_job(&mut state);
        job.stop = None;
        drop(state);
        job.outcome = self.write(&mut job);
        let _rest = self.finish(job);
        Next::Ended
    }
}

/// Should a callback panic, the log fails rather than let everyone wait for a thread that is gone.
pub(super) struct FailOnPanic<'a>(pub(super) &'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _failure = self.0.fail(WalError::Closed);
            // Dropped uncalled: a vote's future learns of it, and a second panic would abort.
            let mut state = self.0.state.lock();
            let waiting = std::mem::take(&mut state.waiting);
            let unwritten = std::mem::take(&mut state.unwritten);
            drop(state);
            self.0.written.notify_all();
            drop((waiting, unwritten));
        }
    }
}

impl Shared {
    /// Blocks until there is work, or for `delay`.
    fn wait_for_work(&self, delay: Option<Duration>) -> Woken {
        let mut state = self.state.lock();
        if self.must_not_wait(&state, delay.is_none()) {
            return Woken::ByWork;
        }
        let Some(delay) = delay else {
            self.work.wait(&mut state);
            return Woken::ByWork;
        };
        if self.work.wait_for(&mut state, delay).timed_out() {
            Woken::ByTime
        } else {
            Woken::ByWork
        }
    }

    /// Whether somebody has told this thread something since it decided to wait, while it did not hear: there is work, or
    /// something to mark for one that `sleeps` until it is told.
    fn must_not_wait(&self, state: &State, sleeps: bool) -> bool {
        self.has_work(state) || (sleeps && !state.is_resting)
    }

    /// Whether what `next` names is there already.
    fn is_wanted(&self, next: Next) -> bool {
        let state = self.state.lock();
        match next {
            Next::More => true,
            Next::Work => self.must_not_wait(&state, true),
            Next::WorkWithin(_) => self.must_not_wait(&state, false),
            Next::Ended => false,
        }
    }

    /// Whether there is something to mark when the log is idle, or will be once those callers have synced who are about to:
    /// they need not tell this thread each time.
    fn may_be_to_mark(&self, state: &State) -> bool {
        let tail = &state.tail;
        tail.has_unmarked() || (self.callers_sync && tail.content > tail.marked)
    }

    /// Whether there is a reason to turn before the time, and nothing in the way.
    pub(super) fn has_work(&self, state: &State) -> bool {
        let has_failed = self.failure.get().is_some();
        (!state.is_writing || has_failed) && self.wants_turn(state)
    }

    /// Whether there is a reason to turn before the time.
    pub(super) fn wants_turn(&self, state: &State) -> bool {
        let has_failed = self.failure.get().is_some();
        state.stop.is_some()
            || !state.waiting.is_empty()
            || (has_failed && !state.unwritten.is_empty())
            || (!has_failed
                && (state.is_due
                    || state.is_purged
                    || !state.tail.unsynced.is_empty()
                    || (self.policy == SyncPolicy::Always && !state.tail.backlog.is_empty())))
    }
}

/// A directory is opened to be synced.
fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    patiently(|| disk.sync_dir(dir)).map_err(WalError::io("sync", dir))
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
