//! The whole keyspace as bytes, at one point in time, while it goes on changing.
//!
//! [`Keyspace::begin_snapshot`] marks the moment. [`Keyspace::snapshot_step`], called again and again, writes
//! out some entries that were not written yet. A change of a segment that is still to be written first keeps
//! the segment's bytes aside (in `Keyspace::slot_mut`, the one way to every change), and the next steps hand
//! them on. A flushed database is handed to the snapshot whole. So nobody waits longer than one segment takes,
//! at most 1792 keys, and no process is forked. Dragonfly's snapshots work by the same idea.
//!
//! What comes out is one stream of bytes. Whoever stores or sends it cuts it anywhere, also inside a value, and adds
//! checksums; [`Loader`] takes the pieces. The same bytes serve a restart, a new replica and a backup.
//!
//! # Format 2
//!
//! The words are those of [`codec`]. The stream is a sequence of records, whose order does not matter. A record:
//!
//! | field | word | meaning |
//! | --- | --- | --- |
//! | format | 1 byte | [`FORMAT`] |
//! | database | 1 byte | 0–15 |
//! | slot | varint | the slot of every key in the record |
//! | entries | | at least one, each a varint, its length in bytes, and the entry |
//! | end | 1 byte | 0, where the next length would be |
//!
//! and an entry:
//!
//! | field | word | meaning |
//! | --- | --- | --- |
//! | type | 1 byte | see below |
//! | key | bytes | |
//! | deadline | varint | milliseconds since the Unix epoch; 0: never |
//! | value | | by type |
//!
//! | type | holds | value |
//! | --- | --- | --- |
//! | 0 | a string that is not a canonical `i64` | bytes |
//! | 1 | a string that is one | signed |
//! | 2 | a string edited in place (Redis' `raw`) | bytes |
//! | 3 4 5 6 7 | a list, hash, set, sorted set, stream | see `encode` of [`List`], [`Hash`](struct@Hash), [`Set`], [`ZSet`], [`Stream`] |
//!
//! Within a record entries stand in scan order. Type codes are never given a second meaning; a change of any
//! word is a new format.

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;

use super::codec::{self, DecodeError};
use super::database::{Database, Graveyard};
use super::dense::MemberKey;
use super::keyspace::DATABASES;
use super::string::StrForm;
use super::table::{Segment, SlotTable};
use super::{Entry, Hash, Keyspace, List, Set, Str, Stream, Value, ZSet};

/// The version of the bytes, the first byte of every record.
pub const FORMAT: u8 = 2;

/// Where the length of an entry would be: the record ends.
const RECORD_END: u8 = 0;

const TEXT: u8 = 0;
const INTEGER: u8 = 1;
const EDITED: u8 = 2;
const LIST: u8 = 3;
const HASH: u8 = 4;
const SET: u8 = 5;
const ZSET: u8 = 6;
const STREAM: u8 = 7;

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
    /// What `Segment::saved_in` says of the segments this snapshot has; the number after it says it of the one
    /// segment that it has a part of.
    number: u32,
    /// How many entries of that segment it has, in scan order.
    part: usize,
    /// What the scan order comes from.
    hash_key: HashKey,
    sources: [Source; DATABASES],
    /// The database and the table in it at which the next step looks first.
    database: usize,
    table: usize,
    /// Records of segments that changed before their turn came, and how much of them is handed on already.
    kept: Vec<u8>,
    handed_on: usize,
    /// Where only a digest of the state is wanted: the sum so far, and nothing is written.
    digest: Option<u64>,
}

/// What became of a segment that a snapshot did not have.
enum Visit {
    /// It has the segment now.
    Whole,
    /// It has that many of its entries.
    Part(usize),
    /// The step is over.
    Over,
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

impl Keyspace {
    /// Begins a snapshot of the state as it is now. `false`, and nothing is done, when one is under way.
    #[must_use = "false means that an earlier snapshot is still under way"]
    pub fn begin_snapshot(&mut self) -> bool {
        self.begin(None)
    }

    /// Begins to find out [`Keyspace::digest`] of the state as it is now, which goes on changing meanwhile. It is a
    /// snapshot of which only the digest is kept, and ended early by [`Keyspace::abort_snapshot`] like any.
    #[must_use = "false means that a snapshot is under way"]
    pub fn begin_digest(&mut self) -> bool {
        self.begin(Some(0))
    }

