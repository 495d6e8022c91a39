//! A shard behind real doors: packets and reads that travel, come again, or meet nobody who answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::limits::{
    FORWARD_TIMEOUT, LONG_READS_BYTES_MAX, PACKETS_IN_FLIGHT_MAX, REQUEST_DEADLINE,
};
use super::outbox::Lane;
use super::proposal::{self, Packet, PacketBuffer, PacketId, Stamp, put_command};
use super::reply::{Replies, ReplyCell};
use super::shard::{ReadConsistency, Shard, ShardOptions, Sizes};
use super::wire::{self, Answer, kind};
use crate::ids::{ClusterId, DbIndex, GroupId, Incarnation, NodeId, Session, ShardId};
use crate::raft::{BlockingPool, EntryPosition, Origin, StateMachine};
use crate::resp::{ErrorReply, Protocol};
use crate::stdx::clock::{MonotonicMicros, SystemClock, UnixMillis};
use crate::stdx::hash_key::HashKey;
use crate::transport::{
    Credentials, Door, Handler, Meant, Message, PeerClient, PeerIdentity, PeerOptions, PeerServer,
    Peers, Responder,
};

/// The ids of "n1", "n2" and "n3", as [`door`] checks.
pub(super) const HERE: NodeId = NodeId(0xd733_a26d_d4b4_9b94);
pub(super) const ELSEWHERE: NodeId = NodeId(0xaf4e_4bf6_ccbf_4e82);
const STRANGER: NodeId = NodeId(0xe91f_540c_bd1c_ac73);

fn door(name: &str, node: NodeId) -> Door {
    let session = Session { number: 1, random: 1 };
    let identity = PeerIdentity::new(ClusterId(77), name, Incarnation::NONE, session);
    assert_eq!(identity.node, node);
    Door::new(identity, Credentials::new(b"", [0; 32]))
}

const KEYS: u32 = 200;
/// Longer than the test should take: reaching it is a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A node that first believes in another leader, and then leads itself.
struct OtherNode {
    believes_in: NodeId,
    was_asked: AtomicBool,
}

impl Handler for OtherNode {
    fn handle(&self, message: Message, responder: Responder) {
        assert_eq!((message.from.node, message.kind), (HERE, kind::SUBMIT));
        if !self.was_asked.swap(true, Ordering::AcqRel) {
            return responder.send_with(|out| wire::put_not_leader(Some(self.believes_in), out));
        }
        let replies = Replies::of(&[&["+OK\r\n"]]);
        wire::send_applied(responder, u64::MAX, &replies);
    }
}

/// A shard whose only replica is elsewhere.
pub(super) fn options(peers: Peers) -> ShardOptions {
    ShardOptions {
        shard: ShardId(0),
        slots: 0..=16383,
        hash_key: HashKey::new([1, 2]),
        node: HERE,
        incarnation: Incarnation(1),
        session: Session { number: 1, random: 1 },
        replicas: vec![ELSEWHERE],
        read_consistency: ReadConsistency::Lease,
        peers,
        clock: Arc::new(SystemClock::new()),
        workers: BlockingPool::shared(),
        sizes: Sizes::DEFAULT,
        seed: 1,
    }
}

pub(super) fn shard_elsewhere(peers: Peers) -> Arc<Shard> {
    Shard::new(options(peers))
}

/// The body of a packet of one submission.
fn submission(commands: &[u8]) -> Bytes {
    let mut buffer = PacketBuffer::new();
    buffer.push(commands, 0);
    buffer.frame().body()
}

/// The reads of one packet as this node answers them.
fn random_key(shard: &Shard) -> Vec<u8> {
    let mut commands = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"RANDOMKEY"], &mut commands);
    shard.reads.run_here(MonotonicMicros(0), &commands).unwrap().bytes.to_vec()
}

