//! Large values in snapshots: no step, and no memory, is as large as the value.

use super::testing::HASH_KEY;
use super::{At, Keyspace, Loader, SnapshotProgress, Str, StreamId, Value};
use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;

const AT: At = At::new(DbIndex(0), UnixMillis(100));

/// What a step may give beyond its budget: the head and the end of a record.
const EXCESS_BYTES: usize = 6;

/// Of one slot, so that little is walked over beside the values.
fn keyspace() -> Keyspace {
    let slot = Slot::of(b"{t}").number();
    Keyspace::new(slot..=slot, HASH_KEY)
}

/// One value of each type with `count` elements, and a string of `count` bytes.
fn fill(keyspace: &mut Keyspace, count: u32) {
    let bytes = vec![b'x'; count as usize];
    keyspace.put(AT, keyspace.key(b"{t}string"), Value::from(Str::from_bytes(&bytes)), None);
    keyspace
        .string_or_create(AT, keyspace.key(b"{t}edited"))
        .unwrap()
        .edit(2, |to| to.extend(bytes));
    let list = keyspace.list_or_create(AT, keyspace.key(b"{t}list")).unwrap();
    (0..count).for_each(|number| list.push_back(number.to_string().as_bytes()));
    let hash = keyspace.hash_or_create(AT, keyspace.key(b"{t}hash")).unwrap();
    for number in 0..count {
        hash.insert(number.to_string().as_bytes(), &number.to_le_bytes());
    }
    let set = keyspace.set_or_create(AT, keyspace.key(b"{t}set")).unwrap();
    for number in 0..count {
        set.insert(format!("m{number}").as_bytes());
    }
    let zset = keyspace.zset_or_create(AT, keyspace.key(b"{t}zset")).unwrap();
    for number in 0..count {
        zset.insert(number.to_string().as_bytes(), f64::from(number));
    }
    let stream = keyspace.stream_or_create(AT, keyspace.key(b"{t}stream")).unwrap();
    for number in 0..count {
        let field = number.to_le_bytes();
        let fields = [(&b"field"[..], &field[..])];
        stream.append(StreamId::new(u64::from(number) + 1, 0), fields.into_iter()).unwrap();
    }
}

const KEYS: [&[u8]; 7] =
    [b"{t}string", b"{t}edited", b"{t}list", b"{t}hash", b"{t}set", b"{t}zset", b"{t}stream"];

/// Adds to the value of `key`.
fn change(keyspace: &mut Keyspace, key: &[u8]) {
    match key {
        b"{t}list" => keyspace.list_or_create(AT, keyspace.key(key)).unwrap().push_front(b"new"),
        b"{t}hash" => {
            keyspace.hash_or_create(AT, keyspace.key(key)).unwrap().insert(b"0", b"new");
        }
        b"{t}set" => {
            keyspace.set_or_create(AT, keyspace.key(key)).unwrap().remove(b"m0");
        }
        b"{t}zset" => {
            keyspace.zset_or_create(AT, keyspace.key(key)).unwrap().insert(b"0", 1e9);
        }
        b"{t}stream" => {
            keyspace.stream_or_create(AT, keyspace.key(key)).unwrap().remove(StreamId::new(1, 0));
        }
        _ => {
            let string = keyspace.string_or_create(AT, keyspace.key(key)).unwrap();
            string.edit(2, |bytes| bytes[0] = b'n');
        }
    }
}

/// Loads what the steps of a snapshot give, step by step, and returns the digest of that. Checks that none is large.
fn copied(
    keyspace: &mut Keyspace,
    step_bytes: usize,
    mut between: impl FnMut(usize, &mut Keyspace),
) -> u64 {
    assert!(keyspace.begin_snapshot());
    let (mut copy, mut loader) = (self::keyspace(), Loader::default());
    for step in 0.. {
        let mut out = Vec::new();
        let progress = keyspace.snapshot_step(step_bytes, &mut out);
        assert!(out.len() <= step_bytes + EXCESS_BYTES, "{}", out.len());
        loader.load(&mut copy, &out).unwrap();
        if progress == SnapshotProgress::Done {
            break;
        }
        between(step, keyspace);
    }
    loader.finish().unwrap();
    copy.digest()
}

/// A value was written in one piece, beside itself in memory and under the lock of its shard.
#[test]
fn a_large_value_is_written_in_steps_and_nothing_is_beside_it() {
    const STEP_BYTES: usize = 256 * 1024;
    let mut keyspace = keyspace();
    fill(&mut keyspace, 1_000_000);
    let string = Str::from_vec(vec![b'x'; 64 << 20]);
    keyspace.put(AT, keyspace.key(b"{t}string"), Value::from(string), None);
    let mut steps = 0;
    let copy = copied(&mut keyspace, STEP_BYTES, |_, keyspace| {
        steps += 1;
        assert_eq!(keyspace.snapshot_kept_bytes(), 0);
    });
    assert_eq!(copy, keyspace.digest());
    assert!(steps > (64 << 20) / STEP_BYTES, "{steps}");
}