    fn begin(&mut self, digest: Option<u64>) -> bool {
        if self.snapshot.is_some() {
            return false;
        }
        // Zero is what new segments bear; each snapshot has two numbers. After two thousand million snapshots a mark
        // could be mistaken; at one per second that is in the year 2094.
        self.snapshots_begun = self.snapshots_begun.wrapping_add(2).max(2);
        let sources = std::array::from_fn(|index| match &self.databases[index] {
            Some(_) => Source::Live,
            None => Source::Nowhere,
        });
        let number = self.snapshots_begun;
        let snapshot = Snapshot {
            number,
            part: 0,
            hash_key: self.hash_key,
            sources,
            database: 0,
            table: 0,
            kept: Vec::new(),
            handed_on: 0,
            digest,
        };
        self.snapshot = Some(Box::new(snapshot));
        true
    }

    /// Whether a snapshot is under way.
    pub fn is_snapshot_running(&self) -> bool {
        self.snapshot.is_some()
    }

    /// How many bytes wait for the next step because their keys changed: the memory a slow reader costs.
    pub fn snapshot_kept_bytes(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.kept.len() - snapshot.handed_on)
    }

    /// Appends to `out` what changed since the last step and then further entries until they make up
    /// `budget_bytes`. Only the last entry may exceed it, by its own length; a step that is not the last makes
    /// progress always.
    ///
    /// `Done` when no snapshot is under way.
    pub fn snapshot_step(&mut self, budget_bytes: usize, out: &mut Vec<u8>) -> SnapshotProgress {
        let Some(snapshot) = &mut self.snapshot else { return SnapshotProgress::Done };
        let limit = out.len().saturating_add(budget_bytes.max(1));
        if !snapshot.hand_on(limit, out) {
            return SnapshotProgress::More;
        }
        let hash_key = snapshot.hash_key;
        let visit = |home: (DbIndex, Slot), segment: &Segment, has| {
            if out.len() >= limit {
                return Visit::Over;
            }
            match put_record(out, home, segment, hash_key, has, limit) {
                None => Visit::Whole,
                Some(part) => Visit::Part(part),
            }
        };
        let progress = snapshot.walk(*self.slots.start(), &mut self.databases, visit);
        if progress == SnapshotProgress::Done {
            self.snapshot = None;
        }
        progress
    }

    /// Goes over some `entries_max` more entries, and at most a segment's more; the digest, once that was all.
    ///
    /// `None` also when no digest is under way.
    pub fn digest_step(&mut self, entries_max: usize) -> Option<u64> {
        let snapshot = self.snapshot.as_mut()?;
        let (mut sum, mut left) = (snapshot.digest?, entries_max.max(1));
        let visit = |(db, _): (DbIndex, Slot), segment: &Segment, _| {
            if left == 0 {
                return Visit::Over;
            }
            // An empty segment takes its time too.
            left = left.saturating_sub(segment.len().max(1));
            sum = sum.wrapping_add(segment.digest(db));
            Visit::Whole
        };
        let progress = snapshot.walk(*self.slots.start(), &mut self.databases, visit);
        snapshot.digest = Some(sum);
        if progress == SnapshotProgress::More {
            return None;
        }
        self.snapshot = None;
        Some(sum)
    }