/// Fault R18: forwarded reads drew the same key again and again.
#[test]
fn each_request_draws_its_own_random_key() {
    let shard = shard_elsewhere(Peers::new());
    let mut body = Vec::new();
    for key in 0..KEYS {
        put_command(
            Protocol::Resp2,
            DbIndex(0),
            &[b"SET", key.to_string().as_bytes(), b"v"],
            &mut body,
        );
    }
    let session = Session { number: 1, random: 1 };
    let id = PacketId { incarnation: Incarnation(1), session, sequence: 1 };
    let packet = Packet { id, floor: 1, commands: KEYS, body: submission(&body) };
    let stamp = Stamp { now: UnixMillis(1), seed: 1 };
    let entry = proposal::encode_packets(stamp, &[packet]);
    shard
        .machine
        .apply(EntryPosition { term: 1, index: 1 }, Origin::Here, &entry)
        .unwrap()
        .finish();
    let keys: BTreeSet<Vec<u8>> = (0..KEYS).map(|_| random_key(&shard)).collect();
    // One key in 200 draws was seen; 126 distinct ones are to be expected.
    assert!(keys.len() > 50, "{} different keys", keys.len());
}

/// The leader's half of a shard behind a door of its own, without a group: the test is its log.
struct Leader {
    shard: Arc<Shard>,
    proposed: Mutex<Vec<Option<u64>>>,
    heard: Notify,
}

impl Handler for Leader {
    fn handle(&self, message: Message, responder: Responder) {
        let packet = wire::take_packet(message.body).unwrap();
        let mut proposed = self.proposed.lock();
        proposed.push(self.shard.front.await_apply(packet.id, responder));
        self.heard.notify_one();
    }
}

async fn leader() -> (Arc<Leader>, PeerServer, PeerClient) {
    let shard = shard_elsewhere(Peers::new());
    let (proposed, heard) = (Mutex::default(), Notify::new());
    let leader = Arc::new(Leader { shard, proposed, heard });
    let handler = Arc::clone(&leader) as Arc<dyn Handler>;
    let server = PeerServer::bind("127.0.0.1:0", door("n2", ELSEWHERE), handler).await.unwrap();
    let peer = PeerClient::new(PeerOptions {
        door: door("n1", HERE),
        meant: Meant { node: ELSEWHERE, incarnation: Incarnation::NONE },
        addresses: vec![server.local_addr().to_string()],
    });
    peer.connected().wait_for(|connected| *connected).await.unwrap();
    (leader, server, peer)
}

/// A packet of a front end elsewhere, in its `number`-th session.
fn foreign_packet(number: u64) -> Packet {
    let mut body = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"key"], &mut body);
    let session = Session { number, random: number };
    let id = PacketId { incarnation: Incarnation(9), session, sequence: 1 };
    Packet { id, floor: 1, commands: 1, body: submission(&body) }
}

fn apply(shard: &Shard, index: u64, packet: &Packet) {
    let stamp = Stamp { now: UnixMillis(1), seed: 1 };
    let entry = proposal::encode_packets(stamp, std::slice::from_ref(packet));
    shard.machine.apply(EntryPosition { term: 1, index }, Origin::Here, &entry).unwrap().finish();
}

async fn send(peer: &PeerClient, packet: &Packet) -> Answer {
    let group = GroupId::of_shard(ShardId(0));
    let answer = wire::submit(peer, group, packet, PATIENCE);
    wire::take_answer(&answer.await.unwrap()).unwrap()
}

/// faults.md R20: each try of a packet that was long under way was an entry of its own.
#[tokio::test]
async fn a_packet_that_comes_three_times_enters_the_log_once() {
    let (leader, _server, peer) = leader().await;
    let packet = foreign_packet(1);
    let answers =
        async { tokio::join!(send(&peer, &packet), send(&peer, &packet), send(&peer, &packet)) };
    let log = async {
        while leader.proposed.lock().len() < 3 {
            leader.heard.notified().await;
        }
        assert_eq!(*leader.proposed.lock(), [Some(1), None, None]);
        apply(&leader.shard, 1, &packet);
    };
    let (answers, ()) = tokio::join!(answers, log);
    assert!(
        matches!(answers, (Answer::Unknown, Answer::Unknown, Answer::Applied(..))),
        "the latest call is answered: {answers:?}"
    );
}

