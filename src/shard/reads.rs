//! Reads that cannot be answered on the spot: vouched for by a quorum, or by whoever leads elsewhere.
//!
//! Those of this node's clients gather in the front end and leave as one packet, which follows the leader until it is
//! answered; reads can be asked twice. Those of other nodes' clients come as such packets.
//!
//! **Those that take long.** Vouched for, they wait for no quorum any more: for their turn and for the state, and then they are
//! at work, [`READ_PATIENCE`] at most. At a replica [`LONG_READS_MAX`] packets are at that point, whoever waits for them by then:
//! a turn ends with the work, not with the patience of who asked. A try that was given up here is not begun, and not gone on
//! with; whether its client, or the node that asked, is still there nobody looks. Elsewhere, a leader that says nothing is
//! asked for a word: as long as it has one, it is at work, and not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::forward::{forward_timeout, note_room};
use super::front::{Front, ReadDeparture};
use super::limits::{
    LEADER_LOOK_INTERVAL, LEADER_PROGRESS_BYTES, LONG_PACKETS_MAX, LONG_READ_BYTES,
    LONG_READS_BYTES_MAX, LONG_READS_MAX, PACKETS_IN_FLIGHT_MAX, READ_LEADERS_LOST_MAX,
    READ_PATIENCE, REQUEST_DEADLINE, RETRY_PAUSE, SUBMISSION_BYTES_MAX,
};
use super::machine::{Epoch, ShardMachine};
use super::proposal::PacketBuffer;
use super::reply::{Replies, ReplyCell};
use super::seat::{Replica, Seat};
use super::shard::{Ground, ShardOptions};
use super::time::ShardTime;
use super::wire::{self, Answer, kind};
use crate::ids::{GroupId, NodeId};
use crate::raft::{Leadership, ReadRefused, on};
use crate::resp::ErrorReply;
use crate::stdx::clock::MonotonicMicros;
use crate::stdx::prng::SplitMix64;
use crate::stdx::workers::{Work, Workers};
use crate::transport::{Message, Peers, Responder, TransportError};

/// The reads of one shard that are under way on this node.
pub(super) struct Reads {
    group: GroupId,
    peers: Peers,
    seat: Arc<Seat>,
    front: Arc<Front>,
    machine: Arc<ShardMachine>,
    time: Arc<ShardTime>,
    workers: Arc<dyn Workers>,
    /// The random bits of each packet.
    random: Mutex<SplitMix64>,
    /// Packets of this node's clients, but for those that take long, which are counted apart.
    in_flight: AtomicUsize,
    long_in_flight: AtomicUsize,
    /// Bytes of reads of other nodes, and of stale ones, that could not be run in place.
    waiting_bytes: AtomicUsize,
    /// Who may have the state for long.
    turns: Arc<Semaphore>,
}

/// Why a try at reads has no replies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The node asked does not lead, or could not be asked; maybe this one does.
    TurnedAway(Option<NodeId>),
    /// They, or what is before them, take too long.
    Busy,
    /// The node asked has not answered, and perhaps has ended over the question.
    Silent,
}

/// The place of a packet among those under way.
struct Place {
    reads: Arc<Reads>,
    is_long: bool,
}

impl Place {
    /// A place, unless all are taken. They are taken by one task alone.
    fn take(reads: &Arc<Reads>) -> Option<Self> {
        if reads.in_flight.load(Ordering::Acquire) >= PACKETS_IN_FLIGHT_MAX {
            return None;
        }
        reads.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(Self { reads: Arc::clone(reads), is_long: false })
    }

