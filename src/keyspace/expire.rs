//! Deadlines: which keys are due, and their removal.
//!
//! A due key is invisible to every command already; removing it is a replicated purge that the leader
//! proposes from [`Keyspace::due_keys`]. Each bucket and each database knows a time before which nothing in
//! it is due, so asking costs nothing while nothing is.
//!
//! A look goes over a bounded number of entries, for it holds up all commands, and the next one goes on behind it: one
//! [`Sweep`] after the other over all databases. What one look found the next does not find again in the same sweep, so it
//! need not wait until that is removed.

use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;

use super::database::Database;
use super::keyspace::DATABASES;
use super::table::NEVER;
use super::{At, Bin, Entry, Keyspace};

/// Entries and buckets that one look visits, about: a millisecond's work.
const VISITS_MAX: usize = 32 * 1024;

/// Bytes of keys that one look takes, about: they all go into one entry of the log, which takes no larger one than the
/// largest command.
const KEY_BYTES_MAX: usize = 1024 * 1024;

/// Where the next look goes on. Not part of the logical state: it only ever decides what is proposed.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    db: usize,
    table: usize,
    /// The position within the slot from which on buckets are still to be visited.
    position: u64,
    /// The earliest deadline of the database, as far as it was visited; `None` before that was begun.
    earliest: Option<UnixMillis>,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct DueKeys {
    /// Keys whose deadline has come.
    pub keys: Vec<(DbIndex, Bin)>,
    /// Whether the look came to the end of everything; else another one finds more, or goes on looking.
    pub is_all: bool,
}

/// A look under way.
#[derive(Debug)]
struct Look {
    now: UnixMillis,
    keys_max: usize,
    visits_left: usize,
    bytes_left: usize,
    keys: Vec<(DbIndex, Bin)>,
}

impl Look {
    fn is_over(&self) -> bool {
        self.visits_left == 0 || self.bytes_left == 0 || self.keys.len() >= self.keys_max
    }

    /// Takes the keys of `expired`; whether that was all of them.
    fn take<'a>(&mut self, db: DbIndex, expired: impl Iterator<Item = &'a Entry>) -> bool {
        for entry in expired {
            if self.bytes_left == 0 {
                return false;
            }
            self.bytes_left = self.bytes_left.saturating_sub(entry.key().len());
            self.keys.push((db, key_of(entry)));
        }
        true
    }

    fn visit(&mut self, count: usize) {
        self.visits_left = self.visits_left.saturating_sub(count);
    }
}

impl Keyspace {
    /// Keys whose deadline has come at `now`, in no particular order: some `keys_max` of them, and at most a bucket's
    /// more; fewer where they are long. Goes on where the look before it ended.
    ///
    /// Needs `&mut self` to sharpen its bounds; the logical state stays as it is.
    pub fn due_keys(&mut self, now: UnixMillis, keys_max: usize) -> DueKeys {
        let (visits_left, bytes_left) = (VISITS_MAX, KEY_BYTES_MAX);
        let mut look = Look { now, keys_max, visits_left, bytes_left, keys: Vec::new() };
        let sweep = &mut self.sweep;
        for (db, database) in
            (0..DbIndex::COUNT).map(DbIndex).zip(&mut self.databases).skip(sweep.db)
        {
            if let Some(database) = database
                && !database.sweep(db, sweep, &mut look)
            {
                return DueKeys { keys: look.keys, is_all: false };
            }
            *sweep = Sweep { db: sweep.db + 1, ..Sweep::default() };
        }
        *sweep = Sweep::default();
        DueKeys { keys: look.keys, is_all: true }
    }

    /// Removes `key` when its deadline has come at `now`; says whether it did.
    pub fn purge(&mut self, db: DbIndex, key: &[u8], now: UnixMillis) -> bool {
        let key = self.key(key);
        let is_due = self.entry_even_expired(db, key).is_some_and(|entry| entry.is_expired(now));
        if is_due {
            self.remove(At::new(db, now), key);
        }
        is_due
    }
}

const _: () = assert!(DATABASES == DbIndex::COUNT as usize);