/// The end of an entry that was long given up took the caller from a later one.
#[tokio::test]
async fn the_fate_of_an_older_proposal_does_not_speak_for_a_newer_one() {
    let (leader, _server, peer) = leader().await;
    let packet = foreign_packet(1);
    let log = async {
        leader.heard.notified().await;
        apply(&leader.shard, 1, &packet);
        leader.heard.notified().await;
        leader.shard.proposer.lose(packet.id, 1);
        apply(&leader.shard, 2, &packet);
    };
    let calls = async { (send(&peer, &packet).await, send(&peer, &packet).await) };
    let (answers, ()) = tokio::join!(calls, log);
    assert!(matches!(answers, (Answer::Applied(..), Answer::Applied(..))), "{answers:?}");
}

/// faults.md R1: its caller was never told.
#[tokio::test]
async fn a_packet_of_an_older_session_is_answered_when_it_is_left_out() {
    let (leader, _server, peer) = leader().await;
    apply(&leader.shard, 1, &foreign_packet(2));
    let packet = foreign_packet(1);
    let log = async {
        leader.heard.notified().await;
        apply(&leader.shard, 2, &packet);
    };
    let (answer, ()) = tokio::join!(send(&peer, &packet), log);
    assert!(matches!(answer, Answer::Stale), "{answer:?}");
}

/// faults.md R17: over what a front end says when it has nothing else to say, a retry is as safe as ever.
#[tokio::test]
async fn a_retry_is_applied_once_before_and_after_its_replies_are_confirmed() {
    let (leader, _server, peer) = leader().await;
    let packet = foreign_packet(1);
    let confirmation = Packet {
        id: PacketId { sequence: 2, ..packet.id },
        floor: 2,
        commands: 0,
        body: Bytes::new(),
    };
    let log = async {
        for (index, packet) in [&packet, &packet, &confirmation, &packet].into_iter().enumerate() {
            leader.heard.notified().await;
            apply(&leader.shard, index as u64 + 1, packet);
        }
    };
    let calls = async {
        let first = send(&peer, &packet).await;
        let again = send(&peer, &packet).await;
        let kept = leader.shard.gauges().sessions;
        let confirmed = send(&peer, &confirmation).await;
        (first, again, kept, confirmed, send(&peer, &packet).await)
    };
    let ((first, again, kept, confirmed, late), ()) = tokio::join!(calls, log);
    let is_one = |answer: &Answer| matches!(answer, Answer::Applied(_, it) if it.bytes.to_vec() == b":1\r\n");
    assert!(is_one(&first) && is_one(&again), "{first:?}, {again:?}");
    assert_eq!(kept.bytes, 4);
    assert!(matches!(confirmed, Answer::Applied(..)), "{confirmed:?}");
    assert!(matches!(late, Answer::Stale), "{late:?}");
    assert_eq!(leader.shard.gauges().sessions.bytes, 0);
}

/// The door of a shard, as it stands at every node.
pub(super) struct ShardDoor(pub(super) Arc<Shard>);

impl Handler for ShardDoor {
    fn handle(&self, message: Message, responder: Responder) {
        self.0.handle(message, responder);
    }
}

/// faults.md R14: in the log it would stop every replica that does not know it.
#[tokio::test]
async fn a_packet_that_replicas_could_not_apply_is_refused_with_an_answer() {
    let peers = Peers::new();
    let handler = Arc::new(ShardDoor(shard_elsewhere(Peers::new())));
    let _server = serve("n2", ELSEWHERE, &peers, handler).await;
    let peer = peers.get(ELSEWHERE).unwrap();
    peer.connected().wait_for(|connected| *connected).await.unwrap();
    let mut body = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"NOSUCH", b"key"], &mut body);
    let session = Session { number: 1, random: 1 };
    let own = PacketId { incarnation: Incarnation::NONE, session, sequence: 1 };
    let unknown = Packet { id: own, floor: 1, commands: 1, body: submission(&body) };
    assert!(matches!(send(&peer, &unknown).await, Answer::Refused));
    let malformed = Packet { body: Bytes::from_static(b"\x02\0\x09"), ..unknown.clone() };
    assert!(matches!(send(&peer, &malformed).await, Answer::Refused));
    assert!(matches!(send(&peer, &foreign_packet(1)).await, Answer::Refused), "of another");
}

