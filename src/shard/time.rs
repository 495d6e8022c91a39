//! The shard's time: one source, on every node, for stamps, reads, purges and what is said of deadlines.
//!
//! A TTL is a promise about real time: a lock must not be handed to a second holder early because some node's wall clock
//! stepped, or because the new leader's clock is an hour ahead of the old one's. So nobody asks a wall clock what time it
//! is. The leader's time goes on by its monotonic clock and nears its wall clock by at most 1 % of the time passed (the
//! drift that Redlock assumes). It travels with every message of the leader (`raft::Timekeeper`), and followers keep to it:
//! a message may be late but never early, so a later time than one's own is taken at once, an earlier one approached
//! slowly. Whoever becomes leader goes on with what it keeps.
//!
//! **A node that was restarted knows no time** until a leader or, as candidate, a voter has told it. Only where nobody whom a
//! candidate asks knows any, the wall clocks of those asked decide; the time that all were down has really passed. That is
//! the shard's time if the candidate comes to lead, and else forgotten.
//!
//! **Time never goes back**, on one node nor from one leader to the next. A read is given the time at which the leader was
//! known to lead, or earlier; its successor answers 75 ms later at least (lease 500 ms after the *arrival* of the message that
//! the old one's 425 ms are counted from) or has been told to stand by a message that took as long as those that brought the
//! time. So the successor's clock may be behind by the time a message travels, up to 75 ms, and shows no earlier time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::raft::{Estimate, Timekeeper};
use crate::stdx::clock::{Clock, MonotonicMicros, UnixMillis};
use crate::stdx::latest::Latest;

/// How much faster or slower than the monotonic clock a leader's time may run to near its wall clock, in µs per second.
const LEADER_SLEW: i64 = 10_000;

/// How much slower a follower's may, where its leader's is behind. More than the leader's, or it would never get there.
const FOLLOWER_SLEW: i64 = 20_000;

/// For how long a rate holds that is not renewed, in µs; the time in which a smaller difference is made good.
const PERIOD_US: i64 = 1_000_000;

/// A leader's time earlier than one's own by less than this, in µs, is the way of the message.
const WAY_US: i64 = 1_000;

// What is known of the time: nothing; what a candidate and its voters agreed on; what a leader goes by.
const NONE: u8 = 0;
const AGREED: u8 = 1;
const KNOWN: u8 = 2;

/// From `at` on the time is `base` and runs at `rate` against the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// µs since the Unix epoch.
    base: i64,
    /// By the monotonic clock, in µs.
    at: i64,
    /// µs per second, for one [`PERIOD_US`].
    rate: i64,
}

impl Course {
    fn of([base, at, rate]: [i64; 3]) -> Self {
        Self { base, at, rate }
    }

    fn words(self) -> [i64; 3] {
        [self.base, self.at, self.rate]
    }

    fn time(self, at: i64) -> i64 {
        let passed = at.saturating_sub(self.at).max(0);
        let slewed = passed.min(PERIOD_US) * self.rate / PERIOD_US;
        self.base.saturating_add(passed).saturating_add(slewed)
    }

    /// The same time at `at`, and from there on at another rate.
    fn bent(self, at: i64, rate: i64) -> Self {
        Self { base: self.time(at), at: at.max(self.at), rate }
    }
}

/// One shard's time on one node.
pub(super) struct ShardTime {
    clock: Arc<dyn Clock>,
    course: Latest<3>,
    knowledge: AtomicU8,
    /// The latest stamp applied here, in ms since the Unix epoch: no time is earlier.
    applied: AtomicU64,
}

