//! The front end of this node toward one shard: commands waiting, packets unanswered, who waits for what.
//!
//! Commands of all connections gather here while earlier ones are on their way, and leave as one packet:
//! the busier the node, the larger the packets. Each write packet has a sequence number under which it is
//! sent until its replies are in; the shard applies it once, however often it was sent (`session`).
//!
//! **Invariant:** a sequence number is given up (the last of its clients answered "outcome unknown") before the floor passes it, and
//! a packet below the floor is never applied; so "unknown" can only turn out applied-before or never.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::{
    CONFIRM_BYTES_MIN, CONFIRM_PAUSE, ENTRY_BYTES_MAX, INBOX_AGE_MAX, INBOX_BYTES_MAX,
    OUTBOX_BYTES_MAX, PACKET_BYTES_SOFT_MAX, PACKET_REPLY_BYTES, PIPELINE_BYTES_MIN,
    REQUEST_DEADLINE, RETRY_PAUSE, SIGN_OF_LIFE_INTERVAL, SUBMISSION_BYTES_MAX,
    UNCONFIRMED_BYTES_MAX,
};
use super::machine::{AppliedPackets, growth};
use super::proposal::{Framed, Packet, PacketBuffer, PacketId};
use super::reply::{Replies, ReplyCell};
use super::wire;
use crate::ids::{Incarnation, NodeId, Session};
use crate::resp::ErrorReply;
use crate::transport::Responder;

/// Which way a submission goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Through the log. May also carry reads that must see the writes before them.
    Write,
    /// Reads only, answered from applied state by whoever leads.
    Read,
}

/// A connection that waits for its submission. A packet has them in the order in which they came, which is that of their
/// deadlines and that in which the packet holds their commands.
#[derive(Debug)]
pub(super) struct Waiter {
    /// `None` when it was told already that its time has passed.
    cell: Option<Arc<ReplyCell>>,
    commands: u32,
    bytes: usize,
    /// Its own, not the packet's: a packet that lasts long has submissions of very different ages (faults.md R16).
    deadline: Instant,
    /// Its replies are in.
    is_answered: bool,
}

/// A packet of another node that was proposed here and waits for apply.
#[derive(Debug)]
struct Proposed {
    /// Whose entry it is in: only that one's fate speaks for it.
    proposal: u64,
    responder: Responder,
}

/// A packet's commands and those who wait for them.
#[derive(Debug)]
pub(super) struct Outgoing {
    buffer: PacketBuffer,
    /// Whether its commands may need more memory, where that is limited. Such a packet may be turned away, and what needs
    /// none is not to be turned away with it.
    grows: bool,
    waiters: Vec<Waiter>,
}

/// A write packet under way.
#[derive(Debug)]
struct Flight {
    framed: Option<Framed>,
    waiters: Vec<Waiter>,
    under_way: bool,
    /// Which try is the latest.
    tries: u32,
    /// Some try of it may have entered a log.
    may_be_applied: bool,
    /// The floor that its first try said.
    floor: u64,
}

/// What the shard keeps for this front end although it is here.
#[derive(Debug, Default)]
struct Received {
    /// Packets answered that the shard was not told of, each with what it weighs; about in order.
    packets: VecDeque<(u64, usize)>,
    /// The weight of all.
    bytes: usize,
    /// The shard knows that all below is received.
    confirmed: u64,
    /// When the last answer came; `None` while the shard knows of no session.
    last: Option<Instant>,
}

impl Received {
    /// Packet `sequence`, which said `floor`, was answered with `bytes` of replies.
    fn note(&mut self, sequence: u64, floor: u64, bytes: usize) {
        self.last = Some(Instant::now());
        self.confirmed = self.confirmed.max(floor);
        self.packets.push_back((sequence, bytes + PACKET_REPLY_BYTES));
        self.bytes += bytes + PACKET_REPLY_BYTES;
        while let Some(&(sequence, bytes)) = self.packets.front()
            && sequence < self.confirmed
        {
            self.packets.pop_front();
            self.bytes -= bytes;
        }
    }
}

/// One try at a write packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    sequence: u64,
    number: u32,
}

/// A write packet to be sent or proposed.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) id: PacketId,
    pub(super) attempt: Attempt,
    pub(super) floor: u64,
    pub(super) framed: Framed,
    /// Some try of it may have entered a log.
    pub(super) may_be_applied: bool,
}

/// A read packet to be answered.
#[derive(Debug)]
pub(super) struct ReadDeparture {
    pub(super) framed: Framed,
    waiters: Vec<Waiter>,
}

