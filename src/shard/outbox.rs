//! What this node's clients have for a shard: commands that wait, packets unanswered, who waits for what.
//!
//! A machine without a clock or a lock, and it tells nobody anything: times are arguments, and whom to tell is a result. Its
//! times may come a little out of order, from several threads; it takes them as they are in order.
//!
//! **Invariant:** a sequence number is given up (the last of its clients answered "outcome unknown") before the floor passes it, and
//! a packet below the floor is never applied; so "unknown" can only turn out applied-before or never.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::limits::{
    CONFIRM_BYTES_MIN, CONFIRM_PAUSE, ENTRY_BYTES_MAX, OUTBOX_BYTES_MAX, PACKET_BYTES_SOFT_MAX,
    PACKET_REPLY_BYTES, REQUEST_DEADLINE, SIGN_OF_LIFE_INTERVAL, UNCONFIRMED_BYTES_MAX,
};
use super::proposal::{Framed, PacketBuffer};
use super::reply::ReplyCell;
use crate::ids::NodeId;

/// Which way a submission goes; of two that are put together, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Reads only, answered from what this node's replica has applied, whatever it is worth.
    Stale,
    /// Reads only, answered from applied state by whoever leads.
    Read,
    /// Through the log. May also carry reads that must see the writes before them.
    Write,
}

/// The bytes of commands.
#[derive(Clone, Debug)]
pub enum Encoded<'a> {
    /// Somebody else's: they are copied where they are to stay.
    Copied(&'a [u8]),
    /// Shared: they stay where they are. Dearer than a copy where they are few.
    Lent(Bytes),
}

impl Encoded<'_> {
    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Lent(bytes) => bytes,
        }
    }
}

impl<'a, B: AsRef<[u8]>> From<&'a B> for Encoded<'a> {
    fn from(bytes: &'a B) -> Self {
        Self::Copied(bytes.as_ref())
    }
}

/// The commands of one socket read.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    pub(super) commands: Encoded<'a>,
    pub(super) count: u32,
    /// Whether they may need more memory, where that is limited.
    pub(super) grows: bool,
    pub(super) cell: &'a Arc<ReplyCell>,
}

/// A connection that waits for its submission. A packet has them in the order in which they came, which is that of their
/// deadlines and that in which the packet holds their commands.
#[derive(Debug)]
pub(super) struct Waiter {
    /// `None` when it was told already that its time has passed, or has its replies.
    pub(super) cell: Option<Arc<ReplyCell>>,
    pub(super) commands: u32,
    bytes: usize,
    /// Its own, not the packet's: a packet that lasts long has submissions of very different ages (faults.md R16).
    pub(super) deadline: Instant,
    /// Its replies are in.
    is_answered: bool,
}

/// A packet's commands and those who wait for them.
#[derive(Debug)]
struct Outgoing {
    buffer: PacketBuffer,
    /// Whether its commands may need more memory, where that is limited. Such a packet may be turned away, and what needs
    /// none is not to be turned away with it.
    grows: bool,
    waiters: Vec<Waiter>,
}

/// A write packet under way.
#[derive(Debug)]
struct Flight {
    /// `None` while its bytes are out for a try, see [`Leaving`].
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
    fn note(&mut self, sequence: u64, floor: u64, bytes: usize, now: Instant) {
        self.last = Some(now);
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
    pub(super) sequence: u64,
    number: u32,
}

/// A write packet that leaves. Its bytes are to be given back by [`Outbox::keep`]: nobody else may hold them while the
/// first try fills in their head, in place.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) attempt: Attempt,
    pub(super) floor: u64,
    pub(super) framed: Framed,
    /// Some try of it may have entered a log.
    pub(super) may_be_applied: bool,
}

/// The replies to some submissions of a packet are in: to be given to these.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) waiters: Vec<Waiter>,
    /// The place of the first of them in the packet.
    pub(super) from: usize,
}

/// Who is to be told that no replies will come.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Their commands have surely done nothing.
    pub(super) untouched: Vec<Arc<ReplyCell>>,
    /// Their commands may have been applied.
    pub(super) unknown: Vec<Arc<ReplyCell>>,
    /// Their commands are reads that were waiting for others to be answered.
    pub(super) unread: Vec<Arc<ReplyCell>>,
}

