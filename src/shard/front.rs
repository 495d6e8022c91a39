//! The front end of this node toward one shard: what gathers here, and who is told what became of it.
//!
//! Commands of all connections gather here while earlier ones are on their way, and leave as one packet:
//! the busier the node, the larger the packets. Each write packet has a sequence number under which it is
//! sent until its replies are in; the shard applies it once, however often it was sent (`session`).
//!
//! What happens is decided by two machines: `outbox` has what this node's clients want, `inbox` what other nodes send. This
//! file has the lock around both, the clock and the wake-up, and answers outside of the lock.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::growth;
use super::inbox::{Awaited, Inbox, Taken};
use super::limits::{PIPELINE_BYTES_MIN, REQUEST_DEADLINE, RETRY_PAUSE, SUBMISSION_BYTES_MAX};
use super::outbox::{
    Answered, Attempt, Encoded, Lane, Leaving, Outbox, Refused, Submission, Unanswered, Waiter,
    overdue,
};
use super::proposal::{Framed, Packet, PacketId, Stamp};
use super::reply::{Replies, ReplyCell};
use super::run::AppliedPackets;
use super::wire;
use crate::ids::{Incarnation, NodeId, Session};
use crate::resp::ErrorReply;
use crate::stdx::planted::{Bug, is_planted};
use crate::transport::Responder;

/// What waits here.
#[derive(Debug)]
struct Waiting {
    outbox: Outbox,
    inbox: Inbox<Responder>,
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

/// A write packet to be sent or proposed. One that is neither comes back by itself.
#[derive(Debug)]
#[must_use]
pub(super) struct Departure<'f> {
    front: &'f Front,
    id: PacketId,
    attempt: Attempt,
    floor: u64,
    /// Its bytes, until they are back in the outbox.
    framed: Option<Framed>,
    may_be_applied: bool,
}

impl Departure<'_> {
    /// Whether some try of it may have entered a log.
    pub(super) fn may_be_applied(&self) -> bool {
        self.may_be_applied
    }

    /// Bytes that it may add to what is stored.
    pub(super) fn growth(&self) -> u64 {
        self.framed.as_ref().map_or(0, |framed| growth(&framed.body()))
    }

    /// The packet, to be sent, or proposed with others.
    pub(super) fn into_packet(mut self) -> (Attempt, Packet) {
        let framed = self.framed.take().expect(HAS_BYTES);
        let packet = framed.packet(self.id, self.floor);
        self.give_back(framed);
        (self.attempt, packet)
    }

    /// An entry of this packet alone, to be proposed.
    pub(super) fn into_entry(mut self, stamp: Stamp) -> (Attempt, Bytes) {
        let framed = self.framed.take().expect(HAS_BYTES);
        let (framed, entry) = framed.into_proposal(self.id, self.floor, stamp);
        self.give_back(framed);
        (self.attempt, entry)
    }

    /// It is not let into the log, for the reason in `error`; see [`Front::refuse`].
    pub(super) fn refuse(mut self, error: &ErrorReply) {
        if let Some(framed) = self.framed.take() {
            self.give_back(framed);
        }
        self.front.refuse(self.attempt, error);
    }

    fn give_back(&self, framed: Framed) {
        self.front.waiting.lock().outbox.keep(self.attempt.sequence, framed);
    }
}

/// Why [`Departure::framed`] is there.
const HAS_BYTES: &str = "only what consumes a departure takes its bytes";

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if let Some(framed) = self.framed.take() {
            let mut waiting = self.front.waiting.lock();
            waiting.outbox.keep(self.attempt.sequence, framed);
            waiting.outbox.come_back(self.attempt, false);
        }
    }
}

/// A read packet to be answered.
#[derive(Debug)]
pub(super) struct ReadDeparture {
    framed: Framed,
    waiters: Vec<Waiter>,
    /// They have been vouched for, and yet not answered.
    was_vouched: bool,
}

impl ReadDeparture {
    /// Its commands.
    pub(super) fn body(&self) -> Bytes {
        self.framed.body()
    }

    /// Answers all.
    pub(super) fn complete(self, replies: &Replies) {
        Answered { waiters: self.waiters, from: 0 }.deliver(replies);
    }

    /// Answers all with `error`.
    pub(super) fn fail(self, error: &ErrorReply) {
        fail(self.waiters.into_iter().filter_map(|waiter| waiter.cell), error);
    }