#[derive(Debug, Default)]
struct Waiting {
    writes: VecDeque<Outgoing>,
    reads: VecDeque<Outgoing>,
    /// Bytes of commands in both.
    bytes: usize,
    flights: BTreeMap<u64, Flight>,
    received: Received,
    /// Whom the packets under way were sent to.
    leader: Option<NodeId>,
    next_sequence: u64,
    /// Packets of other nodes, and when they came.
    inbox: VecDeque<(Packet, Responder, Instant)>,
    inbox_bytes: usize,
    /// Emptied buffers, used again.
    spare: Vec<PacketBuffer>,
    /// Packets of other nodes that were proposed here and wait for apply.
    proposed: HashMap<PacketId, Proposed>,
    /// How many were proposed here so far.
    proposals: u64,
}

impl Waiting {
    fn recycle(&mut self, mut buffer: PacketBuffer) {
        const SPARE_BUFFERS_MAX: usize = 4;
        if self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// One node's front end toward one shard.
#[derive(Debug)]
pub(super) struct Front {
    node: NodeId,
    incarnation: Incarnation,
    session: Session,
    waiting: Mutex<Waiting>,
    /// The memory that the shard's replicas have left, as far as is known here, in bytes.
    room: AtomicU64,
    has_refused: AtomicBool,
    /// Wakes the shard's proposer.
    pub(super) wake: Notify,
}

impl Front {
    pub(super) fn new(node: NodeId, incarnation: Incarnation, session: Session) -> Self {
        let waiting = Waiting { next_sequence: 1, ..Waiting::default() };
        let (room, has_refused) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        let (waiting, wake) = (Mutex::new(waiting), Notify::new());
        Self { node, incarnation, session, waiting, room, has_refused, wake }
    }

    /// The memory that the shard's replicas have left, as far as is known here, in bytes.
    pub(super) fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// A client was turned away for want of room.
    pub(super) fn note_refusal(&self) {
        self.has_refused.store(true, Ordering::Relaxed);
    }

    /// Whether that happened since this was last asked.
    pub(super) fn take_refusal(&self) -> bool {
        self.has_refused.swap(false, Ordering::Relaxed)
    }

    /// Whether packet `id` is proposed here and waits for apply.
    pub(super) fn is_proposed(&self, id: PacketId) -> bool {
        self.waiting.lock().proposed.contains_key(&id)
    }

    /// It is `room` now.
    pub(super) fn note_room(&self, room: u64) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// Wakes the shard's proposer in a moment: to ask again at once would find nothing changed.
    pub(super) fn wake_later(self: &Arc<Self>) {
        let front = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_PAUSE).await;
            front.wake.notify_one();
        });
    }

    /// Queues `count` encoded commands; `cell` gets their replies, or one error for all.
    pub(super) fn submit(&self, lane: Lane, commands: &[u8], count: u32, cell: &Arc<ReplyCell>) {
        if commands.len() > SUBMISSION_BYTES_MAX {
            return cell.fail(ErrorReply::TOO_LARGE);
        }
        let grows = lane == Lane::Write && self.room() < u64::MAX && growth(commands) > 0;
        let mut guard = self.waiting.lock();
        let waiting = &mut *guard;
        if waiting.bytes.saturating_add(commands.len()) > OUTBOX_BYTES_MAX {
            drop(guard);
            return cell.fail(ErrorReply::TOO_MANY_WAITING);
        }
        waiting.bytes += commands.len();
        let queue = match lane {
            Lane::Write => &mut waiting.writes,
            Lane::Read => &mut waiting.reads,
        };
        let fits = queue.back().is_some_and(|last| {
            let is_alike = last.grows == grows || last.buffer.len() == 0;
            is_alike && last.buffer.len() + commands.len() <= PACKET_BYTES_SOFT_MAX
        });
        if !fits {
            let buffer = waiting.spare.pop().unwrap_or_else(PacketBuffer::new);
            queue.push_back(Outgoing { buffer, grows, waiters: Vec::new() });
        }
        if let Some(last) = queue.back_mut() {
            // What was to go without commands goes with these. Nobody waits for it, and waiters are counted as the
            // submissions of the packet are.
            if last.buffer.len() == 0 {
                last.waiters.clear();
                last.grows = grows;
            }
            last.buffer.push(commands, count);
            // The clock is read under the lock, so that deadlines stand in order.
            last.waiters.push(Waiter {
                cell: Some(Arc::clone(cell)),
                commands: count,
                bytes: commands.len(),
                deadline: Instant::now() + REQUEST_DEADLINE,
                is_answered: false,
            });
        }
        drop(guard);
        self.wake.notify_one();
    }

    /// Takes a packet from another node.
    ///
    /// # Errors
    /// The responder, when the inbox is full.
    pub(super) fn receive(&self, packet: Packet, responder: Responder) -> Result<(), Responder> {
        let mut waiting = self.waiting.lock();
        if waiting.inbox_bytes.saturating_add(packet.body.len()) > INBOX_BYTES_MAX {
            return Err(responder);
        }
        waiting.inbox_bytes += packet.body.len();
        waiting.inbox.push_back((packet, responder, Instant::now()));
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// The next write packet that is not under way: one to be sent again, or what has gathered. `None` also when
    /// it would make an entry that already has `other_bytes` too large.
    pub(super) fn depart(&self, other_bytes: usize) -> Option<Departure> {
        let fits =
            |bytes: usize| other_bytes == 0 || other_bytes.saturating_add(bytes) <= ENTRY_BYTES_MAX;
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        let (incarnation, session) = (self.incarnation, self.session);
        let id = |sequence| PacketId { incarnation, session, sequence };
        let floor = waiting.flights.keys().next().copied().unwrap_or(waiting.next_sequence);
        for (&sequence, flight) in &mut waiting.flights {
            if !flight.under_way
                && let Some(framed) = &flight.framed
            {
                if !fits(framed.len()) {
                    return None;
                }
                flight.under_way = true;
                flight.tries = flight.tries.wrapping_add(1);
                let attempt = Attempt { sequence, number: flight.tries };
                let framed = framed.clone();
                let may_be_applied = flight.may_be_applied;
                return Some(Departure {
                    id: id(sequence),
                    attempt,
                    floor,
                    framed,
                    may_be_applied,
                });
            }
        }
        if !fits(waiting.writes.front()?.buffer.len()) {
            return None;
        }
        // What is under way keeps the floor down, and with it all that was answered since.
        if !waiting.flights.is_empty() && waiting.received.bytes > UNCONFIRMED_BYTES_MAX {
            return None;
        }
        let outgoing = waiting.writes.pop_front()?;
        waiting.bytes -= outgoing.buffer.len();
        let sequence = waiting.next_sequence;
        waiting.next_sequence += 1;
        let flight = Flight {
            framed: None,
            waiters: outgoing.waiters,
            under_way: true,
            tries: 0,
            may_be_applied: false,
            floor,
        };
        waiting.flights.insert(sequence, flight);
        let framed = outgoing.buffer.frame();
        waiting.recycle(outgoing.buffer);
        let attempt = Attempt { sequence, number: 0 };
        Some(Departure { id: id(sequence), attempt, floor, framed, may_be_applied: false })
    }

    /// Keeps a packet's bytes in case it has to be sent again. Called once they are in their final place.
    pub(super) fn keep(&self, sequence: u64, framed: Framed) {
        if let Some(flight) = self.waiting.lock().flights.get_mut(&sequence) {
            flight.framed = Some(framed);
        }
    }

    /// Write packets under way.
    pub(super) fn flights_under_way(&self) -> usize {
        self.waiting.lock().flights.values().filter(|flight| flight.under_way).count()
    }

    /// Whether a further packet or entry may leave while `under_way` others have no answer, of at most `limit`.
    pub(super) fn may_send(&self, under_way: usize, limit: usize) -> bool {
        under_way == 0 || (under_way < limit && self.waiting_bytes() >= PIPELINE_BYTES_MIN)
    }

    /// Bytes of writes that have gathered here, of this node's clients and of other nodes.
    fn waiting_bytes(&self) -> usize {
        let waiting = self.waiting.lock();
        let own: usize = waiting.writes.iter().map(|outgoing| outgoing.buffer.len()).sum();
        own + waiting.inbox_bytes
    }

    /// Whether a write waits for its next try or its first.
    pub(super) fn has_departures(&self) -> bool {
        let waiting = self.waiting.lock();
        !waiting.writes.is_empty() || waiting.flights.values().any(|flight| !flight.under_way)
    }

    /// A try ended without replies. Its packet is to be sent again, unless a later try is under way.
    pub(super) fn come_back(&self, attempt: Attempt, may_be_applied: bool) {
        if let Some(flight) = self.waiting.lock().flights.get_mut(&attempt.sequence) {
            flight.under_way &= flight.tries != attempt.number;
            flight.may_be_applied |= may_be_applied;
        }
    }

    /// `leader` leads now. What is under way to another node is to be sent again: that one may be silent for long, and
    /// the shard applies a packet once, however often it comes.
    pub(super) fn follow(&self, leader: NodeId) {
        let mut waiting = self.waiting.lock();
        if waiting.leader.replace(leader) == Some(leader) {
            return;
        }
        // What the old one said of the room that there is counts no more; the new one judges.
        self.note_room(u64::MAX);
        for flight in waiting.flights.values_mut().filter(|flight| flight.under_way) {
            flight.under_way = false;
            flight.may_be_applied = true;
        }
    }

    /// Whether packets are proposed here. Only then may an apply on this node answer them: a follower can apply an entry
    /// before its leader does, and a client that is answered by then would not find its write when it reads at the
    /// leader. What was sent to a leader is answered by that leader, after its own apply.
    fn leads(&self) -> bool {
        self.waiting.lock().leader == Some(self.node)
    }

    /// Whoever waits here for packet `id` of another node.
    fn take_proposed(&self, id: PacketId) -> Option<Responder> {
        self.waiting.lock().proposed.remove(&id).map(|proposed| proposed.responder)
    }

    /// Whether packets are under way to another node than `leader`.
    pub(super) fn must_follow(&self, leader: NodeId) -> bool {
        let waiting = self.waiting.lock();
        waiting.leader != Some(leader) && !waiting.flights.is_empty()
    }

    /// The `submissions` of packet `sequence`, by their places in it, have `replies`. The packet is under way until all have.
    pub(super) fn complete(&self, sequence: u64, submissions: Range<usize>, replies: &Replies) {
        let mut waiting = self.waiting.lock();
        let Some(flight) = waiting.flights.get_mut(&sequence) else { return };
        let count = flight.waiters.len();
        let places = submissions.start.min(count)..submissions.end.min(count);
        if places != (0..count) {
            let answered = &mut flight.waiters[places.clone()];
            deliver(answered, places.start, replies);
            for waiter in answered {
                waiter.is_answered = true;
                waiter.cell = None;
            }
            if !flight.waiters.iter().all(|waiter| waiter.is_answered) {
                return;
            }
        }
        let Some(flight) = waiting.flights.remove(&sequence) else { return };
        waiting.received.note(sequence, flight.floor, replies.bytes.len());
        drop(waiting);
        deliver(&flight.waiters, 0, replies);
    }

    /// Queues a packet without commands when this front end has nothing else to say and the shard should hear of it: that
    /// much was received, or that it lives. True when there is something to send.
    pub(super) fn confirm(&self, now: Instant) -> bool {
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        let Some(last) = waiting.received.last else { return false };
        let quiet = now.saturating_duration_since(last);
        let is_due = quiet >= SIGN_OF_LIFE_INTERVAL
            || (quiet >= CONFIRM_PAUSE && waiting.received.bytes >= CONFIRM_BYTES_MIN);
        if !is_due || !waiting.flights.is_empty() || !waiting.writes.is_empty() {
            return false;
        }
        let buffer = waiting.spare.pop().unwrap_or_else(PacketBuffer::new);
        // Nobody waits for it, but it is tried for as long as if somebody did.
        let deadline = now + REQUEST_DEADLINE;
        let nobody = Waiter { cell: None, commands: 0, bytes: 0, deadline, is_answered: true };
        waiting.writes.push_back(Outgoing { buffer, grows: false, waiters: vec![nobody] });
        true
    }

    /// Packets other nodes have sent, in order, up to `bytes_max`, but at least one if there is one. One that has waited for
    /// so long that its session may be closed and forgotten by now does not get into the log any more.
    pub(super) fn take_inbox(&self, bytes_max: usize, now: Instant) -> Vec<(Packet, Responder)> {
        let mut waiting = self.waiting.lock();
        let mut bytes = 0_usize;
        let (mut taken, mut stale) = (Vec::new(), Vec::new());
        while let Some((packet, _, since)) = waiting.inbox.front() {
            let length = packet.body.len();
            if now.saturating_duration_since(*since) > INBOX_AGE_MAX {
                waiting.inbox_bytes -= length;
                stale.extend(waiting.inbox.pop_front().map(|(_, responder, _)| responder));
                continue;
            }
            if !taken.is_empty() && bytes.saturating_add(length) > bytes_max {
                break;
            }
            bytes = bytes.saturating_add(length);
            waiting.inbox_bytes -= length;
            taken.extend(
                waiting.inbox.pop_front().map(|(packet, responder, _)| (packet, responder)),
            );
        }
        drop(waiting);
        for responder in stale {
            responder.send_with(wire::put_unknown);
        }
        taken
    }

    /// Remembers who is to be told when the packet called `id` is applied. The number of its proposal; `None` when it
    /// is proposed already and is not to be again: the log would hold every try of a packet that is long under way,
    /// and the larger it is the more tries there are (faults.md R20).
    pub(super) fn await_apply(&self, id: PacketId, responder: Responder) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        if let Some(proposed) = waiting.proposed.get_mut(&id) {
            // Answered at its latest call; the earlier one learns that it is not.
            let earlier = std::mem::replace(&mut proposed.responder, responder);
            drop(waiting);
            earlier.send_with(wire::put_unknown);
            return None;
        }
        waiting.proposals += 1;
        let proposal = waiting.proposals;
        waiting.proposed.insert(id, Proposed { proposal, responder });
        Some(proposal)
    }

    /// Whoever waits for packet `id` of another node in `proposal`, no longer to be told by apply. Nobody when it has
    /// been proposed anew since: that one is answered by its own entry.
    pub(super) fn forget_apply(&self, id: PacketId, proposal: u64) -> Option<Responder> {
        let mut waiting = self.waiting.lock();
        if waiting.proposed.get(&id)?.proposal != proposal {
            return None;
        }
        Some(waiting.proposed.remove(&id)?.responder)
    }

    /// Packet `sequence` was left out for good, for the reason in `error`. An earlier try of it may have been applied, by
    /// which its clients cannot tell what became of their commands.
    pub(super) fn give_up(&self, sequence: u64, error: &ErrorReply) {
        let mut waiting = self.waiting.lock();
        let Some(flight) = waiting.flights.remove(&sequence) else { return };
        // Whatever the shard keeps: a confirmation would be turned away like this packet, again and again.
        waiting.received = Received::default();
        drop(waiting);
        let error = if flight.may_be_applied { &ErrorReply::OUTCOME_UNKNOWN } else { error };
        fail(&flight.waiters, error);
    }

    /// This try was not let into the log, for the reason in `error`. An earlier one may have been: then the packet is to be
    /// sent again, until its fate is known. Whether it is.
    pub(super) fn refuse(&self, attempt: Attempt, error: &ErrorReply) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(flight) = waiting.flights.get_mut(&attempt.sequence) else { return false };
        if flight.may_be_applied || flight.tries != attempt.number {
            flight.under_way &= flight.tries != attempt.number;
            return true;
        }
        let flight = waiting.flights.remove(&attempt.sequence);
        drop(waiting);
        if let Some(flight) = flight {
            fail(&flight.waiters, error);
        }
        false
    }

    /// The reads that have gathered.
    pub(super) fn depart_reads(&self) -> Option<ReadDeparture> {
        let mut waiting = self.waiting.lock();
        let outgoing = waiting.reads.pop_front()?;
        waiting.bytes -= outgoing.buffer.len();
        let framed = outgoing.buffer.frame();
        waiting.recycle(outgoing.buffer);
        Some(ReadDeparture { framed, waiters: outgoing.waiters })
    }

    /// Whether reads wait.
    pub(super) fn has_reads(&self) -> bool {
        !self.waiting.lock().reads.is_empty()
    }

    /// Answers everything that waits with `error`: nobody is left to apply it.
    pub(super) fn fail_all(&self, error: &ErrorReply) {
        let mut waiters = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let waiting = &mut *waiting;
            for outgoing in waiting.writes.drain(..).chain(waiting.reads.drain(..)) {
                waiters.extend(outgoing.waiters);
            }
            waiting.bytes = 0;
            for flight in std::mem::take(&mut waiting.flights).into_values() {
                let error =
                    if flight.may_be_applied { &ErrorReply::OUTCOME_UNKNOWN } else { error };
                fail(&flight.waiters, error);
            }
        }
        fail(&waiters, error);
    }

    /// Answers everything whose deadline has passed: what surely did nothing says "no quorum", what may
    /// have been applied says so.
    pub(super) fn expire(&self, now: Instant) {
        let mut late = Vec::new();
        let mut unknown = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let waiting = &mut *waiting;
            for queue in [&mut waiting.writes, &mut waiting.reads] {
                while let Some(outgoing) = queue.front_mut() {
                    let overdue = Overdue::take(&mut outgoing.waiters, now, &mut late);
                    if overdue.submissions == 0 {
                        break;
                    }
                    waiting.bytes -= overdue.bytes;
                    outgoing.buffer.cut(overdue.bytes, overdue.commands);
                    if outgoing.waiters.is_empty() {
                        queue.pop_front();
                    }
                }
            }
            let received = &mut waiting.received;
            waiting.flights.retain(|sequence, flight| {
                if flight.under_way || flight.may_be_applied {
                    // What was sent stays as it is, and goes on for the others.
                    let overdue = flight.waiters.partition_point(|waiter| waiter.deadline <= now);
                    unknown.extend(
                        flight.waiters[..overdue]
                            .iter_mut()
                            .filter_map(|waiter| waiter.cell.take()),
                    );
                    let is_over = overdue == flight.waiters.len();
                    if is_over {
                        // Its replies may yet be kept by the shard, however large they are.
                        received.note(*sequence, flight.floor, CONFIRM_BYTES_MIN);
                    }
                    return !is_over;
                }
                // No try is in a log or on its way to one: what is answered now must not come along with the next.
                let overdue = Overdue::take(&mut flight.waiters, now, &mut late);
                if overdue.submissions > 0 {
                    let rest = flight
                        .framed
                        .as_ref()
                        .map(|it| it.without(overdue.bytes, overdue.commands));
                    flight.framed = rest;
                }
                !flight.waiters.is_empty()
            });
        }
        for cell in late {
            cell.fail(ErrorReply::NO_QUORUM);
        }
        for cell in unknown {
            cell.fail(ErrorReply::OUTCOME_UNKNOWN);
        }
    }
}