impl Unanswered {
    fn add(&mut self, waiters: Vec<Waiter>, may_be_applied: bool) {
        let told = if may_be_applied { &mut self.unknown } else { &mut self.untouched };
        told.extend(waiters.into_iter().filter_map(|waiter| waiter.cell));
    }
}

/// What became of a try that was not let into the log.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its packet is given up.
    GivenUp(Unanswered),
    /// Its packet is to be sent again until its fate is known: an earlier try may have entered a log, or a later one is
    /// under way.
    Again,
    /// Nobody waits for it any more.
    Gone,
}

/// Commands of this node's clients on their way to one shard.
#[derive(Debug)]
pub(super) struct Outbox {
    writes: VecDeque<Outgoing>,
    reads: VecDeque<Outgoing>,
    /// Bytes of commands in both.
    bytes: usize,
    flights: BTreeMap<u64, Flight>,
    received: Received,
    /// Whom the packets under way were sent to.
    leader: Option<NodeId>,
    next_sequence: u64,
    /// Emptied buffers, used again.
    spare: Vec<PacketBuffer>,
    /// The latest time heard of.
    latest: Option<Instant>,
}

impl Outbox {
    /// Nothing on its way; the first packet is number 1.
    pub(super) fn new() -> Self {
        Self {
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            bytes: 0,
            flights: BTreeMap::new(),
            received: Received::default(),
            leader: None,
            next_sequence: 1,
            spare: Vec::new(),
            latest: None,
        }
    }

