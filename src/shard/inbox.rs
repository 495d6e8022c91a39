//! Packets of other nodes at the leader: those that wait for an entry, and those that wait for apply.
//!
//! A machine without a clock or a lock: times are arguments, and whom to tell is a result. `R` is whoever waits for an answer.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::limits::{INBOX_AGE_MAX, INBOX_BYTES_MAX};
use super::proposal::{Packet, PacketId};

/// The packets of other nodes here, and who waits for them.
#[derive(Debug)]
pub(super) struct Inbox<R> {
    /// Not proposed yet, and when they came.
    waiting: VecDeque<(Packet, R, Instant)>,
    /// Bytes of their commands.
    bytes: usize,
    /// Proposed here and not applied yet.
    proposed: HashMap<PacketId, Proposed<R>>,
    /// How many were proposed here so far.
    proposals: u64,
}

/// A packet that was proposed here and waits for apply.
#[derive(Debug)]
struct Proposed<R> {
    /// Whose entry it is in: only that one's fate speaks for it.
    proposal: u64,
    caller: R,
}

/// Packets that were waiting.
#[derive(Debug)]
pub(super) struct Taken<R> {
    /// In the order in which they came.
    pub(super) packets: Vec<(Packet, R)>,
    /// Who waited for those that were left out because they are too old.
    pub(super) stale: Vec<R>,
}

/// What becomes of a packet that is to be proposed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Awaited<R> {
    /// It is to be, under this number.
    Anew(u64),
    /// It is proposed already, and is answered at its latest call; here is who made the one before.
    Already(R),
}

impl<R> Default for Inbox<R> {
    fn default() -> Self {
        let (waiting, proposed) = (VecDeque::new(), HashMap::new());
        Self { waiting, bytes: 0, proposed, proposals: 0 }
    }
}

impl<R> Inbox<R> {
    /// Bytes of commands that wait for an entry.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a packet that comes at `now`.
    ///
    /// # Errors
    /// Its caller, when too many bytes wait.
    pub(super) fn receive(&mut self, packet: Packet, caller: R, now: Instant) -> Result<(), R> {
        if self.bytes.saturating_add(packet.body.len()) > INBOX_BYTES_MAX {
            return Err(caller);
        }
        self.bytes += packet.body.len();
        self.waiting.push_back((packet, caller, now));
        Ok(())
    }

    /// Packets that wait, in order, up to `bytes_max`, but at least one if there is one. One that has waited for so long that
    /// its session may be closed and forgotten by now does not get into the log any more.
    pub(super) fn take(&mut self, bytes_max: usize, now: Instant) -> Taken<R> {
        let mut bytes = 0_usize;
        let (mut packets, mut stale) = (Vec::new(), Vec::new());
        while let Some((packet, _, since)) = self.waiting.front() {
            let length = packet.body.len();
            let is_stale = now.saturating_duration_since(*since) > INBOX_AGE_MAX;
            if !is_stale && !packets.is_empty() && bytes.saturating_add(length) > bytes_max {
                break;
            }
            let Some((packet, caller, _)) = self.waiting.pop_front() else { break };
            self.bytes -= length;
            if is_stale {
                stale.push(caller);
            } else {
                bytes = bytes.saturating_add(length);
                packets.push((packet, caller));
            }
        }
        Taken { packets, stale }
    }

    /// Remembers who is to be told when the packet called `id` is applied. It is not proposed again while it is proposed:
    /// the log would hold every try of a packet that is long under way, and the larger it is the more tries there are
    /// (faults.md R20).
    pub(super) fn await_apply(&mut self, id: PacketId, caller: R) -> Awaited<R> {
        if let Some(proposed) = self.proposed.get_mut(&id) {
            return Awaited::Already(std::mem::replace(&mut proposed.caller, caller));
        }
        self.proposals += 1;
        let proposal = self.proposals;
        self.proposed.insert(id, Proposed { proposal, caller });
        Awaited::Anew(proposal)
    }

