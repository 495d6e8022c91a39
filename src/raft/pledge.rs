//! What this replica has promised to a leader, and what it may still believe of itself as one.
//!
//! openraft has a lease of its own, but its length is also the time that a vote may take, and that must be seconds: a
//! vote waits for two disks. So the lease that guards votes is this one (`Timing::lease`), and what it lets through is
//! marked for openraft as if a leader had asked for it (`leadership_transfer`), which keeps openraft's longer lease from
//! refusing it. No vote, also none for this replica itself, reaches openraft but through here.
//!
//! **Invariant:** what is decided under the lock is queued at openraft's core under the lock, see [`Pledge::queue`]. The core
//! takes messages in the order they were queued, so a leader's word that is noted before a vote is admitted is known to
//! the core before that vote too, and the other way round.
//!
//! Source: Raft thesis §4.2.3, §6.4.1.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::Instant;

/// A replica's promises.
#[derive(Debug, Default)]
pub(super) struct Pledge {
    promise: Mutex<Promise>,
    /// Vote requests of others that openraft has not answered yet. A leader that weighs one may not count itself
    /// among those who would refuse.
    votes_open: AtomicU32,
    /// The term in which this replica, leading, has let go of its lease, perhaps to have it again; 0: none.
    given_up: AtomicU64,
    /// The last term in which it has let go of it for good.
    given_away: AtomicU64,
    /// Proposals no longer wait.
    resumed: Notify,
    /// The highest term in which this replica gave a vote, to itself or to another.
    voted: AtomicU64,
}

/// What is decided under the lock.
#[derive(Debug, Default)]
pub(super) struct Promise {
    /// When a leader's word was last taken. Votes against it are refused for one lease from then on. By the monotonic
    /// clock: if that stands still in a suspend, the promise only lasts longer.
    word: Option<Instant>,
    /// The highest term of a leader heard. openraft's metrics may be behind with it.
    term: u64,
    /// Proposals wait: leadership is being handed over.
    is_paused: bool,
}

impl Promise {
    /// Notes that the word of a leader of `term` arrived at `now`.
    pub(super) fn take_word(&mut self, term: u64, now: Instant) {
        self.word = self.word.max(Some(now));
        self.term = self.term.max(term);
    }

    /// The highest term of a leader heard.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Whether a leader's lease holds at `now`.
    pub(super) fn is_bound(&self, now: Instant, lease: Duration) -> bool {
        self.word.is_some_and(|word| now < word + lease)
    }
}

/// While it is there, proposals wait; see [`Pledge::pause`].
#[derive(Debug)]
pub(super) struct Pause<'a>(&'a Pledge);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.promise.lock().is_paused = false;
        self.0.resumed.notify_waiters();
    }
}

/// A vote that openraft weighs; see [`Pledge::open_vote`].
#[derive(Debug)]
pub(super) struct OpenVote<'a>(&'a Pledge);

