//! Deadlines: which keys are due, and their removal.
//!
//! A due key is invisible to every command already; removing it is a replicated purge that the leader
//! proposes from [`Keyspace::due_keys`]. Each segment and each database knows a time before which nothing in
//! it is due, so asking costs nothing while nothing is.

use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;

use super::database::Database;
use super::keyspace::DATABASES;
use super::table::{NEVER, SlotTable};
use super::{Bin, Entry, Keyspace};

impl Keyspace {
    /// At most `limit` keys whose deadline has come at `now`, in no particular order.
    ///
    /// Needs `&mut self` to sharpen its bounds; the logical state stays as it is.
    pub fn due_keys(&mut self, now: UnixMillis, limit: usize) -> Vec<(DbIndex, Bin)> {
        let mut due = Vec::new();
        for (db, database) in (0..DbIndex::COUNT).map(DbIndex).zip(&mut self.databases) {
            if let Some(database) = database {
                database.collect_due(db, now, limit, &mut due);
            }
        }
        due
    }

    /// Removes `key` when its deadline has come at `now`; says whether it did.
    pub fn purge(&mut self, db: DbIndex, key: &[u8], now: UnixMillis) -> bool {
        let is_due = self.entry_even_expired(db, key).is_some_and(|entry| entry.is_expired(now));
        is_due && self.remove_even_expired(db, key).is_some()
    }
}

const _: () = assert!(DATABASES == DbIndex::COUNT as usize);

impl Database {
    fn collect_due(
        &mut self,
        db: DbIndex,
        now: UnixMillis,
        limit: usize,
        due: &mut Vec<(DbIndex, Bin)>,
    ) {
        if self.counts.earliest > now {
            return;
        }
        let mut earliest = NEVER;
        for segment in self.tables.iter_mut().flat_map(SlotTable::segments_mut) {
            if segment.earliest() <= now {
                if due.len() >= limit {
                    return;
                }
                let expired = segment.unordered().filter(|entry| entry.is_expired(now));
                due.extend(expired.take(limit - due.len()).map(|entry| (db, key_of(entry))));
                segment.tighten_earliest();
            }
            earliest = earliest.min(segment.earliest());
        }
        self.counts.earliest = earliest;
    }
}

fn key_of(entry: &Entry) -> Bin {
    Bin::from_slice(entry.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::HASH_KEY;
    use crate::keyspace::{At, Str, Value};
    use crate::slot::Slot;

    fn keyspace_of(deadlines: &[(&str, u8, u64)]) -> Keyspace {
        let mut keyspace = Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY);
        for &(key, db, deadline) in deadlines {
            let at = At { db: DbIndex(db), now: UnixMillis(0) };
            let deadline = (deadline != 0).then_some(UnixMillis(deadline));
            drop(keyspace.insert(at, key.as_bytes(), Value::from(Str::new()), deadline));
        }
        keyspace
    }

    fn due(keyspace: &mut Keyspace, now: u64, limit: usize) -> Vec<(u8, String)> {
        let due = keyspace.due_keys(UnixMillis(now), limit).into_iter();
        let mut due: Vec<_> =
            due.map(|(db, key)| (db.0, String::from_utf8(key.to_vec()).unwrap())).collect();
        due.sort();
        due
    }

    #[test]
    fn keys_are_due_at_their_deadline() {
        let mut keyspace = keyspace_of(&[("a", 0, 10), ("b", 3, 20), ("{a}c", 0, 30), ("d", 0, 0)]);
        assert_eq!(due(&mut keyspace, 9, 10), []);
        assert_eq!(due(&mut keyspace, 10, 10), [(0, "a".to_owned())]);
        assert_eq!(due(&mut keyspace, 20, 10), [(0, "a".to_owned()), (3, "b".to_owned())]);
        assert_eq!(due(&mut keyspace, 30, 10).len(), 3);
        assert_eq!(due(&mut keyspace, 30, 2).len(), 2);
        assert_eq!(due(&mut keyspace, 30, 0), []);
        assert_eq!(due(&mut keyspace, u64::MAX, 10).len(), 3);
    }

    #[test]
    fn bounds_follow_purges_and_new_deadlines() {
        let mut keyspace = keyspace_of(&[("a", 0, 10), ("{a}b", 0, 500)]);
        assert!(!keyspace.purge(DbIndex(0), b"a", UnixMillis(9)), "not yet due");
        assert!(keyspace.purge(DbIndex(0), b"a", UnixMillis(10)));
        assert!(!keyspace.purge(DbIndex(0), b"missing", UnixMillis(10)));
        assert_eq!(due(&mut keyspace, 499, 10), [], "this look sharpens the bound");
        assert_eq!(due(&mut keyspace, 500, 10).len(), 1);
        let at = At { db: DbIndex(0), now: UnixMillis(20) };
        assert!(keyspace.set_expiry(at, b"{a}b", Some(UnixMillis(30))));
        assert_eq!(due(&mut keyspace, 30, 10).len(), 1, "an earlier deadline lowers it again");
        assert!(keyspace.set_expiry(at, b"{a}b", None));
        assert_eq!(due(&mut keyspace, u64::MAX, 10), []);
    }

    #[test]
    fn a_deadline_at_the_epoch_has_passed() {
        let mut keyspace = keyspace_of(&[]);
        let at = At { db: DbIndex(0), now: UnixMillis(1) };
        drop(keyspace.insert(at, b"a", Value::from(Str::new()), Some(UnixMillis(0))));
        assert!(keyspace.get(at, b"a").is_none());
        assert_eq!(due(&mut keyspace, 1, 10).len(), 1);
    }
}
