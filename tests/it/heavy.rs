//! What is made to be heavy holds up neither heartbeats nor others: names of one hash (faults.md, B1), the page that walks over
//! all keys (B2), commands over many elements and reads of them (B4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::memory::peak_mib;
use crate::support::client::{Client, Value, request};
use crate::support::cluster::TestCluster;
use crate::support::node::TestServer;
use crate::support::{PATIENCE, let_pass, now_us, wait_for};

/// Members of the large sets: whoever takes them all at once takes a good part of a second.
const MEMBERS: usize = 200_000;

/// Members that one command adds: a fraction of a second's work for an unoptimized program.
const MEMBERS_AT_ONCE: usize = 5000;

/// How long a write to the other shard may take, in microseconds. Applied in place, half of the sorted set took 440 ms of an
/// unoptimized program; elsewhere, 20 ms were seen.
const WAIT_US_MAX: u64 = 250_000;

const MIB: usize = 1 << 20;

/// Bytes of a long value.
const LONG_BYTES: usize = 128 * MIB;

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

/// A client that writes all the time to a shard beside the one where something is heavy.
struct Other {
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    /// The longest wait for a write, in microseconds.
    longest: Arc<AtomicU64>,
    writer: JoinHandle<()>,
}

impl Other {
    /// Writes to `key` by way of the node `index`.
    fn write_to(cluster: &TestCluster, index: usize, key: &'static str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (written, longest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut client = cluster.client(index);
        let writer = {
            let (is_over, written) = (Arc::clone(&is_over), Arc::clone(&written));
            let longest = Arc::clone(&longest);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let number = written.load(Ordering::Relaxed) + 1;
                    let begun = now_us();
                    assert_eq!(client.cmd(&["SET", key, &number.to_string()]), Value::ok());
                    longest.fetch_max(now_us() - begun, Ordering::Relaxed);
                    written.store(number, Ordering::Relaxed);
                }
            })
        };
        wait_for("the writer writes", PATIENCE, || match written.load(Ordering::Relaxed) {
            0 => Err("nothing".to_owned()),
            _ => Ok(()),
        });
        Self { is_over, written, longest, writer }
    }

    /// Does `heavy`; how much was written beside it, and how long a write waited meanwhile, in microseconds.
    fn beside<R>(&self, name: &str, heavy: impl FnOnce() -> R) -> (R, u64, u64) {
        let before = self.written.load(Ordering::Relaxed);
        self.longest.store(0, Ordering::Relaxed);
        let done = heavy();
        let during = self.written.load(Ordering::Relaxed) - before;
        let longest = self.longest.load(Ordering::Relaxed);
        eprintln!("{during} writes beside {name}, of which one took {longest} us");
        (done, during, longest)
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.writer.join().expect("every write succeeds");
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
    let other = Other::write_to(&cluster, leader, light);
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
        if argv[0] == "SCARD" {
            assert_eq!(client.cmd(argv), Value::Integer(0));
            continue;
        }
        let (reply, during, longest) = other.beside(argv[0], || client.cmd(argv));
        assert_eq!(reply.array().len(), replies, "{argv:?}");
        assert!(during > 0, "nothing was written beside {argv:?}");
        assert!(longest < WAIT_US_MAX, "a write waited {longest} us beside {argv:?}");
    }
    // Whoever was not heard of would be replaced by now.
    let_pass(Duration::from_secs(2));
    other.end();
    assert_eq!(cluster.terms(), terms, "a leader was replaced");
    cluster.assert_replicas_agree();
}

