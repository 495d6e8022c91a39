//! What one shard holds: looking keys up, changing them, counting them.

use std::fmt;
use std::hint::black_box;
use std::ops::RangeInclusive;

use smallvec::SmallVec;

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;

use super::database::{Database, Graveyard};
use super::dense::MemberKey;
use super::error::DecodeError;
use super::expire::Sweep;
use super::key::KeyHash;
use super::snapshot::{Past, Snapshot};
use super::table::{Counts, SlotMut, SlotTable};
use super::{At, Entry, Key, Value};

/// How many databases there are.
pub(super) const DATABASES: usize = DbIndex::COUNT as usize;

/// How many keys [`Keyspace::look_ahead`] fetches at once: about as many as a processor has reads under way.
pub const KEYS_AHEAD_MAX: usize = 16;

/// The databases of one shard, over a contiguous range of slots.
///
/// A key past its deadline is invisible to reads and is dropped by the first write that meets it; until
/// then, and until it is purged, it counts in [`Keyspace::len`], as in Redis.
///
/// **Invariant:** entries change only through the `SlotMut` of one private function, `slot_mut`.
pub struct Keyspace {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) hash_key: HashKey,
    pub(super) member_key: MemberKey,
    pub(super) databases: [Option<Database>; DATABASES],
    pub(super) snapshot: Option<Box<Snapshot>>,
    pub(super) snapshots_begun: u32,
    /// How far the look for due keys has come.
    pub(super) sweep: Sweep,
    /// What has gone and takes long to free.
    pub(super) graveyard: Graveyard,
}

impl Keyspace {
    /// An empty keyspace for the keys of `slots`, which are hashed under `hash_key`: all replicas need the same one,
    /// for ever, since the order in which keys are listed and picked comes from it.
    ///
    /// # Panics
    /// When the range is empty or goes beyond the last slot.
    pub fn new(slots: RangeInclusive<u16>, hash_key: HashKey) -> Self {
        assert!(!slots.is_empty(), "a keyspace has at least one slot");
        assert!(*slots.end() < Slot::COUNT, "slots end at 16383");
        Self {
            slots,
            hash_key,
            member_key: MemberKey::of(hash_key),
            databases: Default::default(),
            snapshot: None,
            snapshots_begun: 0,
            sweep: Sweep::default(),
            graveyard: Graveyard::default(),
        }
    }

