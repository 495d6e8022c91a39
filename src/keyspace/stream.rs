//! Streams: an append-only log of entries, each a list of fields and values under a growing id.
//!
//! Blocks of at most [`BLOCK_ENTRIES_MAX`] entries in the order of their ids. An entry spells its id as the
//! distance to the first one of its block, and its field names only when they differ from those of the
//! block's first entry. Appending and trimming are O(1) per entry, finding an id is O(log n); a removal
//! rewrites at most one block.
//!
//! Where blocks are cut is part of the state: approximate trimming removes whole blocks only. So the
//! snapshot spells them out.
//!
//! Consumer groups will join the snapshot as a further format version; [`StreamLoading`] refuses versions it
//! does not know.
//!
//! | entry | bytes |
//! | --- | --- |
//! | id | varint: ms minus the block's first ms; varint: seq, minus the first seq where ms are equal |
//! | shape | varint: number of fields × 2, plus 1 when they are named as in the block |
//! | fields | of each: its name (unless as in the block), its value; both with their length |
//!
//! Source: Redis docs, "Streams"; `stream-node-max-entries`, `stream-node-max-bytes`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use thiserror::Error;

use crate::stdx::codec::{self, Sink};

use super::error::DecodeError;
use super::packed::{self, Packed};
use super::parts::{Cursor, Elements};
use super::words::Words;

/// The most entries of a block, removed ones included.
const BLOCK_ENTRIES_MAX: usize = 100;
/// The size in bytes from which on a block takes no further entry.
const BLOCK_BYTES_MAX: usize = 4096;

/// The most bytes of an entry: 1 GiB, as in Redis, and well below what a snapshot can hold as one element.
const ENTRY_BYTES_MAX: usize = 1 << 30;
const _: () = assert!(ENTRY_BYTES_MAX <= codec::BYTES_LENGTH_MAX, "a snapshot can be read back");

/// The version of the snapshot's format.
const FORMAT: u8 = 2;

/// The id of an entry: a time and a number within that millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, or whatever the client chose.
    pub ms: u64,
    /// Distinguishes entries of one millisecond.
    pub seq: u64,
}

impl StreamId {
    /// `0-0`, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The last id there can be.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The id `ms`-`seq`.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The id right after this one; `None` after the last.
    pub const fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: 0 }),
            (None, None) => None,
        }
    }

    /// The id right before this one; `None` before `0-0`.
    pub const fn previous(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: u64::MAX }),
            (None, None) => None,
        }
    }

    /// This id as distances from `base`, which is not greater.
    fn distances(self, base: Self) -> (u64, u64) {
        let seq = if self.ms == base.ms { self.seq.wrapping_sub(base.seq) } else { self.seq };
        (self.ms.wrapping_sub(base.ms), seq)
    }

    /// The id at these distances from `self`.
    fn at_distances(self, ms: u64, seq: u64) -> Option<Self> {
        let seq = if ms == 0 { self.seq.checked_add(seq)? } else { seq };
        Some(Self { ms: self.ms.checked_add(ms)?, seq })
    }

    fn put<S: Sink>(self, sink: &mut S) {
        codec::put_varint(sink, self.ms);
        codec::put_varint(sink, self.seq);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { ms: codec::take_varint(bytes)?, seq: codec::take_varint(bytes)? })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Why an entry was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The id is not greater than the last one.
    #[error("the id is not greater than the last one")]
    NotGreater,
    /// The fields take more than 1 GiB together.
    #[error("the entry is too large")]
    TooLarge,
}

/// What trimming shall leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The newest so many entries.
    Newest(u64),
    /// The entries with this id and greater ones.
    From(StreamId),
}

/// Entries to be trimmed beyond which it is all the same how many they are.
const SURPLUS_COUNTED_MAX: usize = 64 * 1024;

/// How exactly to trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimming {
    /// To the entry.
    Exact,
    /// Whole blocks only, and no more than `limit` entries; 0 is no limit.
    Approximate {
        /// The most entries to remove.
        limit: u64,
    },
}

/// A Redis stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// By the first id that was added to the block. No block is empty.
    blocks: BTreeMap<StreamId, Block>,
    len: usize,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// The field names of the first entry that was added.
    names: Packed,
    entries: Packed,
    /// How many entries were added, removed ones included.
    added: usize,
}

