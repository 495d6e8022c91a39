//! What requests may cost in memory: large values and replies, whoever asks for them and through whichever node
//! (faults.md, M1–M7).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::{Client, Value, request};
use crate::support::cluster::TestCluster;
use crate::support::node::{Doors, TestServer};
use crate::support::shards::has_snapshots;
use crate::support::{PATIENCE, is_long, let_pass, now_us, wait_for};

const MIB: usize = 1 << 20;

/// The most memory that the process ever had, in MiB.
pub(crate) fn peak_mib(node: &TestServer) -> usize {
    memory_mib(node, "VmHWM:")
}

/// The memory of the process by one of the kernel's measures, in MiB.
fn memory_mib(node: &TestServer, measure: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid().as_raw_nonzero()));
    let status = status.expect("own child");
    let line = status.lines().find(|line| line.starts_with(measure)).expect("Linux");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("KiB") / 1024
}

/// Of nodes that die of more than `memory_bytes` each.
fn cluster_with_a_large_value(memory_bytes: Option<u64>) -> TestCluster {
    let mut cluster = TestCluster::start_without(3, &["--cluster-shards", "1"], &[0, 1, 2]);
    for index in 0..3 {
        memory_bytes.into_iter().for_each(|bytes| cluster.node_mut(index).limit_memory(bytes));
        cluster.node_mut(index).spawn();
    }
    (0..3).for_each(|index| cluster.node_mut(index).await_ready());
    cluster.await_serving();
    let reply = cluster.client(0).cmd(&["SET", "large", &"x".repeat(MIB)]);
    assert_eq!(reply, Value::ok());
    cluster
}

/// M3: each was answered "no quorum" after five seconds, and the nodes had gigabytes.
#[test]
fn a_pipeline_of_large_reads_is_answered_through_every_node() {
    const READS: usize = 400;
    let cluster = cluster_with_a_large_value(None);
    let leader = cluster.leader_of("large");
    for index in (0..3).filter(|index| *index != leader) {
        let mut client = cluster.client(index);
        client.set_timeout(PATIENCE);
        let mut pipeline = request(&["PING"]);
        for _ in 0..READS {
            pipeline.extend(request(&["GET", "large"]));
        }
        pipeline.extend(request(&["EXISTS", "large"]));
        client.send_raw(&pipeline).unwrap();
        assert_eq!(client.read().unwrap(), Value::Simple("PONG".to_owned()));
        for read in 0..READS {
            assert_eq!(client.read().unwrap().text().len(), MIB, "read {read}");
        }
        assert_eq!(client.read().unwrap(), Value::Integer(1));
    }
    for index in 0..3 {
        let peak = peak_mib(cluster.node(index));
        assert!(peak < 250, "node {index} had {peak} MiB");
    }
}

/// M2: the reply was encoded on every replica, and on the next leader again.
#[test]
fn a_large_read_behind_a_write_is_refused_and_costs_no_replica_its_memory() {
    // As was seen, where it killed two of three, and at every start again.
    let mut cluster = cluster_with_a_large_value(Some(800_000_000));
    let mut argv = vec!["MGET"];
    argv.extend(std::iter::repeat_n("large", 1500));
    for index in 0..3 {
        let mut client = cluster.client(index);
        client.set_timeout(PATIENCE);
        client.send_raw(&[request(&["SET", "x", "1"]), request(&argv)].concat()).unwrap();
        assert_eq!(client.read().unwrap(), Value::ok());
        let refused = client.read().unwrap();
        assert!(refused.error().unwrap_or("").contains("too large"), "{refused:?}");
        // What one reply may have by itself has its limit too.
        let alone = client.cmd(&argv);
        assert!(alone.error().unwrap_or("").contains("too large"), "{alone:?}");
        assert_eq!(client.line("GET x").text(), "1");
    }
    for index in 0..3 {
        let peak = peak_mib(cluster.node(index));
        assert!(peak < 250, "node {index} had {peak} MiB");
    }
    cluster.assert_replicas_agree();
    // Nothing of it is in the log that would be done again.
    (0..3).for_each(|index| cluster.node_mut(index).kill());
    (0..3).for_each(|index| cluster.node_mut(index).spawn());
    (0..3).for_each(|index| cluster.node_mut(index).await_ready());
    cluster.await_serving();
    for index in 0..3 {
        assert_eq!(cluster.client(index).line("GET x").text(), "1");
        let peak = peak_mib(cluster.node(index));
        assert!(peak < 250, "node {index} had {peak} MiB after its start");
    }
}

