//! The keys of one slot of one database.
//!
//! A slot is one hash table until it holds [`BUCKET_ENTRIES_MAX`] keys. Then it is cut in two by hash, and
//! so on: each [`Bucket`] owns a contiguous range of *positions*, so a slot that a hash tag has filled with
//! millions of keys is never rehashed, scanned or written to a snapshot in one go.
//!
//! The position of a key is the low 48 bits of its hash. It is the order in which keys are listed; buckets
//! are cut by its highest bits, hash tables place by its lowest, and their tags use the bits above it, so none of
//! the three spoils another.

use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;

use super::compact::CompactTable;
use super::key::{KeyHash, POSITION_BITS};
use super::snapshot::Past;
use super::{Entry, Value};

/// The entries at which a bucket is cut in two: little enough to be moved in a fraction of a millisecond.
pub(super) const BUCKET_ENTRIES_MAX: usize = 1792;

/// A table of at most this capacity is kept when its entries go: it is the smallest there is.
const KEPT_CAPACITY_MAX: usize = 4;

/// How many keys a database holds, and how many of them with a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) len: usize,
    pub(super) expires: usize,
    /// No deadline of the database is earlier.
    pub(super) earliest: UnixMillis,
}

impl Default for Counts {
    fn default() -> Self {
        Self { len: 0, expires: 0, earliest: NEVER }
    }
}

/// The bound of what has no deadline.
pub(super) const NEVER: UnixMillis = UnixMillis(u64::MAX);

/// The keys whose positions lie in one range of one slot.
#[derive(Debug)]
pub(super) struct Bucket {
    entries: CompactTable,
    /// No deadline of the bucket is earlier.
    earliest: UnixMillis,
    /// How many entries have a deadline.
    expires: u32,
    /// The last snapshot that has this bucket, by its number.
    pub(super) saved_in: u32,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { entries: CompactTable::default(), earliest: NEVER, expires: 0, saved_in: 0 }
    }
}

impl Bucket {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn earliest(&self) -> UnixMillis {
        self.earliest
    }

    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<&Entry> {
        self.entries.find(hash, key).map(|found| self.entries.get(found))
    }

    /// The entries in table order, which differs between replicas: only for what does not depend on it.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter()
    }

    /// The sum of the entries' digests: it does not depend on their order, so neither on the table's history.
    pub(super) fn digest(&self, db: DbIndex) -> u64 {
        self.unordered().map(|entry| entry.digest(db)).fold(0, u64::wrapping_add)
    }

    /// The entries at `from` or after it, in the order of positions; keys break ties.
    pub(super) fn ordered_from(&self, from: u64, hash_key: HashKey) -> Vec<(u64, &Entry)> {
        let mut entries: Vec<(u64, &Entry)> = self
            .unordered()
            .map(|entry| (KeyHash::of(entry.key(), hash_key).position(), entry))
            .filter(|&(position, _)| position >= from)
            .collect();
        entries.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.key().cmp(y.key())));
        entries
    }

    /// Forgets the deadlines that are gone and states the earliest one left.
    pub(super) fn tighten_earliest(&mut self) {
        let deadlines = self.entries.iter().filter_map(Entry::expire_at);
        self.earliest = deadlines.min().unwrap_or(NEVER);
    }

    /// Moves what lies at `middle` or after it to a new bucket.
    fn cut(&mut self, middle: u64, hash_key: HashKey) -> Self {
        let mut upper =
            Self { saved_in: self.saved_in, earliest: self.earliest, ..Self::default() };
        let goes = |entry: &Entry| KeyHash::of(entry.key(), hash_key).position() >= middle;
        for entry in self.entries.extract_if(hash_key, goes) {
            upper.expires += u32::from(entry.expire_at().is_some());
            upper.entries.insert_new(hash_key, KeyHash::of(entry.key(), hash_key), entry);
        }
        self.expires -= upper.expires;
        upper
    }

    fn shrink_if_sparse(&mut self, hash_key: HashKey) {
        let capacity = self.entries.capacity();
        if capacity > KEPT_CAPACITY_MAX && self.entries.len() * 8 < capacity {
            self.entries.shrink_to(hash_key, self.entries.len() * 2);
        }
    }
}

