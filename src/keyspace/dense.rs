//! A dense table: entries in one vector, found by key through a table of their positions.
//!
//! The vector's order is the only order there is. New entries go to its end, and a removed one is replaced
//! by the last. The order is therefore defined by the history of the table alone, the same on every
//! replica; snapshots spell the entries in it, and so it survives them. The table of positions is an index
//! that is never iterated.
//!
//! Limit: the entry that makes the index grow pays for all: 14 ms on the way to a million entries.
//!
//! Keys are hashed under a secret: whoever could foretell their places could send such as share one, and make each
//! look at a member walk over all of them, on every replica and under the lock of the shard.
//!
//! Scanning goes from the last position down to the first: a removal moves an entry only downwards, to a
//! place that is visited later or to one among entries already visited. Hence an entry that is there during
//! the whole scan is visited at least once, whatever is added and removed meanwhile, as Redis promises for
//! SCAN.
//!
//! Source: the layout of the `indexmap` crate and of Python's dictionaries.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::stdx::hash_key::HashKey;

/// The least room that is made for entries that are announced.
const ROOM_MIN: usize = 128;

/// Something that is found by a key.
pub(super) trait Keyed {
    /// The key. Never changes while the entry is in a table.
    fn key(&self) -> &[u8];
}

/// The secret under which the members of collections are hashed. Every collection carries it, also while it has no
/// table yet; half as long as a [`HashKey`], which costs nobody who cannot see the hashes anything to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberKey(u64);

impl MemberKey {
    /// A key of the tests.
    #[cfg(test)]
    pub(super) const fn new(key: u64) -> Self {
        Self(key)
    }

    /// The one that belongs to the hash key of a keyspace.
    pub(super) fn of(hash_key: HashKey) -> Self {
        Self(hash_key.hash(b"members"))
    }

