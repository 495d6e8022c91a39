//! Reads that cannot be answered on the spot: vouched for by a quorum, or by whoever leads elsewhere.
//!
//! Those of this node's clients gather in the front end and leave as one packet, which follows the leader until it is
//! answered; reads can be asked twice. Those of other nodes' clients come as such packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::forward::forward_timeout;
use super::front::{Front, ReadDeparture};
use super::limits::{
    LEADER_LOOK_INTERVAL, PACKETS_IN_FLIGHT_MAX, READ_LEADERS_LOST_MAX, REQUEST_DEADLINE,
    RETRY_PAUSE, STALE_READS_MAX, SUBMISSION_BYTES_MAX,
};
use super::machine::ShardMachine;
use super::proposal::PacketBuffer;
use super::reply::{Replies, ReplyCell};
use super::seat::Seat;
use super::shard::{Ground, ShardOptions};
use super::time::ShardTime;
use super::wire::{self, Answer, kind};
use crate::ids::{GroupId, NodeId};
use crate::raft::{Leadership, ReadRefused};
use crate::resp::ErrorReply;
use crate::stdx::clock::MonotonicMicros;
use crate::stdx::prng::SplitMix64;
use crate::transport::{Message, Peers, Responder};

/// The reads of one shard that are under way on this node.
pub(super) struct Reads {
    group: GroupId,
    peers: Peers,
    seat: Arc<Seat>,
    front: Arc<Front>,
    machine: Arc<ShardMachine>,
    time: Arc<ShardTime>,
    /// The random bits of each packet.
    random: Mutex<SplitMix64>,
    /// Packets of this node's clients.
    in_flight: AtomicUsize,
    /// Who may run stale reads that could not be run in place.
    stale: Semaphore,
}

/// Why a try at reads has no replies.
#[derive(Debug)]
enum Unread {
    /// The node asked does not lead, or could not be asked; maybe this one does.
    TurnedAway(Option<NodeId>),
    /// The node asked has not answered, and perhaps has ended over the question.
    Silent,
}

impl Reads {
    /// None under way.
    pub(super) fn new(options: &ShardOptions, ground: &Ground) -> Self {
        let Ground { seat, front, machine, time } = ground.clone();
        Self {
            group: GroupId::of_shard(options.shard),
            peers: options.peers.clone(),
            seat,
            front,
            machine,
            time,
            // Other bits than those of stamps.
            random: Mutex::new(SplitMix64::new(!options.seed)),
            in_flight: AtomicUsize::new(0),
            stale: Semaphore::new(STALE_READS_MAX),
        }
    }

    /// Takes reads that another node sends here as to the leader.
    pub(super) fn handle(self: &Arc<Self>, message: Message, responder: Responder) {
        let arrived = self.time.monotonic();
        if self.seat.may_read()
            && let Some(replies) = self.run_here(arrived, &message.body)
        {
            return responder.send_with(|out| wire::put_applied(self.front.room(), &replies, out));
        }
        let reads = Arc::clone(self);
        tokio::spawn(async move {
            match reads.confirmed(&message.body).await {
                Ok(replies) => {
                    responder.send_with(|out| wire::put_applied(reads.front.room(), &replies, out));
                }
                Err(leader) => responder.send_with(|out| wire::put_not_leader(leader, out)),
            }
        });
    }

    /// Runs the reads in `body` on this node's applied state, which `clock` or something later vouches for; `None` when that
    /// would take long.
    pub(super) fn run_here(&self, clock: MonotonicMicros, body: &[u8]) -> Option<Replies> {
        let seed = self.random.lock().next_u64();
        self.machine.run_reads(self.time.for_read(clock), seed, body)
    }

    /// Runs them however long that takes; `None` when they could not be run.
    async fn run(&self, clock: MonotonicMicros, body: &Bytes) -> Option<Replies> {
        if let Some(replies) = self.run_here(clock, body) {
            return Some(replies);
        }
        let seed = self.random.lock().next_u64();
        let now = self.time.for_read(clock);
        let (machine, body) = (Arc::clone(&self.machine), body.clone());
        // What vouched for the state vouches for any later one: the reads are under way.
        let run = move || machine.run_reads_long(now, seed, &body);
        tokio::task::spawn_blocking(run).await.ok()
    }

    /// Runs `count` reads on what this node's replica has applied, away from the runtimes: in place they would be waited
    /// for, or wait.
    pub(super) fn run_stale(self: &Arc<Self>, commands: &[u8], count: u32, cell: &Arc<ReplyCell>) {
        if commands.len() > SUBMISSION_BYTES_MAX {
            return cell.fail(ErrorReply::TOO_LARGE);
        }
        let mut buffer = PacketBuffer::new();
        buffer.push(commands, count);
        let body = buffer.frame().body();
        let (reads, cell) = (Arc::clone(self), Arc::clone(cell));
        tokio::spawn(async move {
            let turn = tokio::time::timeout(REQUEST_DEADLINE, reads.stale.acquire()).await;
            let Ok(Ok(turn)) = turn else { return cell.fail(ErrorReply::SHARD_BUSY) };
            let replies = reads.run(reads.time.monotonic(), &body).await;
            drop(turn);
            match replies {
                // Otherwise it has ended, and this may be what it left behind: nothing.
                Some(replies) if reads.seat.replica().is_some() => {
                    cell.complete(&replies, 0, count as usize);
                }
                Some(_) | None => cell.fail(ErrorReply::SHARD_BUSY),
            }
        });
    }

