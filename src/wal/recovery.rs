//! Reading a log back: what it holds, where it ends, and whether what is missing may be missing.
//!
//! The log ends at the first place where no intact record follows, the **tear**. Whatever lies behind
//! the tear is cut off, unless a sync mark anywhere behind it vouches for bytes beyond the tear: then a
//! disk lost what it had promised to keep, and the log refuses to open. (A power cut may keep later
//! pages of what was never synced and lose earlier ones, so intact records behind a tear prove nothing.)
//!
//! **Invariant:** a cut leaves no byte behind its place: later segments are deleted, never recycled, and
//! the torn one is shortened and lengthened again. Otherwise records of the lost future, whose salt is
//! still right, could come back to life behind new ones. For the same reason no spare file outlives an opening.
//!
//! **Invariant:** nothing is vouched for that only the page cache holds. After a failed fsync the kernel may have marked
//! pages clean that never reached the disk; they read well until they are evicted, and an fsync of clean pages succeeds
//! without writing anything (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). So everything behind
//! the last sync mark is written once more, which makes its pages dirty, before it is synced.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{GroupId, Incarnation, RaftId, Session};
use crate::stdx::disk::{self, Disk, write_durably};

use super::error::WalError;
use super::group::Group;
use super::limits::WINDOW_BYTES;
use super::opening::Opening;
use super::options::{SyncPolicy, WalOptions};
use super::record::{
    ALIGNMENT, FORMAT_VERSION, Head, Kind, MARK_BYTES, Position, SEGMENT_HEAD_BYTES, Salt,
    decode_format, decode_mark, decode_segment_head, decode_vouched, encode_format,
    encode_segment_head,
};
use super::segment::{Segment, Window, list, segment_path};
use super::tail::{Backlog, Held, Tail};
use crate::stdx::planted::{Bug, is_planted};

pub(super) const FORMAT_FILE: &str = "format";
/// Says that the log failed, and why; until it is opened again.
pub(super) const FAILED_FILE: &str = "failed";
const FIRST_SEQUENCE: u64 = 1;
const PAGE: &[u8] = &[0; 4096];

/// Reads the log in `dir`, cuts its torn tail, notes that it is opened and returns it ready to be written, all of it
/// synced.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &WalOptions,
) -> Result<Recovered, WalError> {
    let WalOptions { segment_bytes, incarnation, session, nonce, boot_id: boot, .. } = *options;
    let opening = Opening { session, boot, policy: options.sync };
    let (sequences, spares) = list(disk, dir)?;
    let new = sequences.is_empty().then_some(nonce);
    let nonce = read_or_create_format(disk, dir, new, incarnation)?;
    check_consecutive(dir, &sequences)?;
    let mut scan = Scan {
        dir,
        nonce,
        groups: BTreeMap::new(),
        ended: BTreeMap::new(),
        segments: Vec::new(),
        last: None,
        opening: None,
        vouched: Position::default(),
        content: Position::default(),
    };
    for &sequence in &sequences {
        scan.segments.push(open(disk, dir, nonce, sequence)?);
    }
    let tear = scan.read_until_tear()?;
    scan.check_whole()?;
    let is_clean = scan.last == Some(Kind::CleanStop);
    // After a failed sync the kernel may have dropped what it had promised to write.
    let failed = dir.join(FAILED_FILE);
    let has_failed = disk.exists(&failed);
    let may_have_lost = |it: Opening| {
        it.may_have_lost(opening.boot) || (has_failed && it.policy != SyncPolicy::Always)
    };
    let may_miss_end = !is_clean && scan.opening.is_some_and(may_have_lost);
    remove_spares(disk, &spares)?;
    let held = cut(disk, dir, &scan, tear, segment_bytes)?;
    let mut tail = Tail {
        dir: dir.to_owned(),
        nonce,
        segment_bytes,
        held,
        groups: scan.groups,
        ended: scan.ended,
        end: tear,
        synced: tear,
        marked: scan.vouched,
        content: scan.content,
        opening: scan.opening,
        backlog: Backlog::default(),
        unsynced: Vec::new(),
        is_dir_dirty: false,
        spares: Vec::new(),
        segments_created: 0,
        segments_recycled: 0,
    };
    if tail.held.is_empty() {
        begin_first(disk, &mut tail)?;
    }
    // Before anything can be acknowledged: else the clean stop before it would vouch for a tail that was lost.
    tail.open(opening, may_miss_end)?;
    tail.backlog.write(disk)?;
    for segment in std::mem::take(&mut tail.unsynced).iter().chain([tail.active()]) {
        segment.file()?.sync_data().map_err(WalError::io("sync", &segment.path))?;
    }
    tail.is_dir_dirty = false;
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    tail.synced = tail.end;
    if has_failed {
        // Not before the replicas are known to be short.
        disk.remove_file(&failed).map_err(WalError::io("delete", &failed))?;
        disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    }
    if may_miss_end {
        let groups = tail.groups.len();
        tracing::warn!(
            groups,
            "the machine lost power or was reset, or its disk failed: the last second of the log may be missing, so its replicas are short"
        );
    }
    Ok(Recovered { tail, is_clean, opened_before: scan.opening.map(|it| it.session) })
}

