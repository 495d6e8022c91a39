//! The whole keyspace as bytes, at one point in time, while it goes on changing.
//!
//! [`Keyspace::begin_snapshot`] marks the moment. [`Keyspace::snapshot_step`], called again and again, writes
//! out so many bytes that were not written yet, be it a part of a value. A change of a bucket that is still to be
//! written first keeps the bucket's bytes aside (in `Keyspace::slot_mut`, the one way to every change), and the next
//! steps hand them on. A flushed database is handed to the snapshot whole. So no process is forked, and a change waits for no
//! more than a bucket of small values (at most 1792, each of [`SMALL_BYTES_MAX`] and [`SMALL_PARTS_MAX`]) and the value itself
//! if it changes in place; a command of many keys, for that of each. Dragonfly's snapshots work by the same idea.
//!
//! *Large values* have more bytes or more parts than that. Those beside the one that changes are not copied but noted, and written before the walk goes on. One that
//! goes (deleted, replaced, expired, popped whole) is handed to the snapshot itself, which writes what it does not have of it
//! step by step and lets it be freed then: nothing is copied, and its memory is in use until then. [`Past`] is where this is
//! decided.
//!
//! One that changes in place is kept as far as it is not written, in one go and beside the value, before the first change
//! under each snapshot: that is what a snapshot costs who changes a large value, a sixth of a second for a sorted set of five
//! million members; and the bytes until they are handed on. A long string is shared with the snapshot: a new deadline copies
//! nothing of it, and who edits it copies it, which takes more than a second for 512 MiB on a machine that is slow to give
//! fresh memory.
//!
//! What comes out is one stream of bytes. Whoever stores or sends it cuts it anywhere, and adds
//! checksums; [`Loader`] takes the pieces. The same bytes serve a restart, a new replica and a backup.
//!
//! # Format 3
//!
//! The words are those of [`codec`]. The stream is a sequence of records, whose order does not matter. A record:
//!
//! | field | word | meaning |
//! | --- | --- | --- |
//! | format | 1 byte | [`FORMAT`] |
//! | database | 1 byte | 0–15 |
//! | slot | varint | the slot of every key in the record |
//! | entries | | at least one |
//! | end | 1 byte | [`RECORD_END`], where the next type would be |
//!
//! and an entry:
//!
//! | field | word | meaning |
//! | --- | --- | --- |
//! | type | 1 byte | see below |
//! | key | bytes | |
//! | deadline | varint | milliseconds since the Unix epoch; 0: never |
//! | value | | by type: a head, then elements |
//!
//! | type | holds | head | element |
//! | --- | --- | --- | --- |
//! | 0 | a string that is not a canonical `i64` | bytes | |
//! | 1 | a string that is one | signed | |
//! | 2 | a string edited in place (Redis' `raw`) | bytes | |
//! | 3 | a list | their number | bytes |
//! | 4 | a hash | form, their number | field and value |
//! | 5 | a set | form, their number | a member |
//! | 6 | a sorted set | form, their number | member and score |
//! | 7 | a stream | version, last ids, counters, number of blocks | of a block: its counts, its names, its entries |
//!
//! The order of entries in a record is free. Type codes are never given a second meaning; a change of any
//! word is a new format.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use xxhash_rust::xxh3::Xxh3;

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::codec::{self, Sink};
use crate::stdx::hash_key::HashKey;

use super::database::{Database, Graveyard};
use super::error::DecodeError;
use super::key::KeyHash;
use super::keyspace::DATABASES;
use super::parts::{Cursor, Spelling, Window};
use super::table::{Bucket, SlotTable};
use super::{Bin, Entry, Keyspace, Loader, Value};

/// The version of the bytes, the first byte of every record.
pub const FORMAT: u8 = 3;

/// Where the type of an entry would be: the record ends.
pub(super) const RECORD_END: u8 = 0xff;

/// The longest entry that is copied because another one of its bucket changes, in bytes. (In tests, what is large and what
/// takes more than one block is small enough to be common.)
const SMALL_BYTES_MAX: usize = if cfg!(test) { 64 } else { 4096 };

/// The most parts of such an entry: those are spelled one by one, and to note it takes as long as a few dozen.
const SMALL_PARTS_MAX: usize = if cfg!(test) { 8 } else { 64 };

/// The length of the blocks in which bytes are kept aside.
const KEPT_BLOCK_BYTES: usize = if cfg!(test) { 256 } else { 256 * 1024 };

/// What a digest reckons for an entry beside its bytes, and for a bucket even when it is empty.
const VISIT_BYTES: usize = 64;

/// Whether a snapshot needs another step.
#[must_use = "a snapshot is complete only when a step says Done"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotProgress {
    /// Everything was handed out; the keyspace has forgotten the snapshot.
    Done,
    /// There is more.
    More,
}

/// A snapshot being taken.
#[derive(Debug)]
pub(super) struct Snapshot {
    walk: Walk,
    purpose: Purpose,
}

/// What a snapshot is taken for, and what came of it while nobody stepped.
#[derive(Debug)]
enum Purpose {
    Bytes(Kept),
    /// Only a digest of the state is wanted, and nothing is written.
    Digest(Sum),
}

/// The way through all entries.
#[derive(Debug)]
struct Walk {
    /// What `Bucket::saved_in` says of the buckets this snapshot has; the number after it says it of the one
    /// bucket that it has a part of.
    number: u32,
    /// How many entries of that bucket it has, in scan order.
    part: usize,
    /// What the scan order comes from.
    hash_key: HashKey,
    sources: [Source; DATABASES],
    /// The database and the table in it at which the next step looks first.
    database: usize,
    table: usize,
    /// The entry of which it has a part.
    open: Option<Open>,
    /// Large entries that are not written, or not all of it, and have gone from where they were to here; or are shared with
    /// those that are there still.
    gone: VecDeque<(DbIndex, Entry)>,
    /// Large entries that it does not have, of buckets that count as written, where they were.
    noted: BTreeSet<Noted>,
}

/// An entry of which a part is written, in a record whose end is not.
#[derive(Debug)]
struct Open {
    entry: Unwritten,
    cursor: Cursor,
}

/// An entry that is not written, or not all of it, of a bucket that is or counts as written.
#[derive(Debug)]
enum Unwritten {
    /// It is where it was.
    Noted(Noted),
    /// It is the first of those that have gone.
    FirstGone,
}

/// Where an entry is found: the database, and the hash of the key before the key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Noted {
    db: DbIndex,
    hash: KeyHash,
    key: Bin,
}

/// What is not written of an entry.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Whole,
    /// It is open.
    Rest(Cursor),
}

