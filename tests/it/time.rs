//! The shard's time: the same through every door, whoever leads and whatever wall clocks say (faults.md, T1–T3, R21).

use std::thread;
use std::time::Duration;

use kvorum::stdx::prng::SplitMix64;

use crate::support::client::{Value, request};
use crate::support::cluster::TestCluster;
use crate::support::locks::Locks;
use crate::support::node::TestServer;
use crate::support::shards::parse;
use crate::support::{PATIENCE, is_long, let_pass, now_us, rounds, seed, us, wait_for};

const HOUR_MS: i64 = 3_600_000;

/// How late a node may be with the time, where this machine runs other tests too.
const LATE_MS: u64 = 300;

/// Three nodes whose wall clocks are `shifts` ahead.
fn start(shifts: [i64; 3], directives: &[&str]) -> TestCluster {
    let mut cluster = TestCluster::start_without(3, directives, &[0, 1, 2]);
    for (index, shift) in shifts.into_iter().enumerate() {
        cluster.node_mut(index).shift_wall(shift);
        cluster.node_mut(index).spawn();
    }
    (0..3).for_each(|index| cluster.node_mut(index).await_ready());
    cluster.await_serving();
    cluster
}

/// A key with a deadline, and when it got it by true time, in µs.
struct Deadline {
    asked: u64,
    known: u64,
}

const TTL_MS: u64 = 600_000;

impl Deadline {
    fn set(cluster: &TestCluster, index: usize) -> Self {
        let asked = now_us();
        let reply = cluster.client(index).cmd(&["SET", "k", "v", "PX", &TTL_MS.to_string()]);
        assert_eq!(reply, Value::ok());
        Self { asked, known: now_us() }
    }

    /// Asks every node that serves how long it is.
    #[track_caller]
    fn assert_seen(&self, cluster: &TestCluster) {
        for index in cluster.serving() {
            let asked = now_us();
            let left = cluster.client(index).cmd(&["PTTL", "k"]).integer();
            let known = now_us();
            let longest = (known - self.asked) / 1000;
            let shortest = asked.saturating_sub(self.known) / 1000;
            let least = TTL_MS - longest * 101 / 100 - 5;
            let most = TTL_MS - shortest * 99 / 100 + LATE_MS;
            assert!(
                (least..=most).contains(&u64::try_from(left).unwrap_or(0)),
                "node {index}: {left} ms left, not {least} to {most}"
            );
        }
    }
}

/// T1: reads that other nodes had sent went by the wall clock of the leader.
#[test]
fn deadlines_are_the_same_through_every_door_whoever_leads() {
    let mut cluster = start([0, 0, 0], &["--cluster-shards", "1"]);
    let deadline = Deadline::set(&cluster, 0);
    deadline.assert_seen(&cluster);
    for shift in [HOUR_MS, -HOUR_MS, HOUR_MS, 0] {
        let leader = cluster.leader_of("k");
        cluster.node_mut(leader).kill();
        cluster.node_mut(leader).shift_wall(shift);
        cluster.node_mut(leader).restart();
        cluster.await_serving();
        deadline.assert_seen(&cluster);
        // Through one that leads and was not restarted just now, whose clock steps.
        let leader = cluster.leader_of("k");
        cluster.node_mut(leader).shift_wall(-shift);
        let_pass(Duration::from_millis(300));
        deadline.assert_seen(&cluster);
    }
}

/// T3: each failover lost 25 to 90 ms, which came back at 1 % of the time passed.
#[test]
fn failovers_lose_none_of_the_shards_time() {
    /// For all of them together: a message's way, rounding, and what monotonic clocks differ by.
    const LOST_MS_MAX: u64 = 50;
    let mut cluster = start([0, 0, 0], &["--cluster-shards", "1"]);
    let deadline = Deadline::set(&cluster, 0);
    for failover in 0..rounds(5, 20) {
        let leader = cluster.leader_of("k");
        cluster.node_mut(leader).kill();
        cluster.await_serving();
        for index in cluster.serving() {
            let asked = now_us();
            let left = cluster.client(index).cmd(&["PTTL", "k"]).integer();
            // It was answered later than it was asked: a machine that is busy can only make less of it.
            let most = TTL_MS - (asked - deadline.known) / 1000;
            let lost = u64::try_from(left).unwrap().saturating_sub(most);
            assert!(lost <= LOST_MS_MAX, "{lost} ms lost after {} failovers", failover + 1);
        }
        deadline.assert_seen(&cluster);
        cluster.node_mut(leader).restart();
        cluster.await_serving();
    }
}