    /// Answers those whose deadline has passed. The next deadline; `None` when nobody waits any more.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let overdue = overdue(&self.waiters, now);
        let cells = self.waiters[..overdue].iter_mut().filter_map(|waiter| waiter.cell.take());
        let error =
            if self.was_vouched { ErrorReply::READ_UNANSWERED } else { ErrorReply::NO_QUORUM };
        fail(cells, &error);
        self.waiters.get(overdue).map(|waiter| waiter.deadline)
    }

    /// A quorum was there, and then whoever was to answer failed over it: they may wait for another as if they came at `now`.
    /// Once: it may be them that it failed over.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.was_vouched, true) {
            for waiter in &mut self.waiters {
                waiter.deadline = now + REQUEST_DEADLINE;
            }
        }
    }
}

impl Answered {
    /// Gives each its part of `replies`.
    fn deliver(&self, replies: &Replies) {
        for (waiter, place) in self.waiters.iter().zip(self.from..) {
            if let Some(cell) = &waiter.cell {
                cell.complete(replies, place, waiter.commands as usize);
            }
        }
    }
}

impl Unanswered {
    /// Tells those whose commands did nothing `error`, the others that nobody knows.
    fn tell(self, error: &ErrorReply) {
        fail(self.untouched, error);
        fail(self.unread, error);
        fail(self.unknown, &ErrorReply::OUTCOME_UNKNOWN);
    }
}

fn fail(cells: impl IntoIterator<Item = Arc<ReplyCell>>, error: &ErrorReply) {
    for cell in cells {
        cell.fail(error.clone());
    }
}

impl Front {
    pub(super) fn new(node: NodeId, incarnation: Incarnation, session: Session) -> Self {
        let (incarnation, session) = if is_planted(Bug::SessionByName) {
            (Incarnation(node.0.into()), Session { number: 1, random: 0 })
        } else {
            (incarnation, session)
        };
        let waiting = Mutex::new(Waiting { outbox: Outbox::new(), inbox: Inbox::default() });
        let (room, has_refused) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Self { node, incarnation, session, waiting, room, has_refused, wake: Notify::new() }
    }

    /// The memory that the shard's replicas have left, as far as is known here, in bytes.
    pub(super) fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// It is `room` now.
    pub(super) fn note_room(&self, room: u64) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// A client was turned away for want of room.
    pub(super) fn note_refusal(&self) {
        self.has_refused.store(true, Ordering::Relaxed);
    }

    /// Whether that happened since this was last asked.
    pub(super) fn take_refusal(&self) -> bool {
        self.has_refused.swap(false, Ordering::Relaxed)
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
    pub(super) fn submit(
        &self,
        lane: Lane,
        commands: Encoded<'_>,
        count: u32,
        cell: &Arc<ReplyCell>,
    ) {
        if commands.bytes().len() > SUBMISSION_BYTES_MAX {
            return cell.fail(ErrorReply::TOO_LARGE);
        }
        let grows = lane == Lane::Write && self.room() < u64::MAX && growth(commands.bytes()) > 0;
        let submission = Submission { commands, count, grows, cell };
        let has_place = self.waiting.lock().outbox.submit(lane, &submission, Instant::now());
        if !has_place {
            return cell.fail(ErrorReply::TOO_MANY_WAITING);
        }
        self.wake.notify_one();
    }

    /// The next write packet that is not under way: one to be sent again, or what has gathered. `None` also when
    /// it would make an entry that already has `other_bytes` too large.
    pub(super) fn depart(&self, other_bytes: usize) -> Option<Departure<'_>> {
        let leaving = self.waiting.lock().outbox.depart(other_bytes)?;
        let Leaving { attempt, floor, framed, may_be_applied } = leaving;
        let (incarnation, session) = (self.incarnation, self.session);
        let id = PacketId { incarnation, session, sequence: attempt.sequence };
        Some(Departure { front: self, id, attempt, floor, framed: Some(framed), may_be_applied })
    }

    /// Write packets under way.
    pub(super) fn flights_under_way(&self) -> usize {
        self.waiting.lock().outbox.flights_under_way()
    }

    /// Whether a further packet or entry may leave while `under_way` others have no answer, of at most `limit`.
    pub(super) fn may_send(&self, under_way: usize, limit: usize) -> bool {
        under_way == 0 || (under_way < limit && self.waiting_bytes() >= PIPELINE_BYTES_MIN)
    }