impl Stream {
    /// An empty stream; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none. Unlike other values, an empty stream exists.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The greatest id that was ever added or set; `0-0` in a new stream.
    pub const fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The greatest id that was removed one by one; `0-0` when none was.
    pub const fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// How many entries were ever added.
    pub const fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// The id of the first entry.
    pub fn first_id(&self) -> Option<StreamId> {
        let (&base, block) = self.blocks.first_key_value()?;
        block.entries(base).next().map(|entry| entry.id)
    }

    /// Sets what XSETID sets. The caller has checked that `last_id` is not below the last entry's.
    pub fn set_counters(
        &mut self,
        last_id: StreamId,
        max_deleted_id: StreamId,
        entries_added: u64,
    ) {
        self.last_id = last_id;
        self.max_deleted_id = max_deleted_id;
        self.entries_added = entries_added;
    }

    /// Whether an entry with `fields` is small enough for a stream.
    pub fn admits<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        payload_bytes_max(fields) <= ENTRY_BYTES_MAX
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`AppendError::NotGreater`] when `id` is not greater than [`Stream::last_id`], and
    /// [`AppendError::TooLarge`]; the stream is unchanged.
    pub fn append<'a, F>(&mut self, id: StreamId, fields: F) -> Result<(), AppendError>
    where
        F: ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        if id <= self.last_id {
            return Err(AppendError::NotGreater);
        }
        let payload_bytes = payload_bytes_max(fields.clone());
        if payload_bytes > ENTRY_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        let has_room = |block: &Block| {
            block.added < BLOCK_ENTRIES_MAX
                && block.entries.used_bytes() + payload_bytes < BLOCK_BYTES_MAX
        };
        match self.blocks.last_entry() {
            Some(mut last) if has_room(last.get()) => {
                let base = *last.key();
                last.get_mut().append(base, id, fields);
            }
            Some(_) | None => {
                let mut block = Block::default();
                for (name, _) in fields.clone() {
                    block.names.push_back(name);
                }
                block.append(id, id, fields);
                self.blocks.insert(id, block);
            }
        }
        self.len += 1;
        self.last_id = id;
        self.entries_added = self.entries_added.saturating_add(1);
        Ok(())
    }

    /// The entry with `id`.
    pub fn get(&self, id: StreamId) -> Option<StreamEntry<'_>> {
        self.range(id..=id).next()
    }

    /// The entries with ids within `ids`, in the order of their ids, from both ends.
    pub fn range(
        &self,
        ids: RangeInclusive<StreamId>,
    ) -> impl DoubleEndedIterator<Item = StreamEntry<'_>> {
        let (start, end) = ids.into_inner();
        // The block before the first one that begins in the range may reach into it.
        let from = self.blocks.range(..=start).next_back().map_or(start, |(&base, _)| base);
        let blocks = (start <= end).then(|| self.blocks.range(from..=end)).into_iter().flatten();
        blocks
            .flat_map(|(&base, block)| block.entries(base))
            .filter(move |entry| start <= entry.id && entry.id <= end)
    }

    /// All entries in the order of their ids.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = StreamEntry<'_>> {
        self.blocks.iter().flat_map(|(&base, block)| block.entries(base))
    }

    /// Removes the entry with `id`. Returns whether it existed.
    pub fn remove(&mut self, id: StreamId) -> bool {
        let Some((&base, block)) = self.blocks.range_mut(..=id).next_back() else { return false };
        let Some(index) = block.entries(base).position(|entry| entry.id == id) else {
            return false;
        };
        block.entries.remove(index, 1);
        if block.entries.len() == 0 {
            self.blocks.remove(&base);
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        true
    }

    /// How many entries trimming to what `keep` says looks at, at most: of the entries before an id, whole blocks are counted,
    /// and more than `SURPLUS_COUNTED_MAX` not to the end.
    pub fn surplus(&self, keep: Keep) -> usize {
        let first = match keep {
            Keep::Newest(count) => {
                return usize::try_from(count).map_or(0, |count| self.len.saturating_sub(count));
            }
            Keep::From(first) => first,
        };
        let mut counted = 0;
        for block in self.blocks.range(..first).map(|(_, block)| block) {
            counted += block.entries.len();
            if counted > SURPLUS_COUNTED_MAX {
                break;
            }
        }
        counted
    }

    /// Removes the oldest entries until only what `keep` says is left. Returns how many were removed.
    pub fn trim(&mut self, keep: Keep, trimming: Trimming) -> usize {
        let mut removed = 0;
        while let Some(mut first) = self.blocks.first_entry() {
            let base = *first.key();
            let block = first.get_mut();
            let surplus = match keep {
                Keep::Newest(count) => usize::try_from(count)
                    .map_or(0, |count| self.len.saturating_sub(count).min(block.entries.len())),
                Keep::From(id) => block.entries(base).take_while(|entry| entry.id < id).count(),
            };
            let is_whole = surplus == block.entries.len();
            match trimming {
                Trimming::Exact if surplus == 0 => break,
                Trimming::Exact => {}
                Trimming::Approximate { limit } => {
                    let would_be = (removed + block.entries.len()) as u64;
                    if !is_whole || (limit > 0 && would_be > limit) {
                        break;
                    }
                }
            }
            removed += surplus;
            self.len -= surplus;
            if is_whole {
                drop(first.remove());
            } else {
                block.entries.remove(0, surplus);
            }
        }
        removed
    }

    /// Writes version, last ids and counters.
    pub(super) fn put_head<S: Sink>(&self, sink: &mut S) {
        sink.put(&[FORMAT]);
        self.last_id.put(sink);
        self.max_deleted_id.put(sink);
        codec::put_varint(sink, self.entries_added);
        codec::put_length(sink, self.blocks.len());
    }

    /// Writes elements, of each block its counts, its names and its entries: those from `cursor` on, as far as there is
    /// room; whether those were all.
    pub(super) fn put_elements<S: Elements>(&self, cursor: &mut Cursor, sink: &mut S) -> bool {
        for (&base, block) in self.blocks.range(cursor.block..) {
            cursor.block = base;
            let counts = |sink: &mut S| {
                base.put(sink);
                codec::put_length(sink, block.added);
                codec::put_length(sink, block.names.len());
                codec::put_length(sink, block.entries.len());
            };
            if cursor.element == 0 && !cursor.put_element(sink, counts) {
                return false;
            }
            let written = cursor.element - 1;
            let names = block.names.iter_from(written.min(block.names.len()));
            let entries = block.entries.iter_from(written.saturating_sub(block.names.len()));
            for element in names.chain(entries) {
                if !cursor.put_element(sink, |sink| codec::put_bytes(sink, element)) {
                    return false;
                }
            }
            cursor.element = 0;
        }
        true
    }
}