/// A leader that lets nothing in.
struct RefusingNode;

impl Handler for RefusingNode {
    fn handle(&self, _: Message, responder: Responder) {
        responder.send_with(wire::put_refused);
    }
}

#[tokio::test]
async fn clients_of_a_refused_packet_are_told_at_once() {
    let peers = Peers::new();
    let _server = serve("n2", ELSEWHERE, &peers, Arc::new(RefusingNode)).await;
    let shard = shard_elsewhere(peers);
    let running = tokio::spawn(Arc::clone(&shard).run());
    let cell = ReplyCell::new();
    let mut commands = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"key", b"v"], &mut commands);
    shard.submit(Lane::Write, (&commands).into(), 1, &cell);
    let taken = cell.take(&mut Replies::default()).await;
    assert_eq!(taken, Err(ErrorReply::PACKET_REFUSED));
    running.abort();
}

/// A node that takes reads and says nothing.
#[derive(Default)]
struct SilentNode {
    asked: Mutex<Vec<Responder>>,
    heard: Notify,
}

impl Handler for SilentNode {
    fn handle(&self, message: Message, responder: Responder) {
        assert_eq!(message.kind, kind::READ);
        self.asked.lock().push(responder);
        self.heard.notify_one();
    }
}

struct AnsweringNode;

impl Handler for AnsweringNode {
    fn handle(&self, _: Message, responder: Responder) {
        let replies = Replies::of(&[&["+OK\r\n"]]);
        wire::send_applied(responder, u64::MAX, &replies);
    }
}

pub(super) async fn serve(
    name: &str,
    node: NodeId,
    peers: &Peers,
    handler: Arc<dyn Handler>,
) -> PeerServer {
    let server = PeerServer::bind("127.0.0.1:0", door(name, node), handler).await.unwrap();
    peers.insert(PeerClient::new(PeerOptions {
        door: door("n1", HERE),
        meant: Meant { node, incarnation: Incarnation::NONE },
        addresses: vec![server.local_addr().to_string()],
    }));
    server
}

fn submit_read(shard: &Shard) -> Arc<ReplyCell> {
    let cell = ReplyCell::new();
    let mut commands = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"key"], &mut commands);
    shard.submit(Lane::Read, (&commands).into(), 1, &cell);
    cell
}

/// faults.md R15: they waited for the silent node's whole timeout, and all later reads behind them.
#[tokio::test]
async fn reads_leave_a_silent_leader_for_a_new_one_at_once() {
    let peers = Peers::new();
    let silent = Arc::new(SilentNode::default());
    let handler = Arc::clone(&silent) as Arc<dyn Handler>;
    let _old = serve("n2", ELSEWHERE, &peers, handler).await;
    let _new = serve("n3", STRANGER, &peers, Arc::new(AnsweringNode)).await;
    let shard = shard_elsewhere(peers);
    shard.seat.note_hint(Some(ELSEWHERE));
    let running = tokio::spawn(Arc::clone(&shard).run());
    let mut cells = Vec::new();
    for _ in 0..PACKETS_IN_FLIGHT_MAX {
        cells.push(submit_read(&shard));
        silent.heard.notified().await;
    }
    cells.push(submit_read(&shard));
    let moved = Instant::now();
    shard.seat.note_hint(Some(STRANGER));
    for cell in cells {
        let mut replies = Replies::default();
        cell.take(&mut replies).await.unwrap();
        assert_eq!(replies.bytes.to_vec(), b"+OK\r\n");
    }
    assert!(moved.elapsed() < FORWARD_TIMEOUT / 2, "{:?}", moved.elapsed());
    running.abort();
}