    /// The packet takes long: others need not wait for it, unless there are many like it.
    fn make_way(&mut self) {
        if self.is_long {
            return;
        }
        let one_more = |count| (count < LONG_PACKETS_MAX).then_some(count + 1);
        let long = &self.reads.long_in_flight;
        if long.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok() {
            self.is_long = true;
            self.reads.leave(&self.reads.in_flight);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Reads { in_flight, long_in_flight, .. } = &*self.reads;
        self.reads.leave(if self.is_long { long_in_flight } else { in_flight });
    }
}

/// The bytes of reads that wait, until they do no more.
pub(super) struct Ticket {
    reads: Arc<Reads>,
    bytes: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.reads.waiting_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
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
            workers: Arc::clone(&options.workers),
            // Other bits than those of stamps.
            random: Mutex::new(SplitMix64::new(!options.seed)),
            in_flight: AtomicUsize::new(0),
            long_in_flight: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            turns: Arc::new(Semaphore::new(LONG_READS_MAX)),
        }
    }

    /// Takes reads that another node sends here as to the leader.
    pub(super) fn handle(self: &Arc<Self>, message: Message, responder: Responder) {
        let arrived = self.time.monotonic();
        let is_tried = self.seat.may_read();
        if is_tried && let Some(replies) = self.run_here(arrived, &message.body) {
            return wire::send_applied(responder, self.front.room(), &replies);
        }
        // Whoever should ask elsewhere is told so, however much waits here.
        if let Err(leader) = self.leading() {
            return responder.send_with(|out| wire::put_not_leader(leader, out));
        }
        // A word waits for a quorum at most, and holds nothing.
        let is_word = message.body.is_empty();
        let ticket = if is_word { None } else { self.admit(message.body.len()) };
        if ticket.is_none() && !is_word {
            return responder.send_with(wire::put_busy);
        }
        let reads = Arc::clone(self);
        tokio::spawn(async move {
            let is_vouched = AtomicBool::new(false);
            let confirmed = reads.confirmed(&message.body, is_tried, &is_vouched, READ_PATIENCE);
            match confirmed.await {
                Ok(replies) => wire::send_applied(responder, reads.front.room(), &replies),
                Err(Unread::Busy) => responder.send_with(wire::put_busy),
                Err(Unread::TurnedAway(leader)) => {
                    responder.send_with(|out| wire::put_not_leader(leader, out));
                }
                Err(Unread::Silent) => drop(responder),
            }
            drop(ticket);
        });
    }

    /// This node's replica, if that leads; else who does.
    fn leading(&self) -> Result<Arc<Replica>, Option<NodeId>> {
        let Some(replica) = self.seat.replica() else { return Err(self.seat.hint()) };
        match replica.group.leadership() {
            Leadership::Here => Ok(replica),
            Leadership::There(leader) => Err(Some(leader)),
            Leadership::Unknown => Err(None),
        }
    }

    /// Lets reads of so many `bytes` wait here, unless too many do: those that come alone always may.
    pub(super) fn admit(self: &Arc<Self>, bytes: usize) -> Option<Ticket> {
        let bytes = bytes.saturating_add(LONG_READ_BYTES);
        let more = |waiting: usize| {
            let sum = waiting.saturating_add(bytes);
            (waiting == 0 || sum <= LONG_READS_BYTES_MAX).then_some(sum)
        };
        let waiting = &self.waiting_bytes;
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Ticket { reads: Arc::clone(self), bytes })
    }

    /// Runs the reads in `body` on this node's applied state, which `clock` or something later vouches for; `None` when that
    /// would take long.
    pub(super) fn run_here(&self, clock: MonotonicMicros, body: &[u8]) -> Option<Replies> {
        if body.is_empty() {
            // Whoever asks for a word has it, whoever has the state.
            return Some(Replies::default());
        }
        let seed = self.random.lock().next_u64();
        self.machine.run_reads(self.time.for_read(clock), seed, body)
    }

    /// Runs reads of the state of `epoch`, which was vouched for at `clock` or later, unless that has not ended within
    /// `patience`.
    async fn run(
        &self,
        (epoch, clock): (Epoch, MonotonicMicros),
        body: &Bytes,
        is_tried: bool,
        patience: Duration,
    ) -> Result<Replies, Unread> {
        if !is_tried && let Some(replies) = self.run_here(clock, body) {
            let is_same = self.machine.epoch() == epoch;
            return if is_same { Ok(replies) } else { Err(Unread::TurnedAway(None)) };
        }
        self.run_long((epoch, clock), body, patience).await
    }

    /// Runs such reads away from the runtimes, unless that has not ended within `patience`.
    pub(super) async fn run_long(
        &self,
        (epoch, clock): (Epoch, MonotonicMicros),
        body: &Bytes,
        patience: Duration,
    ) -> Result<Replies, Unread> {
        let seed = self.random.lock().next_u64();
        let now = self.time.for_read(clock);
        let work = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
            // Lasts as long as somebody polls this.
            let wanted = Arc::new(());
            let is_wanted = Arc::downgrade(&wanted);
            let (machine, body) = (Arc::clone(&self.machine), body.clone());
            // What vouched for the state vouches for any later one of the replica: the reads are under way.
            let run = move || {
                let is_wanted = || is_wanted.strong_count() > 0;
                let replies = machine.run_reads_long((epoch, now), seed, &body, is_wanted);
                drop(turn);
                replies
            };
            let replies = on(&*self.workers, Work::State, run).await;
            drop(wanted);
            replies.ok()?
        };
        match timeout(patience, work).await {
            Ok(replies) => replies.ok_or(Unread::TurnedAway(None)),
            Err(_) => Err(Unread::Busy),
        }
    }

    /// Runs `count` reads on what this node's replica has applied, away from the runtimes: in place they would be waited
    /// for, or wait.
    pub(super) fn run_stale(self: &Arc<Self>, commands: &[u8], count: u32, cell: &Arc<ReplyCell>) {
        if commands.len() > SUBMISSION_BYTES_MAX {
            return cell.fail(ErrorReply::TOO_LARGE);
        }
        let Some(ticket) = self.admit(commands.len()) else {
            return cell.fail(ErrorReply::TOO_MANY_WAITING);
        };
        // Before the replica is looked for: where that has ended by now, the state is of another epoch.
        let epoch = self.machine.epoch();
        if self.seat.replica().is_none() {
            return cell.fail(ErrorReply::SHARD_BUSY);
        }
        let mut buffer = PacketBuffer::new();
        buffer.push(commands, count);
        let body = buffer.frame().body();
        let cell = Arc::clone(cell);
        tokio::spawn(async move {
            let reads = &ticket.reads;
            let vouched = (epoch, reads.time.monotonic());
            match reads.run(vouched, &body, false, READ_PATIENCE).await {
                Ok(replies) => cell.complete(&replies, 0, count as usize),
                Err(Unread::TurnedAway(_) | Unread::Busy | Unread::Silent) => {
                    cell.fail(ErrorReply::SHARD_BUSY);
                }
            }
        });
    }

    /// Reads vouched for by a quorum, or by whoever leads; `is_vouched` says when they are. From then on they may take as long
    /// as `patience`. Those that were `is_tried` cannot be run in place.
    pub(super) async fn confirmed(
        &self,
        body: &Bytes,
        is_tried: bool,
        is_vouched: &AtomicBool,
        patience: Duration,
    ) -> Result<Replies, Unread> {
        // Before the replica: of a later one it says nothing.
        let epoch = self.machine.epoch();
        let replica = self.leading().map_err(Unread::TurnedAway)?;
        let asked = self.time.monotonic();
        let turned_away = |refused| match refused {
            ReadRefused::NotLeader { leader } => Unread::TurnedAway(leader),
            ReadRefused::NoQuorum => Unread::TurnedAway(None),
            ReadRefused::Behind => Unread::Busy,
        };
        if self.seat.may_read() {
            is_vouched.store(true, Ordering::Release);
            return self.run((epoch, asked), body, is_tried, patience).await;
        }
        let index = replica.group.confirm().await.map_err(turned_away)?;
        is_vouched.store(true, Ordering::Release);
        if body.is_empty() {
            // A word needs no state: there may be none for long, because what is large is being applied.
            return Ok(Replies::default());
        }
        let deadline = Instant::now() + patience;
        replica.group.await_applied(index, deadline).await.map_err(turned_away)?;
        self.time.lead();
        let patience = deadline.saturating_duration_since(Instant::now());
        self.run((epoch, asked), body, is_tried, patience).await
    }

    /// Sends what reads have gathered, each batch in a task of its own that follows the leader.
    pub(super) fn send_waiting(self: &Arc<Self>) {
        while let Some(place) = Place::take(self) {
            let Some(departure) = self.front.depart_reads() else { return };
            let reads = Arc::clone(self);
            tokio::spawn(async move { reads.answer(departure, place).await });
        }
    }

    /// One less of those that `count` counts is under way: what has gathered meanwhile may leave.
    fn leave(&self, count: &AtomicUsize) {
        count.fetch_sub(1, Ordering::AcqRel);
        if self.front.has_reads() {
            self.front.wake.notify_one();
        }
    }

    /// Whether some reads under way have been vouched for and take long.
    pub(super) fn take_long(&self) -> bool {
        self.long_in_flight() > 0
    }

    /// Packets of such reads.
    pub(super) fn long_in_flight(&self) -> usize {
        self.long_in_flight.load(Ordering::Acquire)
    }

    async fn answer(&self, mut reads: ReadDeparture, mut place: Place) {
        let body = reads.body();
        let mut asked = None;
        let mut lost = Vec::new();
        while reads.expire(Instant::now()).is_some() {
            let leader = match (self.seat.leadership(), asked.take()) {
                (Leadership::Here, _) => self.seat.node(),
                (Leadership::There(leader), _) | (Leadership::Unknown, Some(leader)) => leader,
                (Leadership::Unknown, None) => match self.seat.lost() {
                    Some(told) => return reads.fail(&told),
                    None if self.seat.working_replica().is_none() => self.seat.any_replica(),
                    None => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                },
            };
            match self.ask(leader, &body, &mut reads, &mut place).await {
                Ok(replies) => return reads.complete(&replies),
                Err(Unread::Busy) => return reads.fail(&ErrorReply::SHARD_BUSY),
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
    /// one may be silent for long, and reads can be asked twice. Once they have been vouched for, that no quorum is there, or
    /// another leader, is no reason to give them up: they are at work.
    async fn ask(
        &self,
        leader: NodeId,
        body: &Bytes,
        reads: &mut ReadDeparture,
        place: &mut Place,
    ) -> Result<Replies, Unread> {
        let is_vouched = AtomicBool::new(false);
        let answer = async {
            if leader == self.seat.node() {
                self.confirmed(body, false, &is_vouched, READ_PATIENCE).await
            } else {
                self.forward(leader, body, &is_vouched).await
            }
        };
        let mut answer = std::pin::pin!(answer);
        loop {
            let mut look = Instant::now() + LEADER_LOOK_INTERVAL;
            if !is_vouched.load(Ordering::Acquire) {
                let Some(deadline) = reads.expire(Instant::now()) else { break };
                look = look.min(deadline);
            }
            let answer = timeout_at(look, &mut answer).await;
            let is_vouched = is_vouched.load(Ordering::Acquire);
            match answer {
                Ok(Err(unread)) if is_vouched => {
                    reads.begin_anew(Instant::now());
                    return Err(unread);
                }
                Ok(answer) => return answer,
                Err(_) if is_vouched => place.make_way(),
                Err(_) if self.seat.leader().is_some_and(|leads| leads != leader) => break,
                Err(_) => {}
            }
        }
        Err(Unread::Silent)
    }

    /// Asks the leader, elsewhere, how much room is left: by reads of nothing.
    pub(super) async fn ask_for_room(&self) {
        let leader = self.seat.leader().unwrap_or_else(|| self.seat.any_replica());
        match self.forward(leader, &Bytes::new(), &AtomicBool::new(false)).await {
            Ok(_) | Err(Unread::Busy) => {}
            Err(Unread::TurnedAway(leader)) => self.seat.note_hint(leader),
            Err(Unread::Silent) => self.seat.note_hint(None),
        }
    }

    /// Asks `leader`, on another node, for reads; `is_vouched` says when they are. Where it takes long over them, it is asked for
    /// a word now and then, by reads of nothing.
    async fn forward(
        &self,
        leader: NodeId,
        body: &Bytes,
        is_vouched: &AtomicBool,
    ) -> Result<Replies, Unread> {
        let Some(peer) = self.peers.get(leader) else {
            return Err(Unread::TurnedAway(None));
        };
        let silence = forward_timeout(body.len());
        // It gives up by itself, and says so: at first for want of a quorum, then of patience.
        let at_most = READ_PATIENCE + REQUEST_DEADLINE + silence;
        let answer = peer.call(self.group, kind::READ, body.clone(), at_most);
        let mut answer = std::pin::pin!(answer);
        loop {
            if let Ok(answer) = timeout(silence / 2, &mut answer).await {
                return self.understand(answer);
            }
            let received = peer.stats().bytes_received;
            let word = peer.call(self.group, kind::READ, Bytes::new(), silence / 2);
            tokio::select! {
                biased;
                answer = &mut answer => return self.understand(answer),
                word = word => {
                    let received = peer.stats().bytes_received.saturating_sub(received);
                    if word.is_err() && received < LEADER_PROGRESS_BYTES {
                        return Err(Unread::Silent);
                    }
                    // One that does not lead will say so of the reads, too.
                    if self.understand(word).is_ok() {
                        is_vouched.store(true, Ordering::Release);
                    }
                }
            }
        }
    }

    /// What the answer of another node means.
    fn understand(&self, answer: Result<Bytes, TransportError>) -> Result<Replies, Unread> {
        match answer {
            Ok(answer) => match wire::take_answer(&answer) {
                Some(Answer::Applied(room, replies)) => {
                    note_room(&self.front, room, answer.len());
                    Ok(replies)
                }
                Some(Answer::Busy) => Err(Unread::Busy),
                Some(Answer::NotLeader(leader)) => Err(Unread::TurnedAway(leader)),
                Some(Answer::Unknown | Answer::Stale | Answer::Refused | Answer::Full(_))
                | None => Err(Unread::TurnedAway(None)),
            },
            Err(error) if error.was_sent() => Err(Unread::Silent),
            Err(_) => Err(Unread::TurnedAway(None)),
        }
    }
}
