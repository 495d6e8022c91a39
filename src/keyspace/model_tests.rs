//! The keyspace against a sorted map that is obviously right.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;

use super::snapshot::SnapshotProgress;
use super::testing::{HASH_KEY, all_due};
use super::{At, Keyspace, Loader, ScanCursor, Str, StreamId, Value};

/// What one key holds: the string's bytes and the deadline, 0 for none.
type Held = (Vec<u8>, u64);

#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<(u8, Vec<u8>), Held>,
    now: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Set { db: u8, key: u16, bytes: Vec<u8>, ttl: Option<u8> },
    Append { db: u8, key: u16, bytes: Vec<u8> },
    Remove { db: u8, key: u16 },
    Expire { db: u8, key: u16, ttl: Option<u8> },
    Advance { ms: u8 },
    Purge { limit: u8 },
    FlushDb { db: u8 },
    FlushAll,
    BeginSnapshot,
    BeginDigest,
    Step { budget_bytes: u16 },
    Abort,
}

fn op() -> impl Strategy<Value = Op> {
    let (db, key) = (0..3_u8, 0..200_u16);
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        proptest::collection::vec(any::<u8>(), 50..600),
    ];
    let budget_bytes = prop_oneof![0..64_u16, 0..1024_u16, any::<u16>()];
    let ttl = proptest::option::of(1..60_u8);
    prop_oneof![
        40 => (db.clone(), key.clone(), bytes.clone(), ttl.clone())
            .prop_map(|(db, key, bytes, ttl)| Op::Set { db, key, bytes, ttl }),
        10 => (db.clone(), key.clone(), bytes)
            .prop_map(|(db, key, bytes)| Op::Append { db, key, bytes }),
        10 => (db.clone(), key.clone()).prop_map(|(db, key)| Op::Remove { db, key }),
        10 => (db.clone(), key, ttl).prop_map(|(db, key, ttl)| Op::Expire { db, key, ttl }),
        10 => any::<u8>().prop_map(|ms| Op::Advance { ms: ms % 16 }),
        3 => any::<u8>().prop_map(|limit| Op::Purge { limit: limit % 8 }),
        1 => db.prop_map(|db| Op::FlushDb { db }),
        1 => Just(Op::FlushAll),
        3 => Just(Op::BeginSnapshot),
        1 => Just(Op::BeginDigest),
        10 => budget_bytes.prop_map(|budget_bytes| Op::Step { budget_bytes }),
        1 => Just(Op::Abort),
    ]
}

/// The shard under test: few slots, so that a case is cheap, and not from 0.
const SLOTS: RangeInclusive<u16> = 8000..=8127;

/// Hash tags whose slots the shard has.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tags = (0..).map(|number| format!("{{{number}}}"));
    tags.filter(|tag| SLOTS.contains(&Slot::of(tag.as_bytes()).number())).take(10).collect()
});

/// Some keys are long enough to lie on the heap.
fn key_of(number: u16) -> Vec<u8> {
    let tag = &TAGS[usize::from(number) % TAGS.len()];
    let fill = if number.is_multiple_of(3) { "-a-longer-key" } else { "" };
    format!("{tag}{fill}{number}").into_bytes()
}

impl Model {
    fn at(&self, db: u8) -> At {
        At::new(DbIndex(db), UnixMillis(self.now))
    }

    fn is_live(&self, held: &Held) -> bool {
        held.1 == 0 || held.1 > self.now
    }

    fn deadline(&self, ttl: Option<u8>) -> Option<UnixMillis> {
        ttl.map(|ttl| UnixMillis(self.now + u64::from(ttl)))
    }

    fn live_keys(&self, db: u8) -> BTreeSet<Vec<u8>> {
        let of_db =
            self.keys.iter().filter(|((held_db, _), held)| *held_db == db && self.is_live(held));
        of_db.map(|((_, key), _)| key.clone()).collect()
    }
}

/// A snapshot under way: the digest of the state it must have, and its bytes so far, unless it is only for the digest.
type Snapshot = (u64, Option<Vec<u8>>);