impl Block {
    fn append<'a, F>(&mut self, base: StreamId, id: StreamId, fields: F)
    where
        F: ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let is_named_as_block = fields.len() == self.names.len()
            && self.names.iter().eq(fields.clone().map(|(name, _)| name));
        let (ms, seq) = id.distances(base);
        let mut payload = Vec::new();
        codec::put_varint(&mut payload, ms);
        codec::put_varint(&mut payload, seq);
        codec::put_length(&mut payload, fields.len() * 2 + usize::from(is_named_as_block));
        for (name, value) in fields {
            if !is_named_as_block {
                codec::put_bytes(&mut payload, name);
            }
            codec::put_bytes(&mut payload, value);
        }
        self.entries.push_back(&payload);
        self.added += 1;
    }

    fn entries(&self, base: StreamId) -> impl DoubleEndedIterator<Item = StreamEntry<'_>> {
        self.entries.iter().map(move |payload| {
            read_entry(payload, base, &self.names)
                .expect("append wrote, or loading has read, every payload")
        })
    }
}

/// A stream that is read from a snapshot.
#[derive(Debug)]
pub(super) struct StreamLoading {
    /// With what has come of its blocks; the last id is that of their last entry.
    stream: Stream,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
    /// The blocks of which nothing has come.
    left: usize,
    block: Option<BlockLoading>,
}

#[derive(Debug)]
struct BlockLoading {
    base: StreamId,
    block: Block,
    names_left: usize,
    entries_left: usize,
    last: Option<StreamId>,
}

