//! The end of the log that is being written: encoding records, giving them places, changing segments.
//!
//! Everything here happens under the one lock of the log. Records are encoded into a **backlog** and get
//! their final position at once; who writes the backlog to the file, the caller or a thread of the log, is
//! decided in `log.rs`. Nothing here touches the disk but [`Backlog::write`], which needs no lock: a new segment
//! is a name until its first bytes are written.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{GroupId, RaftId};
use crate::stdx::disk::Disk;

use super::error::WalError;
use super::group::Group;
use super::limits::{BUFFER_KEPT_BYTES, LENT_BYTES_MIN, MARKER_BYTES_MAX, RECORD_BYTES_MAX};
use super::log::Record;
use super::opening::Opening;
use super::record::{
    self, Kind, MARK_BYTES, Position, SEGMENT_HEAD_BYTES, Salt, encode_segment_head, mark_payload,
    record_bytes,
};
use super::segment::Segment;

/// The body of a record that has none.
static NOTHING: Bytes = Bytes::new();

/// Encoded bytes on their way to the files.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// All but what is lent.
    buffer: Vec<u8>,
    lent: Vec<Lent>,
    lent_bytes: usize,
    pieces: Vec<Piece>,
}

/// The body of a record, written from where it lies.
#[derive(Debug)]
struct Lent {
    /// Where in the buffer it belongs.
    place: usize,
    body: Bytes,
}

/// A part of a backlog that lies in one segment; it ends in the buffer where the next one starts.
#[derive(Debug)]
struct Piece {
    segment: Arc<Segment>,
    offset: u64,
    start: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How much there is to write.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() + self.lent_bytes
    }

    /// Encodes a record; the bytes it takes.
    fn put(
        &mut self,
        salt: Salt,
        id: (Kind, GroupId, u64),
        (head, body): (&[u8], &Bytes),
    ) -> usize {
        if body.len() < LENT_BYTES_MIN {
            record::encode(&mut self.buffer, salt, id, (head, body));
        } else {
            let place = record::encode_around(&mut self.buffer, salt, id, (head, body));
            self.lent.push(Lent { place, body: body.clone() });
            self.lent_bytes += body.len();
        }
        record_bytes(head.len() + body.len())
    }

    /// Writes all pieces, in order, and empties the backlog; makes the files of segments that begin with it. Returns the number
    /// of writes.
    pub(super) fn write(&mut self, disk: &dyn Disk) -> Result<u64, WalError> {
        let mut lent = self.lent.iter().peekable();
        for (number, piece) in self.pieces.iter().enumerate() {
            let mut start = piece.start;
            let end = self.pieces.get(number + 1).map_or(self.buffer.len(), |next| next.start);
            let file = piece.segment.made(disk)?;
            let mut parts = Vec::new();
            while let Some(Lent { place, body }) = lent.next_if(|lent| lent.place <= end) {
                parts.extend([IoSlice::new(&self.buffer[start..*place]), IoSlice::new(body)]);
                start = *place;
            }
            let written = if parts.is_empty() {
                file.write_all_at(&self.buffer[start..end], piece.offset)
            } else {
                parts.push(IoSlice::new(&self.buffer[start..end]));
                file.write_all_vectored_at(&mut parts, piece.offset)
            };
            written.map_err(WalError::io("write", &piece.segment.path))?;
        }
        let writes = self.pieces.len() as u64;
        self.clear();
        Ok(writes)
    }

    /// Empties the backlog.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.lent.clear();
        self.lent_bytes = 0;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
    }
}

/// A segment that is part of the log; `end` is where its records end once it is no longer the last.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) segment: Arc<Segment>,
    pub(super) end: u64,
}

/// The end of the log and what is known of all groups.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) dir: PathBuf,
    pub(super) nonce: u64,
    pub(super) segment_bytes: u64,
    /// Oldest first; never empty; the last one is being written.
    pub(super) held: VecDeque<Held>,
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// The last replica that ended here, of each group that any did: none up to it is born again.
    pub(super) ended: BTreeMap<GroupId, RaftId>,
    /// Where the next record goes.
    pub(super) end: Position,
    /// All before is on the disk.
    pub(super) synced: Position,
    /// The highest position a sync mark in the log vouches for.
    pub(super) marked: Position,
    /// Where the last record that is no mark ends: beyond it there is nothing to vouch for.
    pub(super) content: Position,
    /// How the log was opened last; every segment repeats it.
    pub(super) opening: Option<Opening>,
    pub(super) backlog: Backlog,
    /// Left behind since the last sync, oldest first.
    pub(super) unsynced: Vec<Arc<Segment>>,
    /// Files appeared or were renamed since the directory was last synced.
    pub(super) is_dir_dirty: bool,
    /// Purged files that may be used again.
    pub(super) spares: Vec<PathBuf>,
    pub(super) segments_created: u64,
    pub(super) segments_recycled: u64,
}

