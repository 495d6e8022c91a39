//! Entries in one array, found through a small index of their places.
//!
//! The index is an open-addressing table of 4-byte cells, so that of a store larger than the processor's caches
//! the index of a slot is a few cache lines and only the entry itself lies far away; and what a key needs can be
//! touched ahead of time in two short steps ([`CompactTable::touch`], [`CompactTable::glance`]), so that a batch of keys
//! waits for memory about once. (One table of entries with control bytes, as hashbrown's, takes two far reads a key, and
//! its probing is too long for a processor to look several keys ahead: measured with a million keys, 550 ns a SET
//! against 180.)
//!
//! **Invariant:** each entry has one cell; at least a quarter of the cells is free, so every search ends.

use super::Entry;
use super::key::KeyHash;
use crate::stdx::hash_key::HashKey;

/// A cell: 0 when it is free, else 8 bits of the hash above 24 bits of the entry's place plus one.
type Cell = u32;

const FREE: Cell = 0;

/// Where an entry was: a search goes on behind it.
const GRAVE: Cell = u32::MAX;

const PLACE_BITS: u32 = 24;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// The most entries that cells can tell apart, less than what [`GRAVE`] would be read as.
const ENTRIES_MAX: usize = PLACE_MASK as usize - 2;

/// The smallest index there is.
const CELLS_MIN: usize = 8;

/// Cells that [`CompactTable::glance`] looks at: beyond them an entry is rarely found.
const GLANCE_CELLS: usize = 4;

/// A hash table of entries.
#[derive(Debug, Default)]
pub(super) struct CompactTable {
    /// None, or a power of two.
    cells: Box<[Cell]>,
    entries: Vec<Entry>,
    /// Cells that are not free.
    used: u32,
}

/// Where a search found an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    cell: usize,
    place: usize,
}