    /// The key that `bytes` are, to be looked up here.
    #[inline]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key::new(bytes, self.hash_key)
    }

    /// The same, where the caller knows its slot.
    #[inline]
    pub fn key_in<'a>(&self, slot: Slot, bytes: &'a [u8]) -> Key<'a> {
        Key::within(slot, bytes, self.hash_key)
    }

    /// The slots whose keys may be stored here.
    pub fn slots(&self) -> RangeInclusive<u16> {
        self.slots.clone()
    }

    /// Whether there are so many keys that most of them lie far from the processor.
    pub fn is_large(&self) -> bool {
        const KEYS_NEAR_MAX: usize = 8 * 1024;
        let keys: usize = self.databases.iter().flatten().map(|database| database.counts.len).sum();
        keys > KEYS_NEAR_MAX
    }

    /// Brings what holds `keys` near to the processor; changes nothing. At most [`KEYS_AHEAD_MAX`] of them, and none
    /// unless the keyspace [is large](Self::is_large).
    ///
    /// A key of a large store lies in memory that is far from the processor, and so does its place in the index. Used one
    /// after the other, each key waits for both; looked at in two short rounds, they are all fetched at once.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = (DbIndex, Key<'k>)>) {
        if !self.is_large() {
            return;
        }
        let places: SmallVec<[(&SlotTable, KeyHash); KEYS_AHEAD_MAX]> = keys
            .take(KEYS_AHEAD_MAX)
            .filter_map(|(db, key)| Some((self.table(db, key.slot())?, key.hash())))
            .collect();
        let touched = places.iter().map(|(table, hash)| table.touch(*hash));
        black_box(touched.fold(0, u64::wrapping_add));
        let seen = places.iter().map(|(table, hash)| table.glance(*hash));
        black_box(seen.fold(0, u64::wrapping_add));
    }

    /// The value of `key`.
    pub fn get(&self, at: At, key: Key<'_>) -> Option<&Value> {
        self.entry(at, key).map(|entry| &entry.value)
    }

    /// The entry of `key`.
    pub fn entry(&self, at: At, key: Key<'_>) -> Option<&Entry> {
        let entry = self.entry_even_expired(at.db(), key)?;
        (!entry.is_expired(at.now())).then_some(entry)
    }

    /// The entry of `key`, to be changed. An expired one is [removed](Self::remove) first.
    pub fn entry_mut(&mut self, at: At, key: Key<'_>) -> Option<&mut Entry> {
        self.slot_mut(at.db(), key)?.entry_mut(key.bytes(), at.now())
    }

    /// Puts `value` under `key`, in the place of whatever is there, which goes as by [`Keyspace::remove`].
    ///
    /// # Panics
    /// As [`Keyspace::contains`] says.
    pub fn put(&mut self, at: At, key: Key<'_>, value: Value, expire_at: Option<UnixMillis>) {
        let entry = Entry::new(key.bytes(), value, expire_at);
        self.slot_or_create(at.db(), key).insert(entry);
    }

    /// Keeps what was flushed for [`Keyspace::take_graveyard`].
    pub fn bury(&mut self, flushed: Graveyard) {
        self.graveyard.absorb(flushed);
    }

    /// What has gone since the last call and is yet to be freed: by whoever does not hold up others by that.
    pub fn take_graveyard(&mut self) -> Graveyard {
        std::mem::take(&mut self.graveyard)
    }

    /// Removes the entry of `key`; whether there was one, and it had not expired. It is freed here, or kept for
    /// [`Keyspace::take_graveyard`] where that takes long. A running snapshot that needs a large one has it first, until that is
    /// written.
    pub fn remove(&mut self, at: At, key: Key<'_>) -> bool {
        self.slot_mut(at.db(), key).is_some_and(|slot| slot.remove(key.bytes(), at.now()))
    }

    /// As [`Keyspace::remove`], but frees nothing here: the value is lent from where it waits, so that a reply with all of
    /// it needs no copy. `None` when there was none or it had expired.
    pub fn remove_and_lend(&mut self, at: At, key: Key<'_>) -> Option<&Value> {
        self.slot_mut(at.db(), key)?.remove_and_lend(key.bytes(), at.now())
    }

    /// Gives `key` a deadline, or takes it away. `false` when there is no such key.
    pub fn set_expiry(&mut self, at: At, key: Key<'_>, expire_at: Option<UnixMillis>) -> bool {
        self.slot_mut(at.db(), key)
            .is_some_and(|slot| slot.set_expiry(key.bytes(), at.now(), expire_at))
    }

    /// Removes `key` when it holds an empty list, hash, set or sorted set: such a key does not exist.
    pub fn remove_if_empty(&mut self, at: At, key: Key<'_>) {
        let entry = self.entry_even_expired(at.db(), key);
        if entry.is_some_and(|entry| entry.value.is_empty_collection()) {
            self.remove(at, key);
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

    /// Removes every key of `db`. A running snapshot that needs them keeps them and frees them step by step.
    pub fn flush_db(&mut self, db: DbIndex) -> Graveyard {
        let mut graveyard = Graveyard::default();
        self.flush_into(usize::from(db.0), &mut graveyard);
        graveyard
    }

    /// Removes every key of every database, as [`Keyspace::flush_db`] does.
    pub fn flush_all(&mut self) -> Graveyard {
        let mut graveyard = Graveyard::default();
        for index in 0..DATABASES {
            self.flush_into(index, &mut graveyard);
        }
        graveyard
    }

    /// A digest of the whole logical state: databases, keys, values, deadlines. The history of
    /// the tables does not show; unequal states differ but for a chance of 2⁻⁶⁴. Visits every key at once; see
    /// [`Keyspace::begin_digest`].
    pub fn digest(&self) -> u64 {
        let digests = (0..DbIndex::COUNT).map(|db| self.digest_of(DbIndex(db)));
        digests.fold(0, u64::wrapping_add)
    }

    /// The part of [`Keyspace::digest`] that `db` contributes; 0 when it is empty.
    pub fn digest_of(&self, db: DbIndex) -> u64 {
        let tables = self.database(db).into_iter().flat_map(|database| &database.tables);
        let buckets = tables.flat_map(SlotTable::buckets);
        buckets.map(|(_, bucket)| bucket.digest(db)).fold(0, u64::wrapping_add)
    }

    fn flush_into(&mut self, index: usize, graveyard: &mut Graveyard) {
        let flushed = self.databases.get_mut(index).and_then(Option::take);
        graveyard.bury(match &mut self.snapshot {
            Some(snapshot) => flushed.and_then(|database| snapshot.take_flushed(index, database)),
            None => flushed,
        });
    }

    pub(super) fn entry_even_expired(&self, db: DbIndex, key: Key<'_>) -> Option<&Entry> {
        self.check(key);
        self.table(db, key.slot())?.find(key.hash(), key.bytes())
    }

    pub(super) fn database(&self, db: DbIndex) -> Option<&Database> {
        self.databases.get(usize::from(db.0))?.as_ref()
    }

    pub(super) fn table(&self, db: DbIndex, slot: Slot) -> Option<&SlotTable> {
        let index = slot.number().checked_sub(*self.slots.start())?;
        self.database(db)?.tables.get(usize::from(index))
    }

    /// A key that was hashed otherwise would never be found again.
    fn check(&self, key: Key<'_>) {
        debug_assert_eq!(key, self.key(key.bytes()), "a key of another cluster");
    }

    fn counts(&self, db: DbIndex) -> Counts {
        self.database(db).map(|database| database.counts).unwrap_or_default()
    }

    /// The live entry of `key`, or a new one of `make()`.
    pub(super) fn entry_or_insert(
        &mut self,
        at: At,
        key: Key<'_>,
        make: fn(MemberKey) -> Value,
    ) -> &mut Entry {
        let member_key = self.member_key;
        let slot = self.slot_or_create(at.db(), key);
        slot.or_insert_with(key.bytes(), at.now(), || make(member_key))
    }

    /// Adds an entry of a snapshot, whose key lies in `slot`.
    pub(super) fn load_entry(
        &mut self,
        (db, slot): (DbIndex, Slot),
        entry: Entry,
    ) -> Result<(), DecodeError> {
        let key = self.key_in(slot, entry.key());
        let hash = key.hash();
        let slot = self.slot_or_create(db, key);
        if slot.table.find(hash, entry.key()).is_some() {
            return Err(DecodeError::Duplicate("key"));
        }
        slot.insert(entry);
        Ok(())
    }

    /// The only way to a change of an entry: a running snapshot first keeps what it has not written yet of the bucket, and
    /// learns from the [`Past`] what becomes of the entry itself.
    fn slot_mut(&mut self, db: DbIndex, key: Key<'_>) -> Option<SlotMut<'_>> {
        self.check(key);
        let (slot, hash) = (key.slot(), key.hash());
        let index = slot.number().checked_sub(*self.slots.start())?;
        let database = self.databases.get_mut(usize::from(db.0))?.as_mut()?;
        let table = database.tables.get_mut(usize::from(index))?;
        let mut snapshot = self.snapshot.as_deref_mut();
        if let Some(snapshot) = &mut snapshot {
            snapshot.keep_bucket(db, slot, hash, table);
        }
        let past = Past { db, hash, snapshot, graveyard: &mut self.graveyard };
        let counts = &mut database.counts;
        Some(SlotMut { counts, table, past, hash, hash_key: self.hash_key })
    }

    fn slot_or_create(&mut self, db: DbIndex, key: Key<'_>) -> SlotMut<'_> {
        assert!(self.contains(key.slot()), "a key is applied only in the shard of its slot");
        let database = self.databases.get_mut(usize::from(db.0));
        let database = database.expect("SELECT and the log's decoder know 16 databases");
        database.get_or_insert_with(|| Database::new(&self.slots));
        self.slot_mut(db, key).expect("the database exists and the slot is in range")
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: usize = self.databases.iter().flatten().map(|database| database.counts.len).sum();
        f.debug_struct("Keyspace")
            .field("slots", &self.slots)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::HASH_KEY;
    use crate::keyspace::{List, Str, VALUE_PARTS_SMALL_MAX, WrongType};

    const AT: At = At::new(DbIndex(0), UnixMillis(100));

    fn keyspace() -> Keyspace {
        Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY)
    }

    fn text(text: &str) -> Value {
        Value::from(Str::from_bytes(text.as_bytes()))
    }

    fn list_of(element: &[u8]) -> Value {
        let mut list = List::new();
        list.push_back(element);
        Value::from(list)
    }

    #[test]
    fn a_key_is_visible_before_its_deadline_only() {
        let mut keyspace = keyspace();
        keyspace.put(AT, keyspace.key(b"k"), text("v"), Some(UnixMillis(101)));
        assert!(keyspace.get(AT, keyspace.key(b"k")).is_some());
        let later = At::new(AT.db(), UnixMillis(101));
        assert!(keyspace.get(later, keyspace.key(b"k")).is_none());
        assert_eq!(keyspace.len(AT.db()), 1, "a read removes nothing");
        assert!(keyspace.entry_mut(later, keyspace.key(b"k")).is_none());
        assert_eq!(keyspace.len(AT.db()), 0, "a write does");
    }

    #[test]
    fn removing_an_expired_key_returns_nothing() {
        let mut keyspace = keyspace();
        keyspace.put(AT, keyspace.key(b"k"), text("v"), Some(AT.now()));
        assert!(!keyspace.remove(AT, keyspace.key(b"k")));
        assert!(keyspace.is_empty());
    }

    /// faults.md B4: large values that had expired were freed by the command that met them.
    #[test]
    fn a_large_value_that_has_expired_is_left_for_others_to_free() {
        let mut list = List::new();
        (0..=VALUE_PARTS_SMALL_MAX).for_each(|_| list.push_back(b"a"));
        let meets: [fn(&mut Keyspace); 6] = [
            |keyspace| assert!(keyspace.entry_mut(AT, keyspace.key(b"k")).is_none()),
            |keyspace| assert!(keyspace.list_or_create(AT, keyspace.key(b"k")).unwrap().is_empty()),
            |keyspace| assert!(!keyspace.remove(AT, keyspace.key(b"k"))),
            |keyspace| assert!(!keyspace.set_expiry(AT, keyspace.key(b"k"), None)),
            |keyspace| keyspace.put(AT, keyspace.key(b"k"), text("v"), None),
            |keyspace| assert!(keyspace.purge(AT.db(), b"k", AT.now())),
        ];
        for (number, meet) in meets.into_iter().enumerate() {
            let mut keyspace = keyspace();
            for (key, value) in [(b"k", Value::from(list.clone())), (b"l", list_of(b"a"))] {
                keyspace.put(AT, keyspace.key(key), value, Some(AT.now()));
            }
            meet(&mut keyspace);
            assert!(!keyspace.remove(AT, keyspace.key(b"l")));
            assert_eq!(keyspace.take_graveyard().len(), 1, "{number}: and not the small one");
        }
    }

    #[test]
    fn what_is_lent_has_gone() {
        let mut keyspace = keyspace();
        keyspace.put(AT, keyspace.key(b"k"), list_of(b"a"), None);
        assert_eq!(keyspace.remove_and_lend(AT, keyspace.key(b"k")).unwrap().parts(), 1);
        assert!(keyspace.remove_and_lend(AT, keyspace.key(b"k")).is_none());
        assert_eq!((keyspace.len(AT.db()), keyspace.take_graveyard().len()), (0, 1));
    }

    #[test]
    fn put_replaces_value_type_and_deadline() {
        let mut keyspace = keyspace();
        keyspace.put(AT, keyspace.key(b"k"), text("v"), Some(UnixMillis(500)));
        keyspace.put(AT, keyspace.key(b"k"), list_of(b"a"), None);
        let entry = keyspace.entry(AT, keyspace.key(b"k")).unwrap();
        assert_eq!((entry.value.type_name(), entry.expire_at()), ("list", None));
        assert_eq!((keyspace.len(AT.db()), keyspace.expires_len(AT.db())), (1, 0));
    }

    #[test]
    fn typed_access_refuses_other_types_and_creates_missing_ones() {
        let mut keyspace = keyspace();
        keyspace.put(AT, keyspace.key(b"s"), text("v"), None);
        assert_eq!(keyspace.list(AT, keyspace.key(b"s")).unwrap_err(), WrongType);
        assert_eq!(keyspace.list_mut(AT, keyspace.key(b"s")).unwrap_err(), WrongType);
        assert_eq!(keyspace.list_or_create(AT, keyspace.key(b"s")).unwrap_err(), WrongType);
        assert!(keyspace.hash(AT, keyspace.key(b"missing")).unwrap().is_none());
        assert!(keyspace.hash_mut(AT, keyspace.key(b"missing")).unwrap().is_none());
        assert!(keyspace.hash_or_create(AT, keyspace.key(b"h")).unwrap().is_empty());
        assert!(keyspace.list_or_create(AT, keyspace.key(b"l")).unwrap().is_empty());
        assert!(keyspace.set_or_create(AT, keyspace.key(b"t")).unwrap().is_empty());
        assert!(keyspace.zset_or_create(AT, keyspace.key(b"z")).unwrap().is_empty());
        assert!(keyspace.stream_or_create(AT, keyspace.key(b"x")).unwrap().is_empty());
        assert!(keyspace.string_or_create(AT, keyspace.key(b"e")).unwrap().is_empty());
        let names = [b"h", b"l", b"t", b"z", b"x", b"e"]
            .map(|key| keyspace.get(AT, keyspace.key(key)).unwrap().type_name());
        assert_eq!(names, ["hash", "list", "set", "zset", "stream", "string"]);
    }

    #[test]
    fn only_empty_collections_vanish() {
        let mut keyspace = keyspace();
        for key in [b"h", b"x", b"e"] {
            let named = keyspace.key(key);
            match key {
                b"h" => assert!(keyspace.hash_or_create(AT, named).unwrap().is_empty()),
                b"x" => assert!(keyspace.stream_or_create(AT, named).unwrap().is_empty()),
                _ => assert!(keyspace.string_or_create(AT, named).unwrap().is_empty()),
            }
            keyspace.remove_if_empty(AT, named);
        }
        keyspace.put(AT, keyspace.key(b"l"), list_of(b"a"), None);
        keyspace.remove_if_empty(AT, keyspace.key(b"l"));
        keyspace.remove_if_empty(AT, keyspace.key(b"missing"));
        let left =
            [b"h", b"x", b"e", b"l"].map(|key| keyspace.get(AT, keyspace.key(key)).is_some());
        assert_eq!(left, [false, true, true, true]);
    }

    #[test]
    fn databases_are_apart_and_flushed_alone_or_together() {
        let mut keyspace = keyspace();
        for db in 0..DbIndex::COUNT {
            keyspace.put(At::new(DbIndex(db), AT.now()), keyspace.key(b"k"), text("v"), None);
        }
        assert_eq!(keyspace.flush_db(DbIndex(3)).len(), 1);
        let held: usize = (0..DbIndex::COUNT).map(|db| keyspace.len(DbIndex(db))).sum();
        assert_eq!((keyspace.len(DbIndex(3)), held), (0, 15));
        assert!(keyspace.flush_db(DbIndex(3)).is_empty());
        assert_eq!(keyspace.flush_all().len(), 15);
        assert!(keyspace.is_empty());
    }

    #[test]
    fn what_cannot_be_here_is_simply_missing() {
        let slot = Slot::of(b"k").number();
        let mut keyspace = Keyspace::new(slot..=slot, HASH_KEY);
        keyspace.put(AT, keyspace.key(b"k"), text("v"), None);
        let elsewhere = [(DbIndex(16), &b"k"[..]), (DbIndex(255), b"k"), (DbIndex(0), b"other")];
        for (db, key) in elsewhere {
            let at = At::new(db, AT.now());
            assert!(keyspace.get(at, keyspace.key(key)).is_none());
            assert!(keyspace.entry_mut(at, keyspace.key(key)).is_none());
            assert!(!keyspace.remove(at, keyspace.key(key)));
            assert!(!keyspace.set_expiry(at, keyspace.key(key), None));
            assert!(!keyspace.purge(db, key, AT.now()));
        }
        assert!(!keyspace.contains(Slot::of(b"other")));
        assert_eq!(keyspace.count_in_slot(AT.db(), Slot::of(b"other")), 0);
        assert_eq!(keyspace.count_in_slot(AT.db(), Slot::of(b"k")), 1);
        assert!(keyspace.flush_db(DbIndex(16)).is_empty());
        assert_eq!(keyspace.slots(), slot..=slot);
    }

    #[test]
    #[should_panic(expected = "only in the shard of its slot")]
    fn a_key_of_another_shard_is_never_stored() {
        let slot = Slot::of(b"k").number();
        let mut keyspace = Keyspace::new(slot..=slot, HASH_KEY);
        keyspace.put(AT, keyspace.key(b"other"), text("v"), None);
    }

    #[test]
    fn digest_tells_states_apart_and_not_histories() {
        let mut keyspace = keyspace();
        let empty = keyspace.digest();
        keyspace.put(AT, keyspace.key(b"k"), text("v"), None);
        let digest = keyspace.digest();
        let changes: [(u8, &[u8], &str, Option<UnixMillis>); 4] = [
            (1, b"k", "v", None),
            (0, b"j", "v", None),
            (0, b"k", "w", None),
            (0, b"k", "v", Some(UnixMillis(500))),
        ];
        for (db, key, value, expire_at) in changes {
            let mut other = Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY);
            other.put(At::new(DbIndex(db), AT.now()), other.key(key), text(value), expire_at);
            assert_ne!(other.digest(), digest, "{db} {key:?} {value} {expire_at:?}");
            assert_eq!(other.digest(), other.digest_of(DbIndex(db)));
        }
        keyspace.put(AT, keyspace.key(b"j"), text("v"), None);
        assert!(keyspace.remove(AT, keyspace.key(b"j")));
        assert_eq!(keyspace.digest(), digest);
        drop(keyspace.flush_all());
        assert_eq!(keyspace.digest(), empty);
    }
}
