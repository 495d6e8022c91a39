//! Listing keys: SCAN, KEYS, RANDOMKEY and the keys of a slot.
//!
//! The order is that of slots, and within a slot of positions (the low 48 bits of the key's hash). It
//! belongs to the keys and to the cluster's hash key, not to the tables, so a cursor means the same after growth, a
//! restart or on another replica, and a key that is present all the time is returned.

use crate::ids::DbIndex;
use crate::slot::Slot;

use super::database::Database;
use super::key::POSITION_BITS;
use super::table::{Bucket, SlotTable};
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
        let [low, high, ..] = self.0.to_le_bytes();
        let number = u16::from_le_bytes([low, high]) & (Slot::COUNT - 1);
        // 14 bits number a slot, so the default is never taken.
        Slot::new(number).unwrap_or_default()
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
    pub fn scan<'k>(
        &'k self,
        at: At,
        cursor: ScanCursor,
        count: usize,
        visit: &mut dyn FnMut(&'k Entry),
    ) -> Option<ScanCursor> {
        let (mut last, mut seen) = (None, 0);
        for (slot, position, entry) in self.entries_from(at.db(), cursor) {
            // Keys of one position cannot be told apart by a cursor: they are visited together.
            if seen >= count.max(1) && last != Some((slot, position)) {
                return last.and_then(|(slot, position)| ScanCursor::after(slot, position));
            }
            if !entry.is_expired(at.now()) {
                visit(entry);
            }
            last = Some((slot, position));
            seen += 1;
        }
        None
    }

    /// Visits every live key of the database, in scan order.
    pub fn for_each_key<'k>(&'k self, at: At, visit: &mut dyn FnMut(&'k Entry)) {
        let entries = self.entries_from(at.db(), ScanCursor::START).map(|(_, _, entry)| entry);
        entries.filter(|entry| !entry.is_expired(at.now())).for_each(visit);
    }

    /// At most `limit` keys of `slot`, in scan order, expired ones included.
    pub fn keys_in_slot(&self, db: DbIndex, slot: Slot, limit: usize) -> Vec<&[u8]> {
        let entries =
            self.table(db, slot).into_iter().flat_map(|table| table.ordered_from(0, self.hash_key));
        entries.take(limit).map(|(_, entry)| entry.key()).collect()
    }

    /// A live key chosen by `seed`, the same on every replica. `None` when there is none.
    pub fn random_key(&self, at: At, seed: u64) -> Option<&[u8]> {
        let len = self.len(at.db());
        for draw in 0..RANDOM_DRAWS_MAX {
            let entry = self.nth(at.db(), below(mix(seed.wrapping_add(draw)), len))?;
            if !entry.is_expired(at.now()) {
                return Some(entry.key());
            }
        }
        let entries = self.entries_from(at.db(), ScanCursor::START).map(|(_, _, entry)| entry);
        entries.filter(|entry| !entry.is_expired(at.now())).map(Entry::key).next()
    }

    /// How many keys [`Self::random_key`] goes over, at most, to the next live one after it has drawn in vain. `None` when a
    /// look at `looks_max` keys does not tell: at those that lie first, in whatever order, for theirs would cost a hash of each.
    pub fn keys_to_a_live_one(&self, at: At, looks_max: usize) -> Option<usize> {
        let is_all_live = |database: &Database| database.counts.earliest > at.now();
        if self.database(at.db()).is_none_or(is_all_live) {
            return Some(0);
        }
        let mut seen = 0;
        for bucket in self.buckets_from(at.db(), ScanCursor::START) {
            let mut looked_at = bucket.unordered().take(looks_max - seen);
            seen += bucket.len();
            if looked_at.any(|entry| !entry.is_expired(at.now())) {
                return Some(seen);
            }
            if seen >= looks_max {
                return None;
            }
        }
        Some(seen)
    }

    /// How many bytes the keys have that [`Self::scan`] hashes to visit `count` of them from `cursor` on: those of whole
    /// buckets. Counted in whatever order they lie, and not far beyond `bytes_max`.
    pub fn bytes_to_scan(
        &self,
        db: DbIndex,
        cursor: ScanCursor,
        count: usize,
        bytes_max: usize,
    ) -> usize {
        let (mut bytes, mut keys) = (0, 0);
        for (nth, bucket) in self.buckets_from(db, cursor).enumerate() {
            if keys >= count || bytes >= bytes_max {
                break;
            }
            bytes += bucket.unordered().map(|entry| entry.key().len()).sum::<usize>();
            // Of the first one all may lie before the cursor.
            keys += if nth == 0 { 0 } else { bucket.len() };
        }
        bytes
    }

    /// The entry with `skipped` others before it in scan order.
    fn nth(&self, db: DbIndex, mut skipped: usize) -> Option<&Entry> {
        for table in &self.database(db)?.tables {
            let len = table.len();
            if skipped < len {
                return table.nth(skipped, self.hash_key);
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
        self.tables_from(db, cursor).flat_map(move |(slot, from, table)| {
            let entries = table.ordered_from(from, self.hash_key);
            entries.map(move |(position, entry)| (slot, position, entry))
        })
    }

    fn buckets_from(&self, db: DbIndex, cursor: ScanCursor) -> impl Iterator<Item = &Bucket> {
        self.tables_from(db, cursor).flat_map(|(_, from, table)| table.buckets_from(from))
    }

    /// What is not empty from `cursor` on, with the position from which on it is meant.
    fn tables_from(
        &self,
        db: DbIndex,
        cursor: ScanCursor,
    ) -> impl Iterator<Item = (Slot, u64, &SlotTable)> {
        let first = cursor.slot().number().max(*self.slots.start());
        let slots = (first..=*self.slots.end()).filter_map(Slot::new);
        slots.filter_map(move |slot| {
            let from = if slot == cursor.slot() { cursor.position() } else { 0 };
            let table = self.table(db, slot).filter(|table| !table.is_empty())?;
            Some((slot, from, table))
        })
    }
}

/// Spreads the bits of a seed (the finaliser of `SplitMix64`), so that neighbouring seeds differ.
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

#[cfg(test)]
mod tests {
    use crate::keyspace::testing::HASH_KEY;
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::keyspace::{Str, Value};
    use crate::stdx::clock::UnixMillis;

    const AT: At = At::new(DbIndex(0), UnixMillis(100));

    fn keyspace() -> Keyspace {
        Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY)
    }

    fn insert(keyspace: &mut Keyspace, key: &str, expire_at: Option<UnixMillis>) {
        keyspace.put(AT, keyspace.key(key.as_bytes()), Value::from(Str::new()), expire_at);
    }

    fn step(
        keyspace: &Keyspace,
        cursor: ScanCursor,
        count: usize,
    ) -> (Vec<String>, Option<ScanCursor>) {
        let mut keys = Vec::new();
        let next = keyspace.scan(AT, cursor, count, &mut |entry| {
            keys.push(String::from_utf8(entry.key().to_vec()).unwrap());
        });
        (keys, next)
    }

    #[test]
    fn any_number_is_a_cursor() {
        let mut keyspace = keyspace();
        insert(&mut keyspace, "a", None);
        for number in [0, 1, 16_383, 16_384, 1 << 61, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX] {
            let cursor = ScanCursor(number);
            assert_eq!(u64::from(cursor.slot().number()), number % 16_384);
            let (_, next) = step(&keyspace, cursor, 10);
            assert_eq!(next, None);
        }
    }

    #[test]
    fn cursors_go_on_behind_the_last_key_and_are_never_zero() {
        let slot = |number| Slot::new(number).unwrap();
        let last = (1 << POSITION_BITS) - 1;
        let rows = [
            (0, 0, Some(1 << 14)),
            (5, 9, Some(10 << 14 | 5)),
            (0, last, Some(1)),
            (16_382, last, Some(16_383)),
            (16_383, last, None),
            (16_383, last - 1, Some(last << 14 | 16_383)),
        ];
        for (number, position, next) in rows {
            let cursor = ScanCursor::after(slot(number), position);
            assert_eq!(cursor.map(|cursor| cursor.0), next, "{number} {position}");
        }
        assert_eq!(ScanCursor::at_slot(slot(0)), ScanCursor::START);
    }

    /// Source: Redis docs, SCAN: "A full iteration always retrieves all the elements that were present in
    /// the collection from the start to the end of a full iteration."
    #[test]
    fn what_stays_is_returned_while_the_tables_grow_and_shrink() {
        for (stay, come) in [("{hot}s", "{hot}c"), ("s", "c")] {
            let mut keyspace = keyspace();
            let staying: BTreeSet<String> =
                (0..3000).map(|number| format!("{stay}{number}")).collect();
            for key in &staying {
                insert(&mut keyspace, key, None);
            }
            let (mut seen, mut cursor, mut round) = (BTreeMap::new(), Some(ScanCursor::START), 0);
            while let Some(from) = cursor {
                let (keys, next) = step(&keyspace, from, 100);
                assert!(next.is_none_or(|next| next.0 != 0));
                for key in keys {
                    *seen.entry(key).or_insert(0) += 1;
                }
                // The tables grow through the first rounds and shrink through the later ones.
                for number in 0..400 {
                    let key = format!("{come}{}", round % 20 * 400 + number);
                    if round < 20 {
                        insert(&mut keyspace, &key, None);
                    } else {
                        keyspace.remove(AT, keyspace.key(key.as_bytes()));
                    }
                }
                cursor = next;
                round += 1;
                assert!(round < 1000, "the scan ends");
            }
            assert!(staying.iter().all(|key| seen.get(key) == Some(&1)));
        }
    }

    #[test]
    fn count_bounds_a_step_and_expired_keys_are_passed_over() {
        let mut keyspace = keyspace();
        for number in 0..50 {
            insert(&mut keyspace, &format!("{{t}}live{number}"), None);
            insert(&mut keyspace, &format!("{{t}}dead{number}"), Some(AT.now()));
        }
        let (mut cursor, mut keys, mut steps) = (Some(ScanCursor::START), Vec::new(), 0);
        while let Some(from) = cursor {
            let (some, next) = step(&keyspace, from, 10);
            assert!(some.len() <= 10);
            keys.extend(some);
            cursor = next;
            steps += 1;
        }
        assert_eq!((keys.len(), steps), (50, 10));
        assert!(keys.iter().all(|key| key.contains("live")));
        assert_eq!(step(&keyspace, ScanCursor::START, 0).0.len().max(1), 1, "0 counts as 1");
    }

    #[test]
    fn a_shard_scans_its_own_slots() {
        let slot = Slot::of(b"a").number();
        let mut keyspace = Keyspace::new(slot..=slot + 1, HASH_KEY);
        insert(&mut keyspace, "a", None);
        assert_eq!(step(&keyspace, ScanCursor::START, 10), (vec!["a".to_owned()], None));
        assert_eq!(step(&keyspace, ScanCursor::at_slot(Slot::of(b"a")), 10).0.len(), 1);
        let behind = ScanCursor::at_slot(Slot::new(slot + 2).unwrap());
        assert_eq!(step(&keyspace, behind, 10), (vec![], None));
        assert_eq!(keyspace.keys_in_slot(AT.db(), Slot::of(b"a"), 5), [b"a"]);
        assert_eq!(keyspace.keys_in_slot(AT.db(), Slot::of(b"a"), 0), [b""; 0]);
        assert!(keyspace.keys_in_slot(DbIndex(255), Slot::of(b"a"), 5).is_empty());
    }

    #[test]
    fn what_a_scan_hashes_is_counted_by_buckets_until_it_is_enough() {
        let (mut spread, mut together) = (keyspace(), keyspace());
        for number in 0..10 {
            insert(&mut spread, &number.to_string(), None);
            insert(&mut together, &format!("{{t}}{number}"), None);
        }
        let rows = [
            (&spread, 10, usize::MAX, 10),
            (&spread, 10, 4, 4),
            (&spread, 2, usize::MAX, 3),
            (&spread, 0, usize::MAX, 0),
            (&together, 1, 4, 40),
        ];
        for (keyspace, count, bytes_max, bytes) in rows {
            let counted = keyspace.bytes_to_scan(AT.db(), ScanCursor::START, count, bytes_max);
            assert_eq!(counted, bytes, "{count} {bytes_max}");
        }
    }

    #[test]
    fn random_keys_do_not_depend_on_history_and_reach_all() {
        let (mut one, mut other) = (keyspace(), keyspace());
        for number in 0..20 {
            insert(&mut one, &number.to_string(), None);
            insert(&mut other, &(19 - number).to_string(), None);
        }
        for number in 20..4000 {
            insert(&mut other, &number.to_string(), None);
        }
        for number in 20..4000 {
            other.remove(AT, other.key(number.to_string().as_bytes()));
        }
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            assert_eq!(one.random_key(AT, seed), other.random_key(AT, seed), "seed {seed}");
            seen.insert(one.random_key(AT, seed).unwrap());
        }
        assert_eq!(seen.len(), 20);
    }

    #[test]
    fn random_key_finds_the_only_live_one() {
        let mut keyspace = keyspace();
        assert_eq!(keyspace.random_key(AT, 1), None);
        (0..500).for_each(|number| insert(&mut keyspace, &number.to_string(), Some(AT.now())));
        assert_eq!(keyspace.random_key(AT, 1), None);
        insert(&mut keyspace, "live", Some(UnixMillis(101)));
        for seed in 0..20 {
            assert_eq!(keyspace.random_key(AT, seed), Some(&b"live"[..]));
        }
    }
}