/// Where the keys of a database that are still to be written are found.
#[derive(Debug)]
enum Source {
    /// None are: all are written, or there were none when the snapshot began.
    Nowhere,
    /// In the keyspace.
    Live,
    /// Here: the database was flushed since.
    Flushed(Database),
}

/// What is done with the entries, in records.
trait Taker {
    /// Whether this step takes more.
    fn has_room(&self) -> bool;

    /// A bucket is looked at.
    fn pass_bucket(&mut self);

    fn begin_record(&mut self, db: DbIndex, slot: Slot);

    /// Takes what `cursor` says of `entry`; whether that was all.
    fn take(&mut self, db: DbIndex, entry: &Entry, cursor: &mut Cursor) -> bool;

    fn end_record(&mut self);
}

impl Keyspace {
    /// Begins a snapshot of the state as it is now. `false`, and nothing is done, when one is under way.
    #[must_use = "false means that an earlier snapshot is still under way"]
    pub fn begin_snapshot(&mut self) -> bool {
        self.begin(Purpose::Bytes(Kept::default()))
    }

    /// Begins to find out [`Keyspace::digest`] of the state as it is now, which goes on changing meanwhile. It is a
    /// snapshot of which only the digest is kept, and ended early by [`Keyspace::abort_snapshot`] like any.
    #[must_use = "false means that a snapshot is under way"]
    pub fn begin_digest(&mut self) -> bool {
        self.begin(Purpose::Digest(Sum::default()))
    }

    fn begin(&mut self, purpose: Purpose) -> bool {
        if self.snapshot.is_some() {
            return false;
        }
        // Zero is what new buckets bear; each snapshot has two numbers. After two thousand million snapshots a mark
        // could be mistaken; at one per second that is in the year 2094.
        self.snapshots_begun = self.snapshots_begun.wrapping_add(2).max(2);
        let sources = std::array::from_fn(|index| match &self.databases[index] {
            Some(_) => Source::Live,
            None => Source::Nowhere,
        });
        let walk = Walk {
            number: self.snapshots_begun,
            part: 0,
            hash_key: self.hash_key,
            sources,
            database: 0,
            table: 0,
            open: None,
            gone: VecDeque::new(),
            noted: BTreeSet::new(),
        };
        self.snapshot = Some(Box::new(Snapshot { walk, purpose }));
        true
    }

    /// Whether a snapshot is under way.
    pub fn is_snapshot_running(&self) -> bool {
        self.snapshot.is_some()
    }

    /// How many bytes were copied because their keys changed, and wait for the next step.
    pub fn snapshot_kept_bytes(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| match &snapshot.purpose {
            Purpose::Bytes(kept) => kept.len(),
            Purpose::Digest(_) => 0,
        })
    }

    /// The value of `key`, even one past its deadline, when a snapshot is under way that may not have all of it and would
    /// keep the rest aside before it changes in place. None of a long string: that is shared, and copied by who edits it.
    pub fn value_to_keep(&self, db: DbIndex, key: &[u8]) -> Option<&Value> {
        let walk = &self.snapshot.as_ref()?.walk;
        if !walk.is_live(db) {
            return None;
        }
        let key = self.key(key);
        let (bucket, entry) = self.table(db, key.slot())?.find_within(key.hash(), key.bytes())?;
        let lacks_it =
            bucket.saved_in != walk.number || walk.owes(&Noted::new(db, key.hash(), key.bytes()));
        (lacks_it && !entry.is_shared()).then_some(&entry.value)
    }

    /// As [`Keyspace::value_to_keep`], where the value goes: most are handed over, and only small ones copied even so.
    pub fn value_to_copy(&self, db: DbIndex, key: &[u8]) -> Option<&Value> {
        self.value_to_keep(db, key).filter(|value| may_be_small(value))
    }

    /// Appends to `out` what changed since the last step and then further entries, or parts of one, until they make up
    /// `budget_bytes`; exceeded by the head and the end of a record at most. A step that is not the last makes
    /// progress always.
    ///
    /// `Done` when no snapshot is under way.
    pub fn snapshot_step(&mut self, budget_bytes: usize, out: &mut Vec<u8>) -> SnapshotProgress {
        let Some(snapshot) = &mut self.snapshot else { return SnapshotProgress::Done };
        let Snapshot { walk, purpose: Purpose::Bytes(kept) } = &mut **snapshot else {
            return SnapshotProgress::Done;
        };
        let limit = out.len().saturating_add(budget_bytes.max(1));
        let mut page = Page { out, limit };
        let (first_slot, live) = (*self.slots.start(), &mut self.databases);
        let graveyard = &mut self.graveyard;
        // What is kept may go on with the entry that is open or that was: in this order records never mix.
        let progress = if walk.go_on_with_open(first_slot, live, graveyard, &mut page)
            && kept.hand_on(&mut page)
            && walk.take_unwritten(first_slot, live, graveyard, &mut page)
        {
            walk.go_on(first_slot, live, graveyard, &mut page)
        } else {
            SnapshotProgress::More
        };
        if progress == SnapshotProgress::Done {
            self.snapshot = None;
        }
        progress
    }

    /// Goes over some `budget_bytes` more, a part of a value included; the digest, once that was all. An entry counts as
    /// some `VISIT_BYTES` more than it has.
    ///
    /// `None` also when no digest is under way.
    pub fn digest_step(&mut self, budget_bytes: usize) -> Option<u64> {
        let Snapshot { walk, purpose: Purpose::Digest(sum) } = &mut **self.snapshot.as_mut()?
        else {
            return None;
        };
        let mut taker = Summing { sum, room: budget_bytes.max(1) };
        let (first_slot, live) = (*self.slots.start(), &mut self.databases);
        let graveyard = &mut self.graveyard;
        if !walk.go_on_with_open(first_slot, live, graveyard, &mut taker)
            || !walk.take_unwritten(first_slot, live, graveyard, &mut taker)
            || walk.go_on(first_slot, live, graveyard, &mut taker) == SnapshotProgress::More
        {
            return None;
        }
        let digest = sum.digests;
        self.snapshot = None;
        Some(digest)
    }

    /// Ends a snapshot before it is complete. What it has of what went meanwhile is returned to be freed.
    pub fn abort_snapshot(&mut self) -> Graveyard {
        let mut graveyard = Graveyard::default();
        let Some(snapshot) = self.snapshot.take() else { return graveyard };
        let Walk { sources, gone, .. } = snapshot.walk;
        for source in sources {
            if let Source::Flushed(database) = source {
                graveyard.bury(Some(database));
            }
        }
        graveyard.keep_entries(gone.into_iter().map(|(_, entry)| entry));
        graveyard
    }

    /// Adds the keys of whole records to a keyspace that was empty before the first: all there is, in one piece.
    ///
    /// # Errors
    /// As [`Loader::load`], and when the bytes end inside a record. The keyspace then holds a part of them and is good
    /// for nothing but to be dropped.
    pub fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut loader = Loader::default();
        loader.load(self, bytes)?;
        loader.finish()
    }
}

