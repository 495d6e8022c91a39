//! A shard with one real replica, whose state somebody has for long, again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::limits::{
    APPLY_WEIGHT_MAX, FORWARD_TIMEOUT, LONG_READS_BYTES_MAX, LONG_READS_MAX, PACKETS_IN_FLIGHT_MAX,
    REQUEST_DEADLINE,
};
use super::machine::HashRefused;
use super::outbox::Lane;
use super::proposal::{self, Packet, PacketBuffer, PacketId, Stamp, put_command};
use super::reads::Unread;
use super::reply::{Replies, ReplyCell};
use super::shard::{ReadConsistency, Shard, ShardOptions};
use super::tests::{ELSEWHERE, HERE, PATIENCE, ShardDoor, options, serve, shard_elsewhere};
use super::wire::{self, Answer, kind};
use crate::ids::{DbIndex, GroupId, Holder, Incarnation, RaftId, Session, ShardId};
use crate::raft::{
    Applied, EntryPosition, GroupOptions, Leadership, Origin, SnapshotStore, StateMachine, Timing,
};
use crate::resp::{ErrorReply, Protocol};
use crate::stdx::clock::{MonotonicMicros, SystemClock, UnixMillis};
use crate::stdx::fs::SystemDisk;
use crate::stdx::memory::Budget;
use crate::stdx::turns::Turns;
use crate::stdx::workers::Workers;
use crate::transport::{Handler, Message, Peers, Responder};
use crate::wal::{SnapshotDir, Wal, WalOptions};

/// Members of the large set: to read them all takes an unoptimized program several hundredths of a second.
const MEMBERS: usize = 2 * APPLY_WEIGHT_MAX;

/// How often timers are looked at, as `node::start` does.
const BEAT: Duration = Duration::from_millis(50);

/// A shard that is alone and leads itself.
struct Alone {
    shard: Arc<Shard>,
    tasks: Vec<AbortHandle>,
    _folder: TempDir,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Alone {
    async fn start() -> Self {
        Self::start_with(ReadConsistency::Lease).await
    }

    async fn start_with(read_consistency: ReadConsistency) -> Self {
        Self::start_on(ShardOptions {
            replicas: vec![HERE],
            read_consistency,
            ..options(Peers::new())
        })
        .await
    }

    async fn start_on(options: ShardOptions) -> Self {
        let (group, id, session) =
            (GroupId::of_shard(ShardId(0)), RaftId(1), Session { number: 1, random: 1 });
        let holder = Holder { node: HERE, incarnation: Incarnation(1) };
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(&folder.path().join("wal"), WalOptions::default()).unwrap();
        wal.born(group, id).await.unwrap();
        let workers = Arc::clone(&options.workers);
        let shard = Shard::new(options);
        let directory = SnapshotDir::new(SystemDisk::shared(), folder.path().to_owned());
        let replica = GroupOptions {
            group,
            time: shard.timekeeper(),
            budget: Arc::new(Budget::of(0)),
            workers,
            id,
            holder,
            wal,
            recovered: None,
            snapshots: SnapshotStore::new(directory, group),
            is_short: false,
            session,
            peers: Peers::new(),
            sizes: crate::raft::Sizes::DEFAULT,
            timing: Timing::DEFAULT,
            clock: Arc::new(SystemClock::new()),
            seed: 1,
        };
        shard.start_replica(replica).await.unwrap();
        shard.begin(BTreeMap::from([(id, holder)]), true, PATIENCE).await;
        let timed = Arc::clone(&shard);
        let timing = tokio::spawn(async move {
            loop {
                timed.keep_time().await;
                sleep(BEAT).await;
            }
        });
        let running = tokio::spawn(Arc::clone(&shard).run());
        let tasks = vec![timing.abort_handle(), running.abort_handle()];
        let alone = Self { shard, tasks, _folder: folder };
        wait_for("leader", || alone.leads()).await;
        alone
    }

    fn leads(&self) -> bool {
        let replica = self.shard.seat.replica();
        replica.is_some_and(|replica| replica.group.leadership() == Leadership::Here)
    }

    fn last_index(&self) -> u64 {
        self.shard.status().and_then(|status| status.last_log_index).unwrap_or(0)
    }

    async fn write(&self, argv: &[&[u8]]) {
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), argv, &mut commands);
        self.shard.submit(Lane::Write, (&commands).into(), 1, &cell);
        cell.take(&mut Replies::default()).await.unwrap();
    }

    /// Asks for `k`.
    fn ask(&self, lane: Lane) -> Arc<ReplyCell> {
        ask(&self.shard, lane)
    }

    /// Sets `k` to `w`, while somebody has the state: it is committed, and will be applied when that has ended.
    async fn write_behind(&self) -> Arc<ReplyCell> {
        let replica = self.shard.seat.replica().unwrap();
        let before = replica.group.confirm().await.unwrap();
        let (cell, mut commands) = (ReplyCell::new(), Vec::new());
        put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"k", b"w"], &mut commands);
        self.shard.submit(Lane::Write, (&commands).into(), 1, &cell);
        let deadline = Instant::now() + PATIENCE;
        while replica.group.confirm().await.unwrap() == before {
            assert!(Instant::now() < deadline, "it is not committed");
            sleep(Duration::from_millis(5)).await;
        }
        cell
    }

    /// Lets upkeep look for what is overdue until whatever was asked at `asked` is.
    async fn tick_past_deadline(&self, asked: Instant) {
        wait_for("the deadline", || {
            self.shard.tick();
            asked.elapsed() > REQUEST_DEADLINE + FORWARD_TIMEOUT
        })
        .await;
    }

    /// Applies a part of an entry of great weight, past the log: who gets the rest has the state.
    fn seize(&self) -> Applied {
        let mut buffer = PacketBuffer::new();
        buffer.push(&large_set(), 1);
        let session = Session { number: 1, random: 1 };
        let id = PacketId { incarnation: Incarnation(9), session, sequence: 1 };
        let packet = Packet { id, floor: 1, commands: 1, body: buffer.frame().body() };
        let entry = proposal::encode_packets(Stamp { now: UnixMillis(1), seed: 1 }, &[packet]);
        let position = EntryPosition { term: 1, index: 1 };
        self.shard.machine.apply(position, Origin::Here, &entry).unwrap()
    }
}

