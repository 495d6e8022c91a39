//! What nodes say to one another about a shard: packets there, replies or a better address back.
//!
//! SUBMIT is a packet as in a log entry; READ are the commands of one alone. Both mark where submissions begin, and the
//! replies where they end. The answer is `tag u8`: 0 the replies (`room u64 | replies`; the room is the memory that the
//! replicas have left, in bytes), 1 not the leader (`node u64`, 0 when unknown; nothing was appended), 2 the
//! outcome is unknown (ask again under the same sequence), 3 this try did nothing and no later one ever will,
//! 4 this packet is none that the leader lets into the log,
//! 5 nothing was done, for want of memory (`room u64`), 6 these reads were not run, because what is large is at work.

use std::time::Duration;

use bytes::Bytes;

use super::proposal::{self, MalformedProposal, PACKET_HEADER_BYTES, Packet};
use super::reply::Replies;
use crate::ids::{GroupId, NodeId};
use crate::stdx::codec::{self, Sink};
use crate::transport::{Body, Call, LONG_BYTES_MIN, PeerClient, Responder};

pub(super) use crate::transport::kinds::shard as kind;

// What a rope lends, a message lends on.
const _: () = assert!(LONG_BYTES_MIN <= crate::stdx::rope::LENT_BYTES_MIN);

const TAG_APPLIED: u8 = 0;
const TAG_NOT_LEADER: u8 = 1;
const TAG_UNKNOWN: u8 = 2;
const TAG_STALE: u8 = 3;
const TAG_REFUSED: u8 = 4;
const TAG_FULL: u8 = 5;
const TAG_BUSY: u8 = 6;

/// The answer to a submission or to reads.
#[derive(Debug)]
pub(super) enum Answer {
    /// Here are the replies, and the room that is left.
    Applied(u64, Replies),
    /// Nothing happened; try the node named, if any.
    NotLeader(Option<NodeId>),
    /// It may have been appended.
    Unknown,
    /// Its session has ended: this try was not applied, and none will be from now on.
    Stale,
    /// The leader cannot apply it, and has not tried.
    Refused,
    /// It may need more memory than the replicas have left, which is so much. Nothing happened.
    Full(u64),
    /// These reads were given up: others of great weight, or an entry, or they themselves take too long.
    Busy,
}

/// Sends `packet` to the leader: a short one is copied into the queue, a long one lent to it.
pub(super) fn submit(
    peer: &PeerClient,
    group: GroupId,
    packet: &Packet,
    timeout: Duration,
) -> Call {
    if packet.body.len() < LONG_BYTES_MIN {
        return peer.call_with(group, kind::SUBMIT, timeout, |out| put_packet(packet, out));
    }
    let mut body = Body::new();
    put_packet(packet, &mut body);
    peer.call(group, kind::SUBMIT, body, timeout)
}

fn put_packet(packet: &Packet, out: &mut impl Sink) {
    let mut header = [0; PACKET_HEADER_BYTES];
    proposal::put_packet_header(packet, &mut header);
    out.put(&header);
    out.put_shared(&packet.body);
}

pub(super) fn take_packet(mut body: Bytes) -> Result<Packet, MalformedProposal> {
    let packet = proposal::take_packet(&mut body)?;
    if body.is_empty() { Ok(packet) } else { Err(MalformedProposal("trailing bytes")) }
}

/// Answers with `replies`: short ones are copied into the queue, what is lent to long ones is lent to it.
pub(super) fn send_applied(responder: Responder, room: u64, replies: &Replies) {
    if replies.bytes.len() < LONG_BYTES_MIN {
        return responder.send_with(|out| put_applied(room, replies, out));
    }
    let mut body = Body::new();
    put_applied(room, replies, &mut body);
    responder.send(body);
}

fn put_applied(room: u64, replies: &Replies, out: &mut impl Sink) {
    out.put(&[TAG_APPLIED]);
    codec::put_u64(out, room);
    replies.encode(out);
}

pub(super) fn put_full(room: u64, out: &mut Vec<u8>) {
    out.push(TAG_FULL);
    codec::put_u64(out, room);
}

pub(super) fn put_not_leader(leader: Option<NodeId>, out: &mut Vec<u8>) {
    out.push(TAG_NOT_LEADER);
    codec::put_u64(out, leader.map_or(0, |node| node.0));
}

pub(super) fn put_unknown(out: &mut Vec<u8>) {
    out.push(TAG_UNKNOWN);
}

pub(super) fn put_stale(out: &mut Vec<u8>) {
    out.push(TAG_STALE);
}

pub(super) fn put_refused(out: &mut Vec<u8>) {
    out.push(TAG_REFUSED);
}

pub(super) fn put_busy(out: &mut Vec<u8>) {
    out.push(TAG_BUSY);
}

/// The answer in `message`, which lends what is long of it; `None` when it is malformed.
pub(super) fn take_answer(message: &Bytes) -> Option<Answer> {
    let mut body = &message[..];
    match codec::take_u8(&mut body).ok()? {
        TAG_APPLIED => {
            let room = codec::take_u64(&mut body).ok()?;
            Some(Answer::Applied(room, Replies::decode(&message.slice_ref(body))?))
        }
        TAG_NOT_LEADER => match codec::take_u64(&mut body).ok()? {
            0 => Some(Answer::NotLeader(None)),
            node => Some(Answer::NotLeader(Some(NodeId(node)))),
        },
        TAG_UNKNOWN => Some(Answer::Unknown),
        TAG_STALE => Some(Answer::Stale),
        TAG_REFUSED => Some(Answer::Refused),
        TAG_FULL => Some(Answer::Full(codec::take_u64(&mut body).ok()?)),
        TAG_BUSY => Some(Answer::Busy),
        _ => None,
    }
}
