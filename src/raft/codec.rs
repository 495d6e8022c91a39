//! Bytes of Raft's hot messages and log entries, encoded by hand; the cold ones go through postcard.
//!
//! Log record (the WAL adds index, length and checksum): `tag u8 | term u64 | body`, where the tag is
//! 0 blank, 1 normal (body = proposal), 2 membership (body = postcard). All integers little endian.
//!
//! AppendEntries: `time u64 | vote | prev_log_id? | leader_commit? | count u32 | count × (index u64 | length u32 | record)`;
//! the time is the leader's, in µs since the Unix epoch; a vote is `term u64 | node u64 | committed
//! u8`, an optional log id is `present u8 [term u64 | index u64]`.
//! Its answer: `room u64 | tag u8`; the room is the memory that the node has left, in bytes; the tag is 0 success, 1 partial success (log id?), 2 conflict, 3 higher vote (vote).

use bytes::{Buf, Bytes};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::type_config::{Entry, LogId, Proposal, TypeConfig, Vote};
use crate::ids::RaftId;
use crate::stdx::codec::{self, CodecError, Sink};

/// Bytes that are not what a peer or this log could have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed raft message: {0}")]
pub(super) struct MalformedMessage(pub(super) &'static str);

impl From<CodecError> for MalformedMessage {
    fn from(error: CodecError) -> Self {
        Self(error.what())
    }
}

const TAG_BLANK: u8 = 0;
const TAG_NORMAL: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

/// Length of a record's head: tag and term.
pub(super) const RECORD_HEAD_BYTES: usize = 9;

/// The head of `entry`'s record.
pub(super) fn record_head(entry: &Entry) -> [u8; RECORD_HEAD_BYTES] {
    let tag = match &entry.payload {
        EntryPayload::Blank => TAG_BLANK,
        EntryPayload::Normal(_) => TAG_NORMAL,
        EntryPayload::Membership(_) => TAG_MEMBERSHIP,
    };
    let mut head = [tag; RECORD_HEAD_BYTES];
    head[1..].copy_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    head
}

/// The body of `entry`'s record. Cheap for proposals: their bytes are shared.
pub(super) fn record_body(entry: &Entry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(proposal) => proposal.0.clone(),
        EntryPayload::Membership(membership) => postcard::to_stdvec(&membership)
            .expect("a membership is plain data that postcard can always encode")
            .into(),
    }
}

/// The entry at `index` whose record is `record`.
///
/// # Errors
/// When `record` is not one that [`record_head`] and [`record_body`] make.
pub(super) fn entry_of_record(index: u64, mut record: Bytes) -> Result<Entry, MalformedMessage> {
    let fields = &mut &record[..];
    let (tag, term) = (codec::take_u8(fields)?, codec::take_u64(fields)?);
    record.advance(RECORD_HEAD_BYTES);
    let payload = match tag {
        TAG_BLANK => EntryPayload::Blank,
        TAG_NORMAL => EntryPayload::Normal(Proposal(record)),
        TAG_MEMBERSHIP => EntryPayload::Membership(
            postcard::from_bytes(&record).map_err(|_| MalformedMessage("membership"))?,
        ),
        _ => return Err(MalformedMessage("unknown record tag")),
    };
    Ok(Entry { log_id: LogId::new_term_index(term, index), payload })
}

/// Appends the bytes of `request`, sent at `time`, to `out`, which may share those of its proposals.
pub(super) fn put_append_entries(
    time: u64,
    request: &AppendEntriesRequest<TypeConfig>,
    out: &mut impl Sink,
) {
    codec::put_u64(out, time);
    put_vote(&request.vote, out);
    put_log_id(request.prev_log_id.as_ref(), out);
    put_log_id(request.leader_commit.as_ref(), out);
    codec::put_length_u32(out, request.entries.len());
    for entry in &request.entries {
        let body = record_body(entry);
        codec::put_u64(out, entry.log_id.index);
        codec::put_length_u32(out, RECORD_HEAD_BYTES + body.len());
        out.put(&record_head(entry));
        out.put_shared(&body);
    }
}

/// The AppendEntries in `body` and the time at which it was sent; its proposals share `body`'s memory.
///
/// # Errors
/// When `body` is malformed.
pub(super) fn take_append_entries(
    body: &Bytes,
) -> Result<(u64, AppendEntriesRequest<TypeConfig>), MalformedMessage> {
    let rest = &mut &body[..];
    let time = codec::take_u64(rest)?;
    let vote = take_vote(rest)?;
    let prev_log_id = take_log_id(rest)?;
    let leader_commit = take_log_id(rest)?;
    let count = codec::take_u32(rest)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let index = codec::take_u64(rest)?;
        let length = codec::take_length_u32(rest)?;
        let record = body.slice_ref(codec::take_slice(rest, length)?);
        entries.push(entry_of_record(index, record)?);
    }
    Ok((time, AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }))
}

