//! Where and when a command looks.

use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;

/// Where and when a command looks: the client's database and the time of the log entry.
///
/// Two words that travel in registers. With a third it was written to memory piece by piece and read back whole right
/// after, which a processor cannot do before all that was written earlier has reached its cache: that took as long as the
/// rest of a SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    now: UnixMillis,
    db: DbIndex,
}

impl At {
    /// In `db` at `now`.
    #[inline]
    pub const fn new(db: DbIndex, now: UnixMillis) -> Self {
        Self { now, db }
    }

    /// The database.
    #[inline]
    pub const fn db(self) -> DbIndex {
        self.db
    }

    /// The time by which deadlines are judged.
    #[inline]
    pub const fn now(self) -> UnixMillis {
        self.now
    }
}