    /// The time, which never goes back here: deadlines stand in order.
    fn pass(&mut self, now: Instant) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        now
    }

    fn recycle(&mut self, mut buffer: PacketBuffer) {
        const SPARE_BUFFERS_MAX: usize = 4;
        if self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Queues a submission that comes at `now`. False when too much waits already.
    #[must_use]
    pub(super) fn submit(&mut self, lane: Lane, it: &Submission<'_>, now: Instant) -> bool {
        let (length, grows) = (it.commands.bytes().len(), it.grows);
        if self.bytes.saturating_add(length) > OUTBOX_BYTES_MAX {
            return false;
        }
        self.bytes += length;
        let deadline = self.pass(now) + REQUEST_DEADLINE;
        let queue = match lane {
            Lane::Write => &mut self.writes,
            // Whoever sends it away loses nothing by a better answer.
            Lane::Read | Lane::Stale => &mut self.reads,
        };
        let fits = queue.back().is_some_and(|last| {
            let is_alike = last.grows == grows || last.buffer.len() == 0;
            is_alike && last.buffer.len() + length <= PACKET_BYTES_SOFT_MAX
        });
        if !fits {
            let buffer = self.spare.pop().unwrap_or_else(PacketBuffer::new);
            queue.push_back(Outgoing { buffer, grows, waiters: Vec::new() });
        }
        if let Some(last) = queue.back_mut() {
            // What was to go without commands goes with these. Nobody waits for it, and waiters are counted as the
            // submissions of the packet are.
            if last.buffer.len() == 0 {
                last.waiters.clear();
                last.grows = grows;
            }
            match &it.commands {
                Encoded::Copied(commands) => last.buffer.push(commands, it.count),
                Encoded::Lent(commands) => last.buffer.push_lent(commands.clone(), it.count),
            }
            last.waiters.push(Waiter {
                cell: Some(Arc::clone(it.cell)),
                commands: it.count,
                bytes: length,
                deadline,
                is_answered: false,
            });
        }
        true
    }

    /// The next write packet that is not under way: one to be sent again, or what has gathered. `None` also when
    /// it would make an entry that already has `other_bytes` too large.
    pub(super) fn depart(&mut self, other_bytes: usize) -> Option<Leaving> {
        let fits =
            |bytes: usize| other_bytes == 0 || other_bytes.saturating_add(bytes) <= ENTRY_BYTES_MAX;
        let floor = self.flights.keys().next().copied().unwrap_or(self.next_sequence);
        for (&sequence, flight) in &mut self.flights {
            if flight.under_way {
                continue;
            }
            let Some(framed) = flight.framed.take() else { continue };
            if !fits(framed.len()) {
                flight.framed = Some(framed);
                return None;
            }
            flight.under_way = true;
            flight.tries = flight.tries.wrapping_add(1);
            let attempt = Attempt { sequence, number: flight.tries };
            let may_be_applied = flight.may_be_applied;
            return Some(Leaving { attempt, floor, framed, may_be_applied });
        }
        if !fits(self.writes.front()?.buffer.len()) {
            return None;
        }
        // What is under way keeps the floor down, and with it all that was answered since.
        if !self.flights.is_empty() && self.received.bytes > UNCONFIRMED_BYTES_MAX {
            return None;
        }
        let outgoing = self.writes.pop_front()?;
        self.bytes -= outgoing.buffer.len();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let flight = Flight {
            framed: None,
            waiters: outgoing.waiters,
            under_way: true,
            tries: 0,
            may_be_applied: false,
            floor,
        };
        self.flights.insert(sequence, flight);
        let framed = outgoing.buffer.frame();
        self.recycle(outgoing.buffer);
        let attempt = Attempt { sequence, number: 0 };
        Some(Leaving { attempt, floor, framed, may_be_applied: false })
    }

    /// Takes the bytes of a packet back, which may have to be sent again: once they are in their final place.
    pub(super) fn keep(&mut self, sequence: u64, framed: Framed) {
        if let Some(flight) = self.flights.get_mut(&sequence) {
            flight.framed = Some(framed);
        }
    }

    /// Write packets under way.
    pub(super) fn flights_under_way(&self) -> usize {
        self.flights.values().filter(|flight| flight.under_way).count()
    }

    /// Bytes of writes that have gathered.
    pub(super) fn write_bytes(&self) -> usize {
        self.writes.iter().map(|outgoing| outgoing.buffer.len()).sum()
    }

    /// Whether a write waits for its next try or its first.
    pub(super) fn has_departures(&self) -> bool {
        !self.writes.is_empty() || self.flights.values().any(|flight| !flight.under_way)
    }

    /// A try ended without replies. Its packet is to be sent again, unless a later try is under way.
    pub(super) fn come_back(&mut self, attempt: Attempt, may_be_applied: bool) {
        if let Some(flight) = self.flights.get_mut(&attempt.sequence) {
            flight.under_way &= flight.tries != attempt.number;
            flight.may_be_applied |= may_be_applied;
        }
    }

    /// `leader` leads now. What is under way to another node is to be sent again: that one may be silent for long, and
    /// the shard applies a packet once, however often it comes. Whether that is news.
    pub(super) fn follow(&mut self, leader: NodeId) -> bool {
        if self.leader.replace(leader) == Some(leader) {
            return false;
        }
        for flight in self.flights.values_mut().filter(|flight| flight.under_way) {
            flight.under_way = false;
            flight.may_be_applied = true;
        }
        true
    }

    /// Whether packets go to `leader`.
    pub(super) fn follows(&self, leader: NodeId) -> bool {
        self.leader == Some(leader)
    }

    /// Whether packets are under way to another node than `leader`.
    pub(super) fn must_follow(&self, leader: NodeId) -> bool {
        !self.follows(leader) && !self.flights.is_empty()
    }

    /// At `now` the `submissions` of packet `sequence`, by their places in it, have replies: `bytes` with those of the others.
    /// The packet is under way until all have.
    pub(super) fn complete(
        &mut self,
        sequence: u64,
        submissions: Range<usize>,
        bytes: usize,
        now: Instant,
    ) -> Option<Answered> {
        let flight = self.flights.get_mut(&sequence)?;
        let count = flight.waiters.len();
        let places = submissions.start.min(count)..submissions.end.min(count);
        let mut part = None;
        if places != (0..count) {
            let answered = flight.waiters[places.clone()].iter_mut();
            let waiters = answered.map(Waiter::answered).collect();
            part = Some(Answered { waiters, from: places.start });
            if !flight.waiters.iter().all(|waiter| waiter.is_answered) {
                return part;
            }
        }
        let flight = self.flights.remove(&sequence)?;
        let now = self.pass(now);
        self.received.note(sequence, flight.floor, bytes, now);
        Some(part.unwrap_or(Answered { waiters: flight.waiters, from: 0 }))
    }

    /// Queues a packet without commands when there is nothing else to say and the shard should hear of it: that much was
    /// received, or that this front end lives. True when there is something to send.
    pub(super) fn confirm(&mut self, now: Instant) -> bool {
        let Some(last) = self.received.last else { return false };
        let quiet = now.saturating_duration_since(last);
        let is_due = quiet >= SIGN_OF_LIFE_INTERVAL
            || (quiet >= CONFIRM_PAUSE && self.received.bytes >= CONFIRM_BYTES_MIN);
        if !is_due || !self.flights.is_empty() || !self.writes.is_empty() {
            return false;
        }
        let buffer = self.spare.pop().unwrap_or_else(PacketBuffer::new);
        // Nobody waits for it, but it is tried for as long as if somebody did.
        let deadline = self.pass(now) + REQUEST_DEADLINE;
        let nobody = Waiter { cell: None, commands: 0, bytes: 0, deadline, is_answered: true };
        self.writes.push_back(Outgoing { buffer, grows: false, waiters: vec![nobody] });
        true
    }

    /// Packet `sequence` was left out for good. An earlier try of it may have been applied, by which its clients cannot tell
    /// what became of their commands.
    pub(super) fn give_up(&mut self, sequence: u64) -> Unanswered {
        let mut unanswered = Unanswered::default();
        if let Some(flight) = self.flights.remove(&sequence) {
            // Whatever the shard keeps: a confirmation would be turned away like this packet, again and again.
            self.received = Received::default();
            unanswered.add(flight.waiters, flight.may_be_applied);
        }
        unanswered
    }

    /// This try was not let into the log.
    pub(super) fn refuse(&mut self, attempt: Attempt) -> Refused {
        let Some(flight) = self.flights.get_mut(&attempt.sequence) else { return Refused::Gone };
        if flight.may_be_applied || flight.tries != attempt.number {
            flight.under_way &= flight.tries != attempt.number;
            return Refused::Again;
        }
        let Some(flight) = self.flights.remove(&attempt.sequence) else { return Refused::Gone };
        let mut unanswered = Unanswered::default();
        unanswered.add(flight.waiters, false);
        Refused::GivenUp(unanswered)
    }

    /// The reads that have gathered.
    pub(super) fn depart_reads(&mut self) -> Option<(Framed, Vec<Waiter>)> {
        let outgoing = self.reads.pop_front()?;
        self.bytes -= outgoing.buffer.len();
        let framed = outgoing.buffer.frame();
        self.recycle(outgoing.buffer);
        Some((framed, outgoing.waiters))
    }

    /// Whether reads wait.
    pub(super) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Gives up everything: nobody is left to apply it.
    pub(super) fn give_up_all(&mut self) -> Unanswered {
        let mut unanswered = Unanswered::default();
        for outgoing in self.writes.drain(..).chain(self.reads.drain(..)) {
            unanswered.add(outgoing.waiters, false);
        }
        self.bytes = 0;
        for flight in std::mem::take(&mut self.flights).into_values() {
            unanswered.add(flight.waiters, flight.may_be_applied);
        }
        unanswered
    }

    /// Gives up everything whose deadline has passed at `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Unanswered {
        let mut unanswered = Unanswered::default();
        let Unanswered { untouched, unread, .. } = &mut unanswered;
        for (queue, cells) in [(&mut self.writes, untouched), (&mut self.reads, unread)] {
            while let Some(outgoing) = queue.front_mut() {
                let overdue = Overdue::take(&mut outgoing.waiters, now, cells);
                if overdue.submissions == 0 {
                    break;
                }
                self.bytes -= overdue.bytes;
                outgoing.buffer.cut(overdue.bytes, overdue.commands);
                if outgoing.waiters.is_empty() {
                    queue.pop_front();
                }
            }
        }
        let received = &mut self.received;
        self.flights.retain(|sequence, flight| {
            if flight.under_way || flight.may_be_applied {
                // What was sent stays as it is, and goes on for the others.
                let overdue = overdue(&flight.waiters, now);
                let cells = flight.waiters[..overdue].iter_mut().filter_map(|it| it.cell.take());
                unanswered.unknown.extend(cells);
                let is_over = overdue == flight.waiters.len();
                if is_over {
                    // Its replies may yet be kept by the shard, however large they are.
                    received.note(*sequence, flight.floor, CONFIRM_BYTES_MIN, now);
                }
                return !is_over;
            }
            // No try is in a log or on its way to one: what is answered now must not come along with the next.
            let overdue = Overdue::take(&mut flight.waiters, now, &mut unanswered.untouched);
            if overdue.submissions > 0 {
                let framed = flight.framed.as_ref();
                flight.framed = framed.map(|it| it.without(overdue.bytes, overdue.commands));
            }
            !flight.waiters.is_empty()
        });
        unanswered
    }
}