/// The keys of one slot: buckets in the order of their ranges.
#[derive(Debug, Default)]
pub(super) struct SlotTable {
    /// The range from position 0. In the entry itself: nearly every slot has no other.
    first: Bucket,
    /// The other ranges, each with the position at which it begins.
    more: Vec<(u64, Bucket)>,
}

// Each used database of a keyspace over all slots has 16384 of these, empty or not.
const _: () = assert!(size_of::<SlotTable>() <= 88);

impl SlotTable {
    pub(super) fn len(&self) -> usize {
        self.buckets().map(|(_, bucket)| bucket.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets().all(|(_, bucket)| bucket.len() == 0)
    }

    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<&Entry> {
        self.bucket(hash).find(hash, key)
    }

    /// The entry of `key`, and the bucket in which it lies.
    pub(super) fn find_within(&self, hash: KeyHash, key: &[u8]) -> Option<(&Bucket, &Entry)> {
        let bucket = self.bucket(hash);
        Some((bucket, bucket.find(hash, key)?))
    }

    fn bucket(&self, hash: KeyHash) -> &Bucket {
        match self.index_of(hash.position()) {
            0 => &self.first,
            index => &self.more[index - 1].1,
        }
    }

    /// Brings the index of what would hold `hash` near; see [`CompactTable::touch`].
    pub(super) fn touch(&self, hash: KeyHash) -> u64 {
        self.bucket(hash).entries.touch(hash)
    }

    /// Brings the entry of `hash` near, if there is one; see [`CompactTable::glance`].
    pub(super) fn glance(&self, hash: KeyHash) -> u64 {
        self.bucket(hash).entries.glance(hash)
    }

    /// The buckets with the positions at which they begin, ascending.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, &Bucket)> {
        std::iter::once((0, &self.first)).chain(self.more.iter().map(|(from, rest)| (*from, rest)))
    }

    /// As [`Self::buckets`], to be marked or tightened. Entries change through [`SlotMut`] alone.
    pub(super) fn buckets_mut(&mut self) -> impl Iterator<Item = (u64, &mut Bucket)> {
        let more = self.more.iter_mut().map(|(from, rest)| (*from, rest));
        std::iter::once((0, &mut self.first)).chain(more)
    }

    /// The entries at `from` or after it in the order of positions, bucket by bucket.
    pub(super) fn ordered_from(
        &self,
        from: u64,
        hash_key: HashKey,
    ) -> impl Iterator<Item = (u64, &Entry)> {
        self.buckets_from(from).flat_map(move |bucket| bucket.ordered_from(from, hash_key))
    }

    /// The bucket in whose range `from` lies, and those behind it.
    pub(super) fn buckets_from(&self, from: u64) -> impl Iterator<Item = &Bucket> {
        self.buckets().skip(self.index_of(from)).map(|(_, bucket)| bucket)
    }

    /// The entry with `skipped` others before it in the order of positions.
    pub(super) fn nth(&self, mut skipped: usize, hash_key: HashKey) -> Option<&Entry> {
        for (_, bucket) in self.buckets() {
            if skipped < bucket.len() {
                return bucket.ordered_from(0, hash_key).get(skipped).map(|&(_, entry)| entry);
            }
            skipped -= bucket.len();
        }
        None
    }

    pub(super) fn bucket_mut(&mut self, hash: KeyHash) -> &mut Bucket {
        match self.index_of(hash.position()) {
            0 => &mut self.first,
            index => &mut self.more[index - 1].1,
        }
    }

    /// 0 for the first bucket, `n + 1` for `more[n]`.
    fn index_of(&self, position: u64) -> usize {
        if self.more.is_empty() {
            return 0;
        }
        self.more.partition_point(|&(from, _)| from <= position)
    }

    /// The bucket to insert into, cut before when it is full.
    fn bucket_with_room(&mut self, hash: KeyHash, hash_key: HashKey) -> &mut Bucket {
        if self.bucket_mut(hash).len() >= BUCKET_ENTRIES_MAX {
            self.cut(self.index_of(hash.position()), hash_key);
        }
        self.bucket_mut(hash)
    }

