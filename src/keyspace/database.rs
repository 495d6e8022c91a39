//! One of the sixteen databases: a table per slot of the shard.

use std::ops::RangeInclusive;

use super::table::{Bucket, Counts, SlotTable};
use super::{Entry, Value};

/// The keys of one database. Allocated when its first key arrives, so unused databases cost nothing.
#[derive(Debug)]
pub(super) struct Database {
    /// The shard's slots in ascending order.
    pub(super) tables: Box<[SlotTable]>,
    pub(super) counts: Counts,
}

impl Database {
    pub(super) fn new(slots: &RangeInclusive<u16>) -> Self {
        let tables = slots.clone().map(|_| SlotTable::default()).collect();
        Self { tables, counts: Counts::default() }
    }
}

/// Databases that were flushed, and large values that went: they wait to be freed.
///
/// Freeing millions of values takes seconds. Whoever flushes decides where: dropping this on another thread
/// keeps the shard answering.
#[must_use = "dropping it frees every key it holds, which may take long: choose the thread"]
#[derive(Default)]
pub struct Graveyard {
    databases: Vec<Database>,
    tables: Vec<SlotTable>,
    entries: Vec<Entry>,
}

impl Graveyard {
    /// How many keys wait to be freed.
    pub fn len(&self) -> usize {
        let flushed: usize = self.databases.iter().map(|database| database.counts.len).sum();
        let cleared: usize = self.tables.iter().map(SlotTable::len).sum();
        flushed + cleared + self.entries.len()
    }

    /// Whether dropping it is cheap.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an entry that has gone. A small one is freed at once: that takes less than to hand it on.
    pub(super) fn bury_entry(&mut self, entry: Entry) {
        if entry.value.is_large() {
            self.entries.push(entry);
        }
    }

    /// Takes the keys of a slot that nobody needs any more. Few small ones are freed at once.
    pub(super) fn bury_table(&mut self, table: SlotTable) {
        const KEYS_FREED_MAX: usize = 64;
        let is_large = |bucket: &Bucket| bucket.unordered().any(|it| it.value.is_large());
        if table.len() > KEYS_FREED_MAX || table.buckets().any(|(_, bucket)| is_large(bucket)) {
            self.tables.push(table);
        }
    }

    /// Takes an entry that has gone, of whatever size, and lends its value.
    pub(super) fn keep_entry(&mut self, entry: Entry) -> &Value {
        self.entries.push(entry);
        &self.entries[self.entries.len() - 1].value
    }

    /// Takes entries of whatever size.
    pub(super) fn keep_entries(&mut self, entries: impl Iterator<Item = Entry>) {
        self.entries.extend(entries);
    }

    /// Takes all that `other` holds.
    pub(super) fn absorb(&mut self, other: Self) {
        self.databases.extend(other.databases);
        self.tables.extend(other.tables);
        self.entries.extend(other.entries);
    }

    pub(super) fn bury(&mut self, database: Option<Database>) {
        self.databases.extend(database);
    }
}

impl std::fmt::Debug for Graveyard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graveyard").field("keys", &self.len()).finish()
    }
}