impl Waiter {
    /// Marks that its replies are in; the one to give them to.
    fn answered(&mut self) -> Self {
        self.is_answered = true;
        Self { cell: self.cell.take(), ..*self }
    }
}

/// How many of `waiters`, which stand in the order of their deadlines, have none left at `now`.
pub(super) fn overdue(waiters: &[Waiter], now: Instant) -> usize {
    waiters.partition_point(|waiter| waiter.deadline <= now)
}

/// The first submissions of a packet, taken out of it because their deadlines have passed.
#[derive(Clone, Copy, Debug)]
struct Overdue {
    submissions: usize,
    bytes: usize,
    commands: u32,
}

impl Overdue {
    /// Takes them from `waiters` and leaves their cells in `cells`.
    fn take(waiters: &mut Vec<Waiter>, now: Instant, cells: &mut Vec<Arc<ReplyCell>>) -> Self {
        let submissions = overdue(waiters, now);
        let mut taken = Self { submissions, bytes: 0, commands: 0 };
        for waiter in waiters.drain(..submissions) {
            taken.bytes += waiter.bytes;
            taken.commands += waiter.commands;
            cells.extend(waiter.cell);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::proposal::put_command;
    use super::*;
    use crate::ids::DbIndex;
    use crate::resp::Protocol;

    const FIRST: NodeId = NodeId(2);
    const SECOND: NodeId = NodeId(3);

    fn submit(outbox: &mut Outbox, lane: Lane, now: Instant) {
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"a"], &mut commands);
        let commands = Encoded::Copied(&commands);
        let it = Submission { commands, count: 1, grows: false, cell: &cell };
        assert!(outbox.submit(lane, &it, now));
    }

