//! What nodes say to one another about a shard: packets there, replies or a better address back.
//!
//! SUBMIT is a packet as in a log entry; READ are the commands of one alone. Both mark where submissions begin, and the
//! replies where they end. The answer is `tag u8`: 0 the replies, 1 not the leader (`node u64`, 0 when unknown; nothing was appended), 2 the
//! outcome is unknown (ask again under the same sequence), 3 this try did nothing and no later one ever will,
//! 4 this packet is none that the leader lets into the log, 5 the replies to the first of the reads: ask again for the rest.

use bytes::{Buf, Bytes};

use super::proposal::{self, MalformedProposal, PACKET_HEADER_BYTES, Packet};
use super::reply::Replies;
use crate::ids::NodeId;

/// The messages of this room. Codes are part of the wire format: append only.
pub mod kind {
    use crate::transport::Kind;

    /// A write packet for the shard's leader.
    pub const SUBMIT: Kind = Kind(34);
    /// Reads for the shard's leader.
    pub const READ: Kind = Kind(35);
    // 32 and 33 were the same before submissions were marked.
}

const TAG_APPLIED: u8 = 0;
const TAG_NOT_LEADER: u8 = 1;
const TAG_UNKNOWN: u8 = 2;
const TAG_STALE: u8 = 3;
const TAG_REFUSED: u8 = 4;
const TAG_CUT: u8 = 5;

/// The answer to a submission or to reads.
#[derive(Debug)]
pub(super) enum Answer {
    /// Here are the replies.
    Applied(Replies),
    /// Nothing happened; try the node named, if any.
    NotLeader(Option<NodeId>),
    /// It may have been appended.
    Unknown,
    /// Its session has ended: this try was not applied, and none will be from now on.
    Stale,
    /// The leader cannot apply it, and has not tried.
    Refused,
}

pub(super) fn put_packet(packet: &Packet, out: &mut Vec<u8>) {
    let mut header = [0; PACKET_HEADER_BYTES];
    proposal::put_packet_header(packet, &mut header);
    out.extend_from_slice(&header);
    out.extend_from_slice(&packet.body);
}

pub(super) fn take_packet(mut body: Bytes) -> Result<Packet, MalformedProposal> {
    let packet = proposal::take_packet(&mut body)?;
    if body.is_empty() { Ok(packet) } else { Err(MalformedProposal("trailing bytes")) }
}

pub(super) fn put_applied(replies: &Replies, out: &mut Vec<u8>) {
    out.push(if replies.is_cut() { TAG_CUT } else { TAG_APPLIED });
    replies.encode(out);
}

pub(super) fn put_not_leader(leader: Option<NodeId>, out: &mut Vec<u8>) {
    out.push(TAG_NOT_LEADER);
    out.extend_from_slice(&leader.map_or(0, |node| node.0).to_le_bytes());
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

/// The answer in `body`; `None` when it is malformed.
pub(super) fn take_answer(mut body: Bytes) -> Option<Answer> {
    match body.try_get_u8().ok()? {
        TAG_APPLIED => Some(Answer::Applied(Replies::decode(&mut &body[..])?)),
        TAG_CUT => {
            let mut replies = Replies::decode(&mut &body[..])?;
            replies.cut();
            Some(Answer::Applied(replies))
        }
        TAG_NOT_LEADER => match body.try_get_u64_le().ok()? {
            0 => Some(Answer::NotLeader(None)),
            node => Some(Answer::NotLeader(Some(NodeId(node)))),
        },
        TAG_UNKNOWN => Some(Answer::Unknown),
        TAG_STALE => Some(Answer::Stale),
        TAG_REFUSED => Some(Answer::Refused),
        _ => None,
    }
}