    /// Bytes of writes that have gathered here, of this node's clients and of other nodes.
    fn waiting_bytes(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.outbox.write_bytes() + waiting.inbox.bytes()
    }

    /// Whether a write waits for its next try or its first.
    pub(super) fn has_departures(&self) -> bool {
        self.waiting.lock().outbox.has_departures()
    }

    /// A try ended without replies. Its packet is to be sent again, unless a later try is under way.
    pub(super) fn come_back(&self, attempt: Attempt, may_be_applied: bool) {
        self.waiting.lock().outbox.come_back(attempt, may_be_applied);
    }

    /// `leader` leads now: what is under way to another node is to be sent again.
    pub(super) fn follow(&self, leader: NodeId) {
        if self.waiting.lock().outbox.follow(leader) {
            // What the old one said of the room that there is counts no more; the new one judges.
            self.note_room(u64::MAX);
        }
    }

    /// Whether packets are under way to another node than `leader`.
    pub(super) fn must_follow(&self, leader: NodeId) -> bool {
        self.waiting.lock().outbox.must_follow(leader)
    }

    /// The `submissions` of packet `sequence`, by their places in it, have `replies`. The packet is under way until all have.
    pub(super) fn complete(&self, sequence: u64, submissions: Range<usize>, replies: &Replies) {
        let (bytes, now) = (replies.bytes.len(), Instant::now());
        let answered = self.waiting.lock().outbox.complete(sequence, submissions, bytes, now);
        if let Some(answered) = answered {
            answered.deliver(replies);
        }
    }

    /// Queues a packet without commands when the shard should hear of this front end and it has nothing else to say. True
    /// when there is something to send.
    pub(super) fn confirm(&self, now: Instant) -> bool {
        self.waiting.lock().outbox.confirm(now)
    }

    /// Packet `sequence` was left out for good, for the reason in `error`.
    pub(super) fn give_up(&self, sequence: u64, error: &ErrorReply) {
        let unanswered = self.waiting.lock().outbox.give_up(sequence);
        unanswered.tell(error);
    }

    /// This try was not let into the log, for the reason in `error`. An earlier one may have been: then the packet is to be
    /// sent again, until its fate is known. Whether it is.
    pub(super) fn refuse(&self, attempt: Attempt, error: &ErrorReply) -> bool {
        let refused = self.waiting.lock().outbox.refuse(attempt);
        match refused {
            Refused::GivenUp(unanswered) => {
                unanswered.tell(error);
                false
            }
            Refused::Again => true,
            Refused::Gone => false,
        }
    }

    /// The reads that have gathered.
    pub(super) fn depart_reads(&self) -> Option<ReadDeparture> {
        let (framed, waiters) = self.waiting.lock().outbox.depart_reads()?;
        Some(ReadDeparture { framed, waiters, was_vouched: false })
    }

    /// Whether reads wait.
    pub(super) fn has_reads(&self) -> bool {
        self.waiting.lock().outbox.has_reads()
    }

    /// Answers everything that waits with `error`: nobody is left to apply it.
    pub(super) fn fail_all(&self, error: &ErrorReply) {
        let unanswered = self.waiting.lock().outbox.give_up_all();
        unanswered.tell(error);
    }

    /// Answers everything whose deadline has passed: what surely did nothing says "no quorum", what may
    /// have been applied says so.
    ///
    /// Reads that wait for others say why those are not answered: `reads_take_long`.
    pub(super) fn expire(&self, now: Instant, reads_take_long: bool) {
        let mut unanswered = self.waiting.lock().outbox.expire(now);
        if reads_take_long {
            fail(std::mem::take(&mut unanswered.unread), &ErrorReply::SHARD_BUSY);
        }
        unanswered.tell(&ErrorReply::NO_QUORUM);
    }

    /// Takes a packet from another node.
    ///
    /// # Errors
    /// The responder, when too much waits.
    pub(super) fn receive(&self, packet: Packet, responder: Responder) -> Result<(), Responder> {
        self.waiting.lock().inbox.receive(packet, responder, Instant::now())?;
        self.wake.notify_one();
        Ok(())
    }

    /// Packets other nodes have sent, in order, up to `bytes_max`, but at least one if there is one.
    pub(super) fn take_inbox(&self, bytes_max: usize, now: Instant) -> Vec<(Packet, Responder)> {
        let Taken { packets, stale } = self.waiting.lock().inbox.take(bytes_max, now);
        for responder in stale {
            responder.send_with(wire::put_unknown);
        }
        packets
    }