    /// Sends what is next, as if to the leader.
    fn send(outbox: &mut Outbox) -> Option<(Attempt, u64)> {
        let Leaving { attempt, floor, framed, .. } = outbox.depart(0)?;
        outbox.keep(attempt.sequence, framed);
        Some((attempt, floor))
    }

    /// One packet under way to `FIRST`, since when.
    fn outbox_with_a_packet() -> (Outbox, Attempt, Instant) {
        let (mut outbox, now) = (Outbox::new(), Instant::now());
        submit(&mut outbox, Lane::Write, now);
        outbox.follow(FIRST);
        let (attempt, _) = send(&mut outbox).unwrap();
        (outbox, attempt, now)
    }

    #[test]
    fn a_new_leader_is_sent_what_the_old_one_has_not_answered() {
        let (mut outbox, first, _) = outbox_with_a_packet();
        assert!(!outbox.follow(FIRST), "no news");
        assert!(send(&mut outbox).is_none(), "it is under way");
        assert!(outbox.must_follow(SECOND) && !outbox.must_follow(FIRST));
        assert!(outbox.follow(SECOND));
        let (second, _) = send(&mut outbox).unwrap();
        assert_eq!(second.sequence, first.sequence, "under the same number");
        assert!(send(&mut outbox).is_none());
    }

    #[test]
    fn the_end_of_an_older_try_does_not_send_a_third() {
        let (mut outbox, first, _) = outbox_with_a_packet();
        outbox.follow(SECOND);
        let (second, _) = send(&mut outbox).unwrap();
        outbox.come_back(first, false);
        assert!(send(&mut outbox).is_none(), "the second try is under way");
        outbox.come_back(second, false);
        assert_eq!(send(&mut outbox).unwrap().0.sequence, first.sequence);
    }

