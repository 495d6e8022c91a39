//! Elsewhere than at the leader: sends packets of this node's clients there, and makes of each answer what it means.

use std::sync::Arc;
use std::time::Duration;

use super::front::{Departure, Front};
use super::limits::{FORWARD_TIMEOUT, FORWARD_TIMEOUT_PER_MIB, PACKETS_IN_FLIGHT_MAX};
use super::seat::Seat;
use super::shard::{Ground, ShardOptions};
use super::wire::{self, Answer};
use crate::ids::{GroupId, NodeId};
use crate::resp::ErrorReply;
use crate::transport::{LONG_BYTES_MIN, PeerClient, Peers};

/// The way of packets to the leader of one shard, on another node.
pub(super) struct Forward {
    group: GroupId,
    peers: Peers,
    seat: Arc<Seat>,
    front: Arc<Front>,
}

impl Forward {
    /// The way from this node's `front`.
    pub(super) fn new(options: &ShardOptions, ground: &Ground) -> Self {
        let Ground { seat, front, .. } = ground.clone();
        let group = GroupId::of_shard(options.shard);
        Self { group, peers: options.peers.clone(), seat, front }
    }

    /// As follower or bystander: sends what waits to the leader.
    pub(super) fn send_waiting(self: &Arc<Self>, leader: NodeId) {
        let Some(peer) = self.peers.get(leader) else {
            // Nothing departs for a node that cannot be reached: it would come back at once and depart again, for
            // ever, on the one thread that could change anything about it. Who was hinted at wrongly is not asked again.
            self.seat.note_hint(None);
            if self.front.has_departures() {
                self.front.wake_later();
            }
            return;
        };
        while self.front.may_send(self.front.flights_under_way(), PACKETS_IN_FLIGHT_MAX) {
            let Some(departure) = self.front.depart(0) else { return };
            self.send(&peer, departure);
        }
    }

    fn send(self: &Arc<Self>, peer: &PeerClient, departure: Departure<'_>) {
        let (attempt, packet) = departure.into_packet();
        let sequence = attempt.sequence;
        let timeout = forward_timeout(packet.body.len());
        let answer = wire::submit(peer, self.group, &packet, timeout);
        let forward = Arc::clone(self);
        tokio::spawn(async move {
            let may_be_applied = match answer.await {
                Ok(body) => match wire::take_answer(&body) {
                    Some(Answer::Applied(room, replies)) => {
                        note_room(&forward.front, room, body.len());
                        forward.front.complete(sequence, replies.submissions(), &replies);
                        return forward.front.wake.notify_one();
                    }
                    Some(Answer::NotLeader(leader)) => {
                        forward.seat.note_hint(leader);
                        false
                    }
                    Some(Answer::Stale) => {
                        forward.front.give_up(sequence, &ErrorReply::SESSION_ENDED);
                        return forward.front.wake.notify_one();
                    }
                    Some(Answer::Refused) => {
                        forward.front.give_up(sequence, &ErrorReply::PACKET_REFUSED);
                        return forward.front.wake.notify_one();
                    }
                    Some(Answer::Full(room)) => {
                        forward.front.note_room(room);
                        if forward.front.refuse(attempt, &ErrorReply::OUT_OF_MEMORY) {
                            return forward.front.wake_later();
                        }
                        return forward.front.wake.notify_one();
                    }
                    Some(Answer::Unknown | Answer::Busy) | None => true,
                },
                Err(error) => {
                    forward.seat.note_hint(None);
                    error.was_sent()
                }
            };
            forward.front.come_back(attempt, may_be_applied);
            forward.front.wake_later();
        });
    }

    /// Without a replica and without a hint: any replica either leads or knows who does.
    pub(super) fn ask_any_replica(self: &Arc<Self>) {
        if !self.front.has_departures() {
            return;
        }
        self.send_waiting(self.seat.any_replica());
    }
}

/// Notes what an answer of `bytes` says of the room. Later ones have passed a long one, and say what is true now.
pub(super) fn note_room(front: &Front, room: u64, bytes: usize) {
    if bytes < LONG_BYTES_MIN {
        front.note_room(room);
    }
}

/// How long one try with `bytes` may take: a large packet is long on its way, and long in the log.
pub(super) fn forward_timeout(bytes: usize) -> Duration {
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    FORWARD_TIMEOUT.saturating_add(FORWARD_TIMEOUT_PER_MIB.saturating_mul(mib))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_packet_is_given_the_time_it_takes() {
        assert_eq!(forward_timeout(4096), FORWARD_TIMEOUT);
        assert_eq!(forward_timeout(512 << 20), FORWARD_TIMEOUT + Duration::from_millis(51_200));
    }
}
