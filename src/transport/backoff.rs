//! How long to wait before the next attempt to connect.

use std::time::Duration;

use super::limits::{BACKOFF_FORGOTTEN_AFTER, BACKOFF_MAX, BACKOFF_MIN};

/// Nothing before the first attempt, then 20 ms doubling to 500 ms, each 75 to 125 % of that by a seeded choice, so that
/// nodes that lost the same peer do not return in step.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(super) const fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed }
    }

    /// The wait before the next attempt.
    pub(super) fn delay(&mut self) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let delay = BACKOFF_MIN.saturating_mul(1 << doublings.min(16)).min(BACKOFF_MAX);
        let percent = 75 + u32::try_from(self.next_random() % 51).unwrap_or(0);
        delay * percent / 100
    }

    /// An attempt ended: `lived` is how long it was connected, zero if never.
    pub(super) fn ended(&mut self, lived: Duration) {
        self.failures =
            if lived >= BACKOFF_FORGOTTEN_AFTER { 0 } else { self.failures.saturating_add(1) };
    }

    /// The next attempt is immediate.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_are_forgotten_after_a_good_connection() {
        let mut backoff = Backoff::new(1);
        assert_eq!(backoff.delay(), Duration::ZERO);
        for base_ms in [20, 40, 80, 160, 320, 500, 500, 500] {
            backoff.ended(Duration::ZERO);
            let delay = backoff.delay();
            let base = Duration::from_millis(base_ms);
            assert!(delay >= base * 3 / 4 && delay <= base * 5 / 4, "{delay:?} for {base:?}");
        }
        backoff.ended(BACKOFF_FORGOTTEN_AFTER);
        assert_eq!(backoff.delay(), Duration::ZERO);
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 8].map(|()| {
                backoff.ended(Duration::ZERO);
                backoff.delay()
            })
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