    /// faults.md R17: the shard kept the replies of a front end that had nothing more to send.
    #[test]
    fn a_front_end_that_falls_silent_says_what_it_has_received() {
        let (mut outbox, first, now) = outbox_with_a_packet();
        assert!(!outbox.confirm(now + CONFIRM_PAUSE), "it has received nothing");
        assert!(outbox.complete(first.sequence, 0..1, CONFIRM_BYTES_MIN, now).is_some());
        let later = now + CONFIRM_PAUSE;
        assert!(!outbox.confirm(now), "another packet may be about to say so");
        assert!(outbox.confirm(later));
        assert!(!outbox.confirm(later), "once");
        let packet = outbox.depart(0).unwrap();
        assert_eq!((packet.floor, packet.framed.commands), (first.sequence + 1, 0));
        outbox.keep(packet.attempt.sequence, packet.framed);
        outbox.expire(later);
        assert!(outbox.complete(packet.attempt.sequence, 0..0, 0, later).is_some());
        assert!(!outbox.confirm(later + CONFIRM_PAUSE), "the shard knows");
        assert!(outbox.confirm(later + SIGN_OF_LIFE_INTERVAL), "it lives");
    }

    /// The replies came when the client had been told already that the outcome is unknown.
    #[test]
    fn what_was_answered_too_late_is_confirmed_too() {
        let (mut outbox, _, now) = outbox_with_a_packet();
        let late = now + REQUEST_DEADLINE;
        assert_eq!(outbox.expire(late).unknown.len(), 1);
        assert!(outbox.confirm(late + CONFIRM_PAUSE));
    }

    #[test]
    fn small_replies_wait_for_the_sign_of_life() {
        let (mut outbox, first, now) = outbox_with_a_packet();
        assert!(outbox.complete(first.sequence, 0..1, 5, now).is_some());
        assert!(!outbox.confirm(now + SIGN_OF_LIFE_INTERVAL / 2));
        assert!(outbox.confirm(now + SIGN_OF_LIFE_INTERVAL));
    }

    #[test]
    fn who_holds_no_session_gives_no_sign_of_life() {
        assert!(!Outbox::new().confirm(Instant::now() + SIGN_OF_LIFE_INTERVAL));
        let (mut outbox, first, now) = outbox_with_a_packet();
        assert_eq!(outbox.give_up(first.sequence).untouched.len(), 1);
        assert!(!outbox.confirm(now + SIGN_OF_LIFE_INTERVAL));
    }

    /// What is kept in the table of a shard for one front end is bounded, however long a packet of it is under way.
    #[test]
    fn nothing_new_is_sent_while_much_is_unconfirmed() {
        let (mut outbox, stuck, now) = outbox_with_a_packet();
        let mut answered = 0;
        loop {
            submit(&mut outbox, Lane::Write, now);
            let Some((attempt, floor)) = send(&mut outbox) else { break };
            assert_eq!(floor, stuck.sequence);
            outbox.complete(attempt.sequence, 0..1, UNCONFIRMED_BYTES_MAX / 8, now);
            answered += 1;
        }
        assert_eq!(answered, 8);
        outbox.complete(stuck.sequence, 0..1, 1, now);
        let (next, floor) = send(&mut outbox).unwrap();
        assert_eq!(floor, next.sequence, "now all of it is confirmed");
        outbox.complete(next.sequence, 0..1, 1, now);
        assert_eq!(outbox.received.bytes, PACKET_REPLY_BYTES + 1);
    }

    /// Whoever is behind another one whose time has passed would wait as long as that one.
    #[test]
    fn deadlines_stand_in_order_although_times_do_not() {
        let (mut outbox, now) = (Outbox::new(), Instant::now());
        for late in [5, 0, 3, 9] {
            submit(&mut outbox, Lane::Read, now + Duration::from_millis(late));
        }
        let in_time = now + REQUEST_DEADLINE;
        assert_eq!(outbox.expire(in_time + Duration::from_millis(4)).unread.len(), 0);
        assert_eq!(outbox.expire(in_time + Duration::from_millis(5)).unread.len(), 3);
        assert_eq!(outbox.expire(in_time + Duration::from_millis(9)).unread.len(), 1);
        assert_eq!(outbox.bytes, 0);
        assert!(!outbox.has_reads());
    }

    #[test]
    fn what_nobody_is_left_to_apply_is_given_up_whole() {
        let (mut outbox, first, now) = outbox_with_a_packet();
        outbox.come_back(first, true);
        submit(&mut outbox, Lane::Write, now);
        submit(&mut outbox, Lane::Read, now);
        let given_up = outbox.give_up_all();
        assert_eq!((given_up.untouched.len(), given_up.unknown.len()), (2, 1));
        assert!(!outbox.has_departures() && !outbox.has_reads() && outbox.bytes == 0);
    }
}
