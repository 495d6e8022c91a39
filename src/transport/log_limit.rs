//! Keeps a complaint that repeats from filling the log.

use parking_lot::Mutex;
use tokio::time::Instant;

use super::limits::LOG_INTERVAL;

/// Lets one complaint through per interval and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    silent_until: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// `Some(complaints suppressed since the last one)` when it may be logged at `now`.
    pub(super) fn permit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.silent_until.is_some_and(|until| now < until) {
            state.suppressed += 1;
            return None;
        }
        state.silent_until = Some(now + LOG_INTERVAL);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_per_interval() {
        let limit = LogLimit::default();
        let now = Instant::now();
        assert_eq!(limit.permit(now), Some(0));
        assert_eq!((limit.permit(now), limit.permit(now)), (None, None));
        assert_eq!(limit.permit(now + LOG_INTERVAL), Some(2));
        assert_eq!(limit.permit(now + LOG_INTERVAL), None);
    }
}