    /// Whether packet `id` is proposed here and waits for apply.
    pub(super) fn is_proposed(&self, id: PacketId) -> bool {
        self.waiting.lock().inbox.is_proposed(id)
    }

    /// Remembers who is to be told when the packet called `id` is applied. The number of its proposal; `None` when it
    /// is proposed already and is not to be again.
    pub(super) fn await_apply(&self, id: PacketId, responder: Responder) -> Option<u64> {
        let awaited = self.waiting.lock().inbox.await_apply(id, responder);
        match awaited {
            Awaited::Anew(proposal) => Some(proposal),
            Awaited::Already(earlier) => {
                earlier.send_with(wire::put_unknown);
                None
            }
        }
    }

    /// Whoever waits for packet `id` of another node in `proposal`, no longer to be told by apply.
    pub(super) fn forget_apply(&self, id: PacketId, proposal: u64) -> Option<Responder> {
        self.waiting.lock().inbox.forget(id, proposal)
    }

    /// Whether packets are proposed here. Only then may an apply on this node answer them: a follower can apply an entry
    /// before its leader does, and a client that is answered by then would not find its write when it reads at the
    /// leader. What was sent to a leader is answered by that leader, after its own apply.
    fn leads(&self) -> bool {
        self.waiting.lock().outbox.follows(self.node)
    }
}

impl AppliedPackets for Front {
    fn applied(&self, id: PacketId, submissions: Range<usize>, replies: &Arc<Replies>) {
        if id.incarnation == self.incarnation {
            if id.session == self.session && self.leads() {
                self.complete(id.sequence, submissions, replies);
            }
            return;
        }
        let caller = self.waiting.lock().inbox.applied(id);
        if let Some(responder) = caller {
            wire::send_applied(responder, self.room(), replies);
        }
    }

    fn stale(&self, id: PacketId) {
        if (id.incarnation, id.session) == (self.incarnation, self.session) {
            if self.leads() {
                self.give_up(id.sequence, &ErrorReply::SESSION_ENDED);
            }
            return;
        }
        let caller = self.waiting.lock().inbox.applied(id);
        if let Some(responder) = caller {
            responder.send_with(wire::put_stale);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::limits::{CONFIRM_BYTES_MIN, CONFIRM_PAUSE};
    use super::super::proposal::{PacketBuffer, put_command};
    use super::*;
    use crate::ids::DbIndex;
    use crate::resp::Protocol;

    const HERE: NodeId = NodeId(1);
    const FIRST: NodeId = NodeId(2);
    const SECOND: NodeId = NodeId(3);
    const LATER: Duration = Duration::from_secs(3);

    /// A packet under way.
    struct Sent {
        attempt: Attempt,
        packet: Packet,
    }

    fn empty_front() -> Front {
        Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 })
    }

    /// A front end with one packet under way to `FIRST`, and where its client waits.
    fn front_with_a_packet() -> (Front, Sent, Arc<ReplyCell>) {
        let front = empty_front();
        let cell = submit_later(&front, Duration::ZERO);
        front.follow(FIRST);
        let (attempt, packet) = front.depart(0).unwrap().into_packet();
        (front, Sent { attempt, packet }, cell)
    }