/// The first submissions of a packet, taken out of it because their deadlines have passed.
#[derive(Clone, Copy, Debug)]
struct Overdue {
    submissions: usize,
    bytes: usize,
    commands: u32,
}

impl Overdue {
    /// Takes them from `waiters`, which stand in the order of their deadlines, and leaves their cells in `cells`.
    fn take(waiters: &mut Vec<Waiter>, now: Instant, cells: &mut Vec<Arc<ReplyCell>>) -> Self {
        let submissions = waiters.partition_point(|waiter| waiter.deadline <= now);
        let mut taken = Self { submissions, bytes: 0, commands: 0 };
        for waiter in waiters.drain(..submissions) {
            taken.bytes += waiter.bytes;
            taken.commands += waiter.commands;
            cells.extend(waiter.cell);
        }
        taken
    }
}

impl ReadDeparture {
    pub(super) fn complete(&self, replies: &Replies) {
        deliver(&self.waiters, 0, replies);
    }

    pub(super) fn fail(&self, error: &ErrorReply) {
        fail(&self.waiters, error);
    }

    /// Answers those whose deadline has passed. The next deadline; `None` when nobody waits any more.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let overdue = self.waiters.partition_point(|waiter| waiter.deadline <= now);
        for cell in self.waiters[..overdue].iter_mut().filter_map(|waiter| waiter.cell.take()) {
            cell.fail(ErrorReply::NO_QUORUM);
        }
        self.waiters.get(overdue).map(|waiter| waiter.deadline)
    }
}