/// A read that ends whoever runs it must not be taken from node to node.
#[tokio::test]
async fn a_read_is_not_tried_at_ever_further_leaders() {
    let peers = Peers::new();
    let (first, second) = (Arc::new(SilentNode::default()), Arc::new(SilentNode::default()));
    let _first = serve("n2", ELSEWHERE, &peers, Arc::clone(&first) as Arc<dyn Handler>).await;
    let _second = serve("n3", STRANGER, &peers, Arc::clone(&second) as Arc<dyn Handler>).await;
    let shard = shard_elsewhere(peers);
    shard.seat.note_hint(Some(ELSEWHERE));
    let running = tokio::spawn(Arc::clone(&shard).run());
    let cell = submit_read(&shard);
    first.heard.notified().await;
    shard.seat.note_hint(Some(STRANGER));
    second.heard.notified().await;
    shard.seat.note_hint(Some(ELSEWHERE));
    let taken = cell.take(&mut Replies::default()).await;
    assert_eq!(taken, Err(ErrorReply::READ_UNANSWERED));
    assert_eq!(first.asked.lock().len(), 1, "it was not asked again");
    running.abort();
}

/// A node that is long at work on its first reads.
#[derive(Default)]
struct WorkingNode {
    asked: Mutex<Vec<Responder>>,
    /// How often it was asked for a word.
    words: AtomicUsize,
    heard: Notify,
}

impl Handler for WorkingNode {
    fn handle(&self, message: Message, responder: Responder) {
        assert_eq!(message.kind, kind::READ);
        if message.body.is_empty() {
            self.words.fetch_add(1, Ordering::AcqRel);
            wire::send_applied(responder, u64::MAX, &Replies::default());
        } else {
            self.asked.lock().push(responder);
        }
        self.heard.notify_one();
    }
}

/// It was asked again every two seconds, ran all of that, and its clients were told that there is no quorum.
#[tokio::test]
async fn a_leader_that_is_at_work_on_reads_is_not_asked_again() {
    let peers = Peers::new();
    let working = Arc::new(WorkingNode::default());
    let handler = Arc::clone(&working) as Arc<dyn Handler>;
    let _server = serve("n2", ELSEWHERE, &peers, handler).await;
    let shard = shard_elsewhere(peers);
    shard.seat.note_hint(Some(ELSEWHERE));
    let running = tokio::spawn(Arc::clone(&shard).run());
    let asked = Instant::now();
    let cell = submit_read(&shard);
    while asked.elapsed() < REQUEST_DEADLINE + FORWARD_TIMEOUT {
        timeout(PATIENCE, working.heard.notified()).await.expect("it is asked for a word");
    }
    assert!(working.words.load(Ordering::Acquire) > 1);
    let mut responders = std::mem::take(&mut *working.asked.lock());
    assert_eq!(responders.len(), 1, "it was not asked again");
    let replies = Replies::of(&[&["+OK\r\n"]]);
    wire::send_applied(responders.remove(0), u64::MAX, &replies);
    let mut replies = Replies::default();
    cell.take(&mut replies).await.unwrap();
    assert_eq!(replies.bytes.to_vec(), b"+OK\r\n");
    running.abort();
}

/// A node that has given up reads, because what is large is at work.
struct BusyNode;

impl Handler for BusyNode {
    fn handle(&self, _: Message, responder: Responder) {
        responder.send_with(wire::put_busy);
    }
}

#[tokio::test]
async fn reads_that_a_leader_has_given_up_are_not_taken_to_it_again() {
    let peers = Peers::new();
    let _server = serve("n2", ELSEWHERE, &peers, Arc::new(BusyNode)).await;
    let shard = shard_elsewhere(peers);
    let running = tokio::spawn(Arc::clone(&shard).run());
    let taken = submit_read(&shard).take(&mut Replies::default()).await;
    assert_eq!(taken, Err(ErrorReply::SHARD_BUSY));
    running.abort();
}