/// Appends the bytes of `response`, of a node with so much `room`, to `out`.
pub(super) fn put_append_response(
    room: u64,
    response: &AppendEntriesResponse<TypeConfig>,
    out: &mut Vec<u8>,
) {
    codec::put_u64(out, room);
    match response {
        AppendEntriesResponse::Success => out.push(0),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            out.push(1);
            put_log_id(log_id.as_ref(), out);
        }
        AppendEntriesResponse::Conflict => out.push(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.push(3);
            put_vote(vote, out);
        }
    }
}

/// The answer in `body`, and the room of the node that gave it.
///
/// # Errors
/// When `body` is malformed.
pub(super) fn take_append_response(
    mut body: &[u8],
) -> Result<(u64, AppendEntriesResponse<TypeConfig>), MalformedMessage> {
    let room = codec::take_u64(&mut body)?;
    let response = match codec::take_u8(&mut body)? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(take_log_id(&mut body)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(take_vote(&mut body)?),
        _ => return Err(MalformedMessage("unknown answer to AppendEntries")),
    };
    Ok((room, response))
}

/// Appends `term u64 | node u64 | committed u8`.
pub(super) fn put_vote(vote: &Vote, out: &mut impl Sink) {
    let leader = vote.leader_id();
    codec::put_u64(out, leader.term);
    codec::put_u64(out, leader.voted_for.0);
    out.put(&[u8::from(vote.is_committed())]);
}

fn put_log_id(log_id: Option<&LogId>, out: &mut impl Sink) {
    let Some(log_id) = log_id else { return out.put(&[0]) };
    out.put(&[1]);
    codec::put_u64(out, log_id.leader_id.term);
    codec::put_u64(out, log_id.index);
}

pub(super) fn take_vote(body: &mut &[u8]) -> Result<Vote, MalformedMessage> {
    let term = codec::take_u64(body)?;
    let node = RaftId(codec::take_u64(body)?);
    Ok(match codec::take_u8(body)? {
        0 => Vote::new(term, node),
        1 => Vote::new_committed(term, node),
        _ => return Err(MalformedMessage("vote")),
    })
}

fn take_log_id(body: &mut &[u8]) -> Result<Option<LogId>, MalformedMessage> {
    Ok(match codec::take_u8(body)? {
        0 => None,
        1 => {
            let term = codec::take_u64(body)?;
            Some(LogId::new_term_index(term, codec::take_u64(body)?))
        }
        _ => return Err(MalformedMessage("log id")),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::Membership;

    use super::*;

    fn entries() -> Vec<Entry> {
        let voters = BTreeSet::from([RaftId(1), RaftId(2)]);
        vec![
            Entry { log_id: LogId::new_term_index(3, 7), payload: EntryPayload::Blank },
            Entry {
                log_id: LogId::new_term_index(3, 8),
                payload: EntryPayload::Normal(Proposal(Bytes::from_static(b"SET a b"))),
            },
            Entry {
                log_id: LogId::new_term_index(4, 9),
                payload: EntryPayload::Membership(Membership::new_with_defaults(
                    vec![voters],
                    BTreeSet::new(),
                )),
            },
        ]
    }

    fn request() -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(4, RaftId(9)),
            prev_log_id: Some(LogId::new_term_index(2, 6)),
            leader_commit: None,
            entries: entries(),
        }
    }

    #[test]
    fn append_entries_round_trip() {
        let mut bytes = Vec::new();
        put_append_entries(77, &request(), &mut bytes);
        let (time, back) = take_append_entries(&bytes.into()).unwrap();
        assert_eq!(time, 77);
        assert_eq!(format!("{back:?}"), format!("{:?}", request()));
        assert_eq!(back.entries, entries());
    }

    #[test]
    fn every_cut_of_append_entries_is_an_error() {
        let mut bytes = Vec::new();
        put_append_entries(77, &request(), &mut bytes);
        for length in 0..bytes.len() {
            assert!(
                take_append_entries(&Bytes::copy_from_slice(&bytes[..length])).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn answers_round_trip() {
        for response in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(LogId::new_term_index(1, 2))),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(Vote::new(7, RaftId(3))),
        ] {
            let mut bytes = Vec::new();
            put_append_response(9, &response, &mut bytes);
            assert_eq!(take_append_response(&bytes).unwrap(), (9, response));
        }
    }
}