/// What is left of a pipeline whose commands were lent to the shard, because they are long, is sent again in parts.
#[test]
fn long_commands_before_large_replies_are_done_once() {
    const TIMES: usize = 6;
    /// More than the replies of one packet have room for.
    const READS: usize = 20;
    let cluster = cluster_with_a_large_value(None);
    let leader = cluster.leader_of("large");
    let long = "y".repeat(20 * 1024);
    for index in [leader, (leader + 1) % 3] {
        let mut client = cluster.client(index);
        client.set_timeout(PATIENCE);
        let mut pipeline = request(&["DEL", "long"]);
        for _ in 0..TIMES {
            // Both in what one read of the connection has room for, so that they are one submission.
            pipeline.extend(request(&["APPEND", "long", &long]));
            pipeline.extend(request(&["GET", "large"]).repeat(READS));
        }
        client.send_raw(&pipeline).unwrap();
        assert!(matches!(client.read().unwrap(), Value::Integer(_)));
        for times in 1..=TIMES {
            let all = i64::try_from(times * long.len()).unwrap();
            assert_eq!(client.read().unwrap(), Value::Integer(all));
            for _ in 0..READS {
                assert_eq!(client.read().unwrap().text().len(), MIB);
            }
        }
    }
}

/// Parts of several pipelines, and of one with other commands between, come in order.
#[test]
fn large_replies_in_parts_keep_the_order_of_their_pipeline() {
    let cluster = cluster_with_a_large_value(None);
    let leader = cluster.leader_of("large");
    let follower = (leader + 1) % 3;
    assert_eq!(cluster.client(leader).cmd(&["SET", "small", "s"]), Value::ok());
    let mut clients: Vec<Client> = (0..4).map(|_| cluster.client(follower)).collect();
    let mut pipeline = Vec::new();
    for round in 0..30 {
        pipeline.extend(request(&["ECHO", &round.to_string()]));
        pipeline.extend(request(&["GET", "large"]));
        pipeline.extend(request(&["MGET", "small", "large", "nothing"]));
    }
    for client in &mut clients {
        client.set_timeout(PATIENCE);
        client.send_raw(&pipeline).unwrap();
    }
    for client in &mut clients {
        for round in 0..30 {
            assert_eq!(client.read().unwrap().text(), round.to_string());
            assert_eq!(client.read().unwrap().text().len(), MIB);
            let three = client.read().unwrap();
            let [small, large, nothing] = three.array() else { panic!("{three:?}") };
            assert_eq!((small.text().as_str(), large.text().len()), ("s", MIB));
            assert_eq!(nothing, &Value::Null);
        }
    }
    wait_for("no part is left", PATIENCE, || {
        let reply = clients[0].line("PING");
        if reply == Value::Simple("PONG".to_owned()) { Ok(()) } else { Err(format!("{reply:?}")) }
    });
}

/// Sets keys of a MiB through `client` until memory is short; how many it took.
fn fill(client: &mut Client, prefix: &str) -> usize {
    let value = "x".repeat(MIB);
    for number in 0..1000 {
        let reply = client.cmd(&["SET", &format!("{prefix}:{number}"), &value]);
        if reply != Value::ok() {
            assert!(
                reply.error().unwrap_or("").starts_with("OOM command not allowed"),
                "{reply:?}"
            );
            return number;
        }
    }
    panic!("no limit was met");
}

/// Waits until what would grow is refused or taken at node `index`.
fn await_room(cluster: &TestCluster, index: usize, has_room: bool) {
    let mut client = cluster.client(index);
    wait_for("the limit is known", PATIENCE, || {
        let reply = client.cmd(&["SET", "probe", &"x".repeat(MIB)]);
        if (reply == Value::ok()) == has_room { Ok(()) } else { Err(format!("{reply:?}")) }
    });
}