impl StreamLoading {
    /// Takes the head of a stream.
    ///
    /// # Errors
    /// [`DecodeError::UnknownFormat`] for another version.
    pub(super) fn take(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let format = codec::take_u8(bytes)?;
        if format != FORMAT {
            return Err(DecodeError::UnknownFormat(format));
        }
        Ok(Self {
            stream: Stream::new(),
            last_id: StreamId::take(bytes)?,
            max_deleted_id: StreamId::take(bytes)?,
            entries_added: codec::take_varint(bytes)?,
            left: codec::take_count(bytes)?,
            block: None,
        })
    }

    /// Reads blocks.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for entries out of order, beyond the last id, or in blocks that contradict themselves; and
    /// whatever else is wrong with the bytes; [`DecodeError::Truncated`] until all have come.
    pub(super) fn load(&mut self, words: &mut Words<'_, '_>) -> Result<(), DecodeError> {
        loop {
            let open = match &mut self.block {
                Some(open) => open,
                None if self.left == 0 => break,
                None => {
                    let begun = words.small(BlockLoading::take)?;
                    self.left -= 1;
                    self.block.insert(begun)
                }
            };
            open.load(words)?;
            if let Some(whole) = self.block.take() {
                self.add(whole)?;
            }
        }
        if self.stream.last_id > self.last_id {
            return Err(DecodeError::Invalid("a stream has an entry beyond its last id"));
        }
        Ok(())
    }

    /// The stream, when all has come.
    pub(super) fn finish(mut self) -> Stream {
        self.stream.set_counters(self.last_id, self.max_deleted_id, self.entries_added);
        self.stream
    }

    fn add(&mut self, whole: BlockLoading) -> Result<(), DecodeError> {
        let BlockLoading { base, block, last, .. } = whole;
        if base <= self.stream.last_id {
            return Err(DecodeError::Invalid("the blocks of a stream are out of order"));
        }
        self.stream.len += block.entries.len();
        self.stream.last_id = last.unwrap_or(base);
        self.stream.blocks.insert(base, block);
        Ok(())
    }
}

impl BlockLoading {
    /// Takes the head of a block.
    fn take(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let base = StreamId::take(bytes)?;
        let added = codec::take_count(bytes)?;
        let names_left = codec::take_count(bytes)?;
        let entries_left = codec::take_count(bytes)?;
        if entries_left == 0 || entries_left > added || added > BLOCK_ENTRIES_MAX {
            return Err(DecodeError::Invalid("a block of a stream has a wrong count"));
        }
        let block = Block { added, ..Block::default() };
        Ok(Self { base, block, names_left, entries_left, last: None })
    }

    /// Reads names and entries.
    fn load(&mut self, words: &mut Words<'_, '_>) -> Result<(), DecodeError> {
        while self.names_left > 0 {
            self.block.names.push_back(&words.bytes()?);
            self.names_left -= 1;
        }
        while self.entries_left > 0 {
            let payload = words.bytes()?;
            let id = match check_entry(&payload, self.base, &self.block.names) {
                // The entry is all there, and nothing that comes would mend it.
                Err(DecodeError::Truncated) => {
                    return Err(DecodeError::Invalid("an entry of a stream ends too early"));
                }
                checked => checked?,
            };
            if self.last.is_some_and(|last| last >= id) {
                return Err(DecodeError::Invalid("the entries of a stream are out of order"));
            }
            self.last = Some(id);
            self.block.entries.push_back(&payload);
            self.entries_left -= 1;
        }
        Ok(())
    }
}

/// An entry of a stream.
#[derive(Clone, Debug)]
pub struct StreamEntry<'a> {
    /// Its id.
    pub id: StreamId,
    /// Its fields with their values, in the order in which they were given.
    pub fields: StreamFields<'a>,
}

/// The fields of an entry with their values.
#[derive(Clone, Debug)]
pub struct StreamFields<'a> {
    remaining: usize,
    /// The block's names, when the entry has the same.
    names: Option<packed::Iter<'a>>,
    bytes: &'a [u8],
}

impl<'a> StreamFields<'a> {
    fn read(&mut self) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        let name = match &mut self.names {
            Some(names) => names.next().ok_or(DecodeError::Truncated)?,
            None => codec::take_bytes(&mut self.bytes)?,
        };
        Ok((name, codec::take_bytes(&mut self.bytes)?))
    }
}

impl<'a> Iterator for StreamFields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some(self.read().expect("append wrote, or loading has read, every payload"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for StreamFields<'_> {}