fn run(keyspace: &mut Keyspace, model: &mut Model, snapshot: &mut Option<Snapshot>, op: Op) {
    match op {
        Op::Set { db, key, bytes, ttl } => {
            let (at, key, deadline) = (model.at(db), key_of(key), model.deadline(ttl));
            keyspace.put(at, keyspace.key(&key), Value::Str(Str::from_bytes(&bytes)), deadline);
            model.keys.insert((db, key), (bytes, deadline.map_or(0, |at| at.0)));
        }
        Op::Append { db, key, bytes } => {
            let (at, key) = (model.at(db), key_of(key));
            keyspace
                .string_or_create(at, keyspace.key(&key))
                .unwrap()
                .edit(bytes.len(), |to| to.extend(&bytes));
            let is_live =
                model.keys.get(&(db, key.clone())).is_some_and(|held| model.is_live(held));
            let held = model.keys.entry((db, key)).or_default();
            if !is_live {
                *held = Held::default();
            }
            held.0.extend(bytes);
        }
        Op::Remove { db, key } => {
            let (at, key) = (model.at(db), key_of(key));
            let removed = keyspace.remove(at, keyspace.key(&key));
            let expected = model.keys.remove(&(db, key));
            assert_eq!(removed, expected.is_some_and(|held| model.is_live(&held)));
        }
        Op::Expire { db, key, ttl } => {
            let (at, key, deadline) = (model.at(db), key_of(key), model.deadline(ttl));
            let now = model.now;
            let is_set = keyspace.set_expiry(at, keyspace.key(&key), deadline);
            let place = (db, key);
            let is_live = model.keys.get(&place).is_some_and(|held| held.1 == 0 || held.1 > now);
            assert_eq!(is_set, is_live);
            if is_live {
                model.keys.get_mut(&place).unwrap().1 = deadline.map_or(0, |at| at.0);
            } else {
                model.keys.remove(&place);
            }
        }
        Op::Advance { ms } => model.now += u64::from(ms),
        Op::Purge { limit } => {
            let now = UnixMillis(model.now);
            let due = keyspace.due_keys(now, usize::from(limit)).keys;
            let count =
                model.keys.values().filter(|held| held.1 != 0 && held.1 <= model.now).count();
            assert!(due.len() <= count);
            for (db, key) in due {
                assert!(keyspace.purge(db, &key, now));
                assert!(!keyspace.purge(db, &key, now));
                assert!(model.keys.remove(&(db.0, key.to_vec())).is_some());
            }
        }
        Op::FlushDb { db } => {
            drop(keyspace.flush_db(DbIndex(db)));
            model.keys.retain(|(held_db, _), _| *held_db != db);
        }
        Op::FlushAll => {
            drop(keyspace.flush_all());
            model.keys.clear();
        }
        Op::BeginSnapshot => {
            if keyspace.begin_snapshot() {
                *snapshot = Some((keyspace.digest(), Some(Vec::new())));
            }
        }
        Op::BeginDigest => {
            if keyspace.begin_digest() {
                *snapshot = Some((keyspace.digest(), None));
            }
        }
        Op::Step { budget_bytes } => step(keyspace, snapshot, usize::from(budget_bytes)),
        Op::Abort => {
            drop(keyspace.abort_snapshot());
            *snapshot = None;
        }
    }
}

fn step(keyspace: &mut Keyspace, snapshot: &mut Option<Snapshot>, budget_bytes: usize) {
    let Some((digest, bytes)) = snapshot else {
        let mut nothing = Vec::new();
        assert_eq!(keyspace.snapshot_step(budget_bytes, &mut nothing), SnapshotProgress::Done);
        assert!(nothing.is_empty());
        return;
    };
    let Some(bytes) = bytes else {
        if let Some(found) = keyspace.digest_step(budget_bytes) {
            assert_eq!(found, *digest, "a digest is that of the state at its beginning");
            *snapshot = None;
        }
        return;
    };
    let before = bytes.len();
    let progress = keyspace.snapshot_step(budget_bytes, bytes);
    // A record's head and end.
    assert!(bytes.len() - before <= budget_bytes.max(1) + 6);
    assert!(bytes.len() > before || progress == SnapshotProgress::Done);
    if progress == SnapshotProgress::Done {
        let mut loaded = Keyspace::new(keyspace.slots(), HASH_KEY);
        let mut pieces = Loader::default();
        for piece in bytes.chunks(budget_bytes.max(1)) {
            pieces.load(&mut loaded, piece).unwrap();
        }
        pieces.finish().unwrap();
        assert_eq!(loaded.digest(), *digest, "a snapshot has the state at its beginning");
        *snapshot = None;
    }
}

