//! The replicated clock as a leader continues it: steady through clock steps and changes of leader.
//!
//! A TTL is a promise about real time: a lock must not be handed to a second holder early because some node's
//! wall clock stepped, or because the new leader's clock is an hour ahead of the old one's. So a leader
//! does not stamp its wall clock; it continues the last stamp it issued or saw from another leader by its
//! monotonic clock, and lets that drift toward its wall clock by at most 1 % of the time passed
//! (the drift bound that Redlock assumes). Only a node that starts with no leader to listen to takes its
//! wall clock as it is: the time it was down has really passed.

use crate::stdx::clock::{Clock, MonotonicMicros, UnixMillis};

/// The share of passed time by which stamps may run faster or slower than the monotonic clock: 1/100.
const SLEW_DIVISOR: i64 = 100;

/// One shard's clock on one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct StampClock {
    /// Cluster time at `at`, in microseconds since the Unix epoch.
    base_us: i64,
    at: MonotonicMicros,
    /// The last stamp seen from another leader.
    observed: UnixMillis,
    /// The last stamp issued: the next may not be earlier.
    issued: UnixMillis,
}

impl StampClock {
    /// A clock that starts from the wall, or from `restored` (the last stamp in the log) when that is later.
    pub(super) fn start(clock: &dyn Clock, restored: UnixMillis) -> Self {
        let start = clock.now().max(restored);
        Self { base_us: micros(start), at: clock.monotonic(), observed: restored, issued: restored }
    }

    /// Takes over `stamp`, newly applied from another leader's entry: its clock rules.
    pub(super) fn observe(&mut self, clock: &dyn Clock, stamp: UnixMillis) {
        if stamp != self.observed {
            let at = clock.monotonic();
            *self = Self { base_us: micros(stamp), at, observed: stamp, issued: stamp };
        }
    }

    /// The time now, for reads; `applied` is the last stamp applied, below which time may not fall.
    pub(super) fn peek(&self, clock: &dyn Clock, applied: UnixMillis) -> UnixMillis {
        let mut copy = *self;
        copy.now(clock, applied)
    }

    /// The time now, for an entry; `applied` as in [`Self::peek`].
    pub(super) fn now(&mut self, clock: &dyn Clock, applied: UnixMillis) -> UnixMillis {
        let at = clock.monotonic();
        let passed = i64::try_from(at.since(self.at)).unwrap_or(i64::MAX / 2);
        let steady = self.base_us.saturating_add(passed);
        let slew = passed / SLEW_DIVISOR;
        let drift = micros(clock.now()).saturating_sub(steady).clamp(-slew, slew);
        // Short intervals have no room to drift (integer division); they must not use it up either.
        if passed >= 1_000_000 {
            self.base_us = steady.saturating_add(drift);
            self.at = at;
        }
        let now = UnixMillis(u64::try_from(steady.saturating_add(drift) / 1000).unwrap_or(0));
        self.issued = now.max(applied).max(self.issued);
        self.issued
    }
}

fn micros(time: UnixMillis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stdx::clock::ManualClock;

    const NOON: UnixMillis = UnixMillis(1_800_000_000_000);
    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_step_of_the_wall_clock_moves_stamps_by_at_most_one_percent() {
        let clock = ManualClock::at(NOON);
        let mut stamps = StampClock::start(&clock, UnixMillis(0));
        for stepped in [NOON.0 + HOUR_MS, NOON.0 - HOUR_MS] {
            let before = stamps.now(&clock, UnixMillis(0));
            clock.set_wall(UnixMillis(stepped));
            for _ in 0..100 {
                clock.advance(Duration::from_millis(100));
                stamps.now(&clock, UnixMillis(0));
            }
            let passed = stamps.now(&clock, UnixMillis(0)).since(before);
            assert!((9_900..=10_100).contains(&passed), "10 s passed, stamps moved {passed} ms");
        }
    }

    #[test]
    fn a_new_leader_with_a_fast_wall_clock_continues_the_old_ones_time() {
        let clock = ManualClock::at(UnixMillis(NOON.0 + HOUR_MS));
        let mut stamps = StampClock::start(&clock, UnixMillis(0));
        stamps.observe(&clock, NOON);
        clock.advance(Duration::from_secs(2));
        let now = stamps.now(&clock, NOON);
        assert!((2_000..=2_020).contains(&now.since(NOON)), "{now:?}");
    }

    #[test]
    fn a_follower_may_look_at_its_clock_without_moving_it() {
        let clock = ManualClock::at(UnixMillis(NOON.0 + HOUR_MS));
        let mut stamps = StampClock::start(&clock, UnixMillis(0));
        stamps.peek(&clock, UnixMillis(0));
        stamps.observe(&clock, NOON);
        for _ in 0..10 {
            clock.advance(Duration::from_millis(100));
            stamps.peek(&clock, NOON);
            stamps.observe(&clock, NOON);
        }
        let now = stamps.now(&clock, NOON);
        assert!((1_000..=1_010).contains(&now.since(NOON)), "{now:?}");
    }

    #[test]
    fn stamps_never_go_back() {
        let clock = ManualClock::at(NOON);
        let mut stamps = StampClock::start(&clock, UnixMillis(NOON.0 + 5));
        assert_eq!(stamps.now(&clock, UnixMillis(0)), UnixMillis(NOON.0 + 5));
        let applied = UnixMillis(NOON.0 + 77);
        assert_eq!(stamps.now(&clock, applied), applied);
        assert_eq!(stamps.now(&clock, UnixMillis(0)), applied);
    }

    #[test]
    fn time_spent_switched_off_counts() {
        let clock = ManualClock::at(UnixMillis(NOON.0 + HOUR_MS));
        let mut stamps = StampClock::start(&clock, NOON);
        assert_eq!(stamps.now(&clock, NOON), UnixMillis(NOON.0 + HOUR_MS));
    }
}
