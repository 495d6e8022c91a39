//! Reading entries back from the segments, closed ones and the one being written alike.
//!
//! Under the log's lock it is only decided what has to be looked at; the disk is read without it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::GroupId;

use super::error::WalError;
use super::record::{Kind, RECORD_HEAD_BYTES};
use super::segment::{Segment, Window};
use super::shared::{Shared, Worker};

/// Reads the entries of `group` in `range`: [`Wal::read`](super::Wal::read).
pub(super) fn read(
    shared: &Shared,
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<(u64, Bytes)>, Arc<WalError>> {
    let stretches = plan(shared, group, range, bytes_max)?;
    // What a failed log cannot read was never written, rather than damaged.
    let entries = read_stretches(group, &stretches, bytes_max);
    entries.map_err(|error| shared.failure.get().cloned().unwrap_or_else(|| Arc::new(error)))
}

/// A stretch of one segment to read, and which of the group's entries to take from it.
#[derive(Debug)]
struct Stretch {
    segment: Arc<Segment>,
    offset: u64,
    first: u64,
    wanted: Range<u64>,
}

/// Decides under the lock what a read has to look at, and waits until that is in the files.
fn plan(
    shared: &Shared,
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<Stretch>, Arc<WalError>> {
    let mut state = shared.state.lock();
    let Some(known) = state.tail.groups.get(&group) else { return Ok(Vec::new()) };
    let wanted = range.start..range.end.min(known.next);
    if wanted.start < known.first && !range.is_empty() {
        let (index, first) = (range.start, known.first);
        return Err(Arc::new(WalError::NotInLog { group, index, first }));
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut stretches = Vec::new();
    // Bytes before the second run: from there on, runs are taken whole and can be added up.
    let mut bytes_skipped = 0;
    for (run, end) in known.runs_of(wanted.start, wanted.end) {
        let Some(segment) = state.tail.segment(run.position.segment) else { continue };
        stretches.push(Stretch {
            segment: Arc::clone(segment),
            offset: run.position.offset,
            first: run.index,
            wanted: wanted.start.max(run.index)..wanted.end.min(end),
        });
        match stretches.len() {
            1 => {}
            2 => bytes_skipped = run.bytes_before,
            _ if run.bytes_before.saturating_sub(bytes_skipped) > bytes_max as u64 => break,
            _ => {}
        }
    }
    let end = known.end;
    if shared.worker == Worker::Steps && state.written < end {
        // Nobody else would, while the caller waits here.
        shared.write_out(&mut state)?;
    }
    while state.written < end && shared.failure.get().is_none() {
        shared.written.wait(&mut state);
    }
    Ok(stretches)
}

/// Reads the entries of `group` that `stretches` want, in order, until `bytes_max` is passed.
fn read_stretches(
    group: GroupId,
    stretches: &[Stretch],
    bytes_max: usize,
) -> Result<Vec<(u64, Bytes)>, WalError> {
    let mut entries = Vec::new();
    let mut bytes = 0usize;
    for stretch in stretches {
        let mut window = Window::open(Arc::clone(&stretch.segment))?;
        let mut offset = stretch.offset;
        let mut next = stretch.first;
        while next < stretch.wanted.end {
            let damaged = |what| WalError::corrupt(&stretch.segment.path, offset, what);
            let Some(head) = window.head(offset)? else { return Err(damaged("no record")) };
            let start = offset;
            offset += head.record_bytes() as u64;
            if head.kind != Kind::Entry || head.group != group {
                continue;
            }
            if head.index != next {
                return Err(WalError::corrupt(
                    &stretch.segment.path,
                    start,
                    "not the entry sought",
                ));
            }
            next += 1;
            if head.index < stretch.wanted.start {
                continue;
            }
            if !entries.is_empty() && bytes.saturating_add(head.payload_bytes) > bytes_max {
                return Ok(entries);
            }
            let record = window.record(start)?;
            let Some((_, payload)) = record else {
                return Err(WalError::corrupt(&stretch.segment.path, start, "not intact"));
            };
            bytes = bytes.saturating_add(head.payload_bytes + RECORD_HEAD_BYTES);
            entries.push((head.index, Bytes::copy_from_slice(payload)));
        }
    }
    Ok(entries)
}
