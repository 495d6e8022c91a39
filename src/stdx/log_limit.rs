//! Keeps a complaint that repeats from filling the log.

use std::time::Duration;

use parking_lot::Mutex;

use super::clock::BootInstant;

/// Lets one complaint through per interval and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    silent_until: Option<BootInstant>,
    suppressed: u64,
}

impl LogLimit {
    /// Lets one complaint through every `interval`.
    pub const fn every(interval: Duration) -> Self {
        let state = State { silent_until: None, suppressed: 0 };
        Self { interval, state: Mutex::new(state) }
    }

    /// `Some(complaints suppressed since the last one)` when it may be logged now.
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(BootInstant::now())
    }

    fn permit_at(&self, now: BootInstant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.silent_until.is_some_and(|until| now < until) {
            state.suppressed += 1;
            return None;
        }
        state.silent_until = Some(now + self.interval);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_per_interval() {
        let interval = Duration::from_secs(5);
        let limit = LogLimit::every(interval);
        let now = BootInstant::now();
        assert_eq!(limit.permit_at(now), Some(0));
        assert_eq!((limit.permit_at(now), limit.permit_at(now)), (None, None));
        assert_eq!(limit.permit_at(now + interval), Some(2));
        assert_eq!(limit.permit_at(now + interval), None);
    }
}