/// M4: two of the largest values killed a majority, at every restart again, and nothing could be deleted.
#[test]
fn a_memory_limit_is_kept_on_every_node_and_leaves_reads_and_deletes() {
    let limited = ["--cluster-shards", "1", "--maxmemory", "120mb"];
    let mut cluster = TestCluster::start_without(3, &limited, &[0, 1, 2]);
    // One of them has less than the others, whoever leads.
    cluster.node_mut(1).also(&["--maxmemory", "80mb"]);
    (0..3).for_each(|index| cluster.node_mut(index).spawn());
    (0..3).for_each(|index| cluster.node_mut(index).await_ready());
    cluster.await_serving();
    let mut client = cluster.client(0);
    client.set_timeout(PATIENCE);
    let refused = client.cmd(&["SETRANGE", "huge", "536870911", "x"]);
    assert!(refused.error().unwrap_or("").starts_with("OOM"), "{refused:?}");
    let taken = fill(&mut client, "key");
    assert!((20..100).contains(&taken), "{taken} MiB fit into 80");
    for index in 0..3 {
        await_room(&cluster, index, false);
        let mut client = cluster.client(index);
        assert_eq!(client.cmd(&["GET", "key:0"]).text().len(), MIB);
        assert_eq!(client.cmd(&["DEL", &format!("key:{}", index + 1)]), Value::Integer(1));
        assert_eq!(client.cmd(&["EXPIRE", "key:0", "1000"]), Value::Integer(1));
        let info = client.line("INFO memory").text();
        assert!(info.contains("maxmemory:"), "{info}");
    }
    // A node over its limit starts, and still serves what needs no more.
    for index in 0..3 {
        cluster.node_mut(index).kill();
        cluster.node_mut(index).restart();
    }
    cluster.await_serving();
    let mut client = cluster.client(1);
    client.set_timeout(PATIENCE);
    for number in 4..taken {
        assert_eq!(client.cmd(&["DEL", &format!("key:{number}")]), Value::Integer(1), "{number}");
    }
    for index in 0..3 {
        await_room(&cluster, index, true);
    }
    // The limit can be changed while the node runs.
    for index in 0..3 {
        let reply = cluster.client(index).cmd(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(reply, Value::ok());
    }
    await_room(&cluster, 0, true);
    cluster.assert_replicas_agree();
}

/// M5: each kept what it had once sent or got.
#[test]
fn idle_connections_keep_little_of_what_they_sent_and_got() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    assert_eq!(client.cmd(&["SET", "large", &"x".repeat(MIB / 4)]), Value::ok());
    let mut clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.cmd(&["GET", "large"]).text().len(), MIB / 4);
    }
    let resident = || memory_mib(&server, "VmRSS:");
    wait_for("replies are given back", PATIENCE, || match resident() {
        few @ 0..60 => Ok(few),
        many => Err(format!("{many} MiB")),
    });
    for client in &mut clients[..8] {
        assert_eq!(client.cmd(&["SET", "larger", &"x".repeat(24 * MIB)]), Value::ok());
    }
    assert_eq!(client.cmd(&["DEL", "larger"]), Value::Integer(1));
    // The log's window among it, for a while: M7.
    wait_for("requests are given back", PATIENCE, || match resident() {
        few @ 0..90 => Ok(few),
        many => Err(format!("{many} MiB")),
    });
}

/// Packets near the limit were turned away whole, with what would have freed memory; and a replica that was gone had no room.
#[test]
fn deletes_go_through_under_a_flood_and_a_dead_replica_stops_nobody() {
    let limited = ["--cluster-shards", "1", "--maxmemory", "90mb"];
    let mut cluster = TestCluster::start(3, &limited);
    let mut client = cluster.client(0);
    client.set_timeout(PATIENCE);
    let taken = fill(&mut client, "key");
    let is_over = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..3)
        .map(|index| {
            let (mut client, is_over) = (cluster.client(index), Arc::clone(&is_over));
            thread::spawn(move || {
                let value = "x".repeat(20_000);
                let pipeline: Vec<u8> = (0..200)
                    .flat_map(|number| request(&["SET", &format!("{index}:{number}"), &value]))
                    .collect();
                while !is_over.load(Ordering::Acquire) {
                    client.send_raw(&pipeline).unwrap();
                    for _ in 0..200 {
                        let reply = client.read().unwrap();
                        let is_refused = reply.error().is_some_and(|text| text.starts_with("OOM"));
                        assert!(reply == Value::ok() || is_refused, "{reply:?}");
                    }
                }
            })
        })
        .collect();
    for number in 0..taken {
        for index in 0..3 {
            let reply = cluster.client(index).cmd(&["DEL", &format!("key:{number}")]);
            assert!(matches!(reply, Value::Integer(0 | 1)), "a delete was refused: {reply:?}");
        }
    }
    is_over.store(true, Ordering::Release);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    // One without room dies: the others go on.
    let follower = cluster.follower_of("key");
    assert_eq!(cluster.client(follower).cmd(&["CONFIG", "SET", "maxmemory", "1mb"]), Value::ok());
    let leader = cluster.leader_of("key");
    await_room(&cluster, leader, false);
    cluster.node_mut(follower).kill();
    await_room(&cluster, leader, true);
}

