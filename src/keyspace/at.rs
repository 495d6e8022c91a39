//! Where and when a command looks.

use std::fmt;

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;

/// No number of a slot.
const ANY_SLOT: u16 = u16::MAX;

/// Where and when a command looks: the client's database and the time of the log entry.
///
/// Two words that travel in registers. As three fields it was written to memory piece by piece and read back whole right
/// after, which a processor cannot do before all that was written earlier has reached its cache: that took as long as the
/// rest of a SET.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct At {
    now: UnixMillis,
    /// The database's number, and in the upper half the slot's, or [`ANY_SLOT`].
    place: u32,
}

impl At {
    /// In `db` at `now`, for keys of any slot.
    #[inline]
    pub const fn new(db: DbIndex, now: UnixMillis) -> Self {
        Self { now, place: db.0 as u32 | (ANY_SLOT as u32) << 16 }
    }

    /// The same, for keys of `slot` alone, where the caller knows it already: it takes as long to find out as all the rest
    /// of a small read.
    #[inline]
    #[must_use]
    pub const fn within(self, slot: Option<Slot>) -> Self {
        let number = match slot {
            Some(slot) => slot.number(),
            None => ANY_SLOT,
        };
        Self { place: self.db().0 as u32 | (number as u32) << 16, ..self }
    }

    /// The database.
    #[inline]
    pub const fn db(self) -> DbIndex {
        let [db, ..] = self.place.to_le_bytes();
        DbIndex(db)
    }

    /// The time by which deadlines are judged.
    #[inline]
    pub const fn now(self) -> UnixMillis {
        self.now
    }

    /// The slot of every key that is asked for, where it is known.
    #[inline]
    pub const fn slot(self) -> Option<Slot> {
        let [_, _, low, high] = self.place.to_le_bytes();
        Slot::new(u16::from_le_bytes([low, high]))
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = f.debug_struct("At");
        at.field("db", &self.db()).field("now", &self.now()).field("slot", &self.slot()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let now = UnixMillis(u64::MAX);
        for db in [0, 15, u8::MAX].map(DbIndex) {
            let at = At::new(db, now);
            assert_eq!((at.db(), at.now(), at.slot()), (db, now, None));
            for number in [0, 1, Slot::COUNT - 1] {
                let slot = Slot::new(number);
                let within = at.within(slot);
                assert_eq!((within.db(), within.now(), within.slot()), (db, now, slot));
                assert_eq!(within.within(None), at);
            }
        }
    }
}
