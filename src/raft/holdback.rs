//! What of the log is kept for replicas that a snapshot is on its way to.
//!
//! Whoever gets a snapshot needs the log behind it next. Were that purged while the snapshot travels, another would be
//! due when it arrives, and where a transfer takes longer than a snapshot stays the newest, for ever.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::limits::HOLDBACK_IDLE_MAX;
use crate::ids::RaftId;

/// The replicas that the log is kept for.
#[derive(Debug, Default)]
pub(super) struct Holdback(Mutex<BTreeMap<RaftId, Hold>>);

#[derive(Clone, Copy, Debug)]
struct Hold {
    /// Index of the last entry that the snapshot covers.
    covered: u64,
    has_arrived: bool,
    /// The end of the log at the first look after it was there. Who has got that has caught up.
    goal: Option<u64>,
    /// How far it has come since, and when it last came further.
    reached: Option<(u64, Instant)>,
}

/// A snapshot on its way. Dropped before [`arrived`](Self::arrived), it holds nothing back any more.
#[derive(Debug)]
pub(super) struct OnItsWay<'a> {
    holdback: &'a Holdback,
    target: RaftId,
    has_arrived: bool,
}

impl OnItsWay<'_> {
    /// The target has it.
    pub(super) fn arrived(mut self) {
        self.has_arrived = true;
        if let Some(hold) = self.holdback.0.lock().get_mut(&self.target) {
            hold.has_arrived = true;
        }
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if !self.has_arrived {
            self.holdback.0.lock().remove(&self.target);
        }
    }
}

impl Holdback {
    /// A snapshot up to `covered` is on its way to `target`.
    pub(super) fn begin(&self, target: RaftId, covered: u64) -> OnItsWay<'_> {
        self.0
            .lock()
            .insert(target, Hold { covered, has_arrived: false, goal: None, reached: None });
        OnItsWay { holdback: self, target, has_arrived: false }
    }

    /// Up to where the log, which ends at `last`, may be purged; `None`: anywhere. `matched` says how far a replica's log is
    /// known to agree. One that comes no further at `now` than a while before is gone, and nothing is held back for it.
    pub(super) fn floor(
        &self,
        last: u64,
        now: Instant,
        matched: impl Fn(RaftId) -> Option<u64>,
    ) -> Option<u64> {
        let mut holds = self.0.lock();
        holds.retain(|target, hold| {
            if !hold.has_arrived {
                return true;
            }
            let goal = *hold.goal.get_or_insert(last);
            // Who is not replicated to any more is another leader's affair.
            let Some(matched) = matched(*target).filter(|matched| *matched < goal) else {
                return false;
            };
            match hold.reached {
                Some((reached, since)) if matched <= reached => {
                    now.saturating_duration_since(since) < HOLDBACK_IDLE_MAX
                }
                Some(_) | None => {
                    hold.reached = Some((matched, now));
                    true
                }
            }
        });
        let floor = |(target, hold): (&RaftId, &Hold)| {
            hold.covered.max(matched(*target).filter(|_| hold.has_arrived).unwrap_or(0))
        };
        holds.iter().map(floor).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_log_behind_a_snapshot_stays_until_its_target_has_caught_up() {
        let (one, two) = (RaftId(1), RaftId(2));
        let holdback = Holdback::default();
        let now = Instant::now();
        let floor = |matched: Option<u64>| holdback.floor(900, now, |_| matched);
        assert_eq!(floor(None), None);
        let sent = holdback.begin(one, 100);
        let failed = holdback.begin(two, 70);
        assert_eq!(floor(None), Some(70));
        drop(failed);
        assert_eq!(floor(Some(5)), Some(100), "an older match says nothing");
        sent.arrived();
        assert_eq!(floor(Some(300)), Some(300));
        assert_eq!(holdback.floor(5000, now, |_| Some(899)), Some(899), "the goal stands");
        assert_eq!(holdback.floor(5000, now, |_| Some(900)), None);
        assert_eq!(floor(Some(300)), None, "that was once for all");
        holdback.begin(one, 100).arrived();
        assert_eq!(floor(None), None, "it leads no more");
        holdback.begin(one, 100).arrived();
        let at = |seconds: u64, matched| {
            holdback.floor(900, now + Duration::from_secs(seconds), |_| Some(matched))
        };
        assert_eq!(at(0, 200), Some(200));
        assert_eq!(at(50, 300), Some(300));
        assert_eq!(at(100, 300), Some(300));
        assert_eq!(at(111, 300), None, "it is gone");
    }
}
