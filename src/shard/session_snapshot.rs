//! The session table as a stream of bytes in a snapshot: written a budget at a time, read as its chunks come.
//!
//! ```text
//! table      sessions u32, then each session:                                   little endian
//!            incarnation u128 | session number u64, random u64 | floor u64 | heard u64 (Unix ms) |
//!            closed u8: 0 not, 1 up to number u64 at u64 (Unix ms) | packets u32, then each packet:
//!            sequence u64 | ends u32 | ends × u32 | submissions u32 | submissions × u32 | length u64 | bytes
//! ```
//! Replies may be as large as the keyspace allows, so neither side holds them twice: the writer shares them with the table,
//! the reader moves each piece to its place.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::reply::Replies;
use super::session::{Closed, Known, SessionTable};
use crate::ids::{Incarnation, Session};
use crate::stdx::clock::UnixMillis;
use crate::stdx::codec;
use crate::stdx::rope::Rope;

/// What is left to write of a table as it was when this was made, however the table changes meanwhile.
#[derive(Debug)]
pub(super) struct TableWriter(VecDeque<Part>);

#[derive(Debug)]
enum Part {
    /// Heads of sessions and packets, gathered.
    Bytes { bytes: Vec<u8>, written: usize },
    /// The ends of a packet's replies, and the replies.
    /// How many ends of replies and submissions are written, until all are and the length as well.
    Replies { replies: Arc<Replies>, ends: Option<usize>, written: usize },
}

impl TableWriter {
    /// Everything in `table`, behind `head`. Copies no reply.
    pub(super) fn new(head: Vec<u8>, table: &SessionTable) -> Self {
        let mut parts = VecDeque::new();
        let mut bytes = head;
        codec::put_length_u32(&mut bytes, table.sessions().len());
        for (incarnation, session) in table.sessions() {
            put_session(*incarnation, session, &mut bytes);
            for (sequence, replies) in &session.replies {
                codec::put_u64(&mut bytes, *sequence);
                codec::put_length_u32(&mut bytes, replies.ends.len());
                parts.push_back(Part::Bytes { bytes: std::mem::take(&mut bytes), written: 0 });
                let replies = Arc::clone(replies);
                parts.push_back(Part::Replies { replies, ends: Some(0), written: 0 });
            }
        }
        parts.push_back(Part::Bytes { bytes, written: 0 });
        Self(parts)
    }

    /// Appends about `budget` bytes to `out`.
    pub(super) fn write(&mut self, budget: usize, out: &mut Vec<u8>) {
        let full = out.len() + budget.max(1);
        while out.len() < full
            && let Some(part) = self.0.front_mut()
        {
            if part.write(full - out.len(), out) {
                self.0.pop_front();
            }
        }
    }

    /// Whether all is written.
    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

impl Part {
    /// Writes at most about `budget` bytes; whether that was the last of it.
    fn write(&mut self, budget: usize, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Bytes { bytes, written } => write_some(bytes, written, budget, out),
            Self::Replies { replies, ends, written } => {
                let Some(before) = *ends else {
                    let whole = replies.bytes.len();
                    let upto = whole.min(written.saturating_add(budget));
                    replies.bytes.put_to(*written..upto, out);
                    *written = upto;
                    return upto == whole;
                };
                let (first, second) = (&replies.ends[..], replies.submission_ends());
                let upto = (first.len() + second.len()).min(before + budget.div_ceil(4));
                for at in before..upto {
                    if at == first.len() {
                        codec::put_length_u32(out, second.len());
                    }
                    let end = first.get(at).unwrap_or_else(|| &second[at - first.len()]);
                    codec::put_u32(out, *end);
                }
                *ends = Some(upto);
                if upto == first.len() + second.len() {
                    if second.is_empty() {
                        codec::put_u32(out, 0);
                    }
                    codec::put_u64(out, replies.bytes.len() as u64);
                    *ends = None;
                }
                false
            }
        }
    }
}