    /// Half a hash, as a table keeps it.
    fn short_hash(self, key: &[u8]) -> u32 {
        let [.., a, b, c, d] = HashKey::new([self.0, 0]).hash(key).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// The fewest removals at once for which a table makes a list of all that stand; as many of its entries, one of so many,
/// must go for that to pay.
const TAKEN_AT_ONCE_MIN: usize = 64;
const TAKEN_AT_ONCE_SHARE: usize = 16;

/// No place: the entry has gone.
const GONE: u32 = u32::MAX;

/// Entries in one vector, found by key.
#[derive(Clone, Debug)]
pub(super) struct Dense<E> {
    entries: Vec<E>,
    places: HashTable<Place>,
    key: MemberKey,
}

/// Where an entry stands. Half of its hash stays beside it, so that a growing index need not visit the
/// entries, and a lookup visits hardly one that is not the sought one.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    position: u32,
}

impl<E: Keyed> Dense<E> {
    /// An empty table with room for `capacity` entries.
    pub(super) fn with_capacity(key: MemberKey, capacity: usize) -> Self {
        let places = HashTable::with_capacity(capacity);
        Self { entries: Vec::with_capacity(capacity), places, key }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All entries in the table's order.
    pub(super) fn as_slice(&self) -> &[E] {
        &self.entries
    }

    /// The entry at `position`.
    pub(super) fn get(&self, position: usize) -> Option<&E> {
        self.entries.get(position)
    }

    /// The entry at `position`, to change anything but its key.
    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut E> {
        self.entries.get_mut(position)
    }

    /// The position of the entry with `key`.
    pub(super) fn position(&self, key: &[u8]) -> Option<usize> {
        let hash = self.key.short_hash(key);
        self.places
            .find(spread(hash), |place| place.is(hash, key, &self.entries))
            .map(|place| place.position as usize)
    }

    /// Adds the entry that `make` makes unless `key` is there. Returns its position and whether it is new.
    ///
    /// # Panics
    /// At 2³² entries, which take more than 100 GB.
    pub(super) fn insert_with(&mut self, key: &[u8], make: impl FnOnce() -> E) -> (usize, bool) {
        let (position, is_new) = self.find_or_place(key);
        if is_new {
            self.entries.push(make());
        }
        (position, is_new)
    }

    /// Adds `entry` unless its key is there; whether it was not.
    ///
    /// # Panics
    /// As [`Dense::insert_with`].
    pub(super) fn insert(&mut self, entry: E) -> bool {
        let (_, is_new) = self.find_or_place(entry.key());
        if is_new {
            self.entries.push(entry);
        }
        is_new
    }

    /// Makes room for the next of `more` entries, which need not come: room for at most as many again as there are, and
    /// none beyond the last.
    pub(super) fn make_room(&mut self, more: usize) {
        if self.entries.len() < self.entries.capacity() {
            return;
        }
        let more = more.min(self.entries.len().max(ROOM_MIN));
        self.entries.reserve_exact(more);
        self.places.reserve(more, |place| spread(place.hash));
    }

    /// The position of the entry with `key`, or the one that such an entry is about to be pushed to.
    fn find_or_place(&mut self, key: &[u8]) -> (usize, bool) {
        let hash = self.key.short_hash(key);
        let is_same = |place: &Place| place.is(hash, key, &self.entries);
        match self.places.entry(spread(hash), is_same, |place| spread(place.hash)) {
            Entry::Occupied(entry) => (entry.get().position as usize, false),
            Entry::Vacant(entry) => {
                let position = u32::try_from(self.entries.len())
                    .expect("a table of 2^32 entries exceeds the memory of its machine");
                entry.insert(Place { hash, position });
                (position as usize, true)
            }
        }
    }

    /// Removes the entry at `position`, which exists; the last one takes its place.
    pub(super) fn swap_remove(&mut self, position: usize) -> E {
        self.forget_place(position);
        let last = self.entries.len() - 1;
        if position != last {
            let hash = self.key.short_hash(self.entries[last].key());
            let place = self
                .places
                .find_mut(spread(hash), |place| place.position as usize == last)
                .expect("every entry has a place");
            place.position =
                u32::try_from(position).expect("positions below the length fit 32 bits");
        }
        self.give_memory_back();
        self.entries.swap_remove(position)
    }

    /// Removes up to `count` entries, one after the other, each at the position that `pick` chooses among as many as it is
    /// told; in its place comes the last one. As so many calls of [`Self::swap_remove`], but where many go the index is
    /// mended once.
    pub(super) fn take_picked(
        &mut self,
        count: usize,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Vec<E> {
        let count = count.min(self.len());
        if !self.is_worth_a_list(count) {
            return (0..count).map(|_| self.swap_remove(pick(self.len()))).collect();
        }
        let mut standing = Standing::new(self.len());
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let position = pick(self.len());
            standing.swap_remove(position);
            taken.push(self.entries.swap_remove(position));
        }
        self.mend_places(&standing.place_of);
        taken
    }

    /// Whether [`Self::take_positions`] is quicker than to remove so many one by one.
    pub(super) fn is_worth_a_list(&self, count: usize) -> bool {
        count >= TAKEN_AT_ONCE_MIN && count >= self.len() / TAKEN_AT_ONCE_SHARE
    }

    /// Removes the entries that stand at `positions`, each named once, in this order, as [`Self::swap_remove`] would.
    /// Returns them, and where each other one of the table stands now.
    pub(super) fn take_positions(
        &mut self,
        positions: impl ExactSizeIterator<Item = u32>,
    ) -> (Vec<E>, Moves) {
        let mut standing = Standing::new(self.len());
        let mut taken = Vec::with_capacity(positions.len());
        for position in positions {
            let position = standing.place_of[position as usize] as usize;
            standing.swap_remove(position);
            taken.push(self.entries.swap_remove(position));
        }
        self.mend_places(&standing.place_of);
        (taken, Moves(standing.place_of))
    }

    /// Follows entries that have moved to `place_of` their old positions, or have gone.
    fn mend_places(&mut self, place_of: &[u32]) {
        self.places.retain(|place| {
            place.position = place_of[place.position as usize];
            place.position != GONE
        });
        while self.is_sparse() {
            self.give_memory_back();
        }
    }

    /// The entries that one step of a scan visits, and the cursor of the next step: 0 when it was the last.
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (&[E], u64) {
        let end = match usize::try_from(cursor) {
            Ok(0) | Err(_) => self.len(),
            Ok(cursor) => cursor.min(self.len()),
        };
        let start = end.saturating_sub(count.max(1));
        (&self.entries[start..end], start as u64)
    }

    fn forget_place(&mut self, position: usize) {
        let hash = self.key.short_hash(self.entries[position].key());
        self.places
            .find_entry(spread(hash), |place| place.position as usize == position)
            .expect("every entry has a place")
            .remove();
    }

    fn is_sparse(&self) -> bool {
        self.entries.capacity() > (self.entries.len() * 8).max(1024)
    }

    /// A table that lost seven eighths of its entries lets half of its memory go.
    fn give_memory_back(&mut self) {
        if self.is_sparse() {
            self.entries.shrink_to(self.entries.capacity() / 2);
            self.places.shrink_to(self.places.capacity() / 2, |place| spread(place.hash));
        }
    }
}

/// Where entries stand that others are taken from between: `swap_remove` without a look at an index.
struct Standing {
    /// By the position an entry had.
    place_of: Vec<u32>,
    /// By the position an entry has: the one it had.
    origin_of: Vec<u32>,
}

impl Standing {
    fn new(len: usize) -> Self {
        let all: Vec<u32> = (0_u32..).take(len).collect();
        Self { place_of: all.clone(), origin_of: all }
    }

