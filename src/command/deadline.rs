//! The ways in which a client names a deadline, and the one in which keys keep it.
//!
//! What is relative counts from the replicated time. Source: Redis docs, EXPIRE and SET.

use crate::stdx::clock::UnixMillis;

/// Unit and origin of a number that means a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Seconds since 1970.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMillis,
}

impl TimeForm {
    /// The deadline in Unix ms, negative for one before 1970; `None` when it would not fit.
    pub(super) fn deadline(self, number: i64, now: UnixMillis) -> Option<i64> {
        let ms = match self {
            Self::Seconds | Self::UnixSeconds => number.checked_mul(1000)?,
            Self::Millis | Self::UnixMillis => number,
        };
        match self {
            Self::Seconds | Self::Millis => ms.checked_add(i64::try_from(now.0).ok()?),
            Self::UnixSeconds | Self::UnixMillis => Some(ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_absolute_milliseconds_or_overflow() {
        use TimeForm::{Millis, Seconds, UnixMillis as Ms, UnixSeconds};
        let now = UnixMillis(1_000_000);
        for (form, number, deadline) in [
            (Seconds, 5, Some(1_005_000)),
            (Millis, 5, Some(1_000_005)),
            (UnixSeconds, 5, Some(5000)),
            (Ms, 5, Some(5)),
            (Seconds, -2000, Some(-1_000_000)),
            (Seconds, i64::MAX / 1000 + 1, None),
            (Seconds, i64::MAX / 1000, None),
            (Seconds, i64::MIN / 1000 - 1, None),
            (Millis, i64::MAX, None),
            (Millis, i64::MIN, Some(i64::MIN + 1_000_000)),
            (UnixSeconds, i64::MAX, None),
            (Ms, i64::MAX, Some(i64::MAX)),
        ] {
            assert_eq!(form.deadline(number, now), deadline, "{form:?} {number}");
        }
        assert_eq!(Millis.deadline(1, UnixMillis(u64::MAX)), None);
    }
}