/// Nobody has heard the time: of three wall clocks the middle one is believed, or of two the earlier.
#[test]
fn after_a_restart_of_all_no_single_wall_clock_decides() {
    let mut cluster = start([0, 0, 0], &["--cluster-shards", "1"]);
    let deadline = Deadline::set(&cluster, 0);
    for (ahead, behind) in [(0, 1), (1, 2), (2, 0)] {
        for index in 0..3 {
            cluster.node_mut(index).kill();
            cluster.node_mut(index).shift_wall(0);
        }
        cluster.node_mut(ahead).shift_wall(HOUR_MS);
        cluster.node_mut(behind).shift_wall(-HOUR_MS);
        (0..3).for_each(|index| cluster.node_mut(index).spawn());
        (0..3).for_each(|index| cluster.node_mut(index).await_ready());
        cluster.await_serving();
        // An hour behind is what the last stamp says, so as if no time had passed while all were down.
        let client = &mut cluster.client(0);
        let left = u64::try_from(client.cmd(&["PTTL", "k"]).integer()).unwrap_or(0);
        let passed = (now_us() - deadline.asked) / 1000;
        assert!(left + passed * 101 / 100 + 5 >= TTL_MS, "{left} ms left after {passed}");
        let_pass(Duration::from_millis(400));
        let later = u64::try_from(client.cmd(&["PTTL", "k"]).integer()).unwrap_or(0);
        assert!(later + 350 < left, "time stands still: {left} ms left, later {later}");
    }
}

/// Time reaches followers without entries: what they are told in heartbeats is enough to lead by.
#[test]
fn an_idle_shard_keeps_its_time_and_writes_nothing_for_it() {
    let mut cluster = start([0, HOUR_MS, -HOUR_MS], &["--cluster-shards", "1"]);
    let deadline = Deadline::set(&cluster, 0);
    let appended = |cluster: &TestCluster| {
        let info = cluster.client(0).line("INFO").text();
        info.lines().find(|line| line.starts_with("kvorum_wal_writes")).map(ToOwned::to_owned)
    };
    wait_for("an idle log", PATIENCE, || {
        let before = appended(&cluster);
        let_pass(Duration::from_secs(rounds(2, 15) as u64));
        if appended(&cluster) == before { Ok(()) } else { Err("it writes".to_owned()) }
    });
    deadline.assert_seen(&cluster);
    let leader = cluster.leader_of("k");
    cluster.node_mut(leader).kill();
    cluster.await_serving();
    deadline.assert_seen(&cluster);
}

/// Takes and watches locks while leaders die and come back and wall clocks step.
fn judge_locks(directives: &[&str]) {
    let seed = seed();
    let mut prng = SplitMix64::new(seed);
    let mut cluster = start([0, HOUR_MS, -HOUR_MS], directives);
    let late = Duration::from_millis(if is_long() { 30 } else { 1000 });
    let locks = Locks::start(&cluster.ports(), seed, late);
    let end = now_us() + us(Duration::from_secs(if is_long() { 120 } else { 15 }));
    while now_us() < end {
        let_pass(Duration::from_millis(300 + prng.below(900)));
        let shift = [0, HOUR_MS, -HOUR_MS, 700, -700][usize::try_from(prng.below(5)).unwrap()];
        let key = format!("lease:{}", prng.below(3));
        let victim = if prng.below(3) == 0 {
            usize::try_from(prng.below(3)).unwrap()
        } else {
            cluster.leader_of(&key)
        };
        if prng.below(2) == 0 {
            cluster.node_mut(victim).shift_wall(shift);
            continue;
        }
        cluster.node_mut(victim).kill();
        cluster.node_mut(victim).shift_wall(shift);
        let_pass(Duration::from_millis(prng.below(2000)));
        cluster.node_mut(victim).restart();
        cluster.await_serving();
    }
    let (granted, looked) = locks.finish();
    eprintln!("{granted} locks taken, {looked} looks");
    assert!(granted > 20 && looked > 200, "{granted} locks taken, {looked} looks");
    cluster.assert_replicas_agree();
}

#[test]
fn locks_live_as_long_as_they_should_whatever_wall_clocks_say() {
    judge_locks(&["--cluster-shards", "2"]);
}

#[test]
fn locks_live_as_long_as_they_should_by_quorum_reads() {
    judge_locks(&["--cluster-shards", "2", "--read-consistency", "quorum"]);
}