/// A number of INFO's section on memory.
fn of_memory(client: &mut Client, name: &str) -> usize {
    let info = client.line("INFO memory").text();
    let number = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    number.unwrap_or_else(|| panic!("no {name} in {info}")).parse().unwrap()
}

/// M4 without a limit: the kernel ended the nodes without a word before, and at every restart again. What is said is tested;
/// a machine that has less than is stored cannot be helped.
#[test]
fn a_node_that_takes_most_of_the_memory_says_so_starts_again_and_can_be_emptied() {
    const MACHINE_MIB: usize = 128;
    const SAID: &str = "this node takes most of the memory there is";
    let mut server = TestServer::new::<&str>(Doors::reserve(), &[]);
    server.shrink_machine(i64::try_from(MACHINE_MIB * MIB).unwrap());
    server.spawn();
    server.await_ready();
    let mut client = server.client();
    assert_eq!(of_memory(&mut client, "maxmemory"), 0);
    assert_eq!(of_memory(&mut client, "total_system_memory"), MACHINE_MIB * MIB);
    assert_eq!(of_memory(&mut client, "kvorum_memory_strained"), 0);
    let value = "x".repeat(MIB);
    for number in 0..MACHINE_MIB {
        assert_eq!(client.cmd(&["SET", &format!("key:{number}"), &value]), Value::ok());
    }
    let await_words = |server: &TestServer, count: usize| {
        wait_for("a word about memory", PATIENCE, || match server.log().matches(SAID).count() {
            said if said == count => Ok(()),
            said => Err(format!("said {said} times")),
        });
    };
    await_words(&server, 1);
    assert_eq!(of_memory(&mut client, "kvorum_memory_strained"), 1);
    server.kill();
    server.restart();
    await_words(&server, 2);
    let mut client = server.client();
    assert_eq!(client.cmd(&["GET", "key:0"]).text().len(), MIB);
    for number in 0..MACHINE_MIB {
        assert_eq!(client.cmd(&["DEL", &format!("key:{number}")]), Value::Integer(1));
    }
    wait_for("room", PATIENCE, || match of_memory(&mut client, "kvorum_memory_strained") {
        0 => Ok(()),
        _ => Err(format!("{} bytes", of_memory(&mut client, "used_memory_rss"))),
    });
    assert_eq!(client.line("SET k v"), Value::ok());
}

/// M7: of what a few keys were set to, 44 MB stayed in the log's window, busy or idle.
#[test]
fn the_window_of_a_busy_log_is_bounded_and_an_idle_one_is_given_back() {
    const VALUE_BYTES: usize = 1000;
    const BATCH: usize = 200;
    /// Three times what the window holds, 32 MiB, and more than makes a snapshot due.
    const BATCHES: usize = 96 * MIB / (BATCH * VALUE_BYTES);
    /// Half a MiB of window, and buffers that the log keeps for what comes next, of 4 MiB at most.
    const IDLE_BYTES_MAX: usize = 6 * MIB;
    let server = TestServer::start(&["--cluster-shards", "1"]);
    let (mut client, mut operator) = (server.client(), server.client());
    let value = "x".repeat(VALUE_BYTES);
    let set = |number| request(&["SET", &format!("key:{}", number % 8), &value]);
    let batch: Vec<u8> = (0..BATCH).flat_map(set).collect();
    let before = of_memory(&mut operator, "used_memory");
    let mut most = 0;
    for number in 0..BATCHES {
        client.send_raw(&batch).unwrap();
        for _ in 0..BATCH {
            assert_eq!(client.read().unwrap(), Value::ok());
        }
        if number % 8 == 0 {
            let more = of_memory(&mut operator, "used_memory").saturating_sub(before);
            most = most.max(more);
        }
    }
    eprintln!("at most {} KiB more while busy", most / 1024);
    assert!((16 * MIB..40 * MIB).contains(&most), "{most} bytes while busy");
    wait_for("an empty window", PATIENCE, || {
        let more = of_memory(&mut operator, "used_memory").saturating_sub(before);
        if more < IDLE_BYTES_MAX { Ok(()) } else { Err(format!("{more} bytes more")) }
    });
}