/// In steps like those of a snapshot, and the same as in one.
#[test]
fn a_large_value_is_hashed_in_steps() {
    let mut keyspace = keyspace();
    fill(&mut keyspace, 200_000);
    let digest = keyspace.digest();
    assert!(keyspace.begin_digest());
    for steps in 0.. {
        if let Some(found) = keyspace.digest_step(1000) {
            assert_eq!(found, digest);
            assert!(steps > 7 * 200_000 / 1000, "{steps}");
            return;
        }
    }
}

/// Whatever happens to a value of which a part is written, or that waits for its turn.
#[test]
fn a_value_that_changes_half_way_is_written_as_it_was() {
    for key in KEYS {
        for at in (0..250).step_by(23) {
            for what in ["change", "delete", "rename", "replace", "flush", "neighbour"] {
                let mut keyspace = keyspace();
                fill(&mut keyspace, 600);
                let digest = keyspace.digest();
                let copy = copied(&mut keyspace, 100, |step, keyspace| {
                    if step < at || step > at + 2 {
                        return;
                    }
                    match what {
                        "change" => change(keyspace, key),
                        "delete" => {
                            keyspace.remove(AT, keyspace.key(key));
                        }
                        "rename" => {
                            if let Some(value) = keyspace.get(AT, keyspace.key(key)).cloned() {
                                keyspace.remove(AT, keyspace.key(key));
                                keyspace.put(AT, keyspace.key(b"{t}other"), value, None);
                            }
                        }
                        "replace" => {
                            keyspace.put(AT, keyspace.key(key), Value::from(Str::new()), None);
                        }
                        "flush" => drop(keyspace.flush_db(AT.db())),
                        _ => {
                            keyspace.put(
                                AT,
                                keyspace.key(b"{t}new"),
                                Value::from(Str::new()),
                                None,
                            );
                            change(keyspace, key);
                        }
                    }
                });
                assert_eq!(copy, digest, "{what} {} at step {at}", key.escape_ascii());
            }
        }
    }
}

/// Removes the value of a key, which is due at [`DUE`].
type Removal = fn(&mut Keyspace, &[u8]);

const DUE: UnixMillis = UnixMillis(AT.now().0 + 1);

const REMOVALS: [(&str, Removal); 5] = [
    ("remove", |keyspace, key| {
        keyspace.remove(AT, keyspace.key(key));
    }),
    ("lend", |keyspace, key| {
        keyspace.remove_and_lend(AT, keyspace.key(key));
    }),
    ("replace", |keyspace, key| {
        keyspace.put(AT, keyspace.key(key), Value::from(Str::new()), None);
    }),
    ("purge", |keyspace, key| {
        keyspace.purge(AT.db(), key, DUE);
    }),
    ("meet expired", |keyspace, key| {
        keyspace.entry_mut(At::new(AT.db(), DUE), keyspace.key(key));
    }),
];

/// What was deleted under a snapshot was copied for it, whole and beside itself: 512 MiB twice, and a second under the lock.
#[test]
fn what_goes_is_handed_over_and_not_copied() {
    for (way, remove) in REMOVALS {
        for key in KEYS {
            // Before any of the snapshot is written, within this value and after it.
            for at in (0..250).step_by(31) {
                let mut keyspace = keyspace();
                fill(&mut keyspace, 600);
                assert!(keyspace.set_expiry(AT, keyspace.key(key), Some(DUE)));
                let digest = keyspace.digest();
                let copy = copied(&mut keyspace, 100, |step, keyspace| {
                    if step == at {
                        remove(keyspace, key);
                        assert_eq!(keyspace.snapshot_kept_bytes(), 0, "{way} at step {at}");
                    }
                    // What comes back is another, and goes while the first waits or is at work.
                    if step == at + 1 {
                        let other = Value::from(Str::from_bytes(&[b'y'; 200]));
                        keyspace.put(AT, keyspace.key(key), other, Some(DUE));
                    }
                    if step == at + 2 {
                        remove(keyspace, key);
                    }
                });
                assert_eq!(copy, digest, "{way} {} at step {at}", key.escape_ascii());
            }
        }
    }
}