/// A log that was read back.
pub(super) struct Recovered {
    pub(super) tail: Tail,
    /// It was closed in order.
    pub(super) is_clean: bool,
    /// The start that opened it last.
    pub(super) opened_before: Option<Session>,
}

/// Leaves a note of a disk that failed while the log was read back: what the log ended with may be gone by the next time,
/// and nobody would be told again.
pub(super) fn note_failed_opening(disk: &dyn Disk, dir: &Path, error: &WalError) {
    if error.may_drop_what_was_written() && disk.exists(&dir.join(FORMAT_FILE)) {
        let noted = write_durably(disk, &dir.join(FAILED_FILE), error.to_string().as_bytes());
        if let Err(error) = noted {
            tracing::error!(%error, "cannot note that the log could not be opened");
        }
    }
}

/// The nonce of the log; the `new` one when the log is new.
fn read_or_create_format(
    disk: &dyn Disk,
    dir: &Path,
    new: Option<u64>,
    incarnation: Incarnation,
) -> Result<u64, WalError> {
    let path = dir.join(FORMAT_FILE);
    match (read_format(disk, &path)?, new) {
        (Some((nonce, found)), _) if found == incarnation => Ok(nonce),
        (Some((_, found)), _) => {
            let path = dir.to_owned();
            Err(WalError::OtherIncarnation { path, found, expected: incarnation })
        }
        (None, Some(nonce)) => {
            write_durably(disk, &path, &encode_format(nonce, incarnation))
                .map_err(WalError::io("write", &path))?;
            Ok(nonce)
        }
        (None, None) => {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            Err(WalError::Io { action: "read", path, source })
        }
    }
}

fn read_format(disk: &dyn Disk, path: &Path) -> Result<Option<(u64, Incarnation)>, WalError> {
    let bytes = match disk::read(disk, path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(WalError::Io { action: "read", path: path.to_owned(), source }),
    };
    match decode_format(&bytes) {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => Err(WalError::corrupt(path, 0, "not a format file")),
        Err(found) => {
            Err(WalError::Version { path: path.to_owned(), found, known: FORMAT_VERSION })
        }
    }
}

/// What lies where a log belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// No log: its format file or every segment is missing.
    Absent,
    /// A log that was made and never opened: it holds nothing.
    Empty(Incarnation),
    /// A log, whose content nobody has looked at.
    Used(Incarnation),
}

/// Looks whether there is a log in `dir`, and whose.
pub(super) fn presence(disk: &dyn Disk, dir: &Path) -> Result<Presence, WalError> {
    let Some((_, incarnation)) = read_format(disk, &dir.join(FORMAT_FILE))? else {
        return Ok(Presence::Absent);
    };
    let (sequences, _) = list(disk, dir)?;
    let [first, rest @ ..] = sequences.as_slice() else { return Ok(Presence::Absent) };
    let path = segment_path(dir, *first);
    let bytes = disk.stat(&path).map_err(WalError::io("look at", &path))?.bytes;
    // Opening a log reserves its segment's full size.
    let is_empty = rest.is_empty() && bytes <= SEGMENT_HEAD_BYTES as u64;
    Ok(if is_empty { Presence::Empty(incarnation) } else { Presence::Used(incarnation) })
}

/// Makes an empty log in `dir`, which holds none, durably: its format file and a first segment that is only a header.
/// From then on a log without them has lost them.
pub(super) fn make(
    disk: &dyn Disk,
    dir: &Path,
    incarnation: Incarnation,
    nonce: u64,
) -> Result<(), WalError> {
    let nonce = read_or_create_format(disk, dir, Some(nonce), incarnation)?;
    let (salt, path) = (Salt::new(nonce, FIRST_SEQUENCE), segment_path(dir, FIRST_SEQUENCE));
    let bytes = SEGMENT_HEAD_BYTES as u64;
    let segment = Segment::open(disk, &path, (FIRST_SEQUENCE, salt), bytes)?;
    let header = encode_segment_head(salt, FIRST_SEQUENCE, 0);
    segment.file()?.write_all_at(&header, 0).map_err(WalError::io("write", &path))?;
    segment.file()?.sync_data().map_err(WalError::io("sync", &path))?;
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))
}