fn compare(keyspace: &mut Keyspace, model: &Model) {
    for db in 0..3 {
        let at = model.at(db);
        let of_db = model.keys.iter().filter(|((held_db, _), _)| *held_db == db);
        // Each side may have dropped expired keys at other times, so only the live ones are compared.
        for ((_, key), held) in of_db {
            let entry = keyspace.entry(at, keyspace.key(key));
            assert_eq!(entry.is_some(), model.is_live(held));
            let Some(entry) = entry else { continue };
            assert_eq!(entry.expire_at().map_or(0, |at| at.0), held.1);
            let string = keyspace.string(at, keyspace.key(key)).unwrap().unwrap();
            assert_eq!(string.as_bytes(), &held.0[..]);
        }
        let mut listed = BTreeSet::new();
        keyspace.for_each_key(at, &mut |entry| assert!(listed.insert(entry.key().to_vec())));
        assert_eq!(listed, model.live_keys(db));
        assert_eq!(scan_all(keyspace, at, 3), listed);
        let total: usize =
            SLOTS.filter_map(Slot::new).map(|slot| keyspace.count_in_slot(DbIndex(db), slot)).sum();
        assert_eq!(keyspace.len(DbIndex(db)), total);
        assert_eq!(keyspace.random_key(at, 5).is_some(), !listed.is_empty());
    }
    purge_all(keyspace, model);
}

/// When everything due is purged, both hold the same keys and the counters tell so.
fn purge_all(keyspace: &mut Keyspace, model: &Model) {
    let now = UnixMillis(model.now);
    // A look may have stopped half-way; the next sweep sees everything.
    drop(all_due(keyspace, now));
    for (db, key) in all_due(keyspace, now) {
        assert!(keyspace.purge(db, &key, now));
    }
    assert!(all_due(keyspace, now).is_empty());
    for db in 0..3 {
        let live =
            model.keys.iter().filter(|((held_db, _), held)| *held_db == db && model.is_live(held));
        assert_eq!(keyspace.len(DbIndex(db)), live.clone().count());
        let expiring = live.filter(|(_, held)| held.1 != 0).count();
        assert_eq!(keyspace.expires_len(DbIndex(db)), expiring);
    }
}

fn scan_all(keyspace: &Keyspace, at: At, count: usize) -> BTreeSet<Vec<u8>> {
    let (mut seen, mut cursor) = (BTreeSet::new(), Some(ScanCursor::START));
    while let Some(from) = cursor {
        cursor = keyspace.scan(at, from, count, &mut |entry| {
            assert!(seen.insert(entry.key().to_vec()), "a still keyspace shows each key once");
        });
        assert_ne!(cursor, Some(ScanCursor::START));
    }
    seen
}

/// The digest depends on what is there alone: the model, replayed in order, has the same.
fn rebuilt_digest(model: &Model) -> u64 {
    let mut keyspace = Keyspace::new(SLOTS, HASH_KEY);
    for ((db, key), held) in &model.keys {
        if model.is_live(held) {
            let deadline = (held.1 != 0).then_some(UnixMillis(held.1));
            let value = Value::Str(Str::from_bytes(&held.0));
            keyspace.put(model.at(*db), keyspace.key(key), value, deadline);
        }
    }
    keyspace.digest()
}

/// A change of one value: its key says which type it has.
#[derive(Clone, Debug)]
struct Edit {
    key: u16,
    element: Vec<u8>,
    number: u32,
    removes: bool,
    whole: Option<Whole>,
}

/// What is done with the value as a whole instead.
#[derive(Clone, Copy, Debug)]
enum Whole {
    Delete,
    DeleteAndLend,
    Rename(u16),
    Flush,
}

fn edit() -> impl Strategy<Value = Edit> {
    let element = prop_oneof![
        4 => (0..300_u16).prop_map(|number| number.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..100),
    ];
    let whole = prop_oneof![
        2 => Just(Whole::Delete),
        2 => Just(Whole::DeleteAndLend),
        4 => (0..10_u16).prop_map(Whole::Rename),
        1 => Just(Whole::Flush),
    ];
    let whole = proptest::option::weighted(0.02, whole);
    let removes = proptest::bool::weighted(0.3);
    (0..30_u16, element, any::<u32>(), removes, whole).prop_map(
        |(key, element, number, removes, whole)| Edit { key, element, number, removes, whole },
    )
}