impl fmt::Debug for ShardTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl ShardTime {
    /// A time that is not known yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            course: Latest::new(Course::default().words()),
            knowledge: AtomicU8::new(NONE),
            applied: AtomicU64::new(0),
        }
    }

    /// Whether it is the shard's: heard from a leader or told by a voter who had, or this node leads with it.
    pub(super) fn is_known(&self) -> bool {
        self.knowledge.load(Ordering::Acquire) == KNOWN
    }

    /// This node leads: what it stood for election with is the shard's time.
    pub(super) fn lead(&self) {
        match self.knowledge.load(Ordering::Acquire) {
            KNOWN => {}
            // Without a candidacy leads who founds a group: there was no time before.
            NONE => self.begin(self.guess(), KNOWN),
            _ => self.knowledge.store(KNOWN, Ordering::Release),
        }
    }

    /// The time now; long ago while it is not known.
    pub(super) fn now(&self) -> UnixMillis {
        self.at(self.clock.monotonic())
    }

    /// The time at `clock`; long ago while it is not known.
    pub(super) fn at(&self, clock: MonotonicMicros) -> UnixMillis {
        let time = Course::of(self.course.read()).time(signed(clock.0));
        UnixMillis(u64::try_from(time / 1000).unwrap_or(0))
    }

    /// The clock that [`Self::at`] goes by.
    pub(super) fn monotonic(&self) -> MonotonicMicros {
        self.clock.monotonic()
    }

    /// Notes that an entry stamped `stamp` is applied: it is no earlier now.
    pub(super) fn pass(&self, stamp: UnixMillis) {
        if self.applied.fetch_max(stamp.0, Ordering::Relaxed) >= stamp.0 || !self.is_known() {
            return;
        }
        let (stamp, at) = (micros(stamp), self.monotonic_us());
        if Course::of(self.course.read()).time(at) < stamp {
            self.course.update(|course| {
                let course = Course::of(course);
                (course.time(at) < stamp).then(|| Course { base: stamp, at, ..course }.words())
            });
        }
    }

    /// Nears the wall clock, as a leader does; to be called again within a second.
    pub(super) fn steer(&self) {
        if !self.is_known() {
            return;
        }
        let (at, wall) = (self.monotonic_us(), micros(self.clock.now()));
        self.course.update(|course| {
            let course = Course::of(course);
            let drift = wall.saturating_sub(course.time(at)).clamp(-LEADER_SLEW, LEADER_SLEW);
            Some(course.bent(at, drift).words())
        });
    }

    fn monotonic_us(&self) -> i64 {
        signed(self.clock.monotonic().0)
    }

    /// What the wall clock makes of it, where nobody knows better.
    fn guess(&self) -> i64 {
        micros(self.clock.now()).max(micros(UnixMillis(self.applied.load(Ordering::Relaxed))))
    }

    fn begin(&self, time: i64, knowledge: u8) {
        let at = self.monotonic_us();
        self.course.update(|_| Some(Course { base: time, at, rate: 0 }.words()));
        self.knowledge.store(knowledge, Ordering::Release);
    }
}

impl Timekeeper for ShardTime {
    fn estimate(&self) -> Estimate {
        let is_known = self.is_known();
        let time = if is_known {
            Course::of(self.course.read()).time(self.monotonic_us())
        } else {
            self.guess()
        };
        Estimate { micros: u64::try_from(time).unwrap_or(0), is_known }
    }

    fn hear(&self, time: u64) {
        let (heard, at) = (signed(time), self.monotonic_us());
        if !self.is_known() {
            return self.begin(heard, KNOWN);
        }
        let behind = |course: Course| course.time(at).saturating_sub(heard);
        let course = Course::of(self.course.read());
        if course.rate == 0 && (0..WAY_US).contains(&behind(course)) {
            return; // Nearly always.
        }
        self.course.update(|course| {
            let course = Course::of(course);
            let behind = behind(course);
            let course = if behind < 0 {
                Course { base: heard, at, rate: 0 }
            } else if behind < WAY_US {
                course.bent(at, 0)
            } else {
                course.bent(at, -behind.min(FOLLOWER_SLEW))
            };
            Some(course.words())
        });
    }

    fn agree(&self, voters: &[Estimate]) {
        let own = self.estimate();
        let known = voters.iter().chain([&own]).filter(|it| it.is_known);
        if let Some(latest) = known.map(|it| signed(it.micros)).max() {
            // Whoever heard a later time heard it from a leader.
            return if self.is_known() && latest > signed(own.micros) {
                self.hear(u64::try_from(latest).unwrap_or(0));
            } else if !self.is_known() {
                self.begin(latest, KNOWN);
            };
        }
        // The middle one, or of two the earlier: a lock that lives too long harms less than one that dies early.
        let mut guesses: Vec<i64> =
            voters.iter().chain([&own]).map(|it| signed(it.micros)).collect();
        guesses.sort_unstable();
        let middle = guesses[(guesses.len() - 1) / 2];
        let applied = micros(UnixMillis(self.applied.load(Ordering::Relaxed)));
        self.begin(middle.max(applied), AGREED);
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn micros(time: UnixMillis) -> i64 {
    signed(time.0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stdx::clock::ManualClock;

    const NOON: UnixMillis = UnixMillis(1_800_000_000_000);
    const HOUR_MS: u64 = 3_600_000;
    const HOUR_US: u64 = HOUR_MS * 1000;

    fn node(wall_ms: u64) -> (Arc<ManualClock>, ShardTime) {
        let clock = Arc::new(ManualClock::at(UnixMillis(wall_ms)));
        let time = ShardTime::new(Arc::clone(&clock) as Arc<dyn Clock>);
        (clock, time)
    }

    fn leader(wall_ms: u64) -> (Arc<ManualClock>, ShardTime) {
        let (clock, time) = node(wall_ms);
        time.agree(&[]);
        time.lead();
        (clock, time)
    }

    fn guess(ms: u64) -> Estimate {
        Estimate { micros: ms * 1000, is_known: false }
    }

    fn known(ms: u64) -> Estimate {
        Estimate { micros: ms * 1000, is_known: true }
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_the_time_by_at_most_one_percent() {
        let (clock, time) = leader(NOON.0);
        for stepped in [NOON.0 + HOUR_MS, NOON.0 - HOUR_MS] {
            let before = time.now();
            clock.set_wall(UnixMillis(stepped));
            let mut last = before;
            for _ in 0..1000 {
                clock.advance(Duration::from_millis(10));
                time.steer();
                assert!(time.now() >= last, "it never goes back");
                last = time.now();
            }
            let passed = last.since(before);
            assert!((9_900..=10_100).contains(&passed), "10 s passed, and {passed} ms of its time");
        }
    }

    #[test]
    fn a_small_difference_from_the_wall_clock_is_made_good() {
        let (clock, time) = leader(NOON.0);
        clock.set_wall(UnixMillis(NOON.0 + 20));
        for _ in 0..100 {
            clock.advance(Duration::from_millis(100));
            time.steer();
        }
        assert!(time.now().0.abs_diff(NOON.0 + 10_020) <= 1, "{:?}", time.now());
    }

    #[test]
    fn a_rate_that_nobody_renews_ends() {
        let (clock, time) = leader(NOON.0);
        clock.set_wall(UnixMillis(NOON.0 + HOUR_MS));
        time.steer();
        clock.advance(Duration::from_mins(1));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 60_010));
    }

    /// faults.md T1, T2: it took its wall clock for the time, or the last stamp in its log.
    #[test]
    fn a_restarted_node_goes_on_with_the_time_it_hears() {
        let (clock, time) = node(NOON.0 + HOUR_MS);
        time.pass(UnixMillis(NOON.0 - 5000));
        assert!(!time.is_known());
        time.hear(NOON.0 * 1000);
        clock.advance(Duration::from_secs(2));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 2000));
        time.steer();
        assert_eq!(time.now(), UnixMillis(NOON.0 + 2000));
    }