fn check_consecutive(dir: &Path, sequences: &[u64]) -> Result<(), WalError> {
    for pair in sequences.windows(2) {
        if pair[0].checked_add(1) != Some(pair[1]) {
            let what = format!("no segment between {:016x} and {:016x}", pair[0], pair[1]);
            return Err(WalError::Hole { path: dir.to_owned(), what });
        }
    }
    match sequences.last() {
        Some(&u64::MAX) => {
            let what = "segment numbers have run out".to_owned();
            Err(WalError::Hole { path: dir.to_owned(), what })
        }
        Some(_) | None => Ok(()),
    }
}

fn open(disk: &dyn Disk, dir: &Path, nonce: u64, sequence: u64) -> Result<Arc<Segment>, WalError> {
    let path = segment_path(dir, sequence);
    let bytes = disk.stat(&path).map_err(WalError::io("look at", &path))?.bytes;
    Ok(Arc::new(Segment::open(disk, &path, (sequence, Salt::new(nonce, sequence)), bytes)?))
}

/// A log being read.
struct Scan<'a> {
    dir: &'a Path,
    nonce: u64,
    groups: BTreeMap<GroupId, Group>,
    ended: BTreeMap<GroupId, RaftId>,
    segments: Vec<Arc<Segment>>,
    /// Kind of the last record read.
    last: Option<Kind>,
    /// The last opening read.
    opening: Option<Opening>,
    /// The furthest that the marks read vouch for.
    vouched: Position,
    /// Where the last record read that is no mark ends.
    content: Position,
}

impl Scan<'_> {
    /// Replays every record up to the tear, and makes sure that nothing promised lies behind it.
    fn read_until_tear(&mut self) -> Result<Position, WalError> {
        for number in 0..self.segments.len() {
            let segment = Arc::clone(&self.segments[number]);
            let end_said = match self.segments.get(number + 1) {
                Some(next) => previous_end_in(next)?,
                None => None,
            };
            let end = self.read_segment(&segment, end_said)?;
            if end_said != Some(end) {
                let tear = Position { segment: segment.sequence, offset: end };
                self.check_tear(tear, number)?;
                return Ok(tear);
            }
        }
        Ok(Position::default())
    }

    /// Replays the records of one segment and returns where they end.
    fn read_segment(
        &mut self,
        segment: &Arc<Segment>,
        end_said: Option<u64>,
    ) -> Result<u64, WalError> {
        if previous_end_in(segment)?.is_none() {
            return Ok(0);
        }
        let mut window = Window::open(Arc::clone(segment))?;
        let mut offset = SEGMENT_HEAD_BYTES as u64;
        while end_said.is_none_or(|end| offset < end) {
            let Some((head, payload)) = window.record(offset)? else { break };
            self.last = Some(head.kind);
            let position = Position { segment: segment.sequence, offset };
            let damaged = |what| WalError::corrupt(&segment.path, offset, what);
            match head.kind {
                Kind::SyncMark | Kind::CleanStop => {
                    let vouched = decode_vouched(head, payload, self.nonce);
                    let vouched = vouched.filter(|vouched| *vouched <= position);
                    let vouched = vouched.ok_or_else(|| damaged("a mark of another log"))?;
                    self.vouched = self.vouched.max(vouched);
                }
                Kind::Open => {
                    let opening = Opening::decode(head.index, payload);
                    self.opening =
                        Some(opening.ok_or_else(|| damaged("not an opening of the log"))?);
                }
                Kind::Entry
                | Kind::Truncate
                | Kind::Purge
                | Kind::Vote
                | Kind::Born
                | Kind::Ended
                | Kind::Short
                | Kind::Whole => {
                    let known = (&mut self.groups, &mut self.ended);
                    replay(known, head, payload, position).map_err(damaged)?;
                }
            }
            offset += head.record_bytes() as u64;
            if !matches!(head.kind, Kind::SyncMark | Kind::CleanStop) {
                self.content = Position { segment: segment.sequence, offset };
            }
        }
        Ok(offset)
    }

    /// Refuses when a sync mark behind `tear` says that bytes beyond it were on the disk.
    fn check_tear(&self, tear: Position, number: usize) -> Result<(), WalError> {
        for (later, segment) in self.segments[number..].iter().enumerate() {
            let from = if later == 0 { tear.offset } else { 0 };
            if highest_mark(segment, from, self.nonce)?.is_some_and(|vouched| vouched > tear) {
                let path = &self.segments[number].path;
                return Err(WalError::corrupt(path, tear.offset, "a synced record is not intact"));
            }
        }
        Ok(())
    }

    fn check_whole(&self) -> Result<(), WalError> {
        for (id, group) in &self.groups {
            if !group.is_whole() {
                let what = format!("the entries of {id} begin at {} only", group.first);
                return Err(WalError::Hole { path: self.dir.to_owned(), what });
            }
        }
        Ok(())
    }
}