/// A read saw a key expired while its renewal, stamped before, was on its way to the disk; then the key was back.
#[test]
fn a_key_seen_expired_stays_so_whatever_was_on_its_way() {
    const TTL: Duration = Duration::from_millis(150);
    let delay = Duration::from_millis(40);
    let cluster = TestCluster::start_slow(1, &["--appendfsync", "always"], delay);
    let (mut reader, mut writer) = (cluster.client(0), cluster.client(0));
    let mut expired = 0;
    for round in 0..rounds(12, 60) {
        let token = format!("token {round}");
        let ttl = TTL.as_millis().to_string();
        let asked = now_us();
        assert_eq!(writer.cmd(&["SET", "k", &token, "PX", &ttl]), Value::ok());
        // Just before its deadline, as far as one can tell: it is that of a stamp some time after `asked`.
        let early_us = 500 * (u64::try_from(round).unwrap() % 12);
        while now_us() + early_us < asked + us(TTL) {
            std::hint::spin_loop();
        }
        writer.send(&["PERSIST", "k"]).unwrap();
        let answered = thread::spawn(move || {
            let reply = writer.read().unwrap();
            (writer, reply)
        });
        let mut is_gone = false;
        while !answered.is_finished() {
            is_gone |= reader.cmd(&["GET", "k"]) == Value::Null;
        }
        let persisted;
        (writer, persisted) = answered.join().unwrap();
        let last = reader.cmd(&["GET", "k"]);
        if is_gone {
            expired += 1;
            assert_eq!((persisted, last), (Value::Integer(0), Value::Null), "round {round}");
        } else {
            assert_eq!(persisted == Value::Integer(1), last == Value::bulk(&token));
        }
    }
    eprintln!("{expired} were seen expired before the renewal was answered");
}

/// faults.md B3: a purge removed at most 512 keys ten times a second, so a store whose keys lived for 200 ms grew without end.
#[test]
fn keys_are_removed_as_fast_as_they_expire() {
    const KEYS: u64 = 20_000;
    const BATCH: u64 = 500;
    let server = TestServer::start(&["--io-threads", "1"]);
    let mut client = server.client();
    for first in (0..KEYS).step_by(BATCH.try_into().unwrap()) {
        let set = |key| request(&["SET", &format!("key{key}"), "v", "PX", "3000"]);
        let batch: Vec<u8> = (first..first + BATCH).flat_map(set).collect();
        client.send_raw(&batch).unwrap();
        for _ in 0..BATCH {
            assert_eq!(client.read().unwrap(), Value::ok());
        }
    }
    let index = || parse(&server.admin("/api/shards?hash=1").unwrap()).unwrap()[0].index;
    let (before, left) = (index(), client.line("DBSIZE").integer());
    wait_for("an empty store", PATIENCE, || match client.line("DBSIZE").integer() {
        0 => Ok(()),
        keys => Err(format!("{keys} keys")),
    });
    // By entries of the log, not by time: few say it all, so many keys go with each.
    let entries = index() - before;
    eprintln!("{left} keys went in {entries} entries");
    assert!(entries <= KEYS / 512 / 2, "{left} keys in {entries} entries");
}

/// B3: at 30,000 a second half a million were stored after twenty seconds, of keys that live for a fifth of a second.
#[test]
fn a_store_whose_keys_expire_as_fast_as_they_come_stays_small() {
    const LIVE: u64 = 1000;
    const BATCH: u64 = 500;
    /// What the old pace, 5120 a second, would take eight seconds for.
    const GONE: u64 = 40_000;
    let server = TestServer::start(&["--io-threads", "1"]);
    let mut client = server.client();
    let mut write = |keys: std::ops::Range<u64>, options: &[&str]| {
        let mut batch = Vec::new();
        for key in keys.clone() {
            let key = format!("key:{key}");
            batch.extend(request(&[&["SET", key.as_str(), "v"], options].concat()));
        }
        client.send_raw(&batch).unwrap();
        keys.for_each(|_| assert_eq!(client.read().unwrap(), Value::ok()));
    };
    (0..LIVE).step_by(500).for_each(|first| write(first..first + BATCH, &[]));
    let mut operator = server.client();
    let mut stored = || u64::try_from(operator.line("DBSIZE").integer()).unwrap();
    let (mut written, mut most) = (LIVE, 0);
    // As many as come while what came before goes.
    let left = wait_for("expired keys to go", PATIENCE, || {
        write(written..written + BATCH, &["PX", "200"]);
        written += BATCH;
        let stored = stored();
        most = most.max(stored);
        if written - stored >= GONE { Ok(stored) } else { Err(format!("{stored} of {written}")) }
    });
    eprintln!("{written} written, {most} stored at most, {left} at the end");
    assert!(left < written / 2, "{left} of {written}");
    wait_for("the live ones alone", PATIENCE, || match stored() {
        LIVE => Ok(()),
        keys => Err(format!("{keys} keys")),
    });
}