impl Snapshot {
    /// Keeps aside what is small and not written of the bucket of `hash` in `table`, where something is about to change, and
    /// notes what is large.
    pub(super) fn keep_bucket(
        &mut self,
        db: DbIndex,
        slot: Slot,
        hash: KeyHash,
        table: &mut SlotTable,
    ) {
        let Self { walk, purpose } = self;
        let bucket = table.bucket_mut(hash);
        if bucket.saved_in == walk.number || !walk.is_live(db) {
            return;
        }
        let mut record = Vec::new();
        let entries = bucket.ordered_from(0, walk.hash_key);
        for (_, entry) in entries.into_iter().skip(has_of(bucket, walk.number, walk.part)) {
            if !purpose.keep_small(&mut record, (db, slot), entry) {
                walk.noted.insert(Noted::of(db, entry, walk.hash_key));
            }
        }
        purpose.keep_record(record);
        bucket.saved_in = walk.number;
    }

    /// Keeps aside what is not written of `entry`, whose bucket is kept and which is about to change.
    fn keep(&mut self, db: DbIndex, hash: KeyHash, entry: &Entry) {
        let Some(missing) = self.walk.take_missing(db, hash, entry) else { return };
        if let Some(entry) = entry.shared() {
            // Whoever edits it copies it; a new deadline costs nothing.
            self.walk.take_over(db, entry, missing);
            return;
        }
        match missing {
            Missing::Whole => self.purpose.keep_whole(db, Slot::of(entry.key()), entry),
            Missing::Rest(cursor) => self.purpose.keep_rest(db, entry, cursor),
        }
    }

    /// Takes over `entry`, whose bucket is kept and which has gone, when not all of it is written; else gives it back.
    fn take_gone(&mut self, db: DbIndex, hash: KeyHash, entry: Entry) -> Result<&Value, Entry> {
        match self.walk.take_missing(db, hash, &entry) {
            None => Err(entry),
            Some(missing) => Ok(self.walk.take_over(db, entry, missing)),
        }
    }

    /// Takes over the flushed database `index` when the snapshot still needs it, else gives it back.
    pub(super) fn take_flushed(&mut self, index: usize, database: Database) -> Option<Database> {
        let source = &mut self.walk.sources[index];
        if !matches!(source, Source::Live) {
            return Some(database);
        }
        *source = Source::Flushed(database);
        None
    }
}

/// Where an entry is remembered that changes or has gone: by a snapshot that does not have it, else by nobody.
#[derive(Debug)]
pub(super) struct Past<'a> {
    pub(super) db: DbIndex,
    pub(super) hash: KeyHash,
    pub(super) snapshot: Option<&'a mut Snapshot>,
    pub(super) graveyard: &'a mut Graveyard,
}

impl<'a> Past<'a> {
    /// `entry` is about to change: what a snapshot needs of it is copied.
    #[inline]
    pub(super) fn keep(&mut self, entry: &Entry) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.keep(self.db, self.hash, entry);
        }
    }

    /// `entry` has gone: to the snapshot that needs it, until that is written; else to be freed.
    #[inline]
    pub(super) fn bury(self, entry: Entry) {
        let taken = match self.snapshot {
            Some(snapshot) => snapshot.take_gone(self.db, self.hash, entry).map(|_| ()),
            None => Err(entry),
        };
        if let Err(entry) = taken {
            self.graveyard.bury_entry(entry);
        }
    }

    /// As [`Past::bury`]; the value is lent from where it waits, of whatever size.
    pub(super) fn bury_and_lend(self, entry: Entry) -> &'a Value {
        let taken = match self.snapshot {
            Some(snapshot) => snapshot.take_gone(self.db, self.hash, entry),
            None => Err(entry),
        };
        taken.unwrap_or_else(|entry| self.graveyard.keep_entry(entry))
    }
}

impl Noted {
    fn new(db: DbIndex, hash: KeyHash, key: &[u8]) -> Self {
        Self { db, hash, key: Bin::from_slice(key) }
    }

    fn of(db: DbIndex, entry: &Entry, hash_key: HashKey) -> Self {
        Self::new(db, KeyHash::of(entry.key(), hash_key), entry.key())
    }

    /// The entry, in the database of `source` or `live`.
    fn find<'d>(
        &self,
        first_slot: u16,
        live: &'d [Option<Database>; DATABASES],
        sources: &'d [Source; DATABASES],
    ) -> &'d Entry {
        let database = usize::from(self.db.0);
        let database = match &sources[database] {
            Source::Nowhere => None,
            Source::Live => live[database].as_ref(),
            Source::Flushed(database) => Some(database),
        };
        let index = usize::from(Slot::of(&self.key).number().wrapping_sub(first_slot));
        let table = database.and_then(|database| database.tables.get(index));
        let entry = table.and_then(|table| table.find(self.hash, &self.key));
        entry.expect("what is not written is kept or taken over before it changes or goes")
    }
}

impl Walk {
    /// Whether the keys of `db` that it does not have are in the keyspace.
    fn is_live(&self, db: DbIndex) -> bool {
        matches!(self.sources.get(usize::from(db.0)), Some(Source::Live))
    }

    /// Whether an entry of a bucket that counts as written is there and not written, or not all of it.
    fn owes(&self, entry: &Noted) -> bool {
        self.is_open(entry) || self.noted.contains(entry)
    }

    fn is_open(&self, entry: &Noted) -> bool {
        let open = self.open.as_ref().map(|open| &open.entry);
        matches!(open, Some(Unwritten::Noted(noted)) if noted == entry)
    }

    /// What is not written of `entry`, of a bucket that counts as written. From then on it is the caller's to have it
    /// written.
    fn take_missing(&mut self, db: DbIndex, hash: KeyHash, entry: &Entry) -> Option<Missing> {
        if self.open.is_none() && self.noted.is_empty() || !self.is_live(db) {
            return None;
        }
        let entry = Noted::new(db, hash, entry.key());
        if self.is_open(&entry) {
            return self.open.take().map(|open| Missing::Rest(open.cursor));
        }
        self.noted.remove(&entry).then_some(Missing::Whole)
    }