impl Database {
    /// Goes on with the sweep until the look is over; whether the database was done before that.
    fn sweep(&mut self, db: DbIndex, sweep: &mut Sweep, look: &mut Look) -> bool {
        if sweep.earliest.is_none() {
            if self.counts.earliest > look.now {
                return true;
            }
            // Deadlines that are set while the sweep is under way lower it again, wherever they are.
            self.counts.earliest = NEVER;
        }
        let mut earliest = sweep.earliest.unwrap_or(NEVER);
        for (index, table) in self.tables.iter_mut().enumerate().skip(sweep.table) {
            let from = sweep.position;
            for (begin, bucket) in table.buckets_mut().filter(|(begin, _)| *begin >= from) {
                let rest =
                    Sweep { table: index, position: begin, earliest: Some(earliest), ..*sweep };
                if look.is_over() {
                    *sweep = rest;
                    return false;
                }
                look.visit(1);
                if bucket.earliest() <= look.now {
                    look.visit(bucket.len());
                    let now = look.now;
                    let expired = bucket.unordered().filter(|entry| entry.is_expired(now));
                    if !look.take(db, expired) {
                        // Here again, when these are gone.
                        *sweep = rest;
                        return false;
                    }
                    bucket.tighten_earliest();
                }
                earliest = earliest.min(bucket.earliest());
            }
            sweep.position = 0;
        }
        self.counts.earliest = self.counts.earliest.min(earliest);
        true
    }
}