/// Where the segment before this one ended, as its header says; `None` without a valid header.
fn previous_end_in(segment: &Arc<Segment>) -> Result<Option<u64>, WalError> {
    let mut window = Window::open(Arc::clone(segment))?;
    let Some(bytes) = window.bytes(0, SEGMENT_HEAD_BYTES)? else { return Ok(None) };
    decode_segment_head(bytes, segment.salt, segment.sequence).map_err(|found| WalError::Version {
        path: segment.path.clone(),
        found,
        known: FORMAT_VERSION,
    })
}

/// Does to the record's group what it did when it was written.
fn replay(
    (groups, ended): (&mut BTreeMap<GroupId, Group>, &mut BTreeMap<GroupId, RaftId>),
    head: Head,
    payload: &[u8],
    position: Position,
) -> Result<(), &'static str> {
    let id = RaftId(head.index);
    let Some(group) = groups.get_mut(&head.group) else {
        match head.kind {
            Kind::Born => drop(groups.insert(head.group, Group::born(id))),
            // A segment's opening repeats it.
            Kind::Ended => drop(ended.insert(head.group, id)),
            Kind::Entry
            | Kind::Truncate
            | Kind::Purge
            | Kind::Vote
            | Kind::SyncMark
            | Kind::CleanStop
            | Kind::Open
            | Kind::Short
            | Kind::Whole => return Err("a record of a group that was never born"),
        }
        return Ok(());
    };
    match head.kind {
        Kind::Entry => {
            // The first entries of the oldest segment may follow ones that are gone; `is_whole` judges
            // that at the end, when all purges are known.
            let is_empty = group.first == group.next;
            let is_purged = group.purged.as_ref().is_some_and(|(upto, _)| head.index <= *upto);
            if is_purged || head.index == u64::MAX || !(is_empty || head.index == group.next) {
                return Err("an entry's index does not follow");
            }
            group.note_entry(head.index, position, head.record_bytes() as u64);
        }
        Kind::Truncate => group.note_truncate(head.index),
        Kind::Purge => {
            group.note_purge(head.index, Bytes::copy_from_slice(payload));
        }
        Kind::Vote => group.vote = Some(Bytes::copy_from_slice(payload)),
        // A segment's opening repeats it.
        Kind::Born if group.raft_id == id => {}
        Kind::Born => return Err("a group is born twice"),
        Kind::Ended if group.raft_id == id => {
            groups.remove(&head.group);
            ended.insert(head.group, id);
        }
        Kind::Ended => return Err("another replica ends than lives"),
        Kind::Short => group.is_short = !is_planted(Bug::ShortForgotten),
        Kind::Whole => group.is_short = false,
        // The whole log's, not a group's.
        Kind::SyncMark | Kind::CleanStop | Kind::Open => {}
    }
    Ok(())
}

/// The furthest position that a sync mark at or behind `from` vouches for.
fn highest_mark(
    segment: &Arc<Segment>,
    from: u64,
    nonce: u64,
) -> Result<Option<Position>, WalError> {
    let mut window = Window::open(Arc::clone(segment))?;
    let mut highest = None;
    let mut offset = from;
    while offset < window.file_bytes() {
        // Most of a segment's unused room is zeros; no mark begins with eight of them.
        if offset.is_multiple_of(PAGE.len() as u64)
            && window.bytes(offset, PAGE.len())?.is_some_and(|page| page == PAGE)
        {
            offset += PAGE.len() as u64;
            continue;
        }
        let Some(bytes) = window.bytes(offset, MARK_BYTES)? else { break };
        highest = highest.max(decode_mark(bytes, segment.salt, nonce));
        offset += ALIGNMENT as u64;
    }
    Ok(highest)
}

