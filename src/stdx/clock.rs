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

    /// The instant `duration` before `self`; the clock's start when that is later.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Microseconds from `earlier` to `self`, 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Time since the machine was started, also that in which it was suspended; comparable only within one process.
///
/// tokio's and std's instants stand still in a suspend (`CLOCK_MONOTONIC`): a promise that somebody else counts in real
/// time may not be trusted by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now, by `CLOCK_BOOTTIME`.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Never negative: it begins at 0 with the machine.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// From `earlier` to `self`, nothing when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// A source of wall-clock and monotonic time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock. May jump either way.
    fn now(&self) -> UnixMillis;
    /// The monotonic clock. Never goes back, and goes on while the machine is suspended: leases are counted by it.
    fn monotonic(&self) -> MonotonicMicros;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: BootInstant,
}

impl SystemClock {
    /// A clock whose monotonic time starts near 0 now. It goes on while the machine is suspended: that time passes too.
    pub fn new() -> Self {
        Self { start: BootInstant::now() }
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
        let passed = BootInstant::now().0.saturating_sub(self.start.0);
        MonotonicMicros(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX))
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