/// A new deadline copied the rest of the string for the snapshot.
#[test]
fn a_new_deadline_copies_no_long_string() {
    for key in [&b"{t}string"[..], b"{t}edited"] {
        for at in (0..250).step_by(31) {
            let mut keyspace = keyspace();
            fill(&mut keyspace, 600);
            let digest = keyspace.digest();
            let place = |keyspace: &Keyspace| {
                keyspace.string(AT, keyspace.key(key)).unwrap().unwrap().as_bytes().as_ptr()
            };
            let before = place(&keyspace);
            let copy = copied(&mut keyspace, 100, |step, keyspace| {
                if step == at {
                    // Nor is it weighed.
                    assert!(keyspace.value_to_keep(AT.db(), key).is_none());
                    assert!(keyspace.set_expiry(AT, keyspace.key(key), Some(DUE)));
                    assert_eq!(keyspace.snapshot_kept_bytes(), 0, "at step {at}");
                }
                assert_eq!(place(keyspace), before);
            });
            assert_eq!(copy, digest, "{} at step {at}", key.escape_ascii());
        }
    }
}

/// A digest went over all that was deleted, at once.
#[test]
fn what_goes_is_hashed_in_steps() {
    for key in KEYS {
        for at in [0, 5, 50] {
            let mut keyspace = keyspace();
            fill(&mut keyspace, 600);
            let digest = keyspace.digest();
            assert!(keyspace.begin_digest());
            let found = (0..).find_map(|step| {
                if step == at {
                    assert!(keyspace.remove(AT, keyspace.key(key)));
                }
                keyspace.digest_step(100)
            });
            assert_eq!(found, Some(digest), "{} at step {at}", key.escape_ascii());
        }
    }
}

/// 2048 lists of 2000 bytes in as many parts took a purge 55 ms, and a change of their neighbour as long: small is what has
/// few parts, too.
#[test]
fn what_has_many_parts_is_not_copied_however_short_they_are() {
    for (way, remove) in REMOVALS {
        let mut keyspace = keyspace();
        let keys: Vec<String> = (0..100).map(|number| format!("{{t}}{number}")).collect();
        for key in &keys {
            let key = keyspace.key(key.as_bytes());
            let list = keyspace.list_or_create(AT, key).unwrap();
            (0..20).for_each(|_| list.push_back(b"a"));
            assert!(keyspace.set_expiry(AT, key, Some(DUE)));
        }
        let digest = keyspace.digest();
        let copy = copied(&mut keyspace, 100, |step, keyspace| {
            keyspace.put(AT, keyspace.key(b"{t}new"), Value::from(Str::new()), None);
            keys.iter().skip(step).step_by(7).for_each(|key| remove(keyspace, key.as_bytes()));
            assert_eq!(keyspace.snapshot_kept_bytes(), 0, "{way} at step {step}");
        });
        assert_eq!(copy, digest, "{way}");
    }
}

/// Thousands of long strings were freed under the lock that all commands need.
#[test]
fn who_gives_a_snapshot_up_frees_nothing_of_it() {
    let mut keyspace = keyspace();
    fill(&mut keyspace, 600);
    assert!(keyspace.begin_snapshot());
    for key in KEYS {
        assert!(keyspace.remove(AT, keyspace.key(key)));
    }
    assert_eq!(keyspace.abort_snapshot().len(), KEYS.len());
}

/// As soon as it is written or the snapshot given up, and by others.
#[test]
fn what_was_handed_over_is_kept_no_longer_than_needed() {
    for at in [0, 100] {
        for is_given_up in [false, true] {
            let mut keyspace = keyspace();
            let list = keyspace.list_or_create(AT, keyspace.key(b"{t}list")).unwrap();
            (0..5000).for_each(|_| list.push_back(b"element"));
            assert!(keyspace.begin_snapshot());
            let mut bytes = Vec::new();
            for _ in 0..at {
                assert_eq!(keyspace.snapshot_step(100, &mut bytes), SnapshotProgress::More);
            }
            assert!(keyspace.remove(AT, keyspace.key(b"{t}list")));
            assert!(keyspace.take_graveyard().is_empty(), "the snapshot has it");
            if is_given_up {
                assert_eq!(keyspace.abort_snapshot().len(), 1);
            } else {
                while keyspace.snapshot_step(100, &mut bytes) == SnapshotProgress::More {}
                assert_eq!(keyspace.take_graveyard().len(), 1);
            }
        }
    }
}

/// A change copied all of its bucket, whatever lay there.
#[test]
fn a_change_copies_no_large_neighbour() {
    let mut keyspace = keyspace();
    fill(&mut keyspace, 100_000);
    let digest = keyspace.digest();
    let copy = copied(&mut keyspace, 4096, |step, keyspace| {
        keyspace.put(
            AT,
            keyspace.key(format!("{{t}}{step}").as_bytes()),
            Value::from(Str::new()),
            None,
        );
        assert_eq!(keyspace.snapshot_kept_bytes(), 0);
        if step == 20 {
            assert!(keyspace.flush_db(AT.db()).is_empty(), "the snapshot took it");
        }
    });
    assert_eq!(copy, digest);
}