/// Asks `shard` for `k`.
fn ask(shard: &Shard, lane: Lane) -> Arc<ReplyCell> {
    let cell = ReplyCell::new();
    let mut commands = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"k"], &mut commands);
    shard.submit(lane, (&commands).into(), 1, &cell);
    cell
}

/// The door of a shard that counts the reads that come.
struct CountingDoor {
    door: ShardDoor,
    reads: AtomicUsize,
}

impl Handler for CountingDoor {
    fn handle(&self, message: Message, responder: Responder) {
        if !message.body.is_empty() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        self.door.handle(message, responder);
    }
}

/// A packet that asks for `k`.
fn get() -> Bytes {
    let (mut command, mut buffer) = (Vec::new(), PacketBuffer::new());
    put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"k"], &mut command);
    buffer.push(&command, 1);
    buffer.frame().body()
}

/// The command that makes the set `s`.
fn large_set() -> Vec<u8> {
    let members: Vec<[u8; 8]> = (0..MEMBERS).map(usize::to_le_bytes).collect();
    let members = members.iter().map(|member| &member[..]);
    let argv: Vec<&[u8]> = [&b"SADD"[..], b"s"].into_iter().chain(members).collect();
    let mut command = Vec::new();
    put_command(Protocol::Resp2, DbIndex(0), &argv, &mut command);
    command
}