/// Removes everything behind `tear` and makes the rest durable.
fn cut(
    disk: &dyn Disk,
    dir: &Path,
    scan: &Scan<'_>,
    tear: Position,
    segment_bytes: u64,
) -> Result<VecDeque<Held>, WalError> {
    let (mut kept, lost): (Vec<_>, Vec<_>) =
        scan.segments.iter().cloned().partition(|segment| segment.sequence <= tear.segment);
    // Backwards, so that a crash in between leaves no hole in the sequence.
    for segment in lost.iter().rev() {
        tracing::warn!(path = %segment.path.display(), "dropping a segment behind the torn tail");
        disk.remove_file(&segment.path).map_err(WalError::io("delete", &segment.path))?;
    }
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    let Some(torn) = kept.pop() else { return Ok(VecDeque::new()) };
    if tear.offset == 0 {
        // A log that was never begun. Only its first segment may be without a header: a later one is
        // the oldest only because those before it were deleted, and that waits until it is synced.
        if torn.sequence != FIRST_SEQUENCE {
            return Err(WalError::corrupt(&torn.path, 0, "the oldest segment has no header"));
        }
        disk.remove_file(&torn.path).map_err(WalError::io("delete", &torn.path))?;
        return Ok(VecDeque::new());
    }
    let mut held = VecDeque::new();
    for (number, segment) in kept.iter().enumerate() {
        let next = kept.get(number + 1).unwrap_or(&torn);
        let end = previous_end_in(next)?.unwrap_or_default();
        rewrite(segment, scan.vouched, end)?;
        segment.file()?.sync_data().map_err(WalError::io("sync", &segment.path))?;
        held.push_back(Held { segment: Arc::clone(segment), end });
    }
    rewrite(&torn, scan.vouched, tear.offset)?;
    held.push_back(Held { segment: shorten(disk, &torn, tear.offset, segment_bytes)?, end: 0 });
    Ok(held)
}

/// Writes the bytes of `segment` from `vouched` to `end` once more, so that the next sync cannot but put them on the disk.
///
/// What is read here is what was just replayed, or the checksums would not have matched: a page that the kernel has
/// dropped since would read as what the disk holds, and the log would have ended there.
fn rewrite(segment: &Arc<Segment>, vouched: Position, end: u64) -> Result<(), WalError> {
    if is_planted(Bug::NoRewrite) {
        return Ok(());
    }
    let mut offset = match segment.sequence.cmp(&vouched.segment) {
        std::cmp::Ordering::Less => return Ok(()),
        std::cmp::Ordering::Equal => vouched.offset,
        std::cmp::Ordering::Greater => 0,
    };
    let mut window = Window::open(Arc::clone(segment))?;
    while offset < end {
        let length = usize::try_from(end - offset).map_or(WINDOW_BYTES, |it| it.min(WINDOW_BYTES));
        let bytes = window.bytes(offset, length)?;
        let bytes = bytes.ok_or_else(|| WalError::corrupt(&segment.path, offset, "cut short"))?;
        segment
            .file()?
            .write_all_at(bytes, offset)
            .map_err(WalError::io("write", &segment.path))?;
        offset += length as u64;
    }
    Ok(())
}

/// Leaves zeros behind `end` in the last segment and reserves its full size again.
fn shorten(
    disk: &dyn Disk,
    torn: &Arc<Segment>,
    end: u64,
    segment_bytes: u64,
) -> Result<Arc<Segment>, WalError> {
    let path = &torn.path;
    let bytes = segment_bytes.max(end);
    let segment = Segment::open(disk, path, (torn.sequence, torn.salt), bytes)?;
    segment.file()?.set_bytes(end).map_err(WalError::io("shorten", path))?;
    segment.file()?.sync_all().map_err(WalError::io("sync", path))?;
    segment.file()?.allocate(bytes).map_err(WalError::io("reserve room for", path))?;
    segment.file()?.sync_data().map_err(WalError::io("sync", path))?;
    Ok(Arc::new(segment))
}

/// Begins the first segment of a new log and makes it durable.
fn begin_first(disk: &dyn Disk, tail: &mut Tail) -> Result<(), WalError> {
    let segment = Arc::new(tail.create(FIRST_SEQUENCE, tail.segment_bytes));
    tail.begin(segment, 0);
    tail.backlog.write(disk)?;
    let active = tail.active();
    active.file()?.sync_data().map_err(WalError::io("sync", &active.path))?;
    tail.synced = tail.end;
    Ok(())
}

/// Deletes the spare files that an earlier opening left.
///
/// One may hold records of a future that was lost: it had become a segment, and the power cut kept its bytes but not its new
/// name. Made the segment of that number again, it would bring them back to life wherever its new bytes are lost in turn.
fn remove_spares(disk: &dyn Disk, spares: &[PathBuf]) -> Result<(), WalError> {
    for path in spares {
        disk.remove_file(path).map_err(WalError::io("delete", path))?;
    }
    Ok(())
}
