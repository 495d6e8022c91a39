//! The one place where this program reads a clock, so that tests can move time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Wall-clock time: milliseconds since the Unix epoch. The unit of every deadline in the keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Milliseconds from `earlier` to `self`, 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Monotonic time in microseconds since an arbitrary start; comparable only within one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicMicros(pub u64);

impl MonotonicMicros {
    /// The instant `duration` after `self`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Microseconds from `earlier` to `self`, 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A source of wall-clock and monotonic time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock. May jump either way.
    fn now(&self) -> UnixMillis;
    /// The monotonic clock. Never goes back.
    fn monotonic(&self) -> MonotonicMicros;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts near 0 now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> UnixMillis {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> MonotonicMicros {
        MonotonicMicros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug, Default)]
pub struct ManualClock {
    unix_ms: AtomicU64,
    monotonic_us: AtomicU64,
}

impl ManualClock {
    /// A clock at `now` on the wall and 0 on the monotonic scale.
    pub fn at(now: UnixMillis) -> Self {
        Self { unix_ms: AtomicU64::new(now.0), monotonic_us: AtomicU64::new(0) }
    }

    /// Lets `duration` pass on both scales.
    pub fn advance(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.monotonic_us.fetch_add(us, Ordering::SeqCst);
        self.unix_ms.fetch_add(us / 1000, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, now: UnixMillis) {
        self.unix_ms.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.unix_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> MonotonicMicros {
        MonotonicMicros(self.monotonic_us.load(Ordering::SeqCst))
    }
}