    fn cut(&mut self, index: usize, hash_key: HashKey) {
        let begin = if index == 0 { 0 } else { self.more[index - 1].0 };
        let end = self.more.get(index).map_or(1 << POSITION_BITS, |&(from, _)| from);
        let middle = begin + (end - begin) / 2;
        // Keys of one position cannot be told apart: such a bucket grows on. Without the hash key nobody can find many.
        if middle == begin {
            return;
        }
        let bucket = if index == 0 { &mut self.first } else { &mut self.more[index - 1].1 };
        let upper = bucket.cut(middle, hash_key);
        self.more.insert(index, (middle, upper));
    }

    /// Gives memory back after a removal at `hash`. An empty bucket's range joins the one before it.
    fn shrink(&mut self, hash: KeyHash, hash_key: HashKey) {
        let index = self.index_of(hash.position());
        let bucket = self.bucket_mut(hash);
        bucket.shrink_if_sparse(hash_key);
        if index > 0 && bucket.len() == 0 {
            drop(self.more.remove(index - 1));
        }
    }
}

/// The right to change the key of one hash in one slot.
///
/// Only the keyspace hands it out, after a running snapshot has the rest of the bucket. What becomes of the entry itself, its
/// [`Past`] is told.
#[derive(Debug)]
pub(super) struct SlotMut<'a> {
    pub(super) counts: &'a mut Counts,
    pub(super) table: &'a mut SlotTable,
    pub(super) past: Past<'a>,
    pub(super) hash: KeyHash,
    /// The key of all hashes of the keyspace: a table that changes looks at other keys too.
    pub(super) hash_key: HashKey,
}

impl<'a> SlotMut<'a> {
    /// The live entry of `key`, to be changed. An expired one is buried.
    pub(super) fn entry_mut(self, key: &[u8], now: UnixMillis) -> Option<&'a mut Entry> {
        let Self { counts, table, mut past, hash, hash_key } = self;
        let bucket = table.bucket_mut(hash);
        let found = bucket.entries.find(hash, key)?;
        if !bucket.entries.get(found).is_expired(now) {
            let entry = bucket.entries.get_mut(found);
            past.keep(entry);
            return Some(entry);
        }
        // Memory is given back by the next removal: a second look at the table here would cost every
        // command a probe.
        past.bury(bucket.entries.remove(hash_key, found));
        counts.len -= 1;
        forget_deadline(counts, &mut bucket.expires);
        None
    }

    /// The live entry of `key`, or a new one of `make()` without a deadline.
    pub(super) fn or_insert_with(
        self,
        key: &[u8],
        now: UnixMillis,
        make: impl FnOnce() -> Value,
    ) -> &'a mut Entry {
        let Self { counts, table, mut past, hash, hash_key } = self;
        let bucket = table.bucket_with_room(hash, hash_key);
        let Some(found) = bucket.entries.find(hash, key) else {
            counts.len += 1;
            return bucket.entries.insert_new(hash_key, hash, Entry::new(key, make(), None));
        };
        let entry = bucket.entries.get_mut(found);
        if entry.is_expired(now) {
            forget_deadline(counts, &mut bucket.expires);
            past.bury(std::mem::replace(entry, Entry::new(key, make(), None)));
        } else {
            past.keep(entry);
        }
        entry
    }

    /// Puts `entry` in the place of whatever its key holds, which is buried.
    pub(super) fn insert(self, entry: Entry) {
        let Self { counts, table, past, hash, hash_key } = self;
        let bucket = table.bucket_with_room(hash, hash_key);
        if let Some(at) = entry.expire_at() {
            note_deadline(counts, bucket, at);
        }
        let Some(found) = bucket.entries.find(hash, entry.key()) else {
            counts.len += 1;
            bucket.entries.insert_new(hash_key, hash, entry);
            return;
        };
        let replaced = std::mem::replace(bucket.entries.get_mut(found), entry);
        if replaced.expire_at().is_some() {
            forget_deadline(counts, &mut bucket.expires);
        }
        past.bury(replaced);
    }

    /// Buries the entry of `key`, expired or not; whether there was a live one.
    pub(super) fn remove(self, key: &[u8], now: UnixMillis) -> bool {
        let Some((entry, past)) = self.take_out(key) else { return false };
        let is_live = !entry.is_expired(now);
        past.bury(entry);
        is_live
    }

    /// Buries the entry of `key`, from where the value of a live one is lent.
    pub(super) fn remove_and_lend(self, key: &[u8], now: UnixMillis) -> Option<&'a Value> {
        let (entry, past) = self.take_out(key)?;
        if entry.is_expired(now) {
            past.bury(entry);
            return None;
        }
        Some(past.bury_and_lend(entry))
    }

    fn take_out(self, key: &[u8]) -> Option<(Entry, Past<'a>)> {
        let Self { counts, table, past, hash, hash_key } = self;
        let bucket = table.bucket_mut(hash);
        let found = bucket.entries.find(hash, key)?;
        let removed = bucket.entries.remove(hash_key, found);
        counts.len -= 1;
        if removed.expire_at().is_some() {
            forget_deadline(counts, &mut bucket.expires);
        }
        table.shrink(hash, hash_key);
        Some((removed, past))
    }

    /// Gives the entry of `key` another deadline, or none. `false` when there is no live entry.
    pub(super) fn set_expiry(self, key: &[u8], now: UnixMillis, at: Option<UnixMillis>) -> bool {
        let Self { counts, table, past, hash, hash_key } = self;
        let slot = SlotMut { counts: &mut *counts, table: &mut *table, past, hash, hash_key };
        let Some(entry) = slot.entry_mut(key, now) else {
            return false;
        };
        let had_deadline = entry.expire_at().is_some();
        entry.set_expire_at(at);
        let now_at = entry.expire_at();
        let bucket = table.bucket_mut(hash);
        if had_deadline {
            forget_deadline(counts, &mut bucket.expires);
        }
        if let Some(at) = now_at {
            note_deadline(counts, bucket, at);
        }
        true
    }
}