fn fail(waiters: &[Waiter], error: &ErrorReply) {
    for cell in waiters.iter().filter_map(|waiter| waiter.cell.as_ref()) {
        cell.fail(error.clone());
    }
}

/// Gives `waiters`, whose submissions are those from place `from` on, their part of `replies`.
fn deliver(waiters: &[Waiter], from: usize, replies: &Replies) {
    for (waiter, place) in waiters.iter().zip(from..) {
        if let Some(cell) = &waiter.cell {
            cell.complete(replies, place, waiter.commands as usize);
        }
    }
}

impl AppliedPackets for Front {
    fn applied(&self, id: PacketId, submissions: Range<usize>, replies: &Arc<Replies>) {
        if id.incarnation == self.incarnation {
            if id.session == self.session && self.leads() {
                self.complete(id.sequence, submissions, replies);
            }
        } else if let Some(responder) = self.take_proposed(id) {
            responder.send_with(|out| wire::put_applied(self.room(), replies, out));
        }
    }

    fn stale(&self, id: PacketId) {
        if (id.incarnation, id.session) == (self.incarnation, self.session) {
            if self.leads() {
                self.give_up(id.sequence, &ErrorReply::SESSION_ENDED);
            }
        } else if let Some(responder) = self.take_proposed(id) {
            responder.send_with(wire::put_stale);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::proposal::put_command;
    use super::*;
    use crate::ids::DbIndex;
    use crate::resp::Protocol;

    const HERE: NodeId = NodeId(1);
    const FIRST: NodeId = NodeId(2);
    const SECOND: NodeId = NodeId(3);

    /// A front end with one packet under way to `FIRST`.
    fn front_with_a_packet() -> (Front, Departure) {
        let (front, departure, _) = front_with_a_packet_of();
        (front, departure)
    }

    /// The same, and where its client waits.
    fn front_with_a_packet_of() -> (Front, Departure, Arc<ReplyCell>) {
        let cell = ReplyCell::new();
        let front = Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 });
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"a"], &mut commands);
        front.submit(Lane::Write, &commands, 1, &cell);
        front.follow(FIRST);
        let departure = front.depart(0).unwrap();
        front.keep(departure.id.sequence, departure.framed.clone());
        (front, departure, cell)
    }

    #[test]
    fn a_new_leader_is_sent_what_the_old_one_has_not_answered() {
        let (front, first) = front_with_a_packet();
        front.follow(FIRST);
        assert!(front.depart(0).is_none(), "it is under way");
        assert!(front.must_follow(SECOND) && !front.must_follow(FIRST));
        front.follow(SECOND);
        let second = front.depart(0).unwrap();
        assert_eq!(second.id, first.id, "under the same number");
        assert!(front.depart(0).is_none());
    }

    #[test]
    fn the_end_of_an_older_try_does_not_send_a_third() {
        let (front, first) = front_with_a_packet();
        front.follow(SECOND);
        let second = front.depart(0).unwrap();
        front.come_back(first.attempt, false);
        assert!(front.depart(0).is_none(), "the second try is under way");
        front.come_back(second.attempt, false);
        assert_eq!(front.depart(0).unwrap().id, first.id);
    }

    #[test]
    fn an_apply_answers_only_where_the_packet_was_proposed() {
        let (front, departure) = front_with_a_packet();
        let replies = Arc::new(Replies::of(&[&[":1\r\n"]]));
        front.applied(departure.id, 0..1, &replies);
        assert!(front.must_follow(SECOND), "the leader has yet to apply it and to answer");
        front.follow(HERE);
        front.applied(departure.id, 0..1, &replies);
        assert!(!front.must_follow(SECOND), "nothing is unanswered");
    }

    /// faults.md R1: nobody was told, and the client waited for its deadline.
    #[tokio::test]
    async fn a_packet_whose_session_has_ended_is_answered_at_once() {
        for (may_be_applied, error) in
            [(false, ErrorReply::SESSION_ENDED), (true, ErrorReply::OUTCOME_UNKNOWN)]
        {
            let (front, first, cell) = front_with_a_packet_of();
            front.come_back(first.attempt, may_be_applied);
            front.follow(HERE);
            let second = front.depart(0).unwrap();
            front.stale(second.id);
            assert_eq!(cell.take(&mut Replies::default()).await, Err(error));
            assert!(!front.must_follow(SECOND), "nothing is unanswered");
        }
    }

    /// A further client's submission, as if it came `later`.
    fn submit_later(front: &Front, later: Duration) -> Arc<ReplyCell> {
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"b"], &mut commands);
        front.submit(Lane::Write, &commands, 1, &cell);
        let mut waiting = front.waiting.lock();
        waiting.writes.back_mut().unwrap().waiters.last_mut().unwrap().deadline += later;
        cell
    }

    async fn outcome(cell: &ReplyCell) -> Option<Result<Vec<u8>, ErrorReply>> {
        let mut replies = Replies::default();
        let taken = tokio::time::timeout(Duration::ZERO, cell.take(&mut replies)).await.ok()?;
        Some(taken.map(|()| replies.bytes))
    }

    const LATER: Duration = Duration::from_secs(3);

    /// faults.md R16: whoever came last to a packet was answered when the first one's time had passed.
    #[tokio::test]
    async fn each_submission_of_a_packet_under_way_has_its_own_time() {
        let front = Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 });
        let first = submit_later(&front, Duration::ZERO);
        let second = submit_later(&front, LATER);
        front.follow(FIRST);
        let departure = front.depart(0).unwrap();
        front.keep(departure.id.sequence, departure.framed);
        front.expire(Instant::now() + REQUEST_DEADLINE);
        assert_eq!(outcome(&first).await, Some(Err(ErrorReply::OUTCOME_UNKNOWN)));
        assert_eq!(outcome(&second).await, None, "its time has not passed");
        let replies = Replies::of(&[&[":1\r\n"], &[":2\r\n"]]);
        front.complete(departure.id.sequence, 0..2, &replies);
        assert_eq!(outcome(&second).await, Some(Ok(b":2\r\n".to_vec())), "its own reply");
        assert_eq!(outcome(&first).await, None, "answered once");
    }

    /// Nothing of what was answered "no quorum" may come along with what is sent later.
    #[tokio::test]
    async fn what_expired_before_it_was_sent_is_never_sent() {
        for came_back in [false, true] {
            let front = Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 });
            let first = submit_later(&front, Duration::ZERO);
            let second = submit_later(&front, LATER);
            front.follow(FIRST);
            if came_back {
                let departure = front.depart(0).unwrap();
                front.keep(departure.id.sequence, departure.framed);
                front.come_back(departure.attempt, false);
            }
            front.expire(Instant::now() + REQUEST_DEADLINE);
            assert_eq!(outcome(&first).await, Some(Err(ErrorReply::NO_QUORUM)));
            let departure = front.depart(0).unwrap();
            assert_eq!(departure.framed.commands, 1);
            let mut commands = Vec::new();
            put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"b"], &mut commands);
            let mut buffer = PacketBuffer::new();
            buffer.push(&commands, 1);
            assert_eq!(departure.framed.body(), buffer.frame().body());
            front.complete(departure.id.sequence, 0..1, &Replies::of(&[&[":1\r\n"]]));
            assert_eq!(outcome(&second).await, Some(Ok(b":1\r\n".to_vec())));
        }
    }

    fn replies_of(bytes: usize) -> Replies {
        Replies::of(&[&[&"x".repeat(bytes)]])
    }

    /// faults.md R17: the shard kept the replies of a front end that had nothing more to send.
    #[test]
    fn a_front_end_that_falls_silent_says_what_it_has_received() {
        let (front, first) = front_with_a_packet();
        let now = Instant::now();
        assert!(!front.confirm(now + CONFIRM_PAUSE), "it has received nothing");
        front.complete(first.id.sequence, 0..1, &replies_of(CONFIRM_BYTES_MIN));
        let later = Instant::now() + CONFIRM_PAUSE;
        assert!(!front.confirm(now), "another packet may be about to say so");
        assert!(front.confirm(later));
        assert!(!front.confirm(later), "once");
        let packet = front.depart(0).unwrap();
        assert_eq!((packet.floor, packet.framed.commands), (first.id.sequence + 1, 0));
        front.expire(Instant::now());
        front.complete(packet.id.sequence, 0..0, &Replies::default());
        assert!(!front.confirm(later + CONFIRM_PAUSE), "the shard knows");
        assert!(front.confirm(later + SIGN_OF_LIFE_INTERVAL), "it lives");
    }

    /// Whoever came before it left was given the replies of the one after it.
    #[tokio::test]
    async fn who_joins_a_confirmation_gets_its_own_replies() {
        for clients in 1..=3_usize {
            let (front, first) = front_with_a_packet();
            front.follow(HERE);
            front.complete(first.id.sequence, 0..1, &replies_of(CONFIRM_BYTES_MIN));
            assert!(front.confirm(Instant::now() + CONFIRM_PAUSE));
            let cells: Vec<_> =
                (0..clients).map(|_| submit_later(&front, Duration::ZERO)).collect();
            let departure = front.depart(0).unwrap();
            let texts: Vec<String> = (0..clients).map(|number| format!(":{number}\r\n")).collect();
            let each: Vec<[&str; 1]> = texts.iter().map(|text| [text.as_str()]).collect();
            let all: Vec<&[&str]> = each.iter().map(|text| &text[..]).collect();
            front.complete(departure.id.sequence, 0..clients, &Replies::of(&all));
            for (cell, text) in cells.iter().zip(&texts) {
                assert_eq!(outcome(cell).await, Some(Ok(text.clone().into_bytes())));
            }
            assert!(!front.must_follow(SECOND), "nothing is unanswered");
        }
    }

    /// The replies came when the client had been told already that the outcome is unknown.
    #[test]
    fn what_was_answered_too_late_is_confirmed_too() {
        let (front, _first) = front_with_a_packet();
        let now = Instant::now();
        front.expire(now + REQUEST_DEADLINE);
        assert!(front.confirm(Instant::now() + CONFIRM_PAUSE));
    }

    #[test]
    fn small_replies_wait_for_the_sign_of_life() {
        let (front, first) = front_with_a_packet();
        front.complete(first.id.sequence, 0..1, &replies_of(5));
        let now = Instant::now();
        assert!(!front.confirm(now + SIGN_OF_LIFE_INTERVAL / 2));
        assert!(front.confirm(now + SIGN_OF_LIFE_INTERVAL));
    }

    #[test]
    fn who_holds_no_session_gives_no_sign_of_life() {
        let front = Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 });
        assert!(!front.confirm(Instant::now() + SIGN_OF_LIFE_INTERVAL));
        let (front, first) = front_with_a_packet();
        front.give_up(first.id.sequence, &ErrorReply::SESSION_ENDED);
        assert!(!front.confirm(Instant::now() + SIGN_OF_LIFE_INTERVAL));
    }

    /// What is kept in the table of a shard for one front end is bounded, however long a packet of it is under way.
    #[test]
    fn nothing_new_is_sent_while_much_is_unconfirmed() {
        let (front, stuck) = front_with_a_packet();
        let mut answered = 0;
        loop {
            let _cell = submit_later(&front, Duration::ZERO);
            let Some(departure) = front.depart(0) else { break };
            assert_eq!(departure.floor, stuck.id.sequence);
            front.complete(departure.id.sequence, 0..1, &replies_of(UNCONFIRMED_BYTES_MAX / 8));
            answered += 1;
        }
        assert_eq!(answered, 8);
        front.complete(stuck.id.sequence, 0..1, &replies_of(1));
        let next = front.depart(0).unwrap();
        assert_eq!(next.floor, next.id.sequence, "now all of it is confirmed");
        front.complete(next.id.sequence, 0..1, &replies_of(1));
        assert_eq!(front.waiting.lock().received.bytes, PACKET_REPLY_BYTES + 1);
    }

    /// Each is answered as its replies come; the packet is under way until all are in.
    #[tokio::test]
    async fn submissions_of_a_packet_are_answered_one_by_one() {
        let front = Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 });
        let cells: Vec<_> = (0..3).map(|_| submit_later(&front, Duration::ZERO)).collect();
        front.follow(HERE);
        let departure = front.depart(0).unwrap();
        front.keep(departure.id.sequence, departure.framed);
        let replies = Arc::new(Replies::of(&[&[":1\r\n"], &[":2\r\n"], &[":3\r\n"]]));
        front.applied(departure.id, 1..2, &replies);
        assert_eq!(outcome(&cells[1]).await, Some(Ok(b":2\r\n".to_vec())));
        assert_eq!(outcome(&cells[0]).await, None, "its replies are not in");
        assert!(front.must_follow(SECOND), "the packet is under way");
        front.applied(departure.id, 0..1, &replies);
        assert_eq!(outcome(&cells[0]).await, Some(Ok(b":1\r\n".to_vec())));
        // A retry is answered with all of them.
        front.applied(departure.id, 0..3, &replies);
        assert_eq!(outcome(&cells[2]).await, Some(Ok(b":3\r\n".to_vec())));
        assert_eq!(outcome(&cells[1]).await, None, "answered once");
        assert!(!front.must_follow(SECOND), "nothing is unanswered");
    }

    #[test]
    fn small_packets_wait_for_an_answer_and_large_ones_do_not() {
        let (front, _) = front_with_a_packet();
        assert!(front.may_send(0, 4));
        assert!(!front.may_send(1, 4));
        let value = vec![b'x'; PIPELINE_BYTES_MIN];
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"a", &value], &mut commands);
        front.submit(Lane::Write, &commands, 1, &ReplyCell::new());
        assert!(front.may_send(1, 4));
        assert!(!front.may_send(4, 4));
    }
}