impl CompactTable {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries fit before memory is asked for.
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// The entries in the order of their places, which depends on the table's history.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    pub(super) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<Found> {
        let mask = self.cells.len().checked_sub(1)?;
        let tag = tag_of(hash);
        let mut cell = home_of(hash) & mask;
        loop {
            let content = self.cells[cell];
            if content == FREE {
                return None;
            }
            if content >> PLACE_BITS == tag {
                let place = place_of(content);
                // A grave's place is beyond the last entry.
                if self.entries.get(place).is_some_and(|entry| entry.key() == key) {
                    return Some(Found { cell, place });
                }
            }
            cell = (cell + 1) & mask;
        }
    }

    pub(super) fn get(&self, found: Found) -> &Entry {
        &self.entries[found.place]
    }

    pub(super) fn get_mut(&mut self, found: Found) -> &mut Entry {
        &mut self.entries[found.place]
    }

    /// Adds an entry whose key is not there yet.
    pub(super) fn insert_new(
        &mut self,
        hash_key: HashKey,
        hash: KeyHash,
        entry: Entry,
    ) -> &mut Entry {
        self.make_room(hash_key);
        let place = self.entries.len();
        self.put(hash, place);
        self.entries.push(entry);
        &mut self.entries[place]
    }

    /// Takes an entry out. The last one moves to its place.
    pub(super) fn remove(&mut self, hash_key: HashKey, found: Found) -> Entry {
        self.bury(found.cell);
        let last = self.entries.len() - 1;
        if found.place != last {
            let hash = KeyHash::of(self.entries[last].key(), hash_key);
            let cell = self.cell_at(hash, last);
            self.cells[cell] = content_of(tag_of(hash), found.place);
        }
        self.entries.swap_remove(found.place)
    }

    /// Takes out all entries for which `goes` says so.
    pub(super) fn extract_if(
        &mut self,
        hash_key: HashKey,
        mut goes: impl FnMut(&Entry) -> bool,
    ) -> Vec<Entry> {
        let taken: Vec<Entry> = self.entries.extract_if(.., |entry| goes(entry)).collect();
        self.rebuild(hash_key);
        taken
    }

    /// Gives back what more than `capacity` entries need.
    pub(super) fn shrink_to(&mut self, hash_key: HashKey, capacity: usize) {
        self.entries.shrink_to(capacity);
        self.rebuild(hash_key);
    }

    /// The first cell to look at: reading it brings the index near. What it says is of no use.
    pub(super) fn touch(&self, hash: KeyHash) -> u64 {
        let mask = self.cells.len().wrapping_sub(1);
        self.cells.get(home_of(hash) & mask).map_or(0, |&content| u64::from(content))
    }

    /// Reads the entry that is probably the one of `hash`, to bring it near. Without a branch that depends on what is
    /// read, so that a processor begins with the next keys meanwhile. What it says is of no use.
    pub(super) fn glance(&self, hash: KeyHash) -> u64 {
        let mask = self.cells.len().wrapping_sub(1);
        let (home, tag) = (home_of(hash), tag_of(hash));
        let mut candidate = FREE;
        for step in (0..GLANCE_CELLS).rev() {
            let content = self.cells.get((home + step) & mask).copied().unwrap_or(FREE);
            candidate = if content >> PLACE_BITS == tag { content } else { candidate };
        }
        self.entries.get(place_of(candidate)).map_or(0, Entry::glance)
    }

    /// Makes room for one more entry.
    fn make_room(&mut self, hash_key: HashKey) {
        assert!(self.entries.len() < ENTRIES_MAX, "a bucket is cut long before");
        if self.entries.len() == self.entries.capacity() {
            // Half as much again: entries are large, and most tables stay as they are for long.
            self.entries.reserve_exact((self.entries.len() / 2).max(CELLS_MIN / 2));
        }
        if (self.used as usize + 1) * 4 > self.cells.len() * 3 {
            self.rebuild(hash_key);
        }
    }

    /// Makes the index anew, without graves and with room for as many entries again, at least one.
    fn rebuild(&mut self, hash_key: HashKey) {
        let cells = ((self.entries.len() + 1) * 2).next_power_of_two().max(CELLS_MIN);
        if self.entries.is_empty() && self.entries.capacity() == 0 {
            self.cells = Box::default();
        } else if self.cells.len() == cells {
            self.cells.fill(FREE);
        } else {
            self.cells = vec![FREE; cells].into();
        }
        self.used = 0;
        for place in 0..self.entries.len() {
            let hash = KeyHash::of(self.entries[place].key(), hash_key);
            self.put(hash, place);
        }
    }

    /// Gives `place` a cell. There is a free one.
    fn put(&mut self, hash: KeyHash, place: usize) {
        let mask = self.cells.len() - 1;
        let mut cell = home_of(hash) & mask;
        while self.cells[cell] != FREE && self.cells[cell] != GRAVE {
            cell = (cell + 1) & mask;
        }
        self.used += u32::from(self.cells[cell] == FREE);
        self.cells[cell] = content_of(tag_of(hash), place);
    }

    /// The cell of the entry at `place`.
    fn cell_at(&self, hash: KeyHash, place: usize) -> usize {
        let mask = self.cells.len() - 1;
        let wanted = content_of(tag_of(hash), place);
        let mut cell = home_of(hash) & mask;
        while self.cells[cell] != wanted {
            cell = (cell + 1) & mask;
        }
        cell
    }

    /// Empties a cell. Where no search goes on behind it, it and the graves before it are free again.
    fn bury(&mut self, cell: usize) {
        let mask = self.cells.len() - 1;
        self.cells[cell] = GRAVE;
        if self.cells[(cell + 1) & mask] != FREE {
            return;
        }
        let mut cell = cell;
        while self.cells[cell] == GRAVE {
            self.cells[cell] = FREE;
            self.used -= 1;
            cell = cell.wrapping_sub(1) & mask;
        }
    }
}

fn tag_of(hash: KeyHash) -> u32 {
    u32::from(hash.tag())
}

fn home_of(hash: KeyHash) -> usize {
    // Only its lowest bits are used: on a machine of 32 bits the same.
    usize::try_from(hash.position() & u64::from(u32::MAX)).unwrap_or(0)
}

fn content_of(tag: u32, place: usize) -> Cell {
    let place = u32::try_from(place).expect("there are at most ENTRIES_MAX entries");
    tag << PLACE_BITS | (place + 1)
}