    #[test]
    fn a_candidate_that_has_heard_nothing_asks_its_voters() {
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.agree(&[guess(NOON.0 + 7), known(NOON.0), known(NOON.0 - 30)]);
        assert_eq!(time.now(), NOON);
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.agree(&[guess(NOON.0), guess(NOON.0 + 10)]);
        assert_eq!(time.now(), UnixMillis(NOON.0 + 10), "the middle one");
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.agree(&[guess(NOON.0)]);
        assert_eq!(time.now(), NOON, "the earlier one");
        let (_, time) = node(NOON.0);
        time.pass(UnixMillis(NOON.0 + 77));
        time.agree(&[guess(NOON.0 - HOUR_MS)]);
        assert_eq!(time.now(), UnixMillis(NOON.0 + 77), "no earlier than what was applied");
    }

    /// Or a node that once stood for election in vain would tell others its wall clock for the shard's time.
    #[test]
    fn what_a_candidate_agreed_on_is_forgotten_unless_it_leads() {
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.agree(&[]);
        assert!(!time.estimate().is_known);
        time.hear(NOON.0 * 1000);
        assert_eq!(time.now(), NOON);
        assert!(time.estimate().is_known);
    }

    #[test]
    fn a_candidate_that_knows_the_time_learns_of_a_later_one_only() {
        let (_, time) = leader(NOON.0);
        time.agree(&[known(NOON.0 - 500), guess(NOON.0 + HOUR_MS)]);
        assert_eq!(time.now(), NOON);
        time.agree(&[known(NOON.0 + 3)]);
        assert_eq!(time.now(), UnixMillis(NOON.0 + 3));
    }

    #[test]
    fn a_late_message_does_not_take_a_follower_back() {
        let (clock, time) = node(0);
        time.hear(NOON.0 * 1000);
        clock.advance(Duration::from_secs(1));
        time.hear(NOON.0 * 1000 + 400_000);
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1000));
        clock.advance(Duration::from_millis(100));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1098), "2 % slower");
        time.hear(NOON.0 * 1000 + 1_100_000);
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1100), "until a punctual one comes");
        clock.advance(Duration::from_millis(100));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 1200));
    }

    /// Its time would run ahead of that of a leader which slews back, and jump when it leads.
    #[test]
    fn a_follower_keeps_to_a_leader_that_slows_down() {
        let (leaders_clock, leader) = leader(NOON.0);
        let (clock, follower) = node(0);
        leaders_clock.set_wall(UnixMillis(NOON.0 - HOUR_MS));
        for _ in 0..1000 {
            leader.steer();
            follower.hear(leader.estimate().micros);
            leaders_clock.advance(Duration::from_millis(100));
            clock.advance(Duration::from_millis(100));
        }
        let apart = follower.now().since(leader.now());
        assert!(apart < 40, "{apart} ms ahead after 1 s less");
    }

    #[test]
    fn what_is_applied_carries_the_time_along() {
        let (clock, time) = leader(NOON.0);
        time.pass(UnixMillis(NOON.0 + 50));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 50));
        clock.advance(Duration::from_millis(10));
        time.pass(UnixMillis(NOON.0 + 20));
        assert_eq!(time.now(), UnixMillis(NOON.0 + 60));
    }

    #[test]
    fn time_spent_switched_off_counts() {
        let (_, time) = node(NOON.0 + HOUR_MS);
        time.pass(NOON);
        time.agree(&[]);
        time.lead();
        assert_eq!(time.now(), UnixMillis(NOON.0 + HOUR_MS));
        assert_eq!(time.estimate(), Estimate { micros: NOON.0 * 1000 + HOUR_US, is_known: true });
    }
}