    /// A client's submission, as if it came `later`.
    fn submit_later(front: &Front, later: Duration) -> Arc<ReplyCell> {
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"b"], &mut commands);
        let commands = Encoded::Copied(&commands);
        let it = Submission { commands, count: 1, grows: false, cell: &cell };
        let mut waiting = front.waiting.lock();
        assert!(waiting.outbox.submit(Lane::Write, &it, Instant::now() + later));
        cell
    }

    async fn outcome(cell: &ReplyCell) -> Option<Result<Vec<u8>, ErrorReply>> {
        let mut replies = Replies::default();
        let taken = tokio::time::timeout(Duration::ZERO, cell.take(&mut replies)).await.ok()?;
        Some(taken.map(|()| replies.bytes.to_vec()))
    }

    fn replies_of(bytes: usize) -> Replies {
        Replies::of(&[&[&"x".repeat(bytes)]])
    }

    /// Its bytes were out, and neither it nor anything behind it would ever have been sent.
    #[tokio::test]
    async fn a_departure_that_is_not_sent_comes_back_by_itself() {
        let front = empty_front();
        let cell = submit_later(&front, Duration::ZERO);
        front.follow(FIRST);
        drop(front.depart(0).unwrap());
        let (attempt, packet) = front.depart(0).unwrap().into_packet();
        assert_eq!((packet.id.sequence, packet.commands), (1, 1), "the same");
        front.come_back(attempt, false);
        drop(front.depart(0).unwrap());
        let again = front.depart(0).unwrap();
        assert!(!again.may_be_applied(), "none of these tries entered a log");
        again.refuse(&ErrorReply::OUT_OF_MEMORY);
        assert_eq!(outcome(&cell).await, Some(Err(ErrorReply::OUT_OF_MEMORY)));
        assert!(!front.has_departures());
    }

    /// What may be in the log already is not kept out of it: it has to be asked for again.
    #[tokio::test]
    async fn a_refused_departure_that_may_be_applied_goes_again() {
        let (front, first, cell) = front_with_a_packet();
        front.come_back(first.attempt, true);
        let second = front.depart(0).unwrap();
        assert!(second.may_be_applied());
        second.refuse(&ErrorReply::OUT_OF_MEMORY);
        assert_eq!(outcome(&cell).await, None, "its fate is not known");
        let (_, third) = front.depart(0).unwrap().into_packet();
        assert_eq!((third.id, third.body), (first.packet.id, first.packet.body));
    }

    #[test]
    fn an_apply_answers_only_where_the_packet_was_proposed() {
        let (front, first, _) = front_with_a_packet();
        let replies = Arc::new(Replies::of(&[&[":1\r\n"]]));
        front.applied(first.packet.id, 0..1, &replies);
        assert!(front.must_follow(SECOND), "the leader has yet to apply it and to answer");
        front.follow(HERE);
        front.applied(first.packet.id, 0..1, &replies);
        assert!(!front.must_follow(SECOND), "nothing is unanswered");
    }

    /// faults.md R1: nobody was told, and the client waited for its deadline.
    #[tokio::test]
    async fn a_packet_whose_session_has_ended_is_answered_at_once() {
        for (may_be_applied, error) in
            [(false, ErrorReply::SESSION_ENDED), (true, ErrorReply::OUTCOME_UNKNOWN)]
        {
            let (front, first, cell) = front_with_a_packet();
            front.come_back(first.attempt, may_be_applied);
            front.follow(HERE);
            let (_, second) = front.depart(0).unwrap().into_packet();
            front.stale(second.id);
            assert_eq!(cell.take(&mut Replies::default()).await, Err(error));
            assert!(!front.must_follow(SECOND), "nothing is unanswered");
        }
    }

    /// faults.md R16: whoever came last to a packet was answered when the first one's time had passed.
    #[tokio::test]
    async fn each_submission_of_a_packet_under_way_has_its_own_time() {
        let front = empty_front();
        let first = submit_later(&front, Duration::ZERO);
        let second = submit_later(&front, LATER);
        front.follow(FIRST);
        let (_, packet) = front.depart(0).unwrap().into_packet();
        front.expire(Instant::now() + REQUEST_DEADLINE, false);
        assert_eq!(outcome(&first).await, Some(Err(ErrorReply::OUTCOME_UNKNOWN)));
        assert_eq!(outcome(&second).await, None, "its time has not passed");
        let replies = Replies::of(&[&[":1\r\n"], &[":2\r\n"]]);
        front.complete(packet.id.sequence, 0..2, &replies);
        assert_eq!(outcome(&second).await, Some(Ok(b":2\r\n".to_vec())), "its own reply");
        assert_eq!(outcome(&first).await, None, "answered once");
    }

    /// Nothing of what was answered "no quorum" may come along with what is sent later.
    #[tokio::test]
    async fn what_expired_before_it_was_sent_is_never_sent() {
        for came_back in [false, true] {
            let front = empty_front();
            let first = submit_later(&front, Duration::ZERO);
            let second = submit_later(&front, LATER);
            front.follow(FIRST);
            if came_back {
                let (attempt, _) = front.depart(0).unwrap().into_packet();
                front.come_back(attempt, false);
            }
            front.expire(Instant::now() + REQUEST_DEADLINE, false);
            assert_eq!(outcome(&first).await, Some(Err(ErrorReply::NO_QUORUM)));
            let (_, packet) = front.depart(0).unwrap().into_packet();
            assert_eq!(packet.commands, 1);
            let mut commands = Vec::new();
            put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"b"], &mut commands);
            let mut buffer = PacketBuffer::new();
            buffer.push(&commands, 1);
            assert_eq!(packet.body, buffer.frame().body());
            front.complete(packet.id.sequence, 0..1, &Replies::of(&[&[":1\r\n"]]));
            assert_eq!(outcome(&second).await, Some(Ok(b":1\r\n".to_vec())));
        }
    }

    /// Those that wait behind others which take long were told that there is no quorum.
    #[tokio::test]
    async fn reads_that_wait_say_why() {
        let front = Front::new(HERE, Incarnation(1), Session { number: 1, random: 1 });
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"a"], &mut commands);
        for (reads_take_long, error) in
            [(true, ErrorReply::SHARD_BUSY), (false, ErrorReply::NO_QUORUM)]
        {
            let cell = ReplyCell::new();
            front.submit(Lane::Read, (&commands).into(), 1, &cell);
            front.expire(Instant::now() + REQUEST_DEADLINE, reads_take_long);
            assert_eq!(outcome(&cell).await, Some(Err(error)));
        }
    }

    /// Whoever came before it left was given the replies of the one after it.
    #[tokio::test]
    async fn who_joins_a_confirmation_gets_its_own_replies() {
        for clients in 1..=3_usize {
            let (front, first, _) = front_with_a_packet();
            front.follow(HERE);
            front.complete(first.attempt.sequence, 0..1, &replies_of(CONFIRM_BYTES_MIN));
            assert!(front.confirm(Instant::now() + CONFIRM_PAUSE));
            let cells: Vec<_> =
                (0..clients).map(|_| submit_later(&front, Duration::ZERO)).collect();
            let (_, packet) = front.depart(0).unwrap().into_packet();
            let texts: Vec<String> = (0..clients).map(|number| format!(":{number}\r\n")).collect();
            let each: Vec<[&str; 1]> = texts.iter().map(|text| [text.as_str()]).collect();
            let all: Vec<&[&str]> = each.iter().map(|text| &text[..]).collect();
            front.complete(packet.id.sequence, 0..clients, &Replies::of(&all));
            for (cell, text) in cells.iter().zip(&texts) {
                assert_eq!(outcome(cell).await, Some(Ok(text.clone().into_bytes())));
            }
            assert!(!front.must_follow(SECOND), "nothing is unanswered");
        }
    }

    /// Each is answered as its replies come; the packet is under way until all are in.
    #[tokio::test]
    async fn submissions_of_a_packet_are_answered_one_by_one() {
        let front = empty_front();
        let cells: Vec<_> = (0..3).map(|_| submit_later(&front, Duration::ZERO)).collect();
        front.follow(HERE);
        let (_, packet) = front.depart(0).unwrap().into_packet();
        let replies = Arc::new(Replies::of(&[&[":1\r\n"], &[":2\r\n"], &[":3\r\n"]]));
        front.applied(packet.id, 1..2, &replies);
        assert_eq!(outcome(&cells[1]).await, Some(Ok(b":2\r\n".to_vec())));
        assert_eq!(outcome(&cells[0]).await, None, "its replies are not in");
        assert!(front.must_follow(SECOND), "the packet is under way");
        front.applied(packet.id, 0..1, &replies);
        assert_eq!(outcome(&cells[0]).await, Some(Ok(b":1\r\n".to_vec())));
        // A retry is answered with all of them.
        front.applied(packet.id, 0..3, &replies);
        assert_eq!(outcome(&cells[2]).await, Some(Ok(b":3\r\n".to_vec())));
        assert_eq!(outcome(&cells[1]).await, None, "answered once");
        assert!(!front.must_follow(SECOND), "nothing is unanswered");
    }

    #[test]
    fn small_packets_wait_for_an_answer_and_large_ones_do_not() {
        let (front, ..) = front_with_a_packet();
        assert!(front.may_send(0, 4));
        assert!(!front.may_send(1, 4));
        let value = vec![b'x'; PIPELINE_BYTES_MIN];
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"a", &value], &mut commands);
        front.submit(Lane::Write, (&commands).into(), 1, &ReplyCell::new());
        assert!(front.may_send(1, 4));
        assert!(!front.may_send(4, 4));
    }
}
