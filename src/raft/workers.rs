//! Where the blocking work of replicas is done: the logs read, snapshots written, entries of great weight applied.
//!
//! All of it goes through [`Workers`], so that a simulation can decide when it is done; nothing else below `server/` hands work to
//! tokio's blocking threads (`tests/tidy.rs`). The price is three allocations for each job, which no lone command pays: it
//! neither waits for the disk here nor is of great weight.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::stdx::workers::{Job, Report, Work, Workers};

/// The blocking threads of the runtime that hands the work over.
#[derive(Clone, Copy, Debug)]
pub struct BlockingPool;

impl BlockingPool {
    /// The pool, for whoever takes any workers.
    pub fn shared() -> Arc<dyn Workers> {
        Arc::new(Self)
    }
}

impl Workers for BlockingPool {
    fn run(&self, _work: Work, job: Job) {
        match Handle::try_current() {
            // Nobody waits for its end but who hears the report, and the runtime itself.
            Ok(runtime) => drop(runtime.spawn_blocking(move || job()())),
            // This thread is of no runtime, so it beats no hearts.
            Err(_) => job()(),
        }
    }
}

/// There will be no result: the job panicked, or the runtime ended before.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work panicked, or its runtime has ended")]
pub struct Gone;

/// Has `job` done by `workers`, from the call on, whether or not its result is waited for.
///
/// # Errors
/// [`Gone`], when all that the job held is dropped.
pub fn on<T, F>(
    workers: &dyn Workers,
    work: Work,
    job: F,
) -> impl Future<Output = Result<T, Gone>> + Send + use<T, F>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let job = move || {
        let value = job();
        // A value that nobody waits for any more is dropped here, too: it may be a whole state.
        Box::new(move || drop(done.send(value))) as Report
    };
    workers.run(work, Box::new(job));
    async move { result.await.map_err(|_| Gone) }
}

/// The same for a job that can fail, as most do that wait for the disk.
pub(super) fn blocking<T, F>(
    workers: &dyn Workers,
    work: Work,
    job: F,
) -> impl Future<Output = io::Result<T>> + Send + use<T, F>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let result = on(workers, work, job);
    async move { result.await.map_err(io::Error::other)? }
}

/// Has `job` done by `workers`; nobody hears of its end.
pub fn aside(workers: &dyn Workers, work: Work, job: impl FnOnce() + Send + 'static) {
    let job = move || {
        job();
        Box::new(|| ()) as Report
    };
    workers.run(work, Box::new(job));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;
    use crate::stdx::turns::Turns;

    /// Longer than any test should take: reaching it is a failure.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn work_is_done_on_another_thread_from_the_call_on() {
        let (done, is_done) = mpsc::channel();
        let result = on(&BlockingPool, Work::Disk, move || {
            done.send(thread::current().id()).unwrap();
            7
        });
        // Nobody polls it yet.
        assert_ne!(is_done.recv_timeout(PATIENCE).unwrap(), thread::current().id());
        assert_eq!(timeout(PATIENCE, result).await.unwrap(), Ok(7));
    }

    /// A shard that frees what has gone is applied to without a runtime in tests and tools.
    #[test]
    fn where_there_is_no_runtime_work_is_done_at_once() {
        let (done, is_done) = mpsc::channel();
        aside(&BlockingPool, Work::Disk, move || done.send(thread::current().id()).unwrap());
        assert_eq!(is_done.try_recv(), Ok(thread::current().id()));
    }

    /// A turn or a place that the work held is free for who hears of it.
    #[tokio::test]
    async fn a_panic_is_told_when_all_that_the_work_held_is_gone() {
        let held = Arc::new(());
        let in_work = Arc::clone(&held);
        let result = on(&BlockingPool, Work::State, move || {
            assert_eq!(Arc::strong_count(&in_work), 0, "as the test wants");
        });
        assert_eq!(timeout(PATIENCE, result).await.unwrap(), Err(Gone));
        assert_eq!(Arc::strong_count(&held), 1);
        let failed = blocking(&BlockingPool, Work::Disk, || Err::<(), _>(io::Error::other("no")));
        assert_eq!(failed.await.unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_runtime_that_has_ended_begins_nothing_and_says_so() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let (ended, held) = (runtime.handle().clone(), Arc::new(()));
        drop(runtime);
        let _inside = ended.enter();
        let in_work = Arc::clone(&held);
        let result = on(&BlockingPool, Work::State, move || drop(in_work));
        assert_eq!(result.now_or_never(), Some(Err(Gone)));
        let in_work = Arc::clone(&held);
        aside(&BlockingPool, Work::State, move || std::mem::forget(in_work));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    /// It may be a whole state.
    #[tokio::test]
    async fn a_result_that_nobody_waits_for_any_more_is_dropped_on_that_thread() {
        struct Value(mpsc::Sender<ThreadId>);
        impl Drop for Value {
            fn drop(&mut self) {
                self.0.send(thread::current().id()).unwrap();
            }
        }
        let (let_go, is_let_go) = mpsc::channel::<()>();
        let (dropped, by) = mpsc::channel();
        let result = on(&BlockingPool, Work::State, move || {
            is_let_go.recv().unwrap_err();
            Value(dropped)
        });
        drop(result);
        drop(let_go);
        assert_ne!(by.recv_timeout(PATIENCE).unwrap(), thread::current().id());
    }

    /// What a simulation rests on.
    #[tokio::test]
    async fn a_result_is_there_when_it_is_reported_and_never_when_the_process_ends_before() {
        let turns = Turns::default();
        turns.delay(2);
        let mut first = Box::pin(on(&turns, Work::State, || 1));
        turns.pass(1);
        assert_eq!((&mut first).now_or_never(), None);
        let second = on(&turns, Work::State, || 2);
        turns.pass(1);
        assert_eq!(first.now_or_never(), Some(Ok(1)));
        turns.end();
        assert_eq!(second.now_or_never(), Some(Err(Gone)));
    }
}