fn note_deadline(counts: &mut Counts, bucket: &mut Bucket, at: UnixMillis) {
    counts.expires += 1;
    counts.earliest = counts.earliest.min(at);
    bucket.expires += 1;
    bucket.earliest = bucket.earliest.min(at);
}

fn forget_deadline(counts: &mut Counts, expires_of_bucket: &mut u32) {
    counts.expires -= 1;
    *expires_of_bucket -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Str;
    use crate::keyspace::database::Graveyard;
    use crate::keyspace::testing::{HASH_KEY, colliding};

    const NOW: UnixMillis = UnixMillis(100);

    #[derive(Default)]
    struct Ground {
        counts: Counts,
        table: SlotTable,
        graveyard: Graveyard,
    }

    impl Ground {
        fn slot(&mut self, key: &[u8]) -> SlotMut<'_> {
            let hash = KeyHash::of(key, HASH_KEY);
            let Self { counts, table, graveyard } = self;
            let past = Past { db: DbIndex(0), hash, snapshot: None, graveyard };
            SlotMut { counts, table, past, hash, hash_key: HASH_KEY }
        }

        fn insert(&mut self, key: &str, expire_at: Option<UnixMillis>) {
            let entry = Entry::new(key.as_bytes(), Value::from(Str::new()), expire_at);
            self.slot(key.as_bytes()).insert(entry);
        }

        fn holds(&self, key: &str) -> bool {
            self.table.find(KeyHash::of(key.as_bytes(), HASH_KEY), key.as_bytes()).is_some()
        }

        fn check(&self) {
            let ranges: Vec<u64> = self.table.buckets().map(|(from, _)| from).collect();
            assert!(ranges.is_sorted_by(|a, b| a < b));
            let mut expires = 0;
            for (number, (from, bucket)) in self.table.buckets().enumerate() {
                let end = ranges.get(number + 1).copied().unwrap_or(1 << POSITION_BITS);
                let deadlines = bucket.unordered().filter_map(Entry::expire_at);
                assert_eq!(deadlines.clone().count(), usize::try_from(bucket.expires).unwrap());
                assert!(deadlines.clone().all(|at| at >= bucket.earliest()));
                expires += deadlines.count();
                let positions =
                    bucket.unordered().map(|entry| KeyHash::of(entry.key(), HASH_KEY).position());
                assert!(positions.clone().all(|position| (from..end).contains(&position)));
            }
            assert_eq!(self.table.len(), self.counts.len);
            assert_eq!(expires, self.counts.expires);
            assert_eq!(self.table.is_empty(), self.counts.len == 0);
        }
    }

    #[test]
    fn a_full_slot_is_cut_and_joined_again() {
        let mut ground = Ground::default();
        let keys: Vec<String> = (0..10_000).map(|number| format!("key-{number}")).collect();
        for (number, key) in keys.iter().enumerate() {
            ground.insert(key, (number % 3 == 0).then_some(UnixMillis(1000 + number as u64)));
        }
        ground.check();
        assert!(ground.table.buckets().count() >= 6);
        assert!(ground.table.buckets().all(|(_, bucket)| bucket.len() <= BUCKET_ENTRIES_MAX));
        assert!(keys.iter().all(|key| ground.holds(key)));
        for (number, key) in keys.iter().enumerate() {
            assert!(ground.slot(key.as_bytes()).remove(key.as_bytes(), NOW));
            assert!(!ground.slot(key.as_bytes()).remove(key.as_bytes(), NOW));
            if number % 1000 == 0 {
                ground.check();
            }
        }
        ground.check();
        assert_eq!(ground.table.buckets().count(), 1);
        assert!(ground.table.first.entries.capacity() <= KEPT_CAPACITY_MAX);
    }

    /// faults.md B1: keys that xxh3 cannot tell apart made one bucket that was never cut.
    #[test]
    fn keys_made_to_collide_do_not() {
        let mut ground = Ground::default();
        for number in 0..10_000 {
            let key = colliding(number);
            ground.slot(&key).insert(Entry::new(&key, Value::from(Str::new()), None));
        }
        ground.check();
        assert!(ground.table.buckets().all(|(_, bucket)| bucket.len() <= BUCKET_ENTRIES_MAX));
        let mut positions: Vec<u64> =
            ground.table.ordered_from(0, HASH_KEY).map(|(position, _)| position).collect();
        positions.dedup();
        assert_eq!(positions.len(), 10_000);
    }

    #[test]
    fn positions_order_entries_across_buckets() {
        let mut ground = Ground::default();
        (0..5000).for_each(|number| ground.insert(&number.to_string(), None));
        let all: Vec<u64> =
            ground.table.ordered_from(0, HASH_KEY).map(|(position, _)| position).collect();
        assert_eq!(all.len(), 5000);
        assert!(all.is_sorted());
        for skipped in [0, 1, 777, 2500, 4998, 4999] {
            let rest: Vec<u64> = ground
                .table
                .ordered_from(all[skipped], HASH_KEY)
                .map(|(position, _)| position)
                .collect();
            assert_eq!(rest, all[skipped..]);
            let nth = ground.table.nth(skipped, HASH_KEY).unwrap();
            assert_eq!(KeyHash::of(nth.key(), HASH_KEY).position(), all[skipped]);
        }
        assert!(ground.table.nth(5000, HASH_KEY).is_none());
    }

    #[test]
    fn an_expired_entry_makes_room_for_a_new_one() {
        let mut ground = Ground::default();
        ground.insert("a", Some(NOW));
        ground.insert("b", Some(NOW));
        assert_eq!(ground.counts.expires, 2);
        assert!(ground.slot(b"a").entry_mut(b"a", NOW).is_none());
        assert!(!ground.holds("a"));
        let entry = ground.slot(b"b").or_insert_with(b"b", NOW, || Value::from(Str::from_i64(1)));
        assert_eq!(entry.expire_at(), None);
        assert!(matches!(&entry.value, Value::Str(string) if string.as_i64() == Some(1)));
        ground.check();
        assert_eq!((ground.counts.len, ground.counts.expires), (1, 0));
    }

    #[test]
    fn deadlines_are_counted_through_every_change() {
        let mut ground = Ground::default();
        let later = Some(UnixMillis(500));
        ground.insert("a", None);
        let rows = [(later, 1), (later, 1), (None, 0), (None, 0), (later, 1), (Some(NOW), 1)];
        for (at, expires) in rows {
            assert!(ground.slot(b"a").set_expiry(b"a", NOW, at));
            assert_eq!(ground.counts.expires, expires);
            ground.check();
        }
        assert!(!ground.slot(b"a").set_expiry(b"a", NOW, None), "it has expired by now");
        assert_eq!((ground.counts.len, ground.counts.expires), (0, 0));
    }
}