impl Drop for OpenVote<'_> {
    fn drop(&mut self) {
        self.0.votes_open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pledge {
    /// From now until the guard goes, no proposal is queued. `None` if that is so already.
    pub(super) fn pause(&self) -> Option<Pause<'_>> {
        let mut promise = self.promise.lock();
        if promise.is_paused {
            return None;
        }
        promise.is_paused = true;
        Some(Pause(self))
    }

    /// Queues `call`, once proposals need not wait, and awaits the answer. The wait is bounded by that of the pause. The
    /// call is lent: it is large, and moving it costs more than all else here.
    pub(super) async fn queue_proposal<C: Future>(&self, call: Pin<&mut C>) -> C::Output {
        let mut call = unconstrained(call);
        loop {
            // Before the look, so that no end of a pause falls between it and the wait.
            let resumed = self.resumed.notified();
            let queued = poll_fn(|context| {
                let promise = self.promise.lock();
                Poll::Ready((!promise.is_paused).then(|| Pin::new(&mut call).poll(context)))
            })
            .await;
            match queued {
                None => resumed.await,
                Some(Poll::Ready(answer)) => return answer,
                Some(Poll::Pending) => return call.await,
            }
        }
    }

    /// Decides or changes something without queueing anything.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut Promise) -> R) -> R {
        change(&mut self.promise.lock())
    }

    /// From now until the guard goes, a vote of somebody else is being weighed.
    pub(super) fn open_vote(&self) -> OpenVote<'_> {
        self.votes_open.fetch_add(1, Ordering::SeqCst);
        OpenVote(self)
    }

    /// Whether a vote of somebody else is being weighed.
    pub(super) fn is_weighing(&self) -> bool {
        self.votes_open.load(Ordering::SeqCst) > 0
    }

    /// Whether this replica has neither given nor is it weighing a vote against a leader of `term`. openraft's metrics may
    /// be behind with that.
    pub(super) fn is_faithful(&self, term: u64) -> bool {
        !self.is_weighing() && self.voted.load(Ordering::SeqCst) <= term
    }

    /// Somebody was told to stand in the place of this replica, leading in `term`, and may yet do so at any time.
    pub(super) fn give_away(&self, term: u64) {
        self.given_away.fetch_max(term, Ordering::SeqCst);
    }

    /// This replica, leading in `term`, does not rely on its lease until [`Self::take_back`].
    pub(super) fn give_up(&self, term: u64) {
        self.given_up.fetch_max(term, Ordering::SeqCst);
    }

    /// What [`Self::give_up`] said of `term` was not to be: nobody was told to elect somebody else.
    pub(super) fn take_back(&self, term: u64) {
        // A later term that was given up since stays so.
        let _later =
            self.given_up.compare_exchange(term, 0, Ordering::SeqCst, Ordering::SeqCst).is_err();
    }

    /// This replica gives its vote of `term`. To be noted before anybody can hear of it.
    pub(super) fn voted(&self, term: u64) {
        self.voted.fetch_max(term, Ordering::SeqCst);
    }

    /// Whether this replica, leading in `term`, may rely on its lease as far as it goes itself. To be asked before
    /// anything else that the lease rests on: a vote that is admitted later makes nobody a leader before the asking.
    pub(super) fn may_rely(&self, term: u64) -> bool {
        self.is_faithful(term)
            && self.given_up.load(Ordering::SeqCst) < term
            && self.given_away.load(Ordering::SeqCst) < term
    }

    /// Decides under the lock and, if `decide` says so, queues `call` under it; then awaits the answer. `None`: not
    /// queued. A call of openraft queues its message the first time it is polled; it is lent, as to [`Self::queue_proposal`].
    pub(super) async fn queue<C: Future>(
        &self,
        decide: impl FnOnce(&mut Promise) -> bool,
        call: Pin<&mut C>,
    ) -> Option<C::Output> {
        // tokio's budget could make a first poll come back empty-handed; then others would overtake.
        let mut call = unconstrained(call);
        let mut decide = Some(decide);
        poll_fn(|context| {
            let Some(decide) = decide.take() else {
                return Pin::new(&mut call).poll(context).map(Some);
            };
            let mut promise = self.promise.lock();
            if decide(&mut promise) {
                Pin::new(&mut call).poll(context).map(Some)
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    const LEASE: Duration = Duration::from_millis(500);

    #[test]
    fn a_leaders_word_binds_for_one_lease() {
        let pledge = Pledge::default();
        let start = Instant::now();
        let is_bound = |after: u64| {
            let now = start + Duration::from_millis(after);
            pledge.with(|promise| promise.is_bound(now, LEASE))
        };
        assert!(!is_bound(0), "nobody was heard");
        pledge.with(|promise| promise.take_word(3, start));
        assert!(is_bound(499));
        assert!(!is_bound(500));
        pledge.with(|promise| promise.take_word(4, start + Duration::from_millis(100)));
        pledge.with(|promise| promise.take_word(3, start));
        assert!(is_bound(599), "an older word takes nothing back");
        assert_eq!(pledge.with(|promise| promise.term()), 4);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_queued() {
        let pledge = Pledge::default();
        let call = pin!(async { panic!("polled") });
        assert!(pledge.queue(|_| false, call).await.is_none());
    }

    #[tokio::test]
    async fn what_is_decided_is_queued_under_the_lock() {
        let pledge = Pledge::default();
        let call = pin!(async { pledge.promise.is_locked() });
        assert_eq!(pledge.queue(|_| true, call).now_or_never(), Some(Some(true)));
    }

    #[tokio::test]
    async fn proposals_wait_for_the_end_of_a_pause_and_no_longer() {
        let pledge = Pledge::default();
        let pause = pledge.pause().unwrap();
        assert!(pledge.pause().is_none(), "one at a time");
        let call = pin!(async { 7 });
        let mut proposal = Box::pin(pledge.queue_proposal(call));
        assert_eq!((&mut proposal).now_or_never(), None);
        drop(pause);
        assert_eq!(proposal.now_or_never(), Some(7));
    }

    #[test]
    fn a_leader_that_weighs_a_vote_does_not_rely_on_its_lease() {
        let pledge = Pledge::default();
        assert!(pledge.may_rely(3));
        let vote = pledge.open_vote();
        assert!(!pledge.may_rely(3));
        drop(vote);
        assert!(pledge.may_rely(3));
        pledge.give_up(3);
        assert!(!pledge.may_rely(3));
        assert!(pledge.may_rely(4), "a later term is another leadership");
        pledge.take_back(3);
        assert!(pledge.may_rely(3));
        // One was asked and did not answer; another declines later.
        pledge.give_away(2);
        pledge.give_up(2);
        pledge.take_back(2);
        assert!(!pledge.may_rely(2) && pledge.may_rely(3), "the first may stand still");
        pledge.voted(4);
        assert!(!pledge.may_rely(3), "another leader may have been elected");
        assert!(pledge.may_rely(4));
    }
}
