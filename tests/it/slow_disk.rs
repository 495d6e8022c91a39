//! Disks that take long for every sync: leaders are elected all the same, stay, and are replaced when they die.

use std::time::Duration;

use crate::support::client::Value;
use crate::support::cluster::TestCluster;
use crate::support::{PATIENCE, let_pass, now_us, us, wait_for};

/// What a disk under a heavy neighbour takes for one fdatasync.
const SLOW: Duration = Duration::from_millis(500);

/// The longest that a dead leader may be missed while each vote takes two slow syncs, one at the candidate and one
/// at a voter. The machine also runs other tests.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);

/// Fault R8: a vote lived 300 ms, and its sync waits for every group's pages.
#[test]
fn leaders_are_elected_with_half_a_second_for_every_sync() {
    let directives = ["--cluster-shards", "1", "--appendfsync", "always"];
    let mut cluster = TestCluster::start_slow(3, &directives, SLOW);
    let leader = cluster.leader_of("k");
    let rest: Vec<usize> = (0..3).filter(|&index| index != leader).collect();
    assert_eq!(cluster.client(leader).line("SET k 1"), Value::ok());
    cluster.node_mut(leader).kill();
    let start = now_us();
    wait_for("a write through who is left", PATIENCE, || {
        match cluster.client(rest[0]).line("SET k 2") {
            Value::Simple(ok) if ok == "OK" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let took = now_us() - start;
    eprintln!("a dead leader was replaced after {} ms", took / 1000);
    assert!(took < us(REPLACED_WITHIN), "{took} µs");
    assert_eq!(cluster.client(rest[1]).line("GET k"), Value::bulk("2"));
}

/// A follower answers a message with entries when they are on its disk. Its word that it still follows may not wait
/// for that.
#[test]
fn a_leader_stays_while_disks_stall() {
    let directives = ["--cluster-shards", "1", "--appendfsync", "always"];
    let cluster = TestCluster::start_slow(3, &directives, Duration::from_millis(200));
    let leader = cluster.leader_of("k");
    let before = cluster.terms();
    let until = now_us() + us(Duration::from_secs(20));
    let mut clients: Vec<_> = (0..3).map(|index| cluster.client(index)).collect();
    let mut reader = cluster.client(leader);
    assert_eq!(reader.line("SET r 1"), Value::ok());
    let (mut count, mut longest_read_us) = (0, 0);
    while now_us() < until {
        for client in &mut clients {
            for _ in 0..4 {
                client.send(&["SET", "k", &"x".repeat(1000)]).unwrap();
            }
        }
        // Under the lease, which waits for no disk, while writes are under way.
        let start = now_us();
        assert_eq!(reader.line("GET r"), Value::bulk("1"));
        longest_read_us = longest_read_us.max(now_us() - start);
        for client in &mut clients {
            for _ in 0..4 {
                assert_eq!(client.read().unwrap(), Value::ok());
                count += 1;
            }
        }
        let_pass(Duration::from_millis(1));
    }
    eprintln!("{count} writes, the longest read took {} ms", longest_read_us / 1000);
    assert!(count > 0);
    assert!(longest_read_us < us(Duration::from_secs(1)), "reads waited for the disk");
    assert_eq!(cluster.terms(), before, "nobody campaigned");
    assert_eq!(cluster.leader_of("k"), leader);
}