    /// Has what is `missing` of `entry` written from here, and lends its value.
    fn take_over(&mut self, db: DbIndex, entry: Entry, missing: Missing) -> &Value {
        let place = match missing {
            Missing::Whole => {
                self.gone.push_back((db, entry));
                self.gone.len() - 1
            }
            Missing::Rest(cursor) => {
                self.gone.push_front((db, entry));
                self.open = Some(Open { entry: Unwritten::FirstGone, cursor });
                0
            }
        };
        &self.gone[place].1.value
    }

    /// Goes on with the entry of which there is a part; whether there is none any more.
    fn go_on_with_open(
        &mut self,
        first_slot: u16,
        live: &[Option<Database>; DATABASES],
        graveyard: &mut Graveyard,
        to: &mut impl Taker,
    ) -> bool {
        let Some(Open { entry: unwritten, cursor }) = &mut self.open else { return true };
        let (db, entry) = match unwritten {
            Unwritten::Noted(noted) => (noted.db, noted.find(first_slot, live, &self.sources)),
            Unwritten::FirstGone => {
                let (db, entry) = self.gone.front().expect("it goes from there below only");
                (*db, entry)
            }
        };
        if !to.take(db, entry, cursor) {
            return false;
        }
        to.end_record();
        if let Some(Open { entry: Unwritten::FirstGone, .. }) = self.open.take()
            && let Some((_, entry)) = self.gone.pop_front()
        {
            graveyard.bury_entry(entry);
        }
        true
    }

    /// Takes the entries that have gone or were noted; whether those were all. First those whose memory is given back.
    fn take_unwritten(
        &mut self,
        first_slot: u16,
        live: &[Option<Database>; DATABASES],
        graveyard: &mut Graveyard,
        to: &mut impl Taker,
    ) -> bool {
        while to.has_room() {
            let (db, slot, entry) = if let Some((db, entry)) = self.gone.front() {
                (*db, Slot::of(entry.key()), Unwritten::FirstGone)
            } else if let Some(noted) = self.noted.pop_first() {
                (noted.db, Slot::of(&noted.key), Unwritten::Noted(noted))
            } else {
                return true;
            };
            to.begin_record(db, slot);
            self.open = Some(Open { entry, cursor: Cursor::default() });
            if !self.go_on_with_open(first_slot, live, graveyard, to) {
                return false;
            }
        }
        self.gone.is_empty() && self.noted.is_empty()
    }

    /// Takes the entries of buckets that this snapshot does not have, where they live, until there is no more room. What was
    /// flushed goes to the `graveyard` then.
    fn go_on(
        &mut self,
        first_slot: u16,
        live: &mut [Option<Database>; DATABASES],
        graveyard: &mut Graveyard,
        to: &mut impl Taker,
    ) -> SnapshotProgress {
        for (db, live) in (0..DbIndex::COUNT).map(DbIndex).zip(live).skip(self.database) {
            let source = &mut self.sources[self.database];
            let (database, is_flushed) = match source {
                Source::Nowhere => (None, false),
                Source::Live => (live.as_mut(), false),
                Source::Flushed(database) => (Some(database), true),
            };
            let tables = database.map_or(&mut [][..], |database| &mut database.tables);
            for (slot, table) in
                (first_slot..Slot::COUNT).filter_map(Slot::new).zip(tables).skip(self.table)
            {
                let buckets = table.buckets_mut().map(|(_, bucket)| bucket);
                for bucket in buckets.filter(|it| it.saved_in != self.number) {
                    if !to.has_room() {
                        return SnapshotProgress::More;
                    }
                    let has = has_of(bucket, self.number, self.part);
                    match take_bucket((db, slot), bucket, self.hash_key, has, to) {
                        Taken::Whole => bucket.saved_in = self.number,
                        Taken::Part(part, open) => {
                            bucket.saved_in = self.number + 1;
                            self.part = part;
                            self.open = open;
                            return SnapshotProgress::More;
                        }
                    }
                }
                if is_flushed {
                    // Bit by bit, so that nobody has all of it at the end.
                    graveyard.bury_table(std::mem::take(table));
                }
                self.table += 1;
            }
            *source = Source::Nowhere;
            self.database += 1;
            self.table = 0;
        }
        SnapshotProgress::Done
    }
}

/// Whether an entry of `value` is small, as far as that is known before it is spelled.
fn may_be_small(value: &Value) -> bool {
    match value {
        Value::Str(string) => string.len() <= SMALL_BYTES_MAX,
        Value::List(_) | Value::Hash(_) | Value::Set(_) | Value::ZSet(_) | Value::Stream(_) => {
            value.parts() <= SMALL_PARTS_MAX
        }
    }
}

/// How many entries of a bucket that it does not have whole the snapshot of this number has.
fn has_of(bucket: &Bucket, number: u32, part: usize) -> usize {
    if bucket.saved_in == number + 1 { part } else { 0 }
}

/// What was taken of a bucket.
enum Taken {
    Whole,
    /// So many of its entries, the last perhaps not whole.
    Part(usize, Option<Open>),
}

/// Takes a record of `bucket`'s entries but the first `skipped`, until there is no more room.
fn take_bucket(
    (db, slot): (DbIndex, Slot),
    bucket: &Bucket,
    hash_key: HashKey,
    skipped: usize,
    to: &mut impl Taker,
) -> Taken {
    to.pass_bucket();
    if bucket.len() <= skipped {
        return Taken::Whole;
    }
    to.begin_record(db, slot);
    let entries = bucket.ordered_from(0, hash_key);
    for (number, (_, entry)) in entries.into_iter().enumerate().skip(skipped) {
        // A record has one at least.
        if number > skipped && !to.has_room() {
            to.end_record();
            return Taken::Part(number, None);
        }
        let mut cursor = Cursor::default();
        if !to.take(db, entry, &mut cursor) {
            let entry = Unwritten::Noted(Noted::of(db, entry, hash_key));
            return Taken::Part(number + 1, Some(Open { entry, cursor }));
        }
    }
    to.end_record();
    Taken::Whole
}

/// What one step writes.
struct Page<'a> {
    out: &'a mut Vec<u8>,
    /// Up to which length.
    limit: usize,
}

impl Page<'_> {
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.out.len())
    }
}

impl Taker for Page<'_> {
    fn has_room(&self) -> bool {
        self.room() > 0
    }

    fn pass_bucket(&mut self) {}

    fn begin_record(&mut self, db: DbIndex, slot: Slot) {
        put_record_head(self.out, db, slot);
    }

    fn take(&mut self, _: DbIndex, entry: &Entry, cursor: &mut Cursor) -> bool {
        let room = self.room();
        entry.put(Spelling::Snapshot, cursor, &mut Window::new(self.out, room))
    }

    fn end_record(&mut self) {
        self.out.push(RECORD_END);
    }
}

