//! A wait for something that mostly comes before the time is up, again and again.
//!
//! tokio tells the system of every timer that becomes the next one due, by a call that also ends the thread's next sleep at
//! once. A wait of milliseconds is the next one due nearly always, and thousands a second are begun and never end. So one timer
//! stays where it is, and goes on to where it should be once it fires too early.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of such waits, one at a time.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Since the first wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    /// What `awaited` comes to, or `None` at `until`.
    pub(super) async fn wait<F: Future>(
        &mut self,
        until: Instant,
        awaited: F,
    ) -> Option<F::Output> {
        let mut awaited = pin!(awaited);
        poll_fn(|context| {
            if let Poll::Ready(output) = awaited.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            loop {
                if timer.is_elapsed() || timer.deadline() > until {
                    timer.as_mut().reset(until);
                }
                ready!(timer.as_mut().poll(context));
                if timer.deadline() >= until {
                    return Poll::Ready(None);
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::task::yield_now;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn what_comes_in_time_is_passed_on() {
        let mut linger = Linger::default();
        let until = Instant::now() + HOUR;
        assert_eq!(linger.wait(until, ready(7)).await, Some(7));
        assert_eq!(linger.wait(until, yield_now()).await, Some(()));
        assert_eq!(linger.wait(Instant::now(), ready(8)).await, Some(8), "at the last moment");
    }

    #[tokio::test]
    async fn a_wait_ends_in_time_whatever_the_timer_was_set_to() {
        for before in [MOMENT, HOUR] {
            let mut linger = Linger::default();
            assert_eq!(linger.wait(Instant::now() + before, yield_now()).await, Some(()));
            for moments in [20, 1, 20] {
                let until = Instant::now() + moments * MOMENT;
                assert_eq!(linger.wait(until, pending::<()>()).await, None);
                assert!(Instant::now() >= until, "{moments} after {before:?}");
            }
        }
    }

    #[tokio::test]
    async fn waits_that_end_early_leave_the_timer_where_it_is() {
        let mut linger = Linger::default();
        let first = Instant::now() + HOUR;
        for after in 0..4 {
            let until = first + after * MOMENT;
            assert_eq!(linger.wait(until, yield_now()).await, Some(()));
            assert_eq!(linger.timer.as_ref().unwrap().deadline(), first);
        }
    }
}