/// The place a cell speaks of; beyond every entry for a free one and for a grave.
fn place_of(content: Cell) -> usize {
    ((content & PLACE_MASK) as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::HASH_KEY;
    use crate::keyspace::{Str, Value};
    use crate::stdx::prng::SplitMix64;

    fn entry(key: &[u8]) -> Entry {
        Entry::new(key, Value::from(Str::new()), None)
    }

    fn check(table: &CompactTable) {
        let free = table.cells.iter().filter(|&&cell| cell == FREE).count();
        assert_eq!(table.cells.len() - free, table.used as usize);
        assert!(table.cells.is_empty() || free * 4 >= table.cells.len(), "searches end");
        for (place, entry) in table.iter().enumerate() {
            let found = table.find(KeyHash::of(entry.key(), HASH_KEY), entry.key()).unwrap();
            assert_eq!(found.place, place);
        }
    }

    #[test]
    fn entries_come_and_go_as_in_a_map() {
        let mut random = SplitMix64::new(7);
        let mut table = CompactTable::default();
        let mut model = std::collections::BTreeSet::new();
        for step in 0..60_000_u32 {
            // Grows to some two thousand keys, shrinks to a few, and again.
            let keys = if step / 10_000 % 2 == 0 { 3000 } else { 30 };
            let key = random.below(keys).to_string().into_bytes();
            let hash = KeyHash::of(&key, HASH_KEY);
            let found = table.find(hash, &key);
            assert_eq!(found.is_some(), model.contains(&key), "{step}");
            match found {
                Some(found) if random.below(2) == 0 || keys == 30 => {
                    assert_eq!(table.remove(HASH_KEY, found).key(), key);
                    model.remove(&key);
                }
                Some(found) => assert_eq!(table.get(found).key(), key),
                None => {
                    assert_eq!(table.insert_new(HASH_KEY, hash, entry(&key)).key(), key);
                    model.insert(key);
                }
            }
            assert_eq!(table.len(), model.len());
            if step % 1000 == 0 {
                check(&table);
            }
        }
        check(&table);
    }

    #[test]
    fn removing_everything_leaves_no_graves() {
        let mut table = CompactTable::default();
        let keys: Vec<Vec<u8>> = (0..500).map(|n: u32| n.to_string().into_bytes()).collect();
        for key in &keys {
            table.insert_new(HASH_KEY, KeyHash::of(key, HASH_KEY), entry(key));
        }
        for key in &keys {
            let found = table.find(KeyHash::of(key, HASH_KEY), key).unwrap();
            table.remove(HASH_KEY, found);
        }
        assert_eq!((table.len(), table.used), (0, 0));
        table.shrink_to(HASH_KEY, 0);
        assert_eq!((table.cells.len(), table.capacity()), (0, 0));
        assert!(table.find(KeyHash::of(b"7", HASH_KEY), b"7").is_none());
    }

    #[test]
    fn what_is_extracted_is_gone_and_the_rest_is_found() {
        let mut table = CompactTable::default();
        for n in 0..1000_u32 {
            let key = n.to_string().into_bytes();
            table.insert_new(HASH_KEY, KeyHash::of(&key, HASH_KEY), entry(&key));
        }
        let odd = |entry: &Entry| entry.key().last().is_some_and(|digit| digit % 2 == 1);
        assert_eq!(table.extract_if(HASH_KEY, odd).len(), 500);
        assert_eq!(table.len(), 500);
        check(&table);
        assert!(table.find(KeyHash::of(b"7", HASH_KEY), b"7").is_none());
    }

    #[test]
    fn looking_ahead_is_harmless_on_any_table() {
        let mut table = CompactTable::default();
        assert_eq!(
            (table.touch(KeyHash::of(b"a", HASH_KEY)), table.glance(KeyHash::of(b"a", HASH_KEY))),
            (0, 0)
        );
        table.insert_new(HASH_KEY, KeyHash::of(b"a", HASH_KEY), entry(b"a"));
        assert_ne!(table.touch(KeyHash::of(b"a", HASH_KEY)), 0);
        assert_eq!(table.glance(KeyHash::of(b"a", HASH_KEY)), table.entries[0].glance());
        let found = table.find(KeyHash::of(b"a", HASH_KEY), b"a").unwrap();
        table.remove(HASH_KEY, found);
        assert_eq!(table.glance(KeyHash::of(b"a", HASH_KEY)), 0);
    }
}