/// M1: a chunk of the snapshot was longer than a file takes, and the group ended on every replica, for good.
#[test]
fn values_of_any_size_and_a_snapshot_leave_the_group_at_work() {
    const OTHERS: usize = 70;
    // As was seen, or the longest value that a client can send by default: parts are of 256 KiB.
    let last = if is_long() { 536_870_911 } else { 134_217_727 };
    let mut server = TestServer::start(&["--cluster-shards", "1"]);
    let mut client = server.client();
    client.set_timeout(PATIENCE);
    let all = Value::Integer(last + 1);
    for key in ["{a}1", "{a}2"] {
        assert_eq!(client.cmd(&["SETRANGE", key, &last.to_string(), "x"]), all);
    }
    let value = "x".repeat(MIB);
    for number in 0..OTHERS {
        let key = format!("{{a}}:{}", number % 4);
        assert_eq!(client.cmd(&["SET", &key, &value]), Value::ok());
    }
    wait_for("a snapshot", PATIENCE, || has_snapshots(&server));
    assert_eq!(client.line("INCR n"), Value::Integer(1));
    let info = client.line("INFO replication").text();
    assert!(info.contains("kvorum_groups_stopped:0\r\n"), "{info}");
    server.kill();
    server.restart();
    let mut client = server.client();
    client.set_timeout(PATIENCE);
    for key in ["{a}1", "{a}2"] {
        assert_eq!(client.cmd(&["STRLEN", key]), all);
        assert_eq!(client.cmd(&["GETRANGE", key, "-2", "-1"]), Value::bulk("\0x"));
    }
    assert_eq!(client.line("INCR n"), Value::Integer(2));
    assert_eq!(client.line("DEL {a}1 {a}2"), Value::Integer(2));
}

/// M6: a value of 150 MB was answered by an error, cost two terms and 1.2 GiB, and others waited for five seconds.
///
/// The largest that clients may send, and that it deposes nobody, only with `KVORUM_LONG=1`, alone: it keeps two cores and
/// a disk busy for seconds, and beside as much other work it may be missed.
#[test]
fn a_large_value_reaches_every_replica_and_holds_up_nobody() {
    /// Of a node, its log's window and all else.
    const BASE_MIB: usize = 100;
    /// What was received, the log's record, what goes to two followers, what is applied, and what has just been let go.
    const PEAK_VALUES: usize = 7;
    let bytes = if is_long() { 128 * MIB } else { 64 * MIB };
    let cluster = TestCluster::start(3, &["--cluster-shards", "1", "--appendfsync", "always"]);
    let mut client = cluster.client(cluster.follower_of("large"));
    client.set_timeout(PATIENCE);
    let limit = client.line("CONFIG GET proto-max-bulk-len").array()[1].text();
    assert_eq!(limit.parse(), Ok(128 * MIB));
    let terms = cluster.terms();
    let is_over = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..3)
        .map(|index| {
            let (mut client, is_over) = (cluster.client(index), Arc::clone(&is_over));
            thread::spawn(move || {
                let (key, mut written) = (format!("small:{index}"), 0);
                let mut longest_us = 0;
                while !is_over.load(Ordering::Acquire) {
                    let begun = now_us();
                    written += 1;
                    // Neither an error nor a second try.
                    assert_eq!(client.cmd(&["INCR", &key]), Value::Integer(written));
                    longest_us = longest_us.max(now_us() - begun);
                }
                (written, longest_us)
            })
        })
        .collect();
    let value = vec![b'x'; bytes];
    assert_eq!(client.cmd(&[&b"SET"[..], b"large", &value]), Value::ok());
    for index in 0..3 {
        let length = i64::try_from(bytes).unwrap();
        assert_eq!(cluster.client(index).line("STRLEN large"), Value::Integer(length));
    }
    // Whoever was not heard of would be replaced by now.
    let_pass(Duration::from_secs(2));
    is_over.store(true, Ordering::Release);
    for other in others {
        let (written, longest_us) = other.join().unwrap();
        eprintln!("{written} small writes beside it, the longest took {} ms", longest_us / 1000);
    }
    assert!(!is_long() || cluster.terms() == terms, "a leader was replaced");
    for index in 0..3 {
        let peak = peak_mib(cluster.node(index));
        eprintln!("node {index} had {peak} MiB");
        assert!(peak < BASE_MIB + PEAK_VALUES * bytes / MIB, "node {index} had {peak} MiB");
    }
    cluster.assert_replicas_agree();
}