/// An upper bound of the bytes of an entry: two numbers and a shape, then names and values.
fn payload_bytes_max<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    let field_bytes = |(name, value): (&[u8], &[u8])| Packed::cost(name) + Packed::cost(value);
    3 * codec::VARINT_BYTES_MAX + fields.map(field_bytes).sum::<usize>()
}

/// Reads the id and the shape of an entry; the fields are read when they are asked for.
fn read_entry<'a>(
    mut payload: &'a [u8],
    base: StreamId,
    names: &'a Packed,
) -> Result<StreamEntry<'a>, DecodeError> {
    let (ms, seq) = (codec::take_varint(&mut payload)?, codec::take_varint(&mut payload)?);
    let id = base
        .at_distances(ms, seq)
        .ok_or(DecodeError::Invalid("an id of a stream exceeds 64 bits"))?;
    let shape = codec::take_count(&mut payload)?;
    let names = (shape % 2 == 1).then(|| names.iter());
    Ok(StreamEntry { id, fields: StreamFields { remaining: shape / 2, names, bytes: payload } })
}

/// Reads a whole entry that was not written by this process. Returns its id.
fn check_entry(payload: &[u8], base: StreamId, names: &Packed) -> Result<StreamId, DecodeError> {
    let StreamEntry { id, mut fields } = read_entry(payload, base, names)?;
    if fields.names.is_some() && fields.remaining != names.len() {
        return Err(DecodeError::Invalid("an entry of a stream has a wrong number of fields"));
    }
    for _ in 0..fields.remaining {
        fields.read()?;
    }
    if fields.bytes.is_empty() { Ok(id) } else { Err(DecodeError::TrailingBytes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::testing::{digest_of, load, restored, seeded, spelled};
    use crate::keyspace::value::type_code::STREAM;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;
    type Model = BTreeMap<StreamId, Fields>;

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64, u64, Fields),
        AppendMany(u64, Fields),
        Remove(usize),
        TrimNewest(u64),
        TrimFrom(usize),
    }

    fn fields() -> impl Strategy<Value = Fields> {
        let name = prop::sample::select(vec![&b"temperature"[..], b"humidity", b""]);
        let value = prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..10),
            1 => prop::collection::vec(any::<u8>(), 500..3000),
        ];
        prop::collection::vec((name.prop_map(<[u8]>::to_vec), value), 1..4)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u64, 0..3_u64, fields()).prop_map(|(ms, seq, fields)| Step::Append(ms, seq, fields)),
            3 => (1..150_u64, fields()).prop_map(|(count, fields)| Step::AppendMany(count, fields)),
            3 => any::<usize>().prop_map(Step::Remove),
            1 => (0..300_u64).prop_map(Step::TrimNewest),
            1 => any::<usize>().prop_map(Step::TrimFrom),
        ]
    }

    fn append(stream: &mut Stream, id: StreamId, fields: &Fields) -> bool {
        let appended =
            stream.append(id, fields.iter().map(|(name, value)| (&name[..], &value[..])));
        assert!(matches!(appended, Ok(()) | Err(AppendError::NotGreater)));
        appended.is_ok()
    }

    fn nth_id(model: &Model, index: usize) -> StreamId {
        model.keys().nth(index % (model.len() + 1)).copied().unwrap_or(StreamId::new(1, 77))
    }

    fn apply(stream: &mut Stream, model: &mut Model, step: Step) {
        match step {
            Step::Append(ms, seq, fields) => {
                let last = stream.last_id();
                let id = StreamId::new(last.ms + ms, if ms == 0 { last.seq + seq } else { seq });
                assert_eq!(append(stream, id, &fields), id > last);
                if id > last {
                    model.insert(id, fields);
                }
            }
            Step::AppendMany(count, fields) => {
                for _ in 0..count {
                    let id = stream.last_id().next().unwrap();
                    assert!(append(stream, id, &fields));
                    model.insert(id, fields.clone());
                }
            }
            Step::Remove(index) => {
                let id = nth_id(model, index);
                assert_eq!(stream.remove(id), model.remove(&id).is_some());
            }
            Step::TrimNewest(count) => {
                let surplus = (model.len() as u64).saturating_sub(count);
                let removed = stream.trim(Keep::Newest(count), Trimming::Exact);
                assert_eq!(removed as u64, surplus);
                (0..surplus).for_each(|_| drop(model.pop_first()));
            }
            Step::TrimFrom(index) => {
                let id = nth_id(model, index);
                let kept = model.split_off(&id);
                assert_eq!(stream.trim(Keep::From(id), Trimming::Exact), model.len());
                *model = kept;
            }
        }
    }

    fn after(steps: Vec<Step>) -> (Stream, Model) {
        let (mut stream, mut model) = (Stream::new(), Model::new());
        for step in steps {
            apply(&mut stream, &mut model, step);
        }
        (stream, model)
    }

    fn pairs<'a>(entries: impl Iterator<Item = StreamEntry<'a>>) -> Vec<(StreamId, Fields)> {
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        entries.map(|entry| (entry.id, entry.fields.map(owned).collect())).collect()
    }

    proptest! {
        #![proptest_config(seeded(80))]

        #[test]
        fn a_stream_behaves_as_a_sorted_map(
            steps in prop::collection::vec(step(), 1..40), low in any::<usize>(), high in any::<usize>()
        ) {
            let (stream, model) = after(steps);
            let expected: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(stream.len(), model.len());
            prop_assert_eq!(stream.first_id(), model.keys().next().copied());
            prop_assert_eq!(&pairs(stream.iter()), &expected);
            let (low, high) = (nth_id(&model, low), nth_id(&model, high));
            let within: Vec<_> =
                expected.into_iter().filter(|(id, _)| low <= *id && *id <= high).collect();
            prop_assert_eq!(&pairs(stream.range(low..=high)), &within);
            let mut backward = pairs(stream.range(low..=high).rev());
            backward.reverse();
            prop_assert_eq!(backward, within);
            prop_assert_eq!(stream.get(low).is_some(), model.contains_key(&low));
        }

        #[test]
        fn a_restored_stream_goes_on_like_the_original(
            before in prop::collection::vec(step(), 0..30), later in prop::collection::vec(step(), 0..10)
        ) {
            let (mut stream, mut model) = after(before);
            let mut copy = restored(&stream);
            let mut copy_model = model.clone();
            for step in later {
                apply(&mut stream, &mut model, step.clone());
                apply(&mut copy, &mut copy_model, step);
            }
            prop_assert_eq!(digest_of(&stream.clone().into()), digest_of(&copy.clone().into()));
            let approximate = Trimming::Approximate { limit: 0 };
            prop_assert_eq!(stream.trim(Keep::Newest(10), approximate), copy.trim(Keep::Newest(10), approximate));
            prop_assert_eq!(pairs(stream.iter()), pairs(copy.iter()));
            prop_assert_eq!(stream.entries_added(), copy.entries_added());
            prop_assert_eq!(stream.max_deleted_id(), copy.max_deleted_id());
        }

        /// Every truncation and every single changed byte is either refused or gives a stream that can be read.
        #[test]
        fn hostile_bytes_do_not_panic(steps in prop::collection::vec(step(), 1..4), at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = spelled(&after(steps).0.into());
            prop_assert!(load::<Stream>(STREAM, &bytes[..at % bytes.len()]).is_err());
            let at = at % bytes.len().min(64);
            bytes[at] = byte;
            if let Ok(stream) = load::<Stream>(STREAM, &bytes) {
                prop_assert_eq!(pairs(stream.iter()).len(), stream.len());
            }
        }
    }

    #[test]
    fn ids_have_neighbours() {
        let id = StreamId::new;
        assert_eq!(id(1, 1).next(), Some(id(1, 2)));
        assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
        assert_eq!(StreamId::MAX.next(), None);
        assert_eq!(id(1, 1).previous(), Some(id(1, 0)));
        assert_eq!(id(1, 0).previous(), Some(id(0, u64::MAX)));
        assert_eq!(StreamId::MIN.previous(), None);
        assert_eq!(id(5, 6).to_string(), "5-6");
    }

    #[test]
    fn approximate_trimming_removes_whole_blocks_within_its_limit() {
        let mut stream = Stream::new();
        for ms in 1..=1000 {
            assert!(append(
                &mut stream,
                StreamId::new(ms, 0),
                &vec![(b"f".to_vec(), b"v".to_vec())]
            ));
        }
        assert_eq!(stream.blocks.len(), 10);
        assert_eq!(stream.trim(Keep::Newest(950), Trimming::Approximate { limit: 0 }), 0);
        assert_eq!(stream.trim(Keep::Newest(50), Trimming::Approximate { limit: 350 }), 300);
        assert_eq!(
            stream.trim(Keep::From(StreamId::new(501, 0)), Trimming::Approximate { limit: 0 }),
            200
        );
        assert_eq!(stream.first_id(), Some(StreamId::new(501, 0)));
        assert_eq!(stream.trim(Keep::Newest(u64::MAX), Trimming::Exact), 0);
        assert_eq!(stream.trim(Keep::Newest(0), Trimming::Exact), 500);
        assert_eq!(
            (stream.len(), stream.last_id(), stream.entries_added()),
            (0, StreamId::new(1000, 0), 1000)
        );
    }

    #[test]
    fn names_outlive_the_entry_that_brought_them() {
        let mut stream = Stream::new();
        let fields = vec![(b"name".to_vec(), b"value".to_vec())];
        assert!(append(&mut stream, StreamId::new(1, 0), &fields));
        assert!(append(&mut stream, StreamId::new(2, 0), &fields));
        assert!(stream.remove(StreamId::new(1, 0)));
        assert_eq!(pairs(stream.iter()), [(StreamId::new(2, 0), fields)]);
        assert_eq!(stream.max_deleted_id(), StreamId::new(1, 0));
    }

    #[test]
    fn a_block_with_few_entries_left_is_restored() {
        let mut stream = Stream::new();
        for ms in 1..=100 {
            assert!(append(&mut stream, StreamId::new(ms, 0), &vec![(Vec::new(), Vec::new())]));
        }
        for ms in 2..=100 {
            assert!(stream.remove(StreamId::new(ms, 0)));
        }
        assert_eq!(digest_of(&restored(&stream).into()), digest_of(&stream.into()));
    }

    #[test]
    fn an_entry_beyond_a_gibibyte_is_refused() {
        let value = vec![0; 1 << 20];
        let fields = vec![(&b"f"[..], &value[..]); 1024];
        assert!(!Stream::admits(fields.iter().copied()));
        let mut stream = Stream::new();
        let appended = stream.append(StreamId::new(1, 0), fields.into_iter());
        assert_eq!(appended, Err(AppendError::TooLarge));
        assert_eq!((stream.len(), stream.last_id()), (0, StreamId::MIN));
    }

    #[test]
    fn bad_snapshots_are_refused() {
        let head = [FORMAT, 9, 0, 0, 0, 2];
        let block = |base: u8, entries: &[u8]| [&[base, 0, 2, 0][..], entries].concat();
        let entry = [3, 0, 0, 0];
        let rows = [
            (vec![], DecodeError::Truncated),
            (vec![1], DecodeError::UnknownFormat(1)),
            (
                [&head[..], &[1], &block(1, &[2, 3, 0, 0, 0, 3, 0, 0, 0])].concat(),
                DecodeError::Invalid("the entries of a stream are out of order"),
            ),
            (
                [&head[..], &[2], &block(2, &[1, 3, 0, 0, 0]), &block(1, &[1, 3, 0, 0, 0])]
                    .concat(),
                DecodeError::Invalid("the blocks of a stream are out of order"),
            ),
            (
                [&head[..], &[1], &block(10, &[&[1][..], &entry].concat())].concat(),
                DecodeError::Invalid("a stream has an entry beyond its last id"),
            ),
            (
                [&head[..], &[1], &block(1, &[0, 0, 0])].concat(),
                DecodeError::Invalid("a block of a stream has a wrong count"),
            ),
            (
                [&head[..], &[1], &block(1, &[1, 3, 0, 0, 3])].concat(),
                DecodeError::Invalid("an entry of a stream has a wrong number of fields"),
            ),
            (
                [&head[..], &[1], &block(1, &[1, 4, 0, 0, 0, 0])].concat(),
                DecodeError::TrailingBytes,
            ),
            (
                [&head[..], &[1], &block(1, &[1, 3, 0, 0, 2])].concat(),
                DecodeError::Invalid("an entry of a stream ends too early"),
            ),
        ];
        for (bytes, error) in rows {
            assert_eq!(load::<Stream>(STREAM, &bytes).err(), Some(error), "{bytes:?}");
        }
    }
}