    /// Reads vouched for by a quorum, or by whoever leads.
    async fn confirmed(&self, body: &Bytes) -> Result<Replies, Option<NodeId>> {
        let Some(replica) = self.seat.replica() else { return Err(self.seat.hint()) };
        let asked = self.time.monotonic();
        match replica.group.leadership() {
            Leadership::Here => {}
            Leadership::There(leader) => return Err(Some(leader)),
            Leadership::Unknown => return Err(None),
        }
        if !self.seat.may_read() {
            replica.group.read_index().await.map_err(|refused| match refused {
                ReadRefused::NotLeader { leader } => leader,
                ReadRefused::NoQuorum => None,
            })?;
            self.time.lead();
        }
        self.run(asked, body).await.ok_or(None)
    }

    /// Sends what reads have gathered, each batch in a task of its own that follows the leader.
    pub(super) fn send_waiting(self: &Arc<Self>) {
        while self.in_flight.load(Ordering::Acquire) < PACKETS_IN_FLIGHT_MAX {
            let Some(departure) = self.front.depart_reads() else { return };
            self.in_flight.fetch_add(1, Ordering::AcqRel);
            let reads = Arc::clone(self);
            tokio::spawn(async move {
                reads.answer(departure).await;
                reads.in_flight.fetch_sub(1, Ordering::AcqRel);
                if reads.front.has_reads() {
                    reads.front.wake.notify_one();
                }
            });
        }
    }

    async fn answer(&self, mut reads: ReadDeparture) {
        let body = reads.body();
        let mut asked = None;
        let mut lost = Vec::new();
        while reads.expire(Instant::now()).is_some() {
            let leader = match (self.seat.leadership(), asked.take()) {
                (Leadership::Here, _) => self.seat.node(),
                (Leadership::There(leader), _) | (Leadership::Unknown, Some(leader)) => leader,
                (Leadership::Unknown, None) if self.seat.is_lost() => {
                    return reads.fail(&ErrorReply::WRITES_STOPPED);
                }
                (Leadership::Unknown, None) if self.seat.working_replica().is_none() => {
                    self.seat.any_replica()
                }
                (Leadership::Unknown, None) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            match self.ask(leader, &body, &mut reads).await {
                Ok(replies) => return reads.complete(&replies),
                Err(Unread::TurnedAway(leader)) => {
                    asked = leader.filter(|leader| *leader != self.seat.node());
                    self.seat.note_hint(leader);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(Unread::Silent) => {
                    if !lost.contains(&leader) {
                        lost.push(leader);
                    }
                    if lost.len() >= READ_LEADERS_LOST_MAX {
                        return reads.fail(&ErrorReply::READ_UNANSWERED);
                    }
                    if self.seat.leader() == Some(leader) {
                        self.seat.note_hint(None);
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Asks `leader` for `reads`, until it answers, or nobody waits for them any more, or another node leads: the old
    /// one may be silent for long, and reads can be asked twice.
    async fn ask(
        &self,
        leader: NodeId,
        body: &Bytes,
        reads: &mut ReadDeparture,
    ) -> Result<Replies, Unread> {
        let answer = async {
            if leader == self.seat.node() {
                self.confirmed(body).await.map_err(Unread::TurnedAway)
            } else {
                self.forward(leader, body).await
            }
        };
        let mut answer = std::pin::pin!(answer);
        while let Some(deadline) = reads.expire(Instant::now()) {
            let look = deadline.min(Instant::now() + LEADER_LOOK_INTERVAL);
            if let Ok(answer) = tokio::time::timeout_at(look, &mut answer).await {
                return answer;
            }
            if self.seat.leader().is_some_and(|leads| leads != leader) {
                break;
            }
        }
        Err(Unread::Silent)
    }

    /// Asks the leader, elsewhere, how much room is left: by reads of nothing.
    pub(super) async fn ask_for_room(&self) {
        let leader = self.seat.leader().unwrap_or_else(|| self.seat.any_replica());
        match self.forward(leader, &Bytes::new()).await {
            Ok(_) => {}
            Err(Unread::TurnedAway(leader)) => self.seat.note_hint(leader),
            Err(Unread::Silent) => self.seat.note_hint(None),
        }
    }

    /// Asks `leader`, on another node, for reads.
    async fn forward(&self, leader: NodeId, body: &Bytes) -> Result<Replies, Unread> {
        let Some(peer) = self.peers.get(leader) else {
            return Err(Unread::TurnedAway(None));
        };
        let timeout = forward_timeout(body.len());
        match peer.call(self.group, kind::READ, body.clone(), timeout).await {
            Ok(answer) => match wire::take_answer(answer) {
                Some(Answer::Applied(room, replies)) => {
                    self.front.note_room(room);
                    Ok(replies)
                }
                Some(Answer::NotLeader(leader)) => Err(Unread::TurnedAway(leader)),
                Some(Answer::Unknown | Answer::Stale | Answer::Refused | Answer::Full(_))
                | None => Err(Unread::TurnedAway(None)),
            },
            Err(error) if error.was_sent() => Err(Unread::Silent),
            Err(_) => Err(Unread::TurnedAway(None)),
        }
    }
}
