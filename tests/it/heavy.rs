//! Commands over many elements, and reads of them, hold up neither heartbeats nor other shards (faults.md, B4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::TestCluster;
use crate::support::{PATIENCE, let_pass, now_us, wait_for};

/// Members of the large sets: whoever takes them all at once takes a good part of a second.
const MEMBERS: usize = 200_000;

/// Members that one command adds: a fraction of a second's work for an unoptimized program.
const MEMBERS_AT_ONCE: usize = 5000;

/// How long a write to the other shard may take, in microseconds. Applied in place, half of the sorted set took 440 ms of an
/// unoptimized program; elsewhere, 20 ms were seen.
const WAIT_US_MAX: u64 = 250_000;

/// A key in the slots from 8192 on, and one below: of either shard.
const KEYS: [&str; 2] = ["foo", "bar"];

/// Gives the set or sorted set `key` all members.
fn fill(client: &mut Client, command: &str, key: &str) {
    for from in (0..MEMBERS).step_by(MEMBERS_AT_ONCE) {
        let mut argv = vec![command.to_owned(), key.to_owned()];
        for number in from..from + MEMBERS_AT_ONCE {
            if command == "ZADD" {
                argv.push(number.to_string());
            }
            argv.push(format!("member:{number}"));
        }
        let added = client.cmd(&argv).integer();
        assert_eq!(usize::try_from(added), Ok(MEMBERS_AT_ONCE));
    }
}

/// Every node has one thread, which beats the hearts of both shards and serves all clients.
#[test]
fn a_heavy_command_costs_no_election_and_other_shards_no_wait() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "2", "--io-threads", "1"]);
    let [heavy, light] = KEYS;
    let leader = cluster.leader_of(heavy);
    let mut client = cluster.client(leader);
    client.set_timeout(PATIENCE);
    for (command, key) in [("SADD", "{foo}s"), ("ZADD", "{foo}z")] {
        fill(&mut client, command, key);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let longest = Arc::new(AtomicU64::new(0));
    let writer = {
        let (is_over, written) = (Arc::clone(&is_over), Arc::clone(&written));
        let longest = Arc::clone(&longest);
        let mut client = cluster.client(leader);
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let number = written.load(Ordering::Relaxed) + 1;
                let begun = now_us();
                assert_eq!(client.cmd(&["SET", light, &number.to_string()]), Value::ok());
                longest.fetch_max(now_us() - begun, Ordering::Relaxed);
                written.store(number, Ordering::Relaxed);
            }
        })
    };
    wait_for("the writer writes", PATIENCE, || match written.load(Ordering::Relaxed) {
        0 => Err("nothing".to_owned()),
        _ => Ok(()),
    });
    let terms = cluster.terms();
    let count = MEMBERS.to_string();
    let heavies: [(&[&str], usize); 5] = [
        (&["SMEMBERS", "{foo}s"], MEMBERS),
        // Half of them first: what is left is put in order again.
        (&["ZPOPMAX", "{foo}z", "100000"], 200_000),
        (&["SPOP", "{foo}s", &count], MEMBERS),
        (&["ZPOPMIN", "{foo}z", &count], 200_000),
        (&["SCARD", "{foo}s"], 0),
    ];
    for (argv, replies) in heavies {
        let before = written.load(Ordering::Relaxed);
        longest.store(0, Ordering::Relaxed);
        let reply = client.cmd(argv);
        if argv[0] == "SCARD" {
            assert_eq!(reply, Value::Integer(0));
            continue;
        }
        let during = written.load(Ordering::Relaxed) - before;
        assert_eq!(reply.array().len(), replies, "{argv:?}");
        assert!(during > 0, "nothing was written beside {argv:?}");
        let longest = longest.load(Ordering::Relaxed);
        assert!(longest < WAIT_US_MAX, "a write waited {longest} us beside {argv:?}");
    }
    // Whoever was not heard of would be replaced by now.
    let_pass(Duration::from_secs(2));
    is_over.store(true, Ordering::Relaxed);
    writer.join().expect("every write succeeds");
    assert_eq!(cluster.terms(), terms, "a leader was replaced");
    cluster.assert_replicas_agree();
}

/// A client that asked for stale reads was sent to the leader by each that found the replica's state taken.
#[test]
fn a_replica_that_is_busy_answers_stale_reads_itself() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "1", "--io-threads", "1"]);
    let (leader, follower) = (cluster.leader_of("foo"), cluster.follower_of("foo"));
    let mut client = cluster.client(leader);
    client.set_timeout(PATIENCE);
    fill(&mut client, "SADD", "{foo}s");
    assert_eq!(client.cmd(&["SET", "foo", "v"]), Value::ok());
    let port = cluster.node(follower).cluster_port();
    let stale = || {
        let mut client = Client::connect(port).expect("the follower takes clients");
        client.set_timeout(PATIENCE);
        assert_eq!(client.cmd(&["READONLY"]), Value::ok());
        client
    };
    let mut reader = stale();
    wait_for("the follower has all", PATIENCE, || match reader.cmd(&["GET", "foo"]) {
        value if value == Value::bulk("v") => Ok(()),
        value => Err(format!("{value:?}")),
    });
    let (is_over, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let light = {
        let (is_over, read) = (Arc::clone(&is_over), Arc::clone(&read));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(reader.cmd(&["GET", "foo"]), Value::bulk("v"));
                read.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut heavy = stale();
    for left in [MEMBERS / 2, 0] {
        // Of great weight at the follower, too.
        let popped = client.cmd(&["SPOP", "{foo}s", &(MEMBERS / 2).to_string()]);
        assert_eq!(popped.array().len(), MEMBERS / 2);
        wait_for("the follower has popped", PATIENCE, || {
            let members = heavy.cmd(&["SMEMBERS", "{foo}s"]).array().len();
            if members == left { Ok(()) } else { Err(format!("{members} members")) }
        });
    }
    let before = read.load(Ordering::Relaxed);
    wait_for("further reads", PATIENCE, || {
        let more = read.load(Ordering::Relaxed) > before;
        if more { Ok(()) } else { Err("none".to_owned()) }
    });
    is_over.store(true, Ordering::Relaxed);
    light.join().expect("each is answered by the follower");
}