/// Writes at most `budget` of the bytes that are not `written`; whether that was the last of them.
fn write_some(bytes: &[u8], written: &mut usize, budget: usize, out: &mut Vec<u8>) -> bool {
    let rest = &bytes[*written..];
    let now = &rest[..rest.len().min(budget)];
    out.extend_from_slice(now);
    *written += now.len();
    *written == bytes.len()
}

fn put_session(incarnation: Incarnation, session: &Known, out: &mut Vec<u8>) {
    codec::put_u128(out, incarnation.0);
    let Session { number, random } = session.session;
    for number in [number, random, session.floor, session.heard.0] {
        codec::put_u64(out, number);
    }
    match session.closed {
        None => out.push(0),
        Some(Closed { upto, at }) => {
            out.push(1);
            codec::put_u64(out, upto);
            codec::put_u64(out, at.0);
        }
    }
    codec::put_length_u32(out, session.replies.len());
}

/// The bytes of a snapshot, read from the chunks they come in.
pub(super) struct Stream<'a> {
    chunks: &'a mut dyn Iterator<Item = io::Result<Bytes>>,
    rest: Bytes,
}

impl<'a> Stream<'a> {
    pub(super) fn new(chunks: &'a mut dyn Iterator<Item = io::Result<Bytes>>) -> Self {
        Self { chunks, rest: Bytes::new() }
    }

    /// What the last read has left of its chunk, and the chunks after it.
    pub(super) fn into_rest(self) -> (Bytes, &'a mut dyn Iterator<Item = io::Result<Bytes>>) {
        (self.rest, self.chunks)
    }

    /// The next bytes that are there, `limit` at most and at least one.
    fn take_some(&mut self, limit: usize) -> io::Result<Bytes> {
        while self.rest.is_empty() {
            self.rest = self.chunks.next().ok_or_else(|| malformed("ends in its head"))??;
        }
        Ok(self.rest.split_to(limit.min(self.rest.len())))
    }

    pub(super) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            let some = self.take_some(N - filled)?;
            bytes[filled..filled + some.len()].copy_from_slice(&some);
            filled += some.len();
        }
        Ok(bytes)
    }

    pub(super) fn take_u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn take_u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The table at this place.
    pub(super) fn take_table(&mut self) -> io::Result<SessionTable> {
        let mut table = SessionTable::default();
        for _ in 0..self.take_u32()? {
            let incarnation = Incarnation(u128::from_le_bytes(self.take()?));
            table.restore(incarnation, self.take_session()?);
        }
        Ok(table)
    }

    fn take_session(&mut self) -> io::Result<Known> {
        let session = Session { number: self.take_u64()?, random: self.take_u64()? };
        let (floor, heard) = (self.take_u64()?, UnixMillis(self.take_u64()?));
        let closed = match self.take()? {
            [0] => None,
            [1] => Some(Closed { upto: self.take_u64()?, at: UnixMillis(self.take_u64()?) }),
            [_] => return Err(malformed("has a session that is neither open nor closed")),
        };
        let mut replies = VecDeque::new();
        for _ in 0..self.take_u32()? {
            replies.push_back((self.take_u64()?, Arc::new(self.take_replies()?)));
        }
        Ok(Known { session, floor, heard, closed, replies })
    }

    fn take_replies(&mut self) -> io::Result<Replies> {
        let (ends, submissions) = (self.take_numbers()?, self.take_numbers()?);
        let mut left = self.take_u64()?;
        let mut bytes = Vec::new();
        while left > 0 {
            let some = self.take_some(usize::try_from(left).unwrap_or(usize::MAX))?;
            left -= some.len() as u64;
            bytes.extend_from_slice(&some);
        }
        let replies = Replies::from_parts(Rope::from(bytes), ends, &submissions);
        replies.ok_or_else(|| malformed("has replies that do not fit together"))
    }

    /// Room is made for what has come, never for what is promised.
    fn take_numbers(&mut self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for _ in 0..self.take_u32()? {
            numbers.push(self.take_u32()?);
        }
        Ok(numbers)
    }
}