/// It took them for the leader's, who has given the reads up.
#[tokio::test]
async fn reads_at_a_full_replica_that_does_not_lead_are_sent_on() {
    let peers = Peers::new();
    let shard = shard_elsewhere(Peers::new());
    shard.seat.note_hint(Some(STRANGER));
    let _ticket = shard.reads.admit(LONG_READS_BYTES_MAX).unwrap();
    let _server = serve("n2", ELSEWHERE, &peers, Arc::new(ShardDoor(Arc::clone(&shard)))).await;
    let peer = peers.get(ELSEWHERE).unwrap();
    peer.connected().wait_for(|connected| *connected).await.unwrap();
    for body in [submission(b""), Bytes::new()] {
        let answer = peer.call(GroupId::of_shard(ShardId(0)), kind::READ, body, PATIENCE);
        let answer = wire::take_answer(&answer.await.unwrap());
        assert!(matches!(answer, Some(Answer::NotLeader(Some(STRANGER)))), "{answer:?}");
    }
}

/// A node that takes reads, and says nothing but that it will not be asked for a word.
struct CurtNode(Mutex<Vec<Responder>>);

impl Handler for CurtNode {
    fn handle(&self, message: Message, responder: Responder) {
        if message.body.is_empty() {
            responder.send_with(wire::put_busy);
        } else {
            self.0.lock().push(responder);
        }
    }
}

/// They waited for it for a minute.
#[tokio::test]
async fn a_word_that_is_refused_vouches_for_nothing() {
    let peers = Peers::new();
    let handler = Arc::new(CurtNode(Mutex::default()));
    let _server = serve("n2", ELSEWHERE, &peers, handler).await;
    let shard = shard_elsewhere(peers);
    let running = tokio::spawn(Arc::clone(&shard).run());
    let cell = submit_read(&shard);
    let mut replies = Replies::default();
    let taken = timeout(PATIENCE, cell.take(&mut replies)).await.expect("an answer");
    assert_eq!(taken, Err(ErrorReply::NO_QUORUM));
    running.abort();
}

async fn submit_while_it_believes_in(leader: NodeId) -> Vec<u8> {
    let other = OtherNode { believes_in: leader, was_asked: AtomicBool::new(false) };
    let door_there = door("n2", ELSEWHERE);
    let server = PeerServer::bind("127.0.0.1:0", door_there, Arc::new(other)).await.unwrap();
    let peers = Peers::new();
    peers.insert(PeerClient::new(PeerOptions {
        door: door("n1", HERE),
        meant: Meant { node: ELSEWHERE, incarnation: Incarnation::NONE },
        addresses: vec![server.local_addr().to_string()],
    }));
    let shard = shard_elsewhere(peers);
    let running = tokio::spawn(Arc::clone(&shard).run());
    let cell = ReplyCell::new();
    let mut commands = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"key", b"value"], &mut commands);
    shard.submit(Lane::Write, (&commands).into(), 1, &cell);
    let mut replies = Replies::default();
    cell.take(&mut replies).await.unwrap();
    running.abort();
    replies.bytes.to_vec()
}

/// On a thread of its own: a runtime that spins never comes to the end of its own timeout.
fn replies_while_it_believes_in(leader: NodeId) -> Vec<u8> {
    let (done, replies) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        done.send(runtime.unwrap().block_on(submit_while_it_believes_in(leader))).unwrap();
    });
    replies.recv_timeout(PATIENCE).expect("the shard answers in time")
}

#[test]
fn being_taken_for_the_leader_does_not_spin_the_node() {
    assert_eq!(replies_while_it_believes_in(HERE), b"+OK\r\n");
}

#[test]
fn a_hint_at_a_node_that_is_no_peer_is_dropped() {
    assert_eq!(replies_while_it_believes_in(STRANGER), b"+OK\r\n");
}
