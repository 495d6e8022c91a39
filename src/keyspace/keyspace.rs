//! What one shard holds: looking keys up, changing them, counting them.

use std::fmt;
use std::ops::RangeInclusive;

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;

use super::database::{Database, Graveyard};
use super::table::{Counts, KeyHash, SlotMut, SlotTable};
use super::{Entry, Value};

/// How many databases there are.
pub(super) const DATABASES: usize = DbIndex::COUNT as usize;

/// Where and when a command looks: the client's database and the time of the log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The database.
    pub db: DbIndex,
    /// The time by which deadlines are judged.
    pub now: UnixMillis,
}

/// The databases of one shard, over a contiguous range of slots.
///
/// A key past its deadline is invisible to reads and is dropped by the first write that meets it; until
/// then, and until it is purged, it counts in [`Keyspace::len`], as in Redis.
///
/// **Invariant:** entries change only through the `SlotMut` of one private function, `slot_mut`.
pub struct Keyspace {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) databases: [Option<Box<Database>>; DATABASES],
}

/// Where a key lives within a database: computed once per command.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: Slot,
    hash: KeyHash,
}

impl Place {
    fn of(key: &[u8]) -> Self {
        Self { slot: Slot::of(key), hash: KeyHash::of(key) }
    }
}

impl Keyspace {
    /// An empty keyspace for the keys of `slots`.
    ///
    /// # Panics
    /// When the range is empty or goes beyond the last slot.
    pub fn new(slots: RangeInclusive<u16>) -> Self {
        assert!(!slots.is_empty(), "a keyspace has at least one slot");
        assert!(*slots.end() < Slot::COUNT, "slots end at 16383");
        Self { slots, databases: Default::default() }
    }

    /// The slots whose keys may be stored here.
    pub fn slots(&self) -> RangeInclusive<u16> {
        self.slots.clone()
    }

    /// The value of `key`.
    pub fn get(&self, at: At, key: &[u8]) -> Option<&Value> {
        self.entry(at, key).map(|entry| &entry.value)
    }

    /// The entry of `key`.
    pub fn entry(&self, at: At, key: &[u8]) -> Option<&Entry> {
        self.entry_even_expired(at.db, key).filter(|entry| !entry.is_expired(at.now))
    }

    /// The entry of `key`, to be changed. An expired one is dropped first.
    pub fn entry_mut(&mut self, at: At, key: &[u8]) -> Option<&mut Entry> {
        self.slot_mut(at.db, Place::of(key))?.entry_mut(key, at.now)
    }

    /// Puts `value` under `key`, in the place of whatever is there, which is returned to be dropped where
    /// that may take long.
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn insert(
        &mut self,
        at: At,
        key: &[u8],
        value: Value,
        expire_at: Option<UnixMillis>,
    ) -> Option<Entry> {
        let entry = Entry::new(key, value, expire_at);
        self.slot_or_create(at.db, Place::of(key)).insert(entry)
    }

    /// Takes the entry of `key` out. An expired one is dropped and not returned.
    pub fn remove(&mut self, at: At, key: &[u8]) -> Option<Entry> {
        let removed = self.slot_mut(at.db, Place::of(key))?.remove(key)?;
        (!removed.is_expired(at.now)).then_some(removed)
    }

    /// Gives `key` a deadline, or takes it away. `false` when there is no such key.
    pub fn set_expiry(&mut self, at: At, key: &[u8], expire_at: Option<UnixMillis>) -> bool {
        self.slot_mut(at.db, Place::of(key))
            .is_some_and(|slot| slot.set_expiry(key, at.now, expire_at))
    }

    /// Removes `key` when it holds an empty list, hash, set or sorted set: such a key does not exist.
    pub fn remove_if_empty(&mut self, at: At, key: &[u8]) {
        let entry = self.entry_even_expired(at.db, key);
        if entry.is_some_and(|entry| entry.value.is_empty_collection()) {
            drop(self.remove(at, key));
        }
    }