fn put_record_head(out: &mut Vec<u8>, db: DbIndex, slot: Slot) {
    out.extend([FORMAT, db.0]);
    codec::put_varint(out, u64::from(slot.number()));
}

/// What one step of a digest adds to the sum.
struct Summing<'a> {
    sum: &'a mut Sum,
    room: usize,
}

/// The sum of the digests of entries.
#[derive(Default)]
struct Sum {
    digests: u64,
    /// The digest of the entry that is being gone over, as far as that has come.
    open: Box<Xxh3>,
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sum").field("digests", &self.digests).finish_non_exhaustive()
    }
}

impl Taker for Summing<'_> {
    fn has_room(&self) -> bool {
        self.room > 0
    }

    fn pass_bucket(&mut self) {
        self.room = self.room.saturating_sub(VISIT_BYTES);
    }

    fn begin_record(&mut self, _: DbIndex, _: Slot) {}

    fn take(&mut self, db: DbIndex, entry: &Entry, cursor: &mut Cursor) -> bool {
        let Sum { digests, open } = &mut *self.sum;
        if cursor.is_at_start() {
            open.reset();
            open.put(&[db.0]);
        }
        let mut window = Window::new(&mut **open, self.room);
        let is_whole = entry.put(Spelling::Digest, cursor, &mut window);
        self.room = window.room();
        if is_whole {
            *digests = digests.wrapping_add(open.digest());
            self.room = self.room.saturating_sub(VISIT_BYTES);
        }
        is_whole
    }

    fn end_record(&mut self) {}
}

impl Purpose {
    /// Keeps the rest of the entry that is open.
    fn keep_rest(&mut self, db: DbIndex, entry: &Entry, mut cursor: Cursor) {
        match self {
            Self::Bytes(kept) => kept.put_first(entry, cursor),
            Self::Digest(sum) => {
                let mut taker = Summing { sum, room: usize::MAX };
                let is_whole = taker.take(db, entry, &mut cursor);
                debug_assert!(is_whole, "there was room");
            }
        }
    }

    /// Keeps an entry of which nothing is written.
    fn keep_whole(&mut self, db: DbIndex, slot: Slot, entry: &Entry) {
        match self {
            Self::Bytes(kept) => kept.put_last(db, slot, entry),
            Self::Digest(sum) => sum.digests = sum.digests.wrapping_add(entry.digest(db)),
        }
    }

    /// Keeps an entry, in `record` where it is for bytes, if it is small; whether it is.
    fn keep_small(
        &mut self,
        record: &mut Vec<u8>,
        (db, slot): (DbIndex, Slot),
        entry: &Entry,
    ) -> bool {
        if !may_be_small(&entry.value) {
            return false;
        }
        let mut cursor = Cursor::default();
        match self {
            Self::Bytes(_) => {
                let before = record.len();
                if before == 0 {
                    put_record_head(record, db, slot);
                }
                let mut window = Window::new(record, SMALL_BYTES_MAX);
                let is_small = entry.put(Spelling::Snapshot, &mut cursor, &mut window);
                if !is_small {
                    record.truncate(before);
                }
                is_small
            }
            Self::Digest(sum) => {
                let mut hasher = Xxh3::new();
                hasher.put(&[db.0]);
                let mut window = Window::new(&mut hasher, SMALL_BYTES_MAX);
                let is_small = entry.put(Spelling::Digest, &mut cursor, &mut window);
                if is_small {
                    sum.digests = sum.digests.wrapping_add(hasher.digest());
                }
                is_small
            }
        }
    }

    /// Keeps a record of small entries, if there are any.
    fn keep_record(&mut self, mut record: Vec<u8>) {
        let Self::Bytes(kept) = self else { return };
        if !record.is_empty() {
            record.push(RECORD_END);
            kept.append(record);
        }
    }
}

/// Bytes that changed before their turn came: in blocks, so that they are freed as they are handed on and never moved.
#[derive(Debug, Default)]
struct Kept {
    blocks: VecDeque<Vec<u8>>,
    /// How much of the first block is handed on.
    handed_on: usize,
    bytes: usize,
}

impl Kept {
    fn len(&self) -> usize {
        self.bytes - self.handed_on
    }

    /// Moves as much as there is room for to `page`; whether that was all. A record that was begun is ended before any
    /// other is.
    fn hand_on(&mut self, page: &mut Page<'_>) -> bool {
        while let Some(block) = self.blocks.front() {
            let rest = &block[self.handed_on..];
            let count = rest.len().min(page.room());
            page.out.extend_from_slice(&rest[..count]);
            if count < rest.len() {
                self.handed_on += count;
                return false;
            }
            self.bytes -= block.len();
            self.handed_on = 0;
            self.blocks.pop_front();
        }
        true
    }

    fn append(&mut self, record: Vec<u8>) {
        self.bytes += record.len();
        match self.blocks.back_mut() {
            Some(last) if last.len() + record.len() <= KEPT_BLOCK_BYTES => last.extend(record),
            Some(_) | None => self.blocks.push_back(record),
        }
    }

    fn put_last(&mut self, db: DbIndex, slot: Slot, entry: &Entry) {
        let mut head = Vec::new();
        put_record_head(&mut head, db, slot);
        self.append(head);
        let blocks = blocks_of(entry, Cursor::default());
        self.bytes += blocks.iter().map(Vec::len).sum::<usize>();
        self.blocks.extend(blocks);
    }

    /// Puts before all others what `cursor` says is not written: its record is begun.
    fn put_first(&mut self, entry: &Entry, cursor: Cursor) {
        debug_assert_eq!(self.handed_on, 0, "no entry is open in the midst of what is handed on");
        for block in blocks_of(entry, cursor).into_iter().rev() {
            self.bytes += block.len();
            self.blocks.push_front(block);
        }
    }
}