/// It was copied under the shard's lock on the thread that beats hearts, and where it came to another node three times more.
#[test]
fn a_reply_of_hundreds_of_mib_costs_no_election_and_no_memory() {
    /// What a node has beside the value.
    const REST_MIB: usize = 120;
    let cluster = TestCluster::start(3, &["--cluster-shards", "2", "--io-threads", "1"]);
    let [heavy, light] = KEYS;
    let (leader, follower) = (cluster.leader_of(heavy), cluster.follower_of(heavy));
    let mut client = cluster.client(leader);
    client.set_timeout(PATIENCE);
    let (offset, length) = ((LONG_BYTES - 1).to_string(), i64::try_from(LONG_BYTES).unwrap());
    assert_eq!(client.cmd(&["SETRANGE", heavy, &offset, "x"]), Value::Integer(length));
    let other = Other::write_to(&cluster, leader, light);
    let terms = cluster.terms();
    for (index, argv, bytes) in [
        (leader, &["GET", heavy][..], LONG_BYTES),
        (leader, &["MGET", heavy, heavy, heavy, heavy], 4 * LONG_BYTES),
        (follower, &["GET", heavy], LONG_BYTES),
    ] {
        let mut client = cluster.client(index);
        client.set_timeout(PATIENCE);
        let name = format!("{} at node {index} where {leader} leads", argv[0]);
        other.beside(&name, || {
            client.send(argv).unwrap();
            client.skip(bytes).unwrap();
        });
    }
    // Both have the value; the follower had the message in which it came besides.
    for (index, values) in [(leader, 1), (follower, 2)] {
        let peak = peak_mib(cluster.node(index));
        assert!(peak < values * LONG_BYTES / MIB + REST_MIB, "node {index} had {peak} MiB");
    }
    let_pass(Duration::from_secs(2));
    other.end();
    assert_eq!(cluster.terms(), terms, "a leader was replaced");
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

/// B1: 60,000 names of one xxh3 hash kept a cluster busy for more than a minute, and then each start of a node.
#[test]
fn names_that_share_a_known_hash_cost_what_others_cost() {
    const NAMES: u64 = 60_000;
    const AT_ONCE: usize = 5000;
    // The first eight bytes are those of xxh3's own secret: their product with whatever the next eight are is nothing.
    let name = |number: u64| {
        let secret = [0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe];
        [&secret[..], &number.to_le_bytes(), b"{a}0123456789abc"].concat()
    };
    let names: Vec<Vec<u8>> = (0..NAMES).map(name).collect();
    assert!(names.iter().all(|name| xxh3_64(name) == xxh3_64(&names[0])));
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1", "--io-threads", "1"]);
    let mut client = cluster.client(0);
    let terms = cluster.terms();
    for some in names.chunks(AT_ONCE) {
        let argv: Vec<&[u8]> =
            [&b"SADD"[..], b"{a}set"].into_iter().chain(some.iter().map(Vec::as_slice)).collect();
        assert_eq!(client.cmd(&argv), Value::Integer(i64::try_from(some.len()).unwrap()));
        let sets = some.iter().flat_map(|name| request(&[&b"SET"[..], name, b"v"]));
        client.send_raw(&sets.collect::<Vec<u8>>()).unwrap();
        some.iter().for_each(|_| assert_eq!(client.read().unwrap(), Value::ok()));
    }
    let follower = cluster.follower_of("{a}");
    cluster.node_mut(follower).kill();
    cluster.node_mut(follower).restart();
    cluster.await_serving();
    let all = i64::try_from(NAMES).unwrap();
    for index in 0..3 {
        let mut client = cluster.client(index);
        assert_eq!(client.line("SCARD {a}set"), Value::Integer(all));
        assert_eq!(client.line("DBSIZE"), Value::Integer(all + 1));
        assert_eq!(client.cmd(&[&b"SISMEMBER"[..], b"{a}set", &names[0]]), Value::Integer(1));
    }
    cluster.assert_replicas_agree();
    assert_eq!(cluster.terms(), terms, "a leader was replaced");
}

/// B2: of 13,216 writes a second 19 were left while somebody asked for the page, and none while 32 did.
#[test]
fn the_hash_of_all_keys_asked_for_by_many_stops_no_writes() {
    const KEYS: u64 = 50_000;
    const BATCH: u64 = 5000;
    const ASKERS: usize = 32;
    const PAGES: u64 = 5;
    let server = TestServer::start(&["--cluster-shards", "1", "--io-threads", "1"]);
    let mut client = server.client();
    for first in (0..KEYS / BATCH).map(|batch| batch * BATCH) {
        let keys = first..first + BATCH;
        let set = |key| request(&["SET", &format!("key:{key}"), "v"]);
        client.send_raw(&keys.clone().flat_map(set).collect::<Vec<u8>>()).unwrap();
        keys.for_each(|_| assert_eq!(client.read().unwrap(), Value::ok()));
    }
    let (pages, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = || pages.load(Ordering::Relaxed) >= PAGES;
    let mut written = 0;
    thread::scope(|scope| {
        for _ in 0..ASKERS {
            scope.spawn(|| {
                while !is_over() {
                    match server.admin("/api/shards?hash=1") {
                        Ok(page) => {
                            assert!(page.contains("\"keyspace\":\""), "{page}");
                            pages.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(why) => {
                            assert!(why.starts_with("HTTP/1.1 503 "), "{why}");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        while !is_over() {
            let key = format!("key:{}", written % KEYS);
            assert_eq!(client.cmd(&["SET", &key, "w"]), Value::ok());
            written += 1;
        }
    });
    let (pages, refused) = (pages.into_inner(), refused.into_inner());
    eprintln!("{written} writes beside {pages} pages and {refused} refusals");
    assert!(refused > 0, "each got one");
    // Made in one go, a page lets one or two of them through.
    assert!(written > 5 * pages, "{written} writes beside {pages} pages");
}