impl Tail {
    /// The segment that is being written.
    pub(super) fn active(&self) -> &Arc<Segment> {
        &self.held.back().expect("a log always has a last segment").segment
    }

    /// The segment `sequence`, when it is still part of the log.
    pub(super) fn segment(&self, sequence: u64) -> Option<&Arc<Segment>> {
        let first = self.held.front()?.segment.sequence;
        let number = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.held.get(number).map(|held| &held.segment)
    }

    /// Encodes entries of `group`. On [`WalError::TooLarge`] and [`WalError::Misplaced`] nothing has happened.
    pub(super) fn append(
        &mut self,
        group: GroupId,
        records: &[Record<'_>],
    ) -> Result<(), WalError> {
        self.check_records(group, records)?;
        self.put_mark();
        for record in records {
            let id = (Kind::Entry, group, record.index);
            let position = self.put(id, (record.head, record.body));
            let bytes = record_bytes(record.head.len() + record.body.len()) as u64;
            self.living(group)?.note_entry(record.index, position, bytes);
        }
        Ok(())
    }

    fn check_records(&self, group: GroupId, records: &[Record<'_>]) -> Result<(), WalError> {
        let Some(first) = records.first() else { return Ok(()) };
        self.known(group)?.check_next(group, first.index)?;
        for (number, record) in records.iter().enumerate() {
            let expected = first.index.saturating_add(number as u64);
            if record.index != expected || expected == u64::MAX {
                return Err(WalError::Misplaced { group, index: record.index, expected });
            }
            check_length(record.head.len().saturating_add(record.body.len()), RECORD_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Drops the entries of `group` from `from` on.
    pub(super) fn truncate(&mut self, group: GroupId, from: u64) -> Result<(), WalError> {
        let known = self.known(group)?;
        known.check_truncate(group, from)?;
        if from >= known.next {
            return Ok(());
        }
        self.put_mark();
        // A rotation on the way repeats only markers, so the record may come first.
        self.put((Kind::Truncate, group, from), (&[], &NOTHING));
        self.living(group)?.note_truncate(from);
        Ok(())
    }

    /// Drops the entries of `group` up to `upto`; whether there was anything to do.
    pub(super) fn purge(
        &mut self,
        group: GroupId,
        upto: u64,
        marker: &Bytes,
    ) -> Result<bool, WalError> {
        check_length(marker.len(), MARKER_BYTES_MAX)?;
        if upto == u64::MAX {
            return Err(WalError::Misplaced { group, index: upto, expected: upto - 1 });
        }
        if !self.living(group)?.note_purge(upto, marker.clone()) {
            return Ok(false);
        }
        self.put_mark();
        self.put((Kind::Purge, group, upto), (marker, &NOTHING));
        Ok(true)
    }

    /// Encodes the vote of `group`.
    pub(super) fn vote(&mut self, group: GroupId, vote: Bytes) -> Result<(), WalError> {
        check_length(vote.len(), MARKER_BYTES_MAX)?;
        self.known(group)?;
        self.put_mark();
        self.put((Kind::Vote, group, 0), (&vote, &NOTHING));
        self.living(group)?.vote = Some(vote);
        Ok(())
    }

    /// Encodes that `group` lives here as `id` from now on; again for the same id it does nothing.
    pub(super) fn born(&mut self, group: GroupId, id: RaftId) -> Result<(), WalError> {
        match self.groups.get(&group).map(|known| known.raft_id) {
            Some(lives) if lives == id => return Ok(()),
            Some(lives) => return Err(WalError::OtherReplica { group, lives, meant: id }),
            None => {}
        }
        if let Some(&ended) = self.ended.get(&group).filter(|ended| **ended >= id) {
            return Err(WalError::HasEnded { group, ended, meant: id });
        }
        self.put_mark();
        self.put((Kind::Born, group, id.0), (&[], &NOTHING));
        self.groups.insert(group, Group::born(id));
        Ok(())
    }

    /// Encodes that the replica `id` of `group` is no more, and forgets it; whether it was there.
    pub(super) fn ended(&mut self, group: GroupId, id: RaftId) -> Result<bool, WalError> {
        match self.groups.get(&group).map(|known| known.raft_id) {
            Some(lives) if lives == id => {}
            Some(lives) => return Err(WalError::OtherReplica { group, lives, meant: id }),
            None => return Ok(false),
        }
        self.put_mark();
        // A rotation on the way repeats its markers once more, before this record: they end with it.
        self.put((Kind::Ended, group, id.0), (&[], &NOTHING));
        self.groups.remove(&group);
        self.ended.insert(group, id);
        Ok(true)
    }

    /// Encodes that nothing is missing of `group` any more.
    pub(super) fn whole(&mut self, group: GroupId) -> Result<(), WalError> {
        if !self.known(group)?.is_short {
            return Ok(());
        }
        self.put_mark();
        // First the record: a rotation on the way must repeat that it is short, before it is whole.
        self.put((Kind::Whole, group, 0), (&[], &NOTHING));
        self.living(group)?.is_short = false;
        Ok(())
    }

    /// Encodes this opening; before it, every group becomes short if the log `may_miss_end`.
    ///
    /// The order matters: an opening on the disk without the records before it would vouch for the machine's new start.
    pub(super) fn open(&mut self, opening: Opening, may_miss_end: bool) -> Result<(), WalError> {
        self.put_mark();
        // What the meta group says is on the disk before it is said, whatever the policy.
        let may_lack = |(id, group): &(&GroupId, &Group)| !group.is_short && **id != GroupId::META;
        let whole = self.groups.iter().filter(|it| may_miss_end && may_lack(it));
        let shortened: Vec<_> = whole.map(|(id, _)| *id).collect();
        for group in shortened {
            self.put((Kind::Short, group, 0), (&[], &NOTHING));
            self.living(group)?.is_short = true;
        }
        let id = (Kind::Open, GroupId::META, opening.session.number);
        self.put(id, (&opening.encode(), &NOTHING));
        self.opening = Some(opening);
        Ok(())
    }

    fn known(&self, group: GroupId) -> Result<&Group, WalError> {
        self.groups.get(&group).ok_or(WalError::Unborn { group })
    }

    fn living(&mut self, group: GroupId) -> Result<&mut Group, WalError> {
        self.groups.get_mut(&group).ok_or(WalError::Unborn { group })
    }

    /// Whether something was synced that no mark vouches for. Marks themselves need none: a damaged one is cut off, and
    /// what it said with it, but not what it vouched for.
    pub(super) fn has_unmarked(&self) -> bool {
        self.synced.min(self.content) > self.marked
    }

    /// Says in the log what the last sync covered, once per sync.
    pub(super) fn put_mark(&mut self) {
        if !self.has_unmarked() {
            return;
        }
        self.put_vouching(Kind::SyncMark);
        self.marked = self.synced;
    }

    /// Ends the log in order: all before this was synced.
    pub(super) fn put_clean_stop(&mut self) {
        self.put_vouching(Kind::CleanStop);
    }

    fn put_vouching(&mut self, kind: Kind) {
        let payload = mark_payload(self.nonce, self.synced);
        self.put((kind, GroupId::META, self.synced.offset), (&payload, &NOTHING));
    }

    /// Encodes one record at the end of the log, in a new segment when it does not fit this one.
    fn put(&mut self, id: (Kind, GroupId, u64), payload: (&[u8], &Bytes)) -> Position {
        let bytes = record_bytes(payload.0.len() + payload.1.len()) as u64;
        if self.end.offset.saturating_add(bytes) > self.active().bytes {
            self.rotate(bytes);
        }
        self.encode(id, payload)
    }

    fn encode(&mut self, id: (Kind, GroupId, u64), payload: (&[u8], &Bytes)) -> Position {
        let position = self.end;
        let salt = self.active().salt;
        self.begin_piece();
        self.end.offset += self.backlog.put(salt, id, payload) as u64;
        match id.0 {
            Kind::SyncMark | Kind::CleanStop => {}
            Kind::Entry
            | Kind::Truncate
            | Kind::Purge
            | Kind::Vote
            | Kind::Born
            | Kind::Ended
            | Kind::Open
            | Kind::Short
            | Kind::Whole => self.content = self.end,
        }
        position
    }

    /// Makes the backlog end with a piece that the next bytes of the active segment may join.
    fn begin_piece(&mut self) {
        let active = self.active();
        let is_open = self.backlog.pieces.last().is_some_and(|p| Arc::ptr_eq(&p.segment, active));
        if !is_open {
            let (segment, offset) = (Arc::clone(active), self.end.offset);
            let start = self.backlog.buffer.len();
            self.backlog.pieces.push(Piece { segment, offset, start });
        }
    }

    /// Begins a new segment with room for a record of `need` bytes. Its file is made by whoever writes the backlog.
    fn rotate(&mut self, need: u64) {
        let previous = Arc::clone(self.active());
        let sequence = previous.sequence + 1;
        let least = (SEGMENT_HEAD_BYTES + MARK_BYTES) as u64 + self.marker_bytes() + need;
        let segment = Arc::new(self.create(sequence, self.segment_bytes.max(least)));
        let previous_end =
            std::mem::replace(&mut self.end, Position { segment: sequence, offset: 0 });
        if let Some(held) = self.held.back_mut() {
            held.end = previous_end.offset;
        }
        self.unsynced.push(previous);
        self.begin(segment, previous_end.offset);
    }

    /// Makes `segment` the last one and opens it with its header and the markers of every group, so
    /// that no group needs an older segment for anything but its entries.
    pub(super) fn begin(&mut self, segment: Arc<Segment>, previous_end: u64) {
        let header = encode_segment_head(segment.salt, segment.sequence, previous_end);
        self.end = Position { segment: segment.sequence, offset: 0 };
        self.held.push_back(Held { segment, end: 0 });
        self.begin_piece();
        self.backlog.buffer.extend_from_slice(&header);
        self.end.offset += SEGMENT_HEAD_BYTES as u64;
        for (id, marker) in self.markers() {
            self.encode(id, (&marker, &NOTHING));
        }
    }

    /// The records that open a segment.
    fn markers(&self) -> Vec<((Kind, GroupId, u64), Bytes)> {
        let mut markers = Vec::new();
        if let Some(opening) = &self.opening {
            let id = (Kind::Open, GroupId::META, opening.session.number);
            markers.push((id, Bytes::copy_from_slice(&opening.encode())));
        }
        let is_over = |(group, _): &(&GroupId, &RaftId)| !self.groups.contains_key(*group);
        for (&group, id) in self.ended.iter().filter(is_over) {
            markers.push(((Kind::Ended, group, id.0), Bytes::new()));
        }
        for (&id, group) in &self.groups {
            markers.push(((Kind::Born, id, group.raft_id.0), Bytes::new()));
            if group.is_short {
                markers.push(((Kind::Short, id, 0), Bytes::new()));
            }
            let vote = group.vote.iter().map(|vote| ((Kind::Vote, id, 0), vote));
            let purged = group.purged.iter().map(|(upto, it)| ((Kind::Purge, id, *upto), it));
            markers.extend(vote.chain(purged).map(|(id, marker)| (id, marker.clone())));
        }
        markers
    }

    fn marker_bytes(&self) -> u64 {
        self.markers().iter().map(|(_, marker)| record_bytes(marker.len()) as u64).sum()
    }

    /// Segment `sequence` with room for `bytes`, from a spare file when there is one.
    pub(super) fn create(&mut self, sequence: u64, bytes: u64) -> Segment {
        let spare = if bytes == self.segment_bytes { self.spares.pop() } else { None };
        if spare.is_some() {
            self.segments_recycled += 1;
        } else {
            self.segments_created += 1;
        }
        self.is_dir_dirty = true;
        let salt = Salt::new(self.nonce, sequence);
        Segment::to_be_made(&self.dir, (sequence, salt), bytes, spare)
    }

    /// Takes the segments off the log that hold nothing but purged entries, oldest first.
    pub(super) fn take_dead(&mut self) -> Vec<Held> {
        let oldest = self.pin().map_or(self.end.segment, |(sequence, _)| sequence);
        let dead = self.held.iter().take_while(|held| held.segment.sequence < oldest).count();
        self.held.drain(..dead).collect()
    }

    /// The oldest segment with a live entry, and whose it is.
    pub(super) fn pin(&self) -> Option<(u64, GroupId)> {
        let first_runs =
            self.groups.iter().filter_map(|(id, group)| Some((group.runs.front()?, id)));
        first_runs.map(|(run, id)| (run.position.segment, *id)).min()
    }

    /// Bytes from the oldest record kept to the end.
    pub(super) fn live_bytes(&self) -> u64 {
        let closed: u64 = self.held.iter().map(|held| held.end).sum();
        closed + self.end.offset
    }
}

fn check_length(bytes: usize, limit: usize) -> Result<(), WalError> {
    if bytes <= limit { Ok(()) } else { Err(WalError::TooLarge { bytes, limit }) }
}