    /// How many keys `db` holds, expired ones that were not purged yet included.
    pub fn len(&self, db: DbIndex) -> usize {
        self.counts(db).len
    }

    /// Whether no database holds a key.
    pub fn is_empty(&self) -> bool {
        self.databases.iter().flatten().all(|database| database.counts.len == 0)
    }

    /// How many keys of `db` have a deadline.
    pub fn expires_len(&self, db: DbIndex) -> usize {
        self.counts(db).expires
    }

    /// How many keys of `db` lie in `slot`.
    pub fn count_in_slot(&self, db: DbIndex, slot: Slot) -> usize {
        self.table(db, slot).map_or(0, SlotTable::len)
    }

    /// Whether a key of `slot` may be stored here.
    ///
    /// Storing another one panics: commands are applied only after their slots were checked, and a key in
    /// the wrong shard would be lost to every reader.
    pub fn contains(&self, slot: Slot) -> bool {
        self.slots.contains(&slot.number())
    }

    /// Removes every key of `db`.
    pub fn flush_db(&mut self, db: DbIndex) -> Graveyard {
        let mut graveyard = Graveyard::default();
        self.flush_into(usize::from(db.0), &mut graveyard);
        graveyard
    }

    /// Removes every key of every database.
    pub fn flush_all(&mut self) -> Graveyard {
        let mut graveyard = Graveyard::default();
        for index in 0..DATABASES {
            self.flush_into(index, &mut graveyard);
        }
        graveyard
    }

    fn flush_into(&mut self, index: usize, graveyard: &mut Graveyard) {
        let flushed = self.databases.get_mut(index).and_then(Option::take);
        graveyard.bury(flushed);
    }

    pub(super) fn entry_even_expired(&self, db: DbIndex, key: &[u8]) -> Option<&Entry> {
        let place = Place::of(key);
        self.table(db, place.slot)?.find(place.hash, key)
    }

    pub(super) fn database(&self, db: DbIndex) -> Option<&Database> {
        self.databases.get(usize::from(db.0))?.as_deref()
    }

    pub(super) fn table(&self, db: DbIndex, slot: Slot) -> Option<&SlotTable> {
        let index = slot.number().checked_sub(*self.slots.start())?;
        self.database(db)?.tables.get(usize::from(index))
    }

    fn counts(&self, db: DbIndex) -> Counts {
        self.database(db).map(|database| database.counts).unwrap_or_default()
    }

    /// Removes the entry of `key` whatever its deadline.
    pub(super) fn remove_even_expired(&mut self, db: DbIndex, key: &[u8]) -> Option<Entry> {
        self.slot_mut(db, Place::of(key))?.remove(key)
    }

    /// The live entry of `key`, or a new one of `make()`.
    pub(super) fn entry_or_insert(
        &mut self,
        at: At,
        key: &[u8],
        make: fn() -> Value,
    ) -> &mut Entry {
        self.slot_or_create(at.db, Place::of(key)).or_insert_with(key, at.now, make)
    }

    /// The way to every change of an entry.
    fn slot_mut(&mut self, db: DbIndex, place: Place) -> Option<SlotMut<'_>> {
        let index = place.slot.number().checked_sub(*self.slots.start())?;
        let database = self.databases.get_mut(usize::from(db.0))?.as_deref_mut()?;
        let table = database.tables.get_mut(usize::from(index))?;
        Some(SlotMut { counts: &mut database.counts, table, hash: place.hash })
    }

    fn slot_or_create(&mut self, db: DbIndex, place: Place) -> SlotMut<'_> {
        assert!(self.contains(place.slot), "a key is applied only in the shard of its slot");
        let database = self.databases.get_mut(usize::from(db.0));
        let database = database.expect("SELECT and the log's decoder know 16 databases");
        database.get_or_insert_with(|| Box::new(Database::new(&self.slots)));
        self.slot_mut(db, place).expect("the database exists and the slot is in range")
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: usize = self.databases.iter().flatten().map(|database| database.counts.len).sum();
        f.debug_struct("Keyspace").field("slots", &self.slots).field("keys", &keys).finish()
    }
}
