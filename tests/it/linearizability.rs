//! Histories recorded while nodes die, sleep and lose each other, judged by the checker.
//!
//! A seed repeats the faults and what clients ask; the clock and the machine do the rest.

use std::time::Duration;

use kvorum::stdx::prng::SplitMix64;

use crate::support::checker::check;
use crate::support::cluster::{FAULT, TestCluster};
use crate::support::history::Recording;
use crate::support::proxy::Link;
use crate::support::{is_long, let_pass, now_us, seed, us};

const CLIENTS: usize = 6;

/// How long faults go on.
fn length() -> Duration {
    if is_long() { Duration::from_mins(1) } else { Duration::from_secs(10) }
}

/// Records while `fault` strikes again and again, and judges.
fn judge(mut cluster: TestCluster, mut fault: impl FnMut(&mut TestCluster, &mut SplitMix64)) {
    let seed = seed();
    let mut prng = SplitMix64::new(seed);
    let recording = Recording::start(&cluster.ports(), CLIENTS, seed);
    let end = now_us() + us(length());
    let mut faults = 0;
    while now_us() < end {
        let_pass(Duration::from_millis(300 + prng.below(500)));
        fault(&mut cluster, &mut prng);
        faults += 1;
        cluster.await_serving();
    }
    let recorded = recording.len();
    let history = recording.finish();
    let unknown = history.iter().filter(|operation| operation.returned.is_none()).count();
    match check(&history) {
        Ok(checked) => {
            eprintln!("{faults} faults, {checked} operations hold, {unknown} unknown");
            assert!(faults > 0 && recorded > 0);
            assert!(checked > 500, "too little happened: {checked} operations");
        }
        Err(violation) => panic!("seed {seed}: {violation:#?}"),
    }
    cluster.assert_replicas_agree();
}

fn any_node(prng: &mut SplitMix64) -> usize {
    usize::try_from(prng.below(3)).unwrap()
}

/// Half of the faults hit a leader, as nothing else would be tested by the others.
fn victim(cluster: &TestCluster, prng: &mut SplitMix64) -> usize {
    if prng.below(2) == 0 { cluster.leader_of("register:0") } else { any_node(prng) }
}

#[test]
fn histories_hold_while_nodes_are_killed() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "2"]);
    judge(cluster, |cluster, prng| {
        let node = victim(cluster, prng);
        cluster.node_mut(node).kill();
        let_pass(Duration::from_millis(prng.below(2000)));
        cluster.node_mut(node).restart();
    });
}

#[test]
fn histories_hold_while_nodes_sleep() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "2"]);
    judge(cluster, |cluster, prng| {
        let node = victim(cluster, prng);
        cluster.node_mut(node).pause();
        let_pass(Duration::from_millis(200 + prng.below(2500)));
        cluster.node_mut(node).resume();
    });
}

#[test]
fn histories_hold_while_links_fail() {
    let cluster = TestCluster::start_proxied(3, &["--cluster-shards", "2"]);
    judge(cluster, |cluster, prng| {
        let node = victim(cluster, prng);
        let other = (node + 1 + usize::try_from(prng.below(2)).unwrap()) % 3;
        let link = match prng.below(3) {
            0 => Link::Cut,
            1 => Link::Silent,
            _ => Link::Slow(Duration::from_millis(20 + prng.below(100))),
        };
        match prng.below(3) {
            0 => cluster.isolate(node, link),
            1 => cluster.link_both(node, other, link),
            _ => cluster.link(node, other, link),
        }
        let_pass(FAULT + Duration::from_millis(prng.below(1500)));
        cluster.heal();
    });
}

#[test]
fn histories_hold_by_quorum_reads_while_everything_fails() {
    let cluster =
        TestCluster::start_proxied(3, &["--cluster-shards", "2", "--read-consistency", "quorum"]);
    judge(cluster, |cluster, prng| {
        let node = victim(cluster, prng);
        match prng.below(3) {
            0 => {
                cluster.node_mut(node).kill();
                let_pass(Duration::from_millis(prng.below(1500)));
                cluster.node_mut(node).restart();
            }
            1 => {
                cluster.node_mut(node).pause();
                let_pass(Duration::from_millis(200 + prng.below(2000)));
                cluster.node_mut(node).resume();
            }
            _ => {
                cluster.isolate(node, Link::Silent);
                let_pass(FAULT);
                cluster.heal();
            }
        }
    });
}