    fn swap_remove(&mut self, position: usize) {
        let gone = self.origin_of.swap_remove(position);
        if let Some(&moved) = self.origin_of.get(position) {
            self.place_of[moved as usize] = self.place_of[gone as usize];
        }
        self.place_of[gone as usize] = GONE;
    }
}

/// Where the entries of a table stand after some have been taken.
pub(super) struct Moves(Vec<u32>);

impl Moves {
    /// Where the entry stands that stood at `position`, unless it has gone.
    pub(super) fn of(&self, position: u32) -> Option<u32> {
        Some(self.0[position as usize]).filter(|place| *place != GONE)
    }
}

impl Place {
    fn is<E: Keyed>(self, hash: u32, key: &[u8], entries: &[E]) -> bool {
        self.hash == hash && entries[self.position as usize].key() == key
    }
}

/// Makes 64 bits of 32 for the index, which takes its bucket from the low and its tag from the high ones
/// (Fibonacci hashing: the odd multiplier is 2⁶⁴ / φ).
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::testing::{KEY, colliding, seeded};

    impl Keyed for Vec<u8> {
        fn key(&self) -> &[u8] {
            self
        }
    }

    fn insert(table: &mut Dense<Vec<u8>>, key: u16) -> bool {
        let key = key.to_le_bytes();
        table.insert_with(&key, || key.to_vec()).1
    }

    fn remove(table: &mut Dense<Vec<u8>>, key: u16) -> bool {
        match table.position(&key.to_le_bytes()) {
            Some(position) => {
                assert_eq!(table.swap_remove(position), key.to_le_bytes());
                true
            }
            None => false,
        }
    }