/// Threads that read `s`, again and again: at any time some of them have the state.
struct Readers {
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Readers {
    async fn begin(shard: &Arc<Shard>) -> Self {
        const READERS: usize = 4;
        let (is_over, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let read = || {
            let (shard, is_over, reads) =
                (Arc::clone(shard), Arc::clone(&is_over), Arc::clone(&reads));
            thread::spawn(move || {
                let mut buffer = PacketBuffer::new();
                let mut command = Vec::new();
                put_command(Protocol::Resp2, DbIndex(0), &[b"SMEMBERS", b"s"], &mut command);
                buffer.push(&command, 1);
                let body = buffer.frame().body();
                while !is_over.load(Ordering::Relaxed) {
                    let at = (shard.machine.epoch(), UnixMillis(1));
                    let replies = shard.machine.run_reads_long(at, 1, &body, || true);
                    assert!(replies.unwrap().bytes.len() > MEMBERS);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = std::iter::repeat_with(read).take(READERS).collect();
        wait_for("reads", || reads.load(Ordering::Relaxed) > READERS).await;
        Self { is_over, threads }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

async fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "no {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// As long as such reads overlapped there was neither a snapshot, so the log was never purged, nor did any key expire.
#[tokio::test]
async fn a_shard_is_looked_after_while_reads_of_great_weight_overlap() {
    let alone = Alone::start().await;
    let cell = ReplyCell::new();
    alone.shard.submit(Lane::Write, (&large_set()).into(), 1, &cell);
    cell.take(&mut Replies::default()).await.unwrap();
    alone.write(&[b"SET", b"k", b"v", b"PX", b"1"]).await;
    let readers = Readers::begin(&alone.shard).await;
    let replica = alone.shard.seat.replica().unwrap();
    let index = alone.last_index();
    replica.group.snapshot().await;
    wait_for("snapshot", || replica.group.snapshot_covers() >= index).await;
    wait_for("purge", || {
        alone.shard.tick();
        alone.last_index() > index
    })
    .await;
    drop(readers);
    wait_for("end of the key", || alone.shard.gauges().keys[0].expires == 0).await;
}

/// Whoever asked which sessions are open while somebody had the state was told of none, each time.
#[tokio::test]
async fn sessions_are_closed_whoever_has_the_state_when_they_are_looked_for() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let index = alone.last_index();
    assert!(matches!(alone.seize(), Applied::Rest(_)));
    wait_for("close", || {
        let seized = alone.seize();
        alone.shard.close_sessions(|_| Some(u64::MAX));
        drop(seized);
        alone.last_index() > index
    })
    .await;
}

/// Whoever asked for stale reads was sent to the leader, for no other reason than that they would have had to wait.
#[tokio::test]
async fn a_stale_read_that_has_to_wait_is_answered_by_this_replica() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let seized = alone.seize();
    let cell = alone.ask(Lane::Stale);
    let mut answer = std::pin::pin!(async {
        let mut replies = Replies::default();
        cell.take(&mut replies).await.unwrap();
        replies.bytes.to_vec()
    });
    assert!(futures::poll!(&mut answer).is_pending());
    seized.finish();
    assert_eq!(answer.await, b"$1\r\nv\r\n");
}

/// Of an entry whose rest was never run there was a part to be seen, until the replica was gone.
#[tokio::test]
async fn a_part_of_an_entry_is_read_by_nobody() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    drop(alone.seize());
    let cell = alone.ask(Lane::Stale);
    assert_eq!(cell.take(&mut Replies::default()).await, Err(ErrorReply::SHARD_BUSY));
    assert!(alone.shard.read(MonotonicMicros(0), |_, _| ()).is_none());
    assert_eq!(alone.shard.state_hash(), Err(HashRefused));
}

/// It was answered from nothing, by a replica that had ended after it was vouched for.
#[tokio::test]
async fn a_read_that_was_vouched_for_is_not_run_on_what_a_replica_leaves_behind() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let (body, vouched) = (get(), (alone.shard.machine.epoch(), MonotonicMicros(0)));
    let reads = &alone.shard.reads;
    let read = reads.run_long(vouched, &body, PATIENCE).await.unwrap();
    assert_eq!(read.bytes.to_vec(), b"$1\r\nv\r\n");
    alone.shard.end_replica().await;
    let refused = Err(Unread::TurnedAway(None));
    let read = |epoch| reads.run_long((epoch, MonotonicMicros(0)), &body, PATIENCE);
    assert_eq!(read(vouched.0).await, refused);
    assert_eq!(read(alone.shard.machine.epoch()).await, refused, "nothing is here");
    // Another one begins.
    alone.shard.machine.open();
    assert_eq!(read(vouched.0).await, refused);
    assert!(read(alone.shard.machine.epoch()).await.is_ok());
    let cell = alone.ask(Lane::Stale);
    assert_eq!(cell.take(&mut Replies::default()).await, Err(ErrorReply::SHARD_BUSY));
}

/// They were told that there is no quorum, where all was well.
#[tokio::test]
async fn reads_that_a_quorum_has_vouched_for_wait_for_the_state() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let seized = alone.seize();
    let asked = Instant::now();
    let mut cells = Vec::new();
    for _ in 0..2 * PACKETS_IN_FLIGHT_MAX {
        let long = alone.shard.reads.long_in_flight();
        cells.push(alone.ask(Lane::Read));
        wait_for("a read that takes long", || alone.shard.reads.long_in_flight() > long).await;
    }
    alone.tick_past_deadline(asked).await;
    seized.finish();
    for cell in cells {
        let mut replies = Replies::default();
        cell.take(&mut replies).await.unwrap();
        assert_eq!(replies.bytes.to_vec(), b"$1\r\nv\r\n");
    }
    wait_for("their end", || alone.shard.reads.long_in_flight() == 0).await;
}

/// They were told that there is no quorum, and whoever asked from elsewhere asked three times.
#[tokio::test]
async fn reads_that_a_quorum_has_vouched_for_wait_for_what_is_being_applied() {
    let alone = Alone::start_with(ReadConsistency::Quorum).await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let seized = alone.seize();
    let _overdue = alone.write_behind().await;
    let door =
        CountingDoor { door: ShardDoor(Arc::clone(&alone.shard)), reads: AtomicUsize::new(0) };
    let (door, peers) = (Arc::new(door), Peers::new());
    let _server = serve("n2", ELSEWHERE, &peers, Arc::clone(&door) as Arc<dyn Handler>).await;
    let elsewhere = shard_elsewhere(peers);
    let running = tokio::spawn(Arc::clone(&elsewhere).run());
    let asked = Instant::now();
    let cells = [alone.ask(Lane::Read), ask(&elsewhere, Lane::Read)];
    alone.tick_past_deadline(asked).await;
    assert_eq!(alone.shard.reads.long_in_flight(), 1, "others need not wait for it");
    assert_eq!(elsewhere.reads.long_in_flight(), 1, "others need not wait for it");
    seized.finish();
    for cell in cells {
        let mut replies = Replies::default();
        cell.take(&mut replies).await.unwrap();
        assert_eq!(replies.bytes.to_vec(), b"$1\r\nw\r\n");
    }
    assert_eq!(door.reads.load(Ordering::Relaxed), 1, "it was not asked again");
    running.abort();
}

/// They waited for the entry that is being applied, however long.
#[tokio::test]
async fn reads_wait_for_what_is_being_applied_up_to_a_limit_and_a_word_not_at_all() {
    let alone = Alone::start_with(ReadConsistency::Quorum).await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let seized = alone.seize();
    let written = alone.write_behind().await;
    for (body, expected) in [(get(), Err(Unread::Busy)), (Bytes::new(), Ok(Replies::default()))] {
        let is_vouched = AtomicBool::new(false);
        let reads = alone.shard.reads.confirmed(&body, false, &is_vouched, BEAT);
        assert_eq!(timeout(PATIENCE, reads).await.expect("an answer"), expected);
        assert!(is_vouched.load(Ordering::Acquire));
    }
    seized.finish();
    written.take(&mut Replies::default()).await.unwrap();
}

/// Nothing counted what other nodes ask for. A word was refused with the reads.
#[tokio::test]
async fn reads_of_other_nodes_wait_up_to_a_limit_that_is_not_for_words() {
    let alone = Alone::start_with(ReadConsistency::Quorum).await;
    let peers = Peers::new();
    let door = Arc::new(ShardDoor(Arc::clone(&alone.shard)));
    let _server = serve("n2", ELSEWHERE, &peers, door).await;
    let peer = peers.get(ELSEWHERE).unwrap();
    peer.connected().wait_for(|connected| *connected).await.unwrap();
    let ask = |body: Bytes| async {
        let answer = peer.call(GroupId::of_shard(ShardId(0)), kind::READ, body, PATIENCE);
        wire::take_answer(&answer.await.unwrap()).unwrap()
    };
    let ticket = alone.shard.reads.admit(LONG_READS_BYTES_MAX).unwrap();
    assert!(matches!(ask(get()).await, Answer::Busy));
    assert!(matches!(ask(Bytes::new()).await, Answer::Applied(..)));
    drop(ticket);
    assert!(matches!(ask(get()).await, Answer::Applied(..)));
}

/// Each try at them was run in the end, whoever waited for it, beside all the others.
#[tokio::test]
async fn reads_that_nobody_waits_for_any_more_are_not_run() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let seized = alone.seize();
    let (body, vouched) = (get(), (alone.shard.machine.epoch(), MonotonicMicros(0)));
    let reads = &alone.shard.reads;
    let tries = (0..2 * LONG_READS_MAX).map(|_| reads.run_long(vouched, &body, BEAT));
    for given_up in futures::future::join_all(tries).await {
        assert_eq!(given_up, Err(Unread::Busy));
    }
    let (waiting, _) = alone.shard.machine.long_reads();
    // Who seized the state counts.
    assert!(waiting <= LONG_READS_MAX + 1, "{waiting} threads wait");
    seized.finish();
    wait_for("their end", || alone.shard.machine.long_reads().0 == 0).await;
    assert_eq!(alone.shard.machine.long_reads().1, 0, "nobody wanted them");
    assert!(reads.run_long(vouched, &body, PATIENCE).await.is_ok(), "their turns have ended");
}

/// Nothing counted what waits at a replica.
#[tokio::test]
async fn stale_reads_wait_up_to_a_limit() {
    let alone = Alone::start().await;
    alone.write(&[b"SET", b"k", b"v"]).await;
    let ticket = alone.shard.reads.admit(LONG_READS_BYTES_MAX).unwrap();
    let cell = alone.ask(Lane::Stale);
    assert_eq!(cell.take(&mut Replies::default()).await, Err(ErrorReply::TOO_MANY_WAITING));
    drop(ticket);
    alone.ask(Lane::Stale).take(&mut Replies::default()).await.unwrap();
}

/// It waited on the runtime for whoever read, and all that lives there with it.
#[tokio::test]
async fn a_replica_ends_without_holding_up_its_runtime() {
    let alone = Alone::start().await;
    let (begin, has_begun) = mpsc::channel();
    let (end, is_over) = mpsc::channel();
    let shard = Arc::clone(&alone.shard);
    let reader = thread::spawn(move || {
        shard.machine.read(UnixMillis(1), |_, _| {
            begin.send(()).unwrap();
            is_over.recv_timeout(PATIENCE).is_ok()
        })
    });
    has_begun.recv().unwrap();
    let ends = alone.shard.end_replica();
    let others = async {
        let clock = MonotonicMicros(0);
        wait_for("who waits for the state", || alone.shard.read(clock, |_, _| ()).is_none()).await;
        end.send(()).unwrap();
    };
    tokio::join!(ends, others);
    assert_eq!(reader.join().unwrap(), Some(true), "the runtime went on");
}

/// As a simulation does it: all on this thread, which would wait for ever for a lock that is held by what waits for the thread.
#[tokio::test]
async fn on_one_thread_whoever_needs_the_state_waits_behind_a_held_entry() {
    let turns = Arc::new(Turns::default());
    let workers = Arc::clone(&turns) as Arc<dyn Workers>;
    let passing = Arc::clone(&turns);
    let passing = tokio::spawn(async move {
        loop {
            passing.pass(1);
            sleep(Duration::from_millis(1)).await;
        }
    });
    let options = ShardOptions { replicas: vec![HERE], workers, ..options(Peers::new()) };
    let mut alone = Alone::start_on(options).await;
    alone.tasks.push(passing.abort_handle());
    turns.delay(3);
    alone.write(&[b"SET", b"k", b"v"]).await;
    let (replica, index) = (alone.shard.seat.replica().unwrap(), alone.last_index());
    replica.group.snapshot().await;
    wait_for("snapshot", || replica.group.snapshot_covers() >= index).await;

    turns.hold_entries();
    let large = ReplyCell::new();
    alone.shard.submit(Lane::Write, (&large_set()).into(), 1, &large);
    wait_for("the entry", || turns.held() == 1).await;
    assert!(alone.shard.read(MonotonicMicros(0), |_, _| ()).is_none(), "the entry has the state");
    let reads = [Lane::Stale, Lane::Read].map(|lane| alone.ask(lane));
    wait_for("the reads behind it", || turns.held() == 3).await;
    let index = alone.last_index();
    alone.shard.close_sessions(|_| Some(u64::MAX));
    assert_eq!(turns.held(), 4, "as long as they are looked for");
    turns.release();
    for read in reads {
        let mut replies = Replies::default();
        read.take(&mut replies).await.unwrap();
        assert_eq!(replies.bytes.to_vec(), b"$1\r\nv\r\n");
    }
    large.take(&mut Replies::default()).await.unwrap();
    wait_for("close", || {
        alone.shard.close_sessions(|_| Some(u64::MAX));
        alone.last_index() > index
    })
    .await;
}

/// Found by the simulation: who asked during an ordinary stop was told of a broken disk.
#[tokio::test]
async fn alone_and_stopped_in_order_it_does_not_blame_its_disk() {
    let alone = Alone::start().await;
    alone.shard.stop().await;
    for lane in [Lane::Read, Lane::Write] {
        let cell = alone.ask(lane);
        let mut replies = Replies::default();
        let answer = timeout(PATIENCE, cell.take(&mut replies)).await.expect("an answer");
        assert_eq!(answer.map(drop), Err(ErrorReply::NO_QUORUM));
    }
}
