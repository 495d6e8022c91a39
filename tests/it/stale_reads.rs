//! A leader that was deposed, paused or cut off serves no stale read, in either mode of `read-consistency`.

use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::{FAULT, TestCluster};
use crate::support::proxy::Link;
use crate::support::{PATIENCE, let_pass, now_us, rounds, us, wait_for};

/// Fails for an answer that is older than what was acknowledged before the read was sent.
#[track_caller]
fn assert_not_stale(answer: &Value, newest: &str) {
    match answer {
        Value::Bulk(bytes) => assert_eq!(String::from_utf8_lossy(bytes), newest, "a stale read"),
        Value::Error(text) => {
            let is_honest =
                text.starts_with("CLUSTERDOWN no quorum") || text.starts_with("TIMEOUT");
            assert!(is_honest, "{text}");
        }
        other => panic!("{other:?} instead of {newest}"),
    }
}

fn paused_leader(mode: &str) {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1", "--read-consistency", mode]);
    let mut reads_answered = 0;
    for round in 0..rounds(3, 20) {
        let old = cluster.leader_of("k");
        let rest: Vec<usize> = (0..3).filter(|&index| index != old).collect();
        let (before, after) = (format!("{round}-before"), format!("{round}-after"));
        let mut asleep: Vec<Client> = (0..4).map(|_| cluster.client(old)).collect();
        assert_eq!(asleep[0].cmd(&["SET", "k", &before]), Value::ok());
        for client in &mut asleep {
            assert_eq!(client.line("GET k"), Value::bulk(&before));
        }
        cluster.node_mut(old).pause();
        // Some reads wait in the sockets of the sleeper from the start: they are concurrent with the write and
        // may answer either way, but must not wake up a belief in the lease for those that come after it.
        asleep[3].send(&["GET", "k"]).unwrap();
        let new = cluster.leader_among("k", &rest);
        assert_eq!(cluster.client(new).cmd(&["SET", "k", &after]), Value::ok());
        for client in &mut asleep[..3] {
            client.send(&["GET", "k"]).unwrap();
            client.send(&["MGET", "k", "k"]).unwrap();
        }
        cluster.node_mut(old).resume();
        for client in &mut asleep[..3] {
            let answer = client.read().unwrap();
            assert_not_stale(&answer, &after);
            reads_answered += usize::from(answer.error().is_none());
            match client.read().unwrap() {
                Value::Array(both) => {
                    both.iter().for_each(|answer| assert_not_stale(answer, &after));
                }
                other => assert_not_stale(&other, &after),
            }
        }
        cluster.await_serving();
        assert_eq!(cluster.client(old).line("GET k"), Value::bulk(&after));
    }
    assert!(reads_answered > 0, "every read failed: nothing was checked");
}

#[test]
fn a_paused_leader_serves_no_stale_read_under_its_lease() {
    paused_leader("lease");
}

#[test]
fn a_paused_leader_serves_no_stale_read_by_quorum() {
    paused_leader("quorum");
}

fn cut_off_leader(mode: &str) {
    let cluster =
        TestCluster::start_proxied(3, &["--cluster-shards", "1", "--read-consistency", mode]);
    for round in 0..rounds(2, 10) {
        let old = cluster.leader_of("k");
        let rest: Vec<usize> = (0..3).filter(|&index| index != old).collect();
        let (before, after) = (format!("{round}-before"), format!("{round}-after"));
        let mut inside = cluster.client(old);
        assert_eq!(inside.cmd(&["SET", "k", &before]), Value::ok());
        cluster.isolate(old, if round % 2 == 0 { Link::Silent } else { Link::Cut });
        let new = cluster.leader_among("k", &rest);
        assert_eq!(cluster.client(new).cmd(&["SET", "k", &after]), Value::ok());
        // Reads at the old leader from now on: it may refuse or wait, it may not answer from the past.
        inside.send(&["GET", "k"]).unwrap();
        let answer = inside.read().unwrap();
        assert_not_stale(&answer, &after);
        cluster.heal();
        cluster.await_serving();
        assert_eq!(inside.line("GET k"), Value::bulk(&after));
    }
    cluster.assert_replicas_agree();
}

#[test]
fn a_leader_cut_off_serves_no_stale_read_under_its_lease() {
    cut_off_leader("lease");
}

#[test]
fn a_leader_cut_off_serves_no_stale_read_by_quorum() {
    cut_off_leader("quorum");
}

/// Thesis §6.4.1: a lease holds because a quorum will not elect another leader while it lasts. A follower that
/// forgets in a restart that it just heard from its leader breaks that, unless it waits as long first.
///
/// The leader keeps its lease by one follower only. The other one, cut off from the leader, campaigns all the time.
/// The first follower restarts, away from the leader, and would gladly vote.
#[test]
fn a_restarted_follower_cannot_break_a_lease() {
    let mut cluster =
        TestCluster::start_proxied(3, &["--cluster-shards", "1", "--read-consistency", "lease"]);
    for round in 0..rounds(3, 15) {
        let old = cluster.leader_of("k");
        let rest: Vec<usize> = (0..3).filter(|&index| index != old).collect();
        let (forgetful, rival) = (rest[round % 2], rest[(round + 1) % 2]);
        let (before, after) = (format!("{round}-before"), format!("{round}-after"));
        cluster.link_both(old, rival, Link::Cut);
        let_pass(FAULT);
        let mut inside = cluster.client(old);
        assert_eq!(inside.cmd(&["SET", "k", &before]), Value::ok(), "a quorum of two");

        cluster.node_mut(forgetful).kill();
        cluster.link_both(old, forgetful, Link::Cut);
        cluster.node_mut(forgetful).spawn();
        let mut outside = cluster.client(rival);
        outside.send(&["SET", "k", &after]).unwrap();
        outside.set_timeout(Duration::from_millis(5));
        inside.set_timeout(Duration::from_secs(15));
        // Read at the old leader all the while, until the rival acknowledged; then once more.
        let deadline = now_us() + us(PATIENCE);
        let acknowledged = loop {
            assert!(now_us() < deadline, "no new leader");
            if let Ok(answer) = outside.read() {
                break answer;
            }
            let answer = inside.line("GET k");
            let is_new = matches!(&answer, Value::Bulk(bytes) if *bytes == after.as_bytes());
            if !is_new {
                assert_not_stale(&answer, &before);
            }
        };
        if acknowledged == Value::ok() {
            assert_not_stale(&inside.line("GET k"), &after);
        }
        cluster.heal();
        cluster.node_mut(forgetful).await_ready();
        cluster.await_serving();
        wait_for("one answer", PATIENCE, || match inside.line("GET k") {
            Value::Bulk(_) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    cluster.assert_replicas_agree();
}