/// Says that the stream of a snapshot `does` what it must not.
pub(super) fn malformed(does: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot {does}"))
}

#[cfg(test)]
mod tests {
    use super::super::proposal::PacketId;
    use super::super::session::Admission;
    use super::*;
    use crate::stdx::codec::Sink as _;

    fn id(incarnation: u128, sequence: u64) -> PacketId {
        let session = Session { number: 3, random: 7 };
        PacketId { incarnation: Incarnation(incarnation), session, sequence }
    }

    /// Sessions of every kind.
    fn table() -> SessionTable {
        let mut table = SessionTable::default();
        for (incarnation, sizes) in [(1, &[3, 300_000, 0][..]), (2, &[5]), (3, &[])] {
            for (size, sequence) in sizes.iter().zip(5..) {
                table.admit(id(incarnation, sequence), 4, UnixMillis(9));
                let mut replies = Replies::default();
                for part in 0..3 {
                    // What is long is lent.
                    replies.bytes.put_shared(&Bytes::from(vec![part; size / 3]));
                    replies.end();
                    if part > 0 {
                        replies.end_submission();
                    }
                }
                table.record(id(incarnation, sequence), Arc::new(replies));
            }
        }
        table.admit(id(3, 1), 1, UnixMillis(9));
        table.record(id(3, 1), Arc::new(Replies::default()));
        table.close(Incarnation(2), 3, UnixMillis(10));
        table
    }

    fn bytes_of(table: &SessionTable, budget: usize) -> Vec<u8> {
        let (mut writer, mut out) = (TableWriter::new(b"head".to_vec(), table), Vec::new());
        while !writer.is_done() {
            let before = out.len();
            writer.write(budget, &mut out);
            assert!(out.len() > before || writer.is_done(), "it goes on");
            assert!(out.len() - before <= budget + 20, "{} at once", out.len() - before);
        }
        out
    }

    #[test]
    fn a_table_comes_back_however_it_was_written_and_cut() {
        let table = table();
        let whole = bytes_of(&table, usize::MAX / 2);
        for budget in [1, 3, 4, 7, 1000] {
            assert_eq!(bytes_of(&table, budget), whole, "{budget}");
        }
        for length in [1, 5, 4096, whole.len()] {
            let mut chunks = whole.chunks(length).map(|piece| Ok(Bytes::copy_from_slice(piece)));
            let mut stream = Stream::new(&mut chunks);
            assert_eq!(&stream.take::<4>().unwrap(), b"head");
            let mut back = stream.take_table().unwrap();
            assert!(stream.into_rest().0.is_empty());
            assert_eq!(bytes_of(&back, 1000), whole, "{length}");
            assert_eq!(back.size(), table.size());
            let again = back.admit(id(1, 6), 4, UnixMillis(11));
            assert!(
                matches!(again, Admission::Duplicate(replies) if replies.submissions() == (0..2))
            );
            assert!(matches!(back.admit(id(2, 6), 4, UnixMillis(11)), Admission::Stale));
        }
    }

    #[test]
    fn a_table_that_is_cut_short_is_an_error() {
        let whole = bytes_of(&table(), 1000);
        for length in (4..300).chain(whole.len() - 300..whole.len()) {
            let mut chunks = std::iter::once(Ok(Bytes::copy_from_slice(&whole[4..length])));
            assert!(Stream::new(&mut chunks).take_table().is_err(), "{length}");
        }
    }

    #[test]
    fn a_snapshot_that_has_begun_is_not_moved_by_what_follows() {
        let mut table = table();
        let before = bytes_of(&table, 1000);
        let (mut writer, mut out) = (TableWriter::new(b"head".to_vec(), &table), Vec::new());
        writer.write(100, &mut out);
        table.admit(id(1, 90), 90, UnixMillis(12));
        table.close(Incarnation(1), 3, UnixMillis(12));
        while !writer.is_done() {
            writer.write(100, &mut out);
        }
        assert_eq!(out, before);
    }
}
