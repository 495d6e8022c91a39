//! What requests may cost in memory: large replies, whoever asks for them and through whichever node (faults.md, M2, M3).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::client::{Client, Value, request};
use crate::support::cluster::TestCluster;
use crate::support::node::TestServer;
use crate::support::{PATIENCE, wait_for};

const MIB: usize = 1 << 20;

/// The most memory that the process ever had, in MiB.
fn peak_mib(node: &TestServer) -> usize {
    memory_mib(node, "VmHWM:")
}

/// The memory of the process by one of the kernel's measures, in MiB.
fn memory_mib(node: &TestServer, measure: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid().as_raw_nonzero()));
    let status = status.expect("own child");
    let line = status.lines().find(|line| line.starts_with(measure)).expect("Linux");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("KiB") / 1024
}

fn cluster_with_a_large_value() -> TestCluster {
    let cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let reply = cluster.client(0).cmd(&["SET", "large", &"x".repeat(MIB)]);
    assert_eq!(reply, Value::ok());
    cluster
}

/// M3: each was answered "no quorum" after five seconds, and the nodes had gigabytes.
#[test]
fn a_pipeline_of_large_reads_is_answered_through_every_node() {
    const READS: usize = 400;
    let cluster = cluster_with_a_large_value();
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
    let cluster = cluster_with_a_large_value();
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
}

/// Parts of several pipelines, and of one with other commands between, come in order.
#[test]
fn large_replies_in_parts_keep_the_order_of_their_pipeline() {
    let cluster = cluster_with_a_large_value();
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