fn key_of(entry: &Entry) -> Bin {
    Bin::from_slice(entry.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::table::BUCKET_ENTRIES_MAX;
    use crate::keyspace::testing::{HASH_KEY, all_due};
    use crate::keyspace::{Str, Value};
    use crate::slot::Slot;

    fn keyspace_of(deadlines: &[(&str, u8, u64)]) -> Keyspace {
        let mut keyspace = Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY);
        for &(key, db, deadline) in deadlines {
            let at = At::new(DbIndex(db), UnixMillis(0));
            let deadline = (deadline != 0).then_some(UnixMillis(deadline));
            keyspace.put(at, keyspace.key(key.as_bytes()), Value::from(Str::new()), deadline);
        }
        keyspace
    }

    fn due(keyspace: &mut Keyspace, now: u64) -> Vec<(u8, String)> {
        let due = all_due(keyspace, UnixMillis(now)).into_iter();
        let mut due: Vec<_> =
            due.map(|(db, key)| (db.0, String::from_utf8(key.to_vec()).unwrap())).collect();
        due.sort();
        due
    }

    #[test]
    fn keys_are_due_at_their_deadline() {
        let mut keyspace = keyspace_of(&[("a", 0, 10), ("b", 3, 20), ("{a}c", 0, 30), ("d", 0, 0)]);
        assert_eq!(due(&mut keyspace, 9), []);
        assert_eq!(due(&mut keyspace, 10), [(0, "a".to_owned())]);
        assert_eq!(due(&mut keyspace, 20), [(0, "a".to_owned()), (3, "b".to_owned())]);
        assert_eq!(due(&mut keyspace, 30).len(), 3);
        assert_eq!(due(&mut keyspace, u64::MAX).len(), 3);
    }

    #[test]
    fn bounds_follow_purges_and_new_deadlines() {
        let mut keyspace = keyspace_of(&[("a", 0, 10), ("{a}b", 0, 500)]);
        assert!(!keyspace.purge(DbIndex(0), b"a", UnixMillis(9)), "not yet due");
        assert!(keyspace.purge(DbIndex(0), b"a", UnixMillis(10)));
        assert!(!keyspace.purge(DbIndex(0), b"missing", UnixMillis(10)));
        assert_eq!(due(&mut keyspace, 499), [], "this look sharpens the bound");
        assert_eq!(due(&mut keyspace, 500).len(), 1);
        let at = At::new(DbIndex(0), UnixMillis(20));
        assert!(keyspace.set_expiry(at, keyspace.key(b"{a}b"), Some(UnixMillis(30))));
        assert_eq!(due(&mut keyspace, 30).len(), 1, "an earlier deadline lowers it again");
        assert!(keyspace.set_expiry(at, keyspace.key(b"{a}b"), None));
        assert_eq!(due(&mut keyspace, u64::MAX), []);
    }

    /// All in one entry, they were more than the log takes, on every leader anew.
    #[test]
    fn long_keys_are_taken_a_few_at_a_time_and_none_is_forgotten() {
        let long = |number: usize| format!("{{a}}{number:03}{}", "x".repeat(300_000));
        let mut keyspace = keyspace_of(&[]);
        let at = At::new(DbIndex(0), UnixMillis(0));
        for number in 0..40 {
            let key = long(number);
            let deadline = Some(UnixMillis(10));
            keyspace.put(at, keyspace.key(key.as_bytes()), Value::from(Str::new()), deadline);
        }
        let mut removed = 0;
        loop {
            let due = keyspace.due_keys(UnixMillis(10), 2048);
            let bytes: usize = due.keys.iter().map(|(_, key)| key.len()).sum();
            assert!(bytes <= KEY_BYTES_MAX + 300_006, "{bytes} bytes in one entry");
            for (db, key) in &due.keys {
                removed += usize::from(keyspace.purge(*db, key, UnixMillis(10)));
            }
            if due.is_all {
                break;
            }
        }
        assert_eq!(removed, 40);
        assert_eq!(due(&mut keyspace, 1_000_000), []);
    }

    #[test]
    fn a_deadline_at_the_epoch_has_passed() {
        let mut keyspace = keyspace_of(&[]);
        let at = At::new(DbIndex(0), UnixMillis(1));
        keyspace.put(at, keyspace.key(b"a"), Value::from(Str::new()), Some(UnixMillis(0)));
        assert!(keyspace.get(at, keyspace.key(b"a")).is_none());
        assert_eq!(due(&mut keyspace, 1).len(), 1);
    }

    /// faults.md B3: each look visited all that might be due, under the lock that all commands need.
    #[test]
    fn a_look_is_bounded_and_the_next_one_goes_on_behind_it() {
        const KEYS: usize = 4 * VISITS_MAX;
        let mut keyspace = keyspace_of(&[]);
        let at = At::new(DbIndex(2), UnixMillis(1));
        for number in 0..KEYS {
            let key = format!("{{a}}{number}");
            keyspace.put(
                at,
                keyspace.key(key.as_bytes()),
                Value::from(Str::new()),
                Some(UnixMillis(9)),
            );
        }
        let (mut found, mut looks) = (std::collections::BTreeSet::new(), 0);
        loop {
            let due = keyspace.due_keys(UnixMillis(9), 1000);
            assert!(due.keys.len() < 1000 + BUCKET_ENTRIES_MAX);
            looks += 1;
            for (_, key) in due.keys {
                assert!(found.insert(key), "found again before it could be removed");
            }
            if due.is_all {
                break;
            }
        }
        assert_eq!(found.len(), KEYS);
        // With later deadlines by now, all of it is looked through for nothing, bit by bit.
        for key in &found {
            assert!(keyspace.set_expiry(at, keyspace.key(key), Some(UnixMillis(50))));
        }
        let mut looks_for_nothing = 0;
        while !keyspace.due_keys(UnixMillis(49), 1000).is_all {
            looks_for_nothing += 1;
        }
        assert!(looks > KEYS / (1000 + BUCKET_ENTRIES_MAX), "{looks}");
        assert!(
            looks_for_nothing >= KEYS / (VISITS_MAX + BUCKET_ENTRIES_MAX),
            "{looks_for_nothing}"
        );
        assert_eq!(due(&mut keyspace, 50).len(), KEYS);
    }

    #[test]
    fn a_deadline_set_behind_a_look_is_found_by_the_next_sweep() {
        let keys: Vec<String> = (0..3000).map(|number| format!("{{a}}{number}")).collect();
        let mut keyspace = keyspace_of(&[]);
        let at = At::new(DbIndex(0), UnixMillis(1));
        for key in &keys {
            keyspace.put(
                at,
                keyspace.key(key.as_bytes()),
                Value::from(Str::new()),
                Some(UnixMillis(5)),
            );
        }
        assert!(!keyspace.due_keys(UnixMillis(5), 1).is_all);
        for key in &keys {
            assert!(keyspace.set_expiry(at, keyspace.key(key.as_bytes()), Some(UnixMillis(20))));
        }
        assert!(due(&mut keyspace, 19).is_empty());
        assert_eq!(due(&mut keyspace, 20).len(), keys.len());
    }
}
