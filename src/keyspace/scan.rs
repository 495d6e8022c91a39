//! Listing keys: SCAN, KEYS, RANDOMKEY and the keys of a slot.
//!
//! The order is that of slots, and within a slot of positions (the low 48 bits of the key's hash). It
//! belongs to the keys, not to the tables, so a cursor means the same after growth, a restart or on another
//! replica, and a key that is present all the time is returned.

use crate::ids::DbIndex;
use crate::slot::Slot;

use super::table::POSITION_BITS;
use super::{At, Entry, Keyspace};

const SLOT_BITS: u32 = 14;

const _: () = assert!(1 << SLOT_BITS == Slot::COUNT);

/// How often RANDOMKEY draws anew when it meets an expired key, before it takes the next live one.
const RANDOM_DRAWS_MAX: u64 = 8;

/// Where a SCAN goes on.
///
/// | bits | meaning |
/// | --- | --- |
/// | 0–13 | the slot |
/// | 14–61 | the position within the slot from which on keys are still to be returned |
/// | 62–63 | zero; ignored when a client sends something else |
///
/// Position 0 is the beginning of the slot. [`ScanCursor::START`], the number 0, is the beginning of slot 0
/// and thus of everything; no other cursor is 0, so 0 is free to tell the client that the scan is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanCursor(pub u64);

impl ScanCursor {
    /// The cursor with which a scan begins.
    pub const START: Self = Self(0);

    /// The beginning of `slot`.
    pub fn at_slot(slot: Slot) -> Self {
        Self::new(slot, 0)
    }

    /// The slot it lies in: any number a client may send has one.
    pub fn slot(self) -> Slot {
        let low = self.0 & u64::from(Slot::COUNT - 1);
        let number = u16::try_from(low).expect("14 bits fit 16");
        Slot::new(number).expect("14 bits number a slot")
    }

    fn new(slot: Slot, position: u64) -> Self {
        Self(position << SLOT_BITS | u64::from(slot.number()))
    }

    fn position(self) -> u64 {
        self.0 >> SLOT_BITS & ((1 << POSITION_BITS) - 1)
    }

    /// The cursor of what follows `position` in `slot`.
    fn after(slot: Slot, position: u64) -> Option<Self> {
        if position + 1 < 1 << POSITION_BITS {
            return Some(Self::new(slot, position + 1));
        }
        Slot::new(slot.number() + 1).map(Self::at_slot)
    }
}

impl Keyspace {
    /// Visits about `count` keys from `cursor` on and says where to go on; `None` when this shard is done.
    ///
    /// Expired keys are passed over but count, so that the work is bounded. A cursor before the shard's
    /// slots means their beginning, one behind them the end. Redis' guarantee holds: a key that is present
    /// from the first call to the last is visited; one that comes or goes may be.
    ///
    /// Source: Redis docs, SCAN, "Scan guarantees".
    pub fn scan(
        &self,
        at: At,
        cursor: ScanCursor,
        count: usize,
        visit: &mut dyn FnMut(&Entry),
    ) -> Option<ScanCursor> {
        let (mut last, mut seen) = (None, 0);
        for (slot, position, entry) in self.entries_from(at.db, cursor) {
            // Keys of one position cannot be told apart by a cursor: they are visited together.
            if seen >= count.max(1) && last != Some((slot, position)) {
                return last.and_then(|(slot, position)| ScanCursor::after(slot, position));
            }
            if !entry.is_expired(at.now) {
                visit(entry);
            }
            last = Some((slot, position));
            seen += 1;
        }
        None
    }

    /// Visits every live key of the database, in scan order.
    pub fn for_each_key(&self, at: At, visit: &mut dyn FnMut(&Entry)) {
        let entries = self.entries_from(at.db, ScanCursor::START).map(|(_, _, entry)| entry);
        entries.filter(|entry| !entry.is_expired(at.now)).for_each(visit);
    }

    /// At most `limit` keys of `slot`, in scan order, expired ones included.
    pub fn keys_in_slot(&self, db: DbIndex, slot: Slot, limit: usize) -> Vec<&[u8]> {
        let entries = self.table(db, slot).into_iter().flat_map(|table| table.ordered_from(0));
        entries.take(limit).map(|(_, entry)| entry.key()).collect()
    }

    /// A live key chosen by `seed`, the same on every replica. `None` when there is none.
    pub fn random_key(&self, at: At, seed: u64) -> Option<&[u8]> {
        let len = self.len(at.db);
        for draw in 0..RANDOM_DRAWS_MAX {
            let entry = self.nth(at.db, below(mix(seed.wrapping_add(draw)), len))?;
            if !entry.is_expired(at.now) {
                return Some(entry.key());
            }
        }
        let entries = self.entries_from(at.db, ScanCursor::START).map(|(_, _, entry)| entry);
        entries.filter(|entry| !entry.is_expired(at.now)).map(Entry::key).next()
    }

    /// The entry with `skipped` others before it in scan order.
    fn nth(&self, db: DbIndex, mut skipped: usize) -> Option<&Entry> {
        for table in &self.database(db)?.tables {
            let len = table.len();
            if skipped < len {
                return table.nth(skipped);
            }
            skipped -= len;
        }
        None
    }

    fn entries_from(
        &self,
        db: DbIndex,
        cursor: ScanCursor,
    ) -> impl Iterator<Item = (Slot, u64, &Entry)> {
        let first = cursor.slot().number().max(*self.slots.start());
        let slots = (first..=*self.slots.end()).filter_map(Slot::new);
        slots.flat_map(move |slot| {
            let from = if slot == cursor.slot() { cursor.position() } else { 0 };
            let table = self.table(db, slot).filter(|table| !table.is_empty());
            let entries = table.into_iter().flat_map(move |table| table.ordered_from(from));
            entries.map(move |(position, entry)| (slot, position, entry))
        })
    }
}

/// Spreads the bits of a seed (the finaliser of SplitMix64), so that neighbouring seeds differ.
fn mix(seed: u64) -> u64 {
    let bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// A number below `len` (0 when `len` is 0), even in the bits of `random`.
fn below(random: u64, len: usize) -> usize {
    let product = u128::from(random) * len as u128;
    usize::try_from(product >> 64).expect("less than len")
}