/// What `cursor` says is not written of `entry`, and the end of its record.
fn blocks_of(entry: &Entry, mut cursor: Cursor) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    loop {
        // Most have one block, and a short one.
        let capacity = if blocks.is_empty() { SMALL_BYTES_MAX } else { KEPT_BLOCK_BYTES };
        let mut block = Vec::with_capacity(capacity);
        let mut window = Window::new(&mut block, KEPT_BLOCK_BYTES - 1);
        let is_whole = entry.put(Spelling::Snapshot, &mut cursor, &mut window);
        if is_whole {
            block.push(RECORD_END);
            block.shrink_to_fit();
        }
        blocks.push(block);
        if is_whole {
            return blocks;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::keyspace::testing::HASH_KEY;
    use std::fmt::Write as _;

    use super::*;
    use crate::keyspace::value::type_code::{INTEGER, LIST};
    use crate::keyspace::{At, Str, StreamId, Value};
    use crate::stdx::clock::UnixMillis;

    const AT: At = At::new(DbIndex(0), UnixMillis(100));

    fn keyspace() -> Keyspace {
        Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY)
    }

    fn set(keyspace: &mut Keyspace, db: u8, key: &str, text: &str) {
        let value = Value::from(Str::from_bytes(text.as_bytes()));
        keyspace.put(At::new(DbIndex(db), AT.now()), keyspace.key(key.as_bytes()), value, None);
    }

    fn finish(keyspace: &mut Keyspace, bytes: &mut Vec<u8>) {
        while keyspace.snapshot_step(1000, bytes) == SnapshotProgress::More {}
    }

    fn saved(keyspace: &mut Keyspace) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(keyspace.begin_snapshot());
        finish(keyspace, &mut bytes);
        bytes
    }

    /// Only the slot of the tag `{t}`, so that a thousand of them are quickly made.
    fn slot_of_t() -> Keyspace {
        let slot = Slot::of(b"{t}").number();
        Keyspace::new(slot..=slot, HASH_KEY)
    }

    fn loaded(bytes: &[u8]) -> Keyspace {
        let mut keyspace = keyspace();
        keyspace.load_chunk(bytes).unwrap();
        keyspace
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// What a write weighs rests on it.
    #[test]
    fn what_a_change_would_keep_is_known_before_it() {
        const KEYS: [&str; 3] = ["{t}a", "{t}b", "{t}c"];
        let mut keyspace = slot_of_t();
        let fill =
            |keyspace: &mut Keyspace| KEYS.map(|key| set(keyspace, 0, key, &"x".repeat(140)));
        let would_keep = |keyspace: &Keyspace| {
            KEYS.map(|key| keyspace.value_to_keep(AT.db(), key.as_bytes()).is_some())
        };
        fill(&mut keyspace);
        assert_eq!(would_keep(&keyspace), [false; 3], "there is no snapshot");
        assert!(keyspace.begin_snapshot());
        assert_eq!(would_keep(&keyspace), [true; 3]);
        let mut bytes = Vec::new();
        assert_eq!(keyspace.snapshot_step(100, &mut bytes), SnapshotProgress::More);
        assert_eq!(would_keep(&keyspace), [true; 3], "it has a part of one");
        set(&mut keyspace, 0, KEYS[0], "y");
        assert_eq!(would_keep(&keyspace), [false, true, true], "the others are noted");
        finish(&mut keyspace, &mut bytes);
        assert_eq!(would_keep(&keyspace), [false; 3]);
        fill(&mut keyspace);
        assert!(keyspace.begin_snapshot());
        drop(keyspace.flush_db(AT.db()));
        fill(&mut keyspace);
        assert_eq!(would_keep(&keyspace), [false; 3], "it has what was flushed");
    }

    /// One key of every type, all in one slot.
    fn every_type() -> Keyspace {
        let mut keyspace = slot_of_t();
        set(&mut keyspace, 0, "{t}text", "hello");
        set(&mut keyspace, 0, "{t}number", "-300");
        keyspace
            .string_or_create(AT, keyspace.key(b"{t}raw"))
            .unwrap()
            .edit(2, |bytes| bytes.extend(b"12"));
        let list = keyspace.list_or_create(AT, keyspace.key(b"{t}list")).unwrap();
        list.push_back(b"a");
        list.push_back(b"b");
        assert!(keyspace.hash_or_create(AT, keyspace.key(b"{t}hash")).unwrap().insert(b"f", b"v"));
        assert!(keyspace.set_or_create(AT, keyspace.key(b"{t}set")).unwrap().insert(b"m"));
        keyspace.zset_or_create(AT, keyspace.key(b"{t}zset")).unwrap().insert(b"m", 1.5);
        assert!(keyspace.stream_or_create(AT, keyspace.key(b"{t}stream")).unwrap().is_empty());
        assert!(keyspace.set_expiry(
            AT,
            keyspace.key(b"{t}text"),
            Some(UnixMillis(1_700_000_000_000))
        ));
        keyspace
    }

    /// Disks and peers hold these bytes. A difference here is a new format.
    #[test]
    fn strings_have_these_bytes() {
        let mut keyspace = keyspace();
        set(&mut keyspace, 2, "{t}text", "hello");
        set(&mut keyspace, 2, "{t}number", "-300");
        let at = At::new(DbIndex(2), AT.now());
        keyspace
            .string_or_create(at, keyspace.key(b"{t}raw"))
            .unwrap()
            .edit(2, |bytes| bytes.extend(b"12"));
        assert!(keyspace.set_expiry(
            at,
            keyspace.key(b"{t}text"),
            Some(UnixMillis(1_700_000_000_000))
        ));
        let expected = [
            "03 02 937c",
            "02 06 7b747d726177 00 02 3132",
            "01 09 7b747d6e756d626572 00 d704",
            "00 07 7b747d74657874 80d095ffbc31 05 68656c6c6f",
            "ff",
        ];
        let expected = expected.concat().replace(' ', "");
        assert_eq!(hex(&saved(&mut keyspace)), expected);
    }

    /// The entries of the other types.
    #[test]
    fn collections_have_these_bytes() {
        let mut keyspace = every_type();
        for key in [&b"{t}text"[..], b"{t}number", b"{t}raw"] {
            assert!(keyspace.remove(AT, keyspace.key(key)));
        }
        let stream = keyspace.stream_or_create(AT, keyspace.key(b"{t}stream")).unwrap();
        let entry = [(&b"f"[..], &b"v"[..])];
        stream.append(StreamId::new(2, 1), entry.into_iter()).unwrap();
        let expected = [
            "03 00 937c",
            "04 07 7b747d68617368 00 00 01 0166 0176",
            "07 09 7b747d73747265616d 00 02 0201 0000 01 01 0201 01 01 01 0166 05 0000030176",
            "03 07 7b747d6c697374 00 02 0161 0162",
            "05 06 7b747d736574 00 01 01 016d",
            "06 07 7b747d7a736574 00 00 01 016d 000000000000f83f",
            "ff",
        ];
        let expected = expected.concat().replace(' ', "");
        assert_eq!(hex(&saved(&mut keyspace)), expected);
    }

    #[test]
    fn every_type_comes_back_and_has_the_same_bytes_again() {
        let mut keyspace = every_type();
        let bytes = saved(&mut keyspace);
        let mut again = loaded(&bytes);
        assert_eq!(again.digest(), keyspace.digest());
        assert_eq!(saved(&mut again), bytes);
        let encoding = |key: &[u8]| again.string(AT, again.key(key)).unwrap().unwrap().encoding();
        assert_eq!(
            [&b"{t}text"[..], b"{t}number", b"{t}raw"].map(encoding),
            ["embstr", "int", "raw"]
        );
    }

    #[test]
    fn truncated_and_flipped_bytes_never_panic() {
        let bytes = saved(&mut every_type());
        for length in 1..bytes.len() {
            assert!(slot_of_t().load_chunk(&bytes[..length]).is_err(), "{length}");
        }
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                // A flip inside a text is a valid other text; whatever loads can be saved again.
                let (mut other, mut slowly) = (slot_of_t(), slot_of_t());
                let result = other.load_chunk(&flipped);
                if result.is_ok() {
                    assert!(!saved(&mut other).is_empty());
                }
                // What is wrong is the same however it comes.
                let mut loader = Loader::default();
                let pieces = flipped.chunks(3).try_for_each(|it| loader.load(&mut slowly, it));
                assert_eq!(pieces.and_then(|()| loader.finish()), result);
            }
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        let slot_of_a = Slot::of(b"a").number();
        let slot = [slot_of_a.to_le_bytes()[0] & 0x7f | 0x80, (slot_of_a >> 7).to_le_bytes()[0]];
        let record = |db: u8, entries: &[&[u8]]| {
            let mut bytes = vec![FORMAT, db, slot[0], slot[1]];
            bytes.extend(entries.concat());
            bytes.push(RECORD_END);
            bytes
        };
        let entry = &[INTEGER, 1, b'a', 0, 2][..];
        let good = record(0, &[entry]);
        assert!(keyspace().load_chunk(&good).is_ok());
        let rows: [(Vec<u8>, DecodeError); 12] = [
            (vec![1], DecodeError::UnknownFormat(1)),
            (vec![FORMAT], DecodeError::Truncated),
            (record(16, &[entry]), DecodeError::Invalid("a database beyond the last")),
            (vec![FORMAT, 0, 0x80, 0x80, 1, 1], DecodeError::Invalid("a slot beyond the last")),
            (record(0, &[]), DecodeError::Invalid("a record without entries")),
            (good[..good.len() - 1].to_vec(), DecodeError::Truncated),
            (good[..good.len() - 2].to_vec(), DecodeError::Truncated),
            (record(0, &[&[8, 1, b'a', 0, 2]]), DecodeError::UnknownType(8)),
            (
                record(0, &[&[INTEGER, 1, b'b', 0, 2]]),
                DecodeError::Invalid("a key of another slot"),
            ),
            (record(0, &[&[LIST, 1, b'a', 0, 0]]), DecodeError::Invalid("an empty collection")),
            (record(0, &[entry, entry]), DecodeError::Duplicate("key")),
            (good.repeat(2), DecodeError::Duplicate("key")),
        ];
        for (bytes, error) in rows {
            assert_eq!(keyspace().load_chunk(&bytes), Err(error), "{bytes:?}");
        }
        let other_shard = Keyspace::new(0..=slot_of_a - 1, HASH_KEY).load_chunk(&good);
        assert_eq!(other_shard, Err(DecodeError::Invalid("a slot of another shard")));
    }

    #[test]
    fn records_load_in_any_order() {
        let mut keyspace = keyspace();
        (0..200).for_each(|number| set(&mut keyspace, 0, &number.to_string(), "7"));
        let bytes = saved(&mut keyspace);
        // Between two records; within one, a slot of these bytes stands before the type of an integer.
        let seam = [RECORD_END, FORMAT, 0];
        let mut ends: Vec<usize> =
            (1..bytes.len()).filter(|end| bytes[end - 1..].starts_with(&seam)).collect();
        ends.push(bytes.len());
        assert!(ends.len() > 100);
        let begins = [0].into_iter().chain(ends.iter().copied());
        let records: Vec<&[u8]> = begins.zip(&ends).map(|(from, to)| &bytes[from..*to]).collect();
        let backwards: Vec<u8> = records.into_iter().rev().flatten().copied().collect();
        assert_eq!(loaded(&backwards).digest(), keyspace.digest());
    }

    /// Fault M1: a bucket of large values made a chunk of more than 1 GiB, and so did changes of many buckets during a
    /// snapshot, and a large value. A step gives no more than its budget, whatever happened since the last.
    #[test]
    fn a_step_gives_no_more_than_its_budget() {
        const BUDGET: usize = 1000;
        let mut keyspace = keyspace();
        let value = "v".repeat(6000);
        for number in 0..40 {
            set(&mut keyspace, 0, &format!("{{t}}{number}"), &value);
            set(&mut keyspace, 0, &format!("other{number}"), &value);
        }
        let digest = keyspace.digest();
        assert!(keyspace.begin_snapshot());
        let (mut bytes, mut steps) = (Vec::new(), 0);
        loop {
            let before = bytes.len();
            let progress = keyspace.snapshot_step(BUDGET, &mut bytes);
            assert!(bytes.len() - before < BUDGET + 10, "{}", bytes.len() - before);
            if progress == SnapshotProgress::Done {
                break;
            }
            steps += 1;
            match steps {
                // In the middle of the large bucket, and one that is written or not.
                3 => set(&mut keyspace, 0, "{t}7", "changed"),
                5 => (0..20).for_each(|number| {
                    set(&mut keyspace, 0, &format!("other{number}"), "changed");
                }),
                9 => drop(keyspace.flush_all()),
                _ => {}
            }
        }
        assert!(steps > 400);
        assert_eq!(loaded(&bytes).digest(), digest);
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let mut keyspace = every_type();
        set(&mut keyspace, 3, "{t}long", &"x".repeat(5000));
        let bytes = saved(&mut keyspace);
        for length in [1, 2, 3, 7, 100, 4999, usize::MAX] {
            let (mut other, mut loader) = (slot_of_t(), Loader::default());
            for piece in bytes.chunks(length) {
                loader.load(&mut other, piece).unwrap();
            }
            loader.finish().unwrap();
            assert_eq!(other.digest(), keyspace.digest(), "pieces of {length}");
        }
        for cut in 0..bytes.len() {
            let (mut other, mut loader) = (slot_of_t(), Loader::default());
            loader.load(&mut other, &bytes[..cut]).unwrap();
            loader.load(&mut other, &[]).unwrap();
            loader.load(&mut other, &bytes[cut..]).unwrap();
            loader.finish().unwrap();
            assert_eq!(other.digest(), keyspace.digest(), "cut at {cut}");
        }
    }

    /// A hash tag fills one slot; it is written bucket by bucket and saved aside in the same measure.
    #[test]
    fn a_full_slot_is_written_in_pieces() {
        let mut keyspace = keyspace();
        for number in 0..8000 {
            set(&mut keyspace, 0, &format!("{{t}}{number}"), "0123456789");
        }
        let digest = keyspace.digest();
        assert!(keyspace.begin_snapshot());
        let (mut bytes, mut steps) = (Vec::new(), 0);
        while keyspace.snapshot_step(1, &mut bytes) == SnapshotProgress::More {
            steps += 1;
            // Every step is followed by a change and a removal, the second by growth that cuts buckets.
            set(&mut keyspace, 0, &format!("{{t}}{}", steps * 7), "changed");
            keyspace.remove(AT, keyspace.key(format!("{{t}}{}", 8000 - steps).as_bytes()));
            let growth = if steps == 2 { 0..12_000 } else { 0..0 };
            growth.for_each(|number| set(&mut keyspace, 0, &format!("{{t}}new{number}"), ""));
        }
        assert!(steps >= 3);
        assert_eq!(loaded(&bytes).digest(), digest);
    }

    #[test]
    fn flushed_databases_are_handed_over_and_later_ones_are_not_seen() {
        let mut keyspace = keyspace();
        for number in 0..300 {
            set(&mut keyspace, 0, &format!("key{number}"), "old");
            set(&mut keyspace, 5, &format!("key{number}"), "old");
        }
        let digest = keyspace.digest();
        assert!(keyspace.begin_snapshot());
        assert!(!keyspace.begin_snapshot(), "one at a time");
        let mut bytes = Vec::new();
        assert_eq!(keyspace.snapshot_step(500, &mut bytes), SnapshotProgress::More);
        set(&mut keyspace, 0, "key7", "changed");
        set(&mut keyspace, 0, "key8", "changed");
        assert!(keyspace.flush_all().is_empty(), "the snapshot took both");
        assert!(keyspace.is_empty());
        for db in [0, 5, 9] {
            (0..300).for_each(|number| set(&mut keyspace, db, &format!("key{number}"), "new"));
        }
        assert_eq!(keyspace.flush_db(DbIndex(5)).len(), 300, "the second flush is the caller's");
        set(&mut keyspace, 5, "key1", "newer");
        finish(&mut keyspace, &mut bytes);
        assert_eq!(loaded(&bytes).digest(), digest);
        let now = keyspace.digest();
        assert_eq!(
            loaded(&saved(&mut keyspace)).digest(),
            now,
            "the next snapshot has the new state"
        );
    }

    /// Ten million members were freed by the step that had the last of them, which apply waits for.
    #[test]
    fn what_was_flushed_is_freed_by_no_step() {
        let mut keyspace = keyspace();
        set(&mut keyspace, 0, "small", "v");
        let mut list = crate::keyspace::List::new();
        (0..5000).for_each(|_| list.push_back(b"element"));
        keyspace.put(AT, keyspace.key(b"large"), Value::from(list), None);
        assert!(keyspace.begin_snapshot());
        assert!(keyspace.flush_all().is_empty(), "the snapshot took it");
        let mut bytes = Vec::new();
        finish(&mut keyspace, &mut bytes);
        assert_eq!(loaded(&bytes).len(AT.db()), 2);
        assert_eq!(keyspace.take_graveyard().len(), 1, "the large one waits to be freed");
    }

    #[test]
    fn an_aborted_snapshot_leaves_no_trace() {
        let mut keyspace = keyspace();
        (0..100).for_each(|number| set(&mut keyspace, 0, &number.to_string(), "v"));
        assert!(keyspace.abort_snapshot().is_empty());
        assert!(keyspace.begin_snapshot());
        assert!(keyspace.is_snapshot_running());
        let mut bytes = Vec::new();
        assert_eq!(keyspace.snapshot_step(50, &mut bytes), SnapshotProgress::More);
        set(&mut keyspace, 0, "99", "w");
        set(&mut keyspace, 0, "98", "w");
        assert!(keyspace.snapshot_kept_bytes() > 0);
        assert!(keyspace.flush_all().is_empty());
        set(&mut keyspace, 0, "a", "v");
        assert_eq!(keyspace.abort_snapshot().len(), 100);
        assert!(!keyspace.is_snapshot_running());
        assert_eq!(keyspace.snapshot_kept_bytes(), 0);
        let digest = keyspace.digest();
        assert_eq!(loaded(&saved(&mut keyspace)).digest(), digest);
    }

    #[test]
    fn equal_states_have_equal_bytes_whatever_the_tables_went_through() {
        let (mut one, mut other) = (keyspace(), keyspace());
        for number in 0..100 {
            set(&mut one, 0, &format!("{{t}}{number}"), "v");
            set(&mut other, 0, &format!("{{t}}{}", 99 - number), "v");
        }
        (0..1000).for_each(|number| set(&mut other, 0, &format!("{{t}}more{number}"), "v"));
        for number in 0..1000 {
            other.remove(AT, other.key(format!("{{t}}more{number}").as_bytes()));
        }
        assert_eq!(saved(&mut one), saved(&mut other));
    }

    #[test]
    fn a_keyspace_may_change_threads() {
        fn may_change_threads<T: Send + Sync>(_: &T) {}
        let mut keyspace = keyspace();
        may_change_threads(&keyspace);
        may_change_threads(&keyspace.flush_all());
    }

    #[test]
    fn an_empty_keyspace_is_no_bytes() {
        assert!(saved(&mut keyspace()).is_empty());
        assert!(loaded(&[]).is_empty());
    }

    /// faults.md B2: the digest of a state that goes on changing, and none of the steps is long.
    #[test]
    fn a_digest_is_that_of_the_state_at_its_beginning() {
        let mut keyspace = every_type();
        for number in 0..20_000 {
            set(&mut keyspace, 0, &format!("{{t}}{number}"), "v");
            set(&mut keyspace, 3, &format!("{{t}}{number}"), "v");
        }
        let digest = keyspace.digest();
        assert!(keyspace.begin_digest());
        assert!(!keyspace.begin_snapshot() && !keyspace.begin_digest(), "one at a time");
        let (mut steps, mut found) = (0, None);
        while found.is_none() {
            // Before and behind the place that the walk has reached; one database goes as a whole.
            set(&mut keyspace, 0, &format!("{{t}}{}", steps * 37), "w");
            set(&mut keyspace, 3, &format!("{{t}}{}", steps * 91), "w");
            if steps == 2 {
                assert!(keyspace.flush_db(DbIndex(3)).is_empty(), "the walk took it");
            }
            found = keyspace.digest_step(100);
            steps += 1;
        }
        assert_eq!(found, Some(digest));
        assert_ne!(keyspace.digest(), digest);
        assert!(steps > 8, "{steps}");
        assert!(!keyspace.is_snapshot_running() && keyspace.digest_step(100).is_none());
    }
}