    /// Whether packet `id` is proposed here and waits for apply.
    pub(super) fn is_proposed(&self, id: PacketId) -> bool {
        self.proposed.contains_key(&id)
    }

    /// Packet `id` has met apply: whoever waits for it.
    pub(super) fn applied(&mut self, id: PacketId) -> Option<R> {
        self.proposed.remove(&id).map(|proposed| proposed.caller)
    }

    /// Whoever waits for packet `id` in `proposal`, no longer to be told by apply. Nobody when it has been proposed anew
    /// since: that one is answered by its own entry.
    pub(super) fn forget(&mut self, id: PacketId, proposal: u64) -> Option<R> {
        if self.proposed.get(&id)?.proposal != proposal {
            return None;
        }
        self.applied(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::ids::{Incarnation, Session};

    fn id(sequence: u64) -> PacketId {
        let session = Session { number: 1, random: 1 };
        PacketId { incarnation: Incarnation(1), session, sequence }
    }

    fn packet(sequence: u64, bytes: usize) -> Packet {
        Packet { id: id(sequence), floor: 1, commands: 1, body: Bytes::from(vec![0; bytes]) }
    }

    fn sequences(taken: &Taken<u64>) -> Vec<u64> {
        taken.packets.iter().map(|(packet, _)| packet.id.sequence).collect()
    }

    #[test]
    fn packets_are_taken_in_order_up_to_a_size_and_at_least_one() {
        let (mut inbox, now) = (Inbox::default(), Instant::now());
        for (sequence, bytes) in [(1, 100), (2, 10), (3, 10), (4, 10)] {
            inbox.receive(packet(sequence, bytes), sequence, now).unwrap();
        }
        assert_eq!(sequences(&inbox.take(20, now)), [1], "too large, but the first");
        assert_eq!(sequences(&inbox.take(20, now)), [2, 3]);
        assert_eq!(inbox.bytes(), 10);
        assert_eq!(sequences(&inbox.take(usize::MAX, now)), [4]);
        assert_eq!(inbox.bytes(), 0);
        assert!(inbox.take(20, now).packets.is_empty());
    }

    /// Its session may be forgotten, and it would be taken for a new one.
    #[test]
    fn a_packet_that_has_waited_for_too_long_is_left_out() {
        let (mut inbox, now) = (Inbox::default(), Instant::now());
        inbox.receive(packet(1, 10), 1, now).unwrap();
        let later = now + INBOX_AGE_MAX;
        inbox.receive(packet(2, 10), 2, later).unwrap();
        let taken = inbox.take(usize::MAX, later + Duration::from_millis(1));
        assert_eq!((sequences(&taken), taken.stale), (vec![2], vec![1]));
        assert_eq!(inbox.bytes(), 0);
    }

    #[test]
    fn a_full_inbox_gives_the_caller_back() {
        let (mut inbox, now) =
            (Inbox { bytes: INBOX_BYTES_MAX, ..Inbox::default() }, Instant::now());
        assert_eq!(inbox.receive(packet(1, 1), 7, now), Err(7));
        assert_eq!(inbox.receive(packet(1, 0), 7, now), Ok(()));
    }

    #[test]
    fn a_packet_under_way_is_answered_at_its_latest_call_and_once() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.await_apply(id(1), "first"), Awaited::Anew(1));
        assert_eq!(inbox.await_apply(id(1), "second"), Awaited::Already("first"));
        assert!(inbox.is_proposed(id(1)));
        assert_eq!(inbox.applied(id(1)), Some("second"));
        assert_eq!(inbox.applied(id(1)), None);
    }

    #[test]
    fn the_fate_of_an_older_proposal_takes_nobody_from_a_newer_one() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.await_apply(id(1), "first"), Awaited::Anew(1));
        assert_eq!(inbox.forget(id(1), 1), Some("first"));
        assert_eq!(inbox.await_apply(id(1), "second"), Awaited::Anew(2));
        assert_eq!(inbox.forget(id(1), 1), None);
        assert_eq!(inbox.forget(id(1), 2), Some("second"));
    }
}