/// M1 to M4 as they were seen, one after the other, with a limit of 600 MB: a clear error, no node takes more than 800, and
/// all serve on, also after a restart, where the large value may be deleted while a snapshot is written: it was copied for
/// that, and a node had 1036 MiB.
#[test]
fn nodes_of_800_mb_survive_what_killed_a_majority() {
    const NODE_BYTES: usize = 800_000_000;
    let limited = ["--cluster-shards", "1", "--maxmemory", "600mb"];
    let mut cluster = TestCluster::start(3, &limited);
    let mut client = cluster.client(cluster.follower_of("{a}"));
    client.set_timeout(PATIENCE);
    let is_oom = |reply: &Value| reply.error().is_some_and(|text| text.starts_with("OOM "));
    // M4 and M1: there is room for the first one, and then for nothing.
    assert_eq!(client.line("SETRANGE {a}1 536870911 x"), Value::Integer(536_870_912));
    let refused = client.line("SETRANGE {a}2 536870911 x");
    assert!(is_oom(&refused), "{refused:?}");
    let value = "x".repeat(MIB);
    // What is refused frees nothing at once, but the log's window does.
    wait_for("a snapshot on every node", PATIENCE, || {
        for number in 0..4 {
            let reply = client.cmd(&["SET", &format!("{{a}}:{}", number % 2), &value]);
            assert!(reply == Value::ok() || is_oom(&reply), "{reply:?}");
        }
        (0..3).try_for_each(|index| has_snapshots(cluster.node(index)))
    });
    // M2: behind a write and alone. M3: in one pipeline.
    let mut large = vec!["MGET"];
    large.extend(std::iter::repeat_n("{a}:0", 1500));
    client.send_raw(&[request(&["DEL", "x"]), request(&large), request(&large)].concat()).unwrap();
    assert_eq!(client.read().unwrap(), Value::Integer(0));
    for _ in 0..2 {
        let refused = client.read().unwrap();
        assert!(refused.error().is_some_and(|text| text.contains("too large")), "{refused:?}");
    }
    client.send_raw(&request(&["GET", "{a}:0"]).repeat(100)).unwrap();
    for _ in 0..100 {
        assert_eq!(client.read().unwrap().text().len(), MIB);
    }
    let assert_peaks = |cluster: &TestCluster| {
        for index in 0..3 {
            let peak = peak_mib(cluster.node(index));
            eprintln!("node {index} had {peak} MiB");
            assert!(peak * MIB < NODE_BYTES, "node {index} had {peak} MiB");
        }
    };
    assert_peaks(&cluster);
    (0..3).for_each(|index| cluster.node_mut(index).kill());
    (0..3).for_each(|index| cluster.node_mut(index).spawn());
    (0..3).for_each(|index| cluster.node_mut(index).await_ready());
    let mut client = cluster.client(0);
    client.set_timeout(PATIENCE);
    wait_for("deletes", PATIENCE, || match client.line("DEL {a}1") {
        Value::Integer(_) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    await_room(&cluster, 0, true);
    assert_peaks(&cluster);
    cluster.assert_replicas_agree();
}