fn change(keyspace: &mut Keyspace, edit: Edit) {
    let (at, name) = (At::new(DbIndex(0), UnixMillis(1)), key_of(edit.key));
    let key = keyspace.key(&name);
    let Edit { element, number, removes, .. } = edit;
    match edit.whole {
        None => {}
        Some(Whole::Delete) => {
            let is_there = keyspace.get(at, key).is_some();
            return assert_eq!(keyspace.remove(at, key), is_there);
        }
        Some(Whole::DeleteAndLend) => {
            let parts = keyspace.get(at, key).map(Value::parts);
            return assert_eq!(keyspace.remove_and_lend(at, key).map(Value::parts), parts);
        }
        Some(Whole::Rename(other)) => {
            // Keys ten apart hold the same type.
            let Some(value) = keyspace.get(at, key).cloned() else { return };
            keyspace.remove(at, key);
            let other = key_of(edit.key % 10 + other / 5 * 10);
            return keyspace.put(at, keyspace.key(&other), value, None);
        }
        Some(Whole::Flush) => return drop(keyspace.flush_db(at.db())),
    }
    match (edit.key / 2 % 5, removes) {
        (0, false) => keyspace.list_or_create(at, key).unwrap().push_back(&element),
        (0, true) => drop(keyspace.list_or_create(at, key).unwrap().pop_front()),
        (1, false) => {
            keyspace.hash_or_create(at, key).unwrap().insert(&element, &number.to_le_bytes());
        }
        (1, true) => drop(keyspace.hash_or_create(at, key).unwrap().remove(&element)),
        (2, false) => drop(keyspace.set_or_create(at, key).unwrap().insert(&element)),
        (2, true) => drop(keyspace.set_or_create(at, key).unwrap().remove(&element)),
        (3, false) => {
            keyspace.zset_or_create(at, key).unwrap().insert(&element, f64::from(number) / 8.0);
        }
        (3, true) => drop(keyspace.zset_or_create(at, key).unwrap().remove(&element)),
        (_, removes) => {
            let stream = keyspace.stream_or_create(at, key).unwrap();
            if removes {
                stream.remove(StreamId::new(u64::from(number % 100), 0));
            } else {
                let id = stream.last_id().next().unwrap();
                let id = StreamId::new(id.ms + u64::from(number % 2), id.seq);
                stream.append(id, [(&b"field"[..], &element[..])].into_iter()).unwrap();
            }
        }
    }
    keyspace.remove_if_empty(at, key);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keyspace_behaves_as_a_sorted_map(ops in proptest::collection::vec(op(), 1..600)) {
        let mut keyspace = Keyspace::new(SLOTS, HASH_KEY);
        let mut model = Model { now: 1000, ..Model::default() };
        let mut snapshot = None;
        for op in ops {
            run(&mut keyspace, &mut model, &mut snapshot, op);
        }
        while snapshot.is_some() {
            step(&mut keyspace, &mut snapshot, 500);
        }
        compare(&mut keyspace, &model);
        prop_assert_eq!(keyspace.digest(), rebuilt_digest(&model));
    }

    #[test]
    fn snapshots_hold_values_of_every_type_as_they_were(
        edits in proptest::collection::vec(edit(), 1..800),
        begin in 0..400_usize,
        budget_bytes in prop_oneof![1..100_usize, 1..2000_usize],
        is_digest in proptest::bool::weighted(0.3),
    ) {
        let mut keyspace = Keyspace::new(SLOTS, HASH_KEY);
        let mut snapshot = None;
        for (number, edit) in edits.into_iter().enumerate() {
            if number == begin {
                let begun =
                    if is_digest { keyspace.begin_digest() } else { keyspace.begin_snapshot() };
                assert!(begun);
                snapshot = Some((keyspace.digest(), (!is_digest).then(Vec::new)));
            }
            change(&mut keyspace, edit);
            if snapshot.is_some() && number.is_multiple_of(4) {
                step(&mut keyspace, &mut snapshot, budget_bytes);
            }
        }
        while snapshot.is_some() {
            step(&mut keyspace, &mut snapshot, budget_bytes);
        }
    }

    #[test]
    fn hostile_chunks_are_refused_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        head in any::<bool>(),
    ) {
        let mut keyspace = Keyspace::new(SLOTS, HASH_KEY);
        let bytes = if head { [&[super::FORMAT, 0][..], &bytes].concat() } else { bytes };
        let is_loaded = keyspace.load_chunk(&bytes).is_ok();
        prop_assert!(!is_loaded || keyspace.len(DbIndex(0)) > 0 || bytes.is_empty());
    }
}
