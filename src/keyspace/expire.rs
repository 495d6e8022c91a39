//! Deadlines: which keys are due, and their removal.
//!
//! A due key is invisible to every command already; removing it is a replicated purge that the leader
//! proposes from [`Keyspace::due_keys`]. Each segment and each database knows a time before which nothing in
//! it is due, so asking costs nothing while nothing is.

use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;

use super::database::Database;
use super::keyspace::DATABASES;
use super::table::NEVER;
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
        for segment in self.tables.iter_mut().flat_map(|table| table.segments_mut()) {
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