    /// Ends a snapshot before it is complete. What was flushed meanwhile is returned to be freed.
    pub fn abort_snapshot(&mut self) -> Graveyard {
        let mut graveyard = Graveyard::default();
        for source in self.snapshot.take().map(|snapshot| snapshot.sources).into_iter().flatten() {
            if let Source::Flushed(database) = source {
                graveyard.bury(Some(database));
            }
        }
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

/// Takes a stream of records in pieces, however it was cut. Holds no more of it than one entry and a piece.
#[derive(Debug, Default)]
pub struct Loader {
    /// What came and was not understood yet.
    pending: Vec<u8>,
    record: Option<OpenRecord>,
}

/// A record whose end has not come yet.
#[derive(Clone, Copy, Debug)]
struct OpenRecord {
    db: DbIndex,
    slot: Slot,
    is_empty: bool,
}

impl Loader {
    /// Adds the keys of the next `piece` to `keyspace`, which was empty before the first.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes, keys of other slots and keys that are there already included. The
    /// keyspace then holds a part of them and is good for nothing but to be dropped.
    pub fn load(&mut self, keyspace: &mut Keyspace, piece: &[u8]) -> Result<(), DecodeError> {
        if self.pending.is_empty() {
            let mut bytes = piece;
            while self.load_word(keyspace, &mut bytes)? {}
            self.pending.extend_from_slice(bytes);
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(piece);
        let mut bytes = &pending[..];
        while self.load_word(keyspace, &mut bytes)? {}
        let left = bytes.len();
        if left < pending.len() {
            pending.drain(..pending.len() - left);
            // One huge value must not be held in mind for the rest of the stream.
            pending.shrink_to(2 * left);
        }
        self.pending = pending;
        Ok(())
    }

    /// That was all.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when a record was not.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.record.is_some() || !self.pending.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(())
    }

    /// Takes a record's head, an entry or a record's end. `false`, and nothing is taken, when more must come first.
    fn load_word(
        &mut self,
        keyspace: &mut Keyspace,
        bytes: &mut &[u8],
    ) -> Result<bool, DecodeError> {
        if bytes.is_empty() {
            return Ok(false);
        }
        let mut rest = *bytes;
        let Some(record) = &mut self.record else {
            let head = take_head(&mut rest);
            let Some(head) = or_more(head)? else { return Ok(false) };
            if !keyspace.contains(head.slot) {
                return Err(DecodeError::Invalid("a slot of another shard"));
            }
            self.record = Some(head);
            *bytes = rest;
            return Ok(true);
        };
        let Some(length) = or_more(codec::take_varint(&mut rest))? else { return Ok(false) };
        if length == u64::from(RECORD_END) {
            if record.is_empty {
                return Err(DecodeError::Invalid("a record without entries"));
            }
            self.record = None;
            *bytes = rest;
            return Ok(true);
        }
        let length = usize::try_from(length).map_err(|_| DecodeError::TooLong)?;
        let Some((mut entry, rest)) = rest.split_at_checked(length) else { return Ok(false) };
        let (db, slot) = (record.db, record.slot);
        record.is_empty = false;
        let loaded = take_entry(&mut entry, keyspace.member_key)?;
        if !entry.is_empty() {
            return Err(DecodeError::TrailingBytes);
        }
        if Slot::of(loaded.key()) != slot {
            return Err(DecodeError::Invalid("a key of another slot"));
        }
        keyspace.load_entry(db, loaded)?;
        *bytes = rest;
        Ok(true)
    }
}

fn take_head(bytes: &mut &[u8]) -> Result<OpenRecord, DecodeError> {
    let format = codec::take_u8(bytes)?;
    if format != FORMAT {
        return Err(DecodeError::UnknownFormat(format));
    }
    let db = DbIndex(codec::take_u8(bytes)?);
    if db.0 >= DbIndex::COUNT {
        return Err(DecodeError::Invalid("a database beyond the last"));
    }
    let slot = u16::try_from(codec::take_varint(bytes)?).ok().and_then(Slot::new);
    let slot = slot.ok_or(DecodeError::Invalid("a slot beyond the last"))?;
    Ok(OpenRecord { db, slot, is_empty: true })
}

/// `None` where the bytes at hand merely end too early.
fn or_more<T>(taken: Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(DecodeError::Truncated) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Snapshot {
    /// Keeps `segment` aside, as far as it was not written yet, when it is about to change.
    pub(super) fn keep(&mut self, db: DbIndex, slot: Slot, segment: &mut Segment) {
        let is_live = matches!(self.sources.get(usize::from(db.0)), Some(Source::Live));
        if !is_live || segment.saved_in == self.number {
            return;
        }
        if let Some(digest) = &mut self.digest {
            *digest = digest.wrapping_add(segment.digest(db));
        } else {
            let has = self.entries_of(segment);
            put_record(&mut self.kept, (db, slot), segment, self.hash_key, has, usize::MAX);
        }
        segment.saved_in = self.number;
    }

    /// How many entries of a segment that it does not have whole this snapshot has.
    fn entries_of(&self, segment: &Segment) -> usize {
        if segment.saved_in == self.number + 1 { self.part } else { 0 }
    }

    /// Moves what is kept to `out`, up to `limit`; whether that was all. A record that was begun is ended before any
    /// other is.
    fn hand_on(&mut self, limit: usize, out: &mut Vec<u8>) -> bool {
        let kept = &self.kept[self.handed_on..];
        let count = kept.len().min(limit.saturating_sub(out.len()));
        out.extend_from_slice(&kept[..count]);
        self.handed_on += count;
        let is_all = self.handed_on == self.kept.len();
        if is_all {
            self.kept = Vec::new();
            self.handed_on = 0;
        }
        is_all
    }

    /// Takes over the flushed database `index` when the snapshot still needs it, else gives it back.
    pub(super) fn take_flushed(&mut self, index: usize, database: Database) -> Option<Database> {
        if !matches!(self.sources[index], Source::Live) {
            return Some(database);
        }
        self.sources[index] = Source::Flushed(database);
        None
    }

    /// Shows `visit` where they live the segments that this snapshot does not have, and how many of their entries it has,
    /// until that says that the step is over.
    fn walk(
        &mut self,
        first_slot: u16,
        live: &mut [Option<Database>; DATABASES],
        mut visit: impl FnMut((DbIndex, Slot), &Segment, usize) -> Visit,
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
                let segments = table.segments_mut().map(|(_, segment)| segment);
                for segment in segments.filter(|it| it.saved_in != self.number) {
                    let has = if segment.saved_in == self.number + 1 { self.part } else { 0 };
                    match visit((db, slot), segment, has) {
                        Visit::Whole => segment.saved_in = self.number,
                        Visit::Part(part) => {
                            segment.saved_in = self.number + 1;
                            self.part = part;
                            return SnapshotProgress::More;
                        }
                        Visit::Over => return SnapshotProgress::More,
                    }
                }
                if is_flushed {
                    // Freed bit by bit, so that nobody pays for all of it at the end.
                    *table = SlotTable::default();
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

/// Appends a record of `segment`'s entries but the first `skipped`, until `out` has `limit` bytes. Where it stopped,
/// unless that was the end.
fn put_record(
    out: &mut Vec<u8>,
    (db, slot): (DbIndex, Slot),
    segment: &Segment,
    hash_key: HashKey,
    skipped: usize,
    limit: usize,
) -> Option<usize> {
    if segment.len() <= skipped {
        return None;
    }
    out.extend([FORMAT, db.0]);
    codec::put_varint(out, u64::from(slot.number()));
    let mut stopped = None;
    let entries = segment.ordered_from(0, hash_key);
    for (number, (_, entry)) in entries.into_iter().enumerate().skip(skipped) {
        // One at least, so that there is progress.
        if number > skipped && out.len() >= limit {
            stopped = Some(number);
            break;
        }
        put_framed(out, entry);
    }
    out.push(RECORD_END);
    stopped
}

/// Appends `entry` with its length before it.
fn put_framed(out: &mut Vec<u8>, entry: &Entry) {
    // The length is known only behind the entry. Most take one byte; for others the entry is moved.
    let start = out.len();
    out.push(0);
    put_entry(out, entry);
    let mut length = Vec::with_capacity(codec::VARINT_BYTES_MAX);
    codec::put_length(&mut length, out.len() - start - 1);
    if let [short] = length[..] {
        out[start] = short;
    } else {
        out.splice(start..=start, length);
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(type_code(&entry.value));
    codec::put_bytes(out, entry.key());
    codec::put_varint(out, entry.expire_at().map_or(0, |at| at.0));
    match &entry.value {
        Value::Str(string) => string.encode(out),
        Value::List(list) => list.encode(out),
        Value::Hash(hash) => hash.encode(out),
        Value::Set(set) => set.encode(out),
        Value::ZSet(zset) => zset.encode(out),
        Value::Stream(stream) => stream.encode(out),
    }
}

fn type_code(value: &Value) -> u8 {
    match value {
        Value::Str(string) => match string.form() {
            StrForm::Text => TEXT,
            StrForm::Integer => INTEGER,
            StrForm::Edited => EDITED,
        },
        Value::List(_) => LIST,
        Value::Hash(_) => HASH,
        Value::Set(_) => SET,
        Value::ZSet(_) => ZSET,
        Value::Stream(_) => STREAM,
    }
}

fn take_entry(bytes: &mut &[u8], member_key: MemberKey) -> Result<Entry, DecodeError> {
    let code = codec::take_u8(bytes)?;
    let key = codec::take_bytes(bytes)?;
    let deadline = codec::take_varint(bytes)?;
    let value = match code {
        TEXT => Value::from(Str::decode(StrForm::Text, bytes)?),
        INTEGER => Value::from(Str::decode(StrForm::Integer, bytes)?),
        EDITED => Value::from(Str::decode(StrForm::Edited, bytes)?),
        LIST => Value::from(List::decode(bytes)?),
        HASH => Value::from(Hash::decode(bytes, member_key)?),
        SET => Value::from(Set::decode(bytes, member_key)?),
        ZSET => Value::from(ZSet::decode(bytes, member_key)?),
        STREAM => Value::from(Stream::decode(bytes)?),
        unknown => return Err(DecodeError::UnknownType(unknown)),
    };
    if value.is_empty_collection() {
        return Err(DecodeError::Invalid("an empty collection"));
    }
    Ok(Entry::new(key, value, (deadline != 0).then_some(UnixMillis(deadline))))
}

#[cfg(test)]
mod tests {
    use crate::keyspace::testing::HASH_KEY;
    use std::fmt::Write as _;

    use super::*;
    use crate::keyspace::At;

    const AT: At = At::new(DbIndex(0), UnixMillis(100));

    fn keyspace() -> Keyspace {
        Keyspace::new(0..=Slot::COUNT - 1, HASH_KEY)
    }

    fn set(keyspace: &mut Keyspace, db: u8, key: &str, text: &str) {
        let value = Value::from(Str::from_bytes(text.as_bytes()));
        drop(keyspace.insert(At { db: DbIndex(db), ..AT }, key.as_bytes(), value, None));
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

    /// One key of every type, all in one slot.
    fn every_type() -> Keyspace {
        let mut keyspace = slot_of_t();
        set(&mut keyspace, 0, "{t}text", "hello");
        set(&mut keyspace, 0, "{t}number", "-300");
        keyspace.string_or_create(AT, b"{t}raw").unwrap().make_mut().extend(b"12");
        let list = keyspace.list_or_create(AT, b"{t}list").unwrap();
        list.push_back(b"a");
        list.push_back(b"b");
        assert!(keyspace.hash_or_create(AT, b"{t}hash").unwrap().insert(b"f", b"v"));
        assert!(keyspace.set_or_create(AT, b"{t}set").unwrap().insert(b"m"));
        keyspace.zset_or_create(AT, b"{t}zset").unwrap().insert(b"m", 1.5);
        assert!(keyspace.stream_or_create(AT, b"{t}stream").unwrap().is_empty());
        assert!(keyspace.set_expiry(AT, b"{t}text", Some(UnixMillis(1_700_000_000_000))));
        keyspace
    }

    /// Disks and peers hold these bytes. A difference here is a new format.
    #[test]
    fn strings_have_these_bytes() {
        let mut keyspace = keyspace();
        set(&mut keyspace, 2, "{t}text", "hello");
        set(&mut keyspace, 2, "{t}number", "-300");
        let at = At { db: DbIndex(2), ..AT };
        keyspace.string_or_create(at, b"{t}raw").unwrap().make_mut().extend(b"12");
        assert!(keyspace.set_expiry(at, b"{t}text", Some(UnixMillis(1_700_000_000_000))));
        let expected = [
            "02 02 937c",
            "0c 02 06 7b747d726177 00 02 3132",
            "0e 01 09 7b747d6e756d626572 00 d704",
            "15 00 07 7b747d74657874 80d095ffbc31 05 68656c6c6f",
            "00",
        ];
        let expected = expected.concat().replace(' ', "");
        assert_eq!(hex(&saved(&mut keyspace)), expected);
    }

    /// The entries of the other types; how each spells its value is its own file's business.
    #[test]
    fn collections_have_these_bytes() {
        let mut keyspace = every_type();
        for key in [&b"{t}text"[..], b"{t}number", b"{t}raw", b"{t}stream"] {
            assert!(keyspace.remove(AT, key).is_some());
        }
        let expected = [
            "02 00 937c",
            "10 04 07 7b747d68617368 00 00 01 0166 0176",
            "0f 03 07 7b747d6c697374 00 02 0161 0162",
            "0d 05 06 7b747d736574 00 01 01 016d",
            "16 06 07 7b747d7a736574 00 00 01 016d 000000000000f83f",
            "00",
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
        let encoding = |key: &[u8]| again.string(AT, key).unwrap().unwrap().encoding();
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
                let mut other = slot_of_t();
                if other.load_chunk(&flipped).is_ok() {
                    assert!(!saved(&mut other).is_empty());
                }
            }
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        let slot_of_a = Slot::of(b"a").number();
        let slot = [slot_of_a.to_le_bytes()[0] & 0x7f | 0x80, (slot_of_a >> 7).to_le_bytes()[0]];
        let record = |db: u8, entries: &[&[u8]]| {
            let mut bytes = vec![FORMAT, db, slot[0], slot[1]];
            for entry in entries {
                bytes.push(u8::try_from(entry.len()).unwrap());
                bytes.extend_from_slice(entry);
            }
            bytes.push(RECORD_END);
            bytes
        };
        let entry = &[INTEGER, 1, b'a', 0, 2][..];
        let good = record(0, &[entry]);
        assert!(keyspace().load_chunk(&good).is_ok());
        let longer = [entry, &[0]].concat();
        let rows: [(Vec<u8>, DecodeError); 13] = [
            (vec![1], DecodeError::UnknownFormat(1)),
            (vec![FORMAT], DecodeError::Truncated),
            (record(16, &[entry]), DecodeError::Invalid("a database beyond the last")),
            (vec![FORMAT, 0, 0x80, 0x80, 1, 1], DecodeError::Invalid("a slot beyond the last")),
            (record(0, &[]), DecodeError::Invalid("a record without entries")),
            (good[..good.len() - 1].to_vec(), DecodeError::Truncated),
            (record(0, &[&entry[..4]]), DecodeError::Truncated),
            (record(0, &[&longer]), DecodeError::TrailingBytes),
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
    fn chunks_load_in_any_order() {
        let mut keyspace = keyspace();
        (0..200).for_each(|number| set(&mut keyspace, 0, &number.to_string(), "v"));
        assert!(keyspace.begin_snapshot());
        let mut chunks = Vec::new();
        loop {
            let mut chunk = Vec::new();
            let progress = keyspace.snapshot_step(1, &mut chunk);
            chunks.push(chunk);
            if progress == SnapshotProgress::Done {
                break;
            }
        }
        assert!(chunks.len() > 100);
        let backwards: Vec<u8> = chunks.into_iter().rev().flatten().collect();
        assert_eq!(loaded(&backwards).digest(), keyspace.digest());
    }

    /// Fault M1: a segment of large values made a chunk of more than 1 GiB, and so did changes of many segments during a
    /// snapshot. A step gives no more than its budget and one entry, whatever happened since the last.
    #[test]
    fn a_step_gives_no_more_than_its_budget_and_one_entry() {
        const BUDGET: usize = 1000;
        const VALUE: usize = 4000;
        let mut keyspace = keyspace();
        let value = "v".repeat(VALUE);
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
            assert!(bytes.len() - before < BUDGET + VALUE + 100, "{}", bytes.len() - before);
            if progress == SnapshotProgress::Done {
                break;
            }
            steps += 1;
            match steps {
                // In the middle of the large segment, and one that is written or not.
                3 => set(&mut keyspace, 0, "{t}7", "changed"),
                5 => (0..20).for_each(|number| {
                    set(&mut keyspace, 0, &format!("other{number}"), "changed");
                }),
                9 => drop(keyspace.flush_all()),
                _ => {}
            }
        }
        assert!(steps > 40);
        assert_eq!(loaded(&bytes).digest(), digest);
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let mut keyspace = every_type();
        set(&mut keyspace, 3, "{t}long", &"x".repeat(5000));
        let bytes = saved(&mut keyspace);
        for length in [1, 2, 3, 7, 100, 4999] {
            let (mut other, mut loader) = (slot_of_t(), Loader::default());
            for piece in bytes.chunks(length) {
                loader.load(&mut other, piece).unwrap();
                assert!(loader.pending.len() <= 5100);
            }
            loader.finish().unwrap();
            assert_eq!(other.digest(), keyspace.digest(), "pieces of {length}");
        }
    }

    /// A hash tag fills one slot; it is written segment by segment and saved aside in the same measure.
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
            // Every step is followed by a change and a removal, the second by growth that cuts segments.
            set(&mut keyspace, 0, &format!("{{t}}{}", steps * 7), "changed");
            drop(keyspace.remove(AT, format!("{{t}}{}", 8000 - steps).as_bytes()));
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
            drop(other.remove(AT, format!("{{t}}more{number}").as_bytes()));
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
