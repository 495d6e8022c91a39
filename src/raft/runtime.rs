//! What openraft runs on: tokio, but for the channel that it publishes its state through, see `watch`, the queues between
//! its tasks, see `mpsc`, and chance: here it has none.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::async_runtime::Select4;
use openraft_rt_tokio::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::mpsc::Mpsc;
use super::watch::Watch;

/// Tokio with cheaper channels.
#[derive(Debug)]
pub(super) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = Mpsc;
    type Watch = Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    // Openraft's own builds it of three `select2`, each of which moves its futures once more.
    async fn select4<A, B, C, D>(
        a: A,
        b: B,
        c: C,
        d: D,
    ) -> Select4<A::Output, B::Output, C::Output, D::Output>
    where
        A: Future + Send,
        B: Future + Send,
        C: Future + Send,
        D: Future + Send,
    {
        let (mut a, mut b, mut c, mut d) = (pin!(a), pin!(b), pin!(c), pin!(d));
        poll_fn(|context| {
            if let Poll::Ready(value) = a.as_mut().poll(context) {
                return Poll::Ready(Select4::First(value));
            }
            if let Poll::Ready(value) = b.as_mut().poll(context) {
                return Poll::Ready(Select4::Second(value));
            }
            if let Poll::Ready(value) = c.as_mut().poll(context) {
                return Poll::Ready(Select4::Third(value));
            }
            d.as_mut().poll(context).map(Select4::Fourth)
        })
        .await
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    // Always the same. Openraft draws when its own timers are due, and those are off, see `raft_config`; what is due when
    // follows from a group's seed.
    fn thread_rng() -> Self::ThreadLocalRng {
        SmallRng::seed_from_u64(0)
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::*;

    /// Openraft's own conditions for a runtime, its channels included.
    #[test]
    fn openraft_can_run_on_it() {
        Suite::<Runtime>::test_all();
    }
}
