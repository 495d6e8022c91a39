//! A machine's clocks: tokio's virtual time of its process, and a wall clock that may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kvorum::stdx::clock::{Clock, MonotonicMicros, UnixMillis};
use tokio::time::Instant;

/// The wall clock when a simulation begins: far enough from 0 to be set back by years.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// The clocks as one process sees them. They may be read on its runtime alone, for tokio's time is that runtime's.
#[derive(Debug)]
pub(crate) struct SimClock {
    began: Instant,
    /// What the machine's clock showed then.
    up: Duration,
    wall: Arc<Wall>,
}

/// How wrong a machine's wall clock is.
#[derive(Debug, Default)]
pub(crate) struct Wall {
    ahead_ms: AtomicI64,
}

impl Wall {
    /// Sets it on by `ms`, or back.
    pub(crate) fn step(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl SimClock {
    /// The clock of a process that starts now, on its runtime.
    pub(crate) fn begin(up: Duration, wall: Arc<Wall>) -> Self {
        Self { began: Instant::now(), up, wall }
    }

    fn passed(&self) -> Duration {
        self.up + self.began.elapsed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMillis {
        let passed = u64::try_from(self.passed().as_millis()).expect("less than an age");
        let ahead = self.wall.ahead_ms.load(Ordering::Relaxed);
        UnixMillis((EPOCH_MS + passed).saturating_add_signed(ahead))
    }

    fn monotonic(&self) -> MonotonicMicros {
        MonotonicMicros(u64::try_from(self.passed().as_micros()).expect("less than an age"))
    }
}