    proptest! {
        #![proptest_config(seeded(100))]

        #[test]
        fn every_key_is_found_at_its_position(steps in prop::collection::vec((any::<bool>(), 0..300_u16), 1..900)) {
            let (mut table, mut model) = (Dense::with_capacity(KEY, 0), BTreeSet::new());
            for (is_insert, key) in steps {
                if is_insert {
                    prop_assert_eq!(insert(&mut table, key), model.insert(key));
                } else {
                    prop_assert_eq!(remove(&mut table, key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for key in 0..300_u16 {
                let found = table.position(&key.to_le_bytes()).and_then(|position| table.get(position));
                prop_assert_eq!(found.is_some(), model.contains(&key));
                prop_assert!(found.is_none_or(|found| *found == key.to_le_bytes()));
            }
        }

        /// Redis docs, SCAN: "A full iteration always retrieves all the elements that were present in the
        /// collection from the start to the end of a full iteration."
        #[test]
        fn a_scan_visits_what_stays(
            initial in 1..200_u16,
            count in 1..20_usize,
            changes in prop::collection::vec((any::<bool>(), 0..400_u16), 0..400),
            changes_per_step in 0..9_usize,
        ) {
            let mut table = Dense::with_capacity(KEY, 0);
            let mut staying: BTreeSet<u16> = (0..initial).collect();
            for key in 0..initial {
                insert(&mut table, key);
            }
            let mut changes = changes.into_iter();
            let (mut cursor, mut visited) = (0, BTreeSet::new());
            loop {
                let (entries, next) = table.scan(cursor, count);
                visited.extend(entries.iter().map(|key| u16::from_le_bytes([key[0], key[1]])));
                if next == 0 {
                    break;
                }
                cursor = next;
                for (is_insert, key) in changes.by_ref().take(changes_per_step) {
                    if is_insert {
                        insert(&mut table, key);
                    } else {
                        remove(&mut table, key);
                        staying.remove(&key);
                    }
                }
            }
            prop_assert!(staying.is_subset(&visited), "{:?}", staying.difference(&visited));
        }
    }

    /// faults.md B1: members that xxh3 cannot tell apart were all found behind one another.
    #[test]
    fn members_made_to_collide_do_not() {
        let hashes: BTreeSet<u32> =
            (0..10_000).map(|number| KEY.short_hash(&colliding(number))).collect();
        // A random function of 32 bits makes about one pair in a hundred such rounds.
        assert!(hashes.len() > 9_990, "{} hashes of 10,000", hashes.len());
    }

    proptest! {
        #![proptest_config(seeded(60))]

        /// However many go at once, the table is as if they had gone one by one.
        #[test]
        fn taking_many_is_taking_one_by_one(
            len in 1..600_u16,
            count in 0..700_usize,
            seed in any::<usize>(),
            by_position in any::<bool>(),
        ) {
            let (mut table, mut model) = (Dense::with_capacity(KEY, 0), Dense::with_capacity(KEY, 0));
            for key in 0..len {
                insert(&mut table, key);
                insert(&mut model, key);
            }
            let mut number = seed;
            let mut pick = |len: usize| {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
                (number >> 20) % len
            };
            let picks: Vec<_> = (0..count.min(usize::from(len)))
                .map(|taken| pick(usize::from(len) - taken))
                .collect();
            let expected: Vec<_> = picks.iter().map(|&at| model.swap_remove(at)).collect();
            let taken = if by_position {
                let origin = |entry: &Vec<u8>| u32::from(u16::from_le_bytes([entry[0], entry[1]]));
                let positions: Vec<_> = expected.iter().map(origin).collect();
                let (taken, moves) = table.take_positions(positions.into_iter());
                for key in 0..len {
                    let place = table.position(&key.to_le_bytes());
                    prop_assert_eq!(moves.of(key.into()).map(|place| place as usize), place);
                }
                taken
            } else {
                let mut picks = picks.into_iter();
                table.take_picked(count, |_| picks.next().unwrap())
            };
            prop_assert_eq!(taken, expected);
            prop_assert_eq!(table.as_slice(), model.as_slice());
            for key in 0..len {
                prop_assert_eq!(table.position(&key.to_le_bytes()), model.position(&key.to_le_bytes()));
            }
            prop_assert!(insert(&mut table, 999) && remove(&mut table, 999));
        }
    }

    #[test]
    fn room_is_made_as_entries_come_and_fits_in_the_end() {
        const COUNT: u16 = 20_000;
        let mut table: Dense<Vec<u8>> = Dense::with_capacity(KEY, 0);
        for key in 0..COUNT {
            table.make_room(usize::from(COUNT - key));
            assert!(table.entries.capacity() <= (2 * table.len()).max(ROOM_MIN));
            assert!(table.insert(key.to_le_bytes().to_vec()));
        }
        assert_eq!(table.entries.capacity(), usize::from(COUNT));
        table.make_room(usize::MAX);
        assert_eq!(table.entries.capacity(), 2 * usize::from(COUNT));
        assert!(!table.insert(7_u16.to_le_bytes().to_vec()) && table.len() == usize::from(COUNT));
    }

    #[test]
    fn a_shrunken_table_gives_memory_back() {
        let mut table = Dense::with_capacity(KEY, 0);
        for key in 0..20_000 {
            insert(&mut table, key);
        }
        for key in 0..19_990 {
            remove(&mut table, key);
        }
        assert!(table.entries.capacity() <= 1024);
        assert!((19_990..20_000_u16).all(|key| table.position(&key.to_le_bytes()).is_some()));
    }
}
