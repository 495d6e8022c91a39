//! Machines that lose their power under `appendfsync everysec`: the log ends where its last sync did, and the kernel says
//! that it was started anew.

use std::time::Duration;

use crate::support::client::Value;
use crate::support::cluster::TestCluster;
use crate::support::damage::{Damage, can_act_boots, damage};
use crate::support::load::Load;
use crate::support::node::TestServer;
use crate::support::{PATIENCE, let_pass, rounds, wait_for};

const EVERYSEC: [&str; 6] =
    ["--cluster-shards", "2", "--appendfsync", "everysec", "--wal-sync-mark", "yes"];

/// A boot id that no machine has had before.
fn boot(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Cuts a machine's power and starts it again, but not yet the node.
fn lose_power(server: &mut TestServer, number: usize) {
    server.kill();
    damage(server, Damage::Unsynced);
    server.act_boot(&boot(number));
}

/// Fault R3: a log cut back to its sync mark was never repaired.
#[test]
fn the_power_of_one_machine_costs_nothing_when_its_leader_dies_next() {
    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let mut cluster = TestCluster::start(3, &EVERYSEC);
    let load = Load::start(&cluster.ports());
    for round in 0..rounds(3, 12) {
        load.await_progress(200);
        let (lost, killed) = (round % 3, (round + 1) % 3);
        lose_power(cluster.node_mut(lost), round + 1);
        // With the third alone they are a majority, and the returned one must not decide what that holds.
        cluster.node_mut(killed).kill();
        cluster.node_mut(lost).spawn();
        cluster.node_mut(killed).restart();
        cluster.node_mut(lost).await_ready();
        cluster.await_serving();
    }
    let ledger = load.finish();
    ledger.verify(&mut cluster.client(0));
    cluster.assert_replicas_agree();
}

/// What it lacks is not forgotten by a kill, nor is it made up for by what was there before the next cut.
fn cut_and_killed_again_and_again(policy: &str) {
    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let directives = ["--cluster-shards", "2", "--appendfsync", policy, "--wal-sync-mark", "yes"];
    let mut cluster = TestCluster::start(3, &directives);
    let load = Load::start(&cluster.ports());
    let mut boots = 0;
    for round in 0..rounds(3, 24) {
        load.await_progress(200);
        let (lost, killed) = (round % 3, (round + 1) % 3);
        let mut next_boot = || {
            boots += 1;
            boots
        };
        lose_power(cluster.node_mut(lost), next_boot());
        cluster.node_mut(lost).spawn();
        // From before its log is open until after it was mended.
        let_pass(Duration::from_millis(u64::try_from(round * 71 % 500).unwrap()));
        cluster.node_mut(lost).kill();
        cluster.node_mut(lost).restart();
        load.await_progress(50);
        lose_power(cluster.node_mut(lost), next_boot());
        // With the third alone they are a majority, and the returned one must not decide what that holds.
        cluster.node_mut(killed).kill();
        cluster.node_mut(lost).spawn();
        cluster.node_mut(killed).restart();
        cluster.node_mut(lost).await_ready();
        cluster.await_serving();
    }
    let ledger = load.finish();
    ledger.verify(&mut cluster.client(0));
    cluster.assert_replicas_agree();
}

#[test]
fn cut_killed_and_cut_again_costs_nothing_under_everysec() {
    cut_and_killed_again_and_again("everysec");
}

#[test]
fn cut_killed_and_cut_again_costs_nothing_under_no() {
    cut_and_killed_again_and_again("no");
}

#[test]
fn a_cluster_that_lost_its_power_as_a_whole_serves_again() {
    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let mut cluster = TestCluster::start(3, &EVERYSEC);
    let mut client = cluster.client(0);
    // More than one: a record of a start that the meta group loses again must not lock its node out.
    for round in 0..rounds(4, 12) {
        let key = format!("round:{round}");
        assert_eq!(client.cmd(&["SET", &key, "v"]), Value::ok());
        (0..3).for_each(|index| lose_power(cluster.node_mut(index), round + 1));
        (0..3).for_each(|index| cluster.node_mut(index).spawn());
        (0..3).for_each(|index| cluster.node_mut(index).await_ready());
        cluster.await_serving();
        client = cluster.client(round % 3);
    }
    cluster.assert_replicas_agree();
}

/// Two machines of three lose their power, and with it what the third has applied: a leader without it is elected, and the
/// third's replicas are made anew.
#[test]
fn a_replica_that_applied_what_its_group_has_lost_is_made_anew() {
    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let directives = ["--cluster-shards", "1", "--appendfsync", "no", "--wal-sync-mark", "yes"];
    let mut cluster = TestCluster::start(3, &directives);
    let kept = cluster.leader_of("k");
    let mut client = cluster.client(kept);
    for number in 0..500 {
        assert_eq!(client.cmd(&["SET", &format!("k{number}"), "v"]), Value::ok());
    }
    cluster.node_mut(kept).pause();
    let lost: Vec<usize> = (0..3).filter(|&index| index != kept).collect();
    lost.iter().for_each(|&index| lose_power(cluster.node_mut(index), 1));
    lost.iter().for_each(|&index| cluster.node_mut(index).spawn());
    lost.iter().for_each(|&index| cluster.node_mut(index).await_ready());
    wait_for("a leader of those that lost it", PATIENCE, || {
        let reply = cluster.client(lost[0]).line("SET new v");
        if reply == Value::ok() { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    cluster.node_mut(kept).resume();
    cluster.await_redundancy();
    cluster.assert_replicas_agree();
    let log = cluster.node(kept).log_tail();
    assert!(log.contains("has lost entries that are applied here"), "{log}");
    // What it was before does not come back.
    cluster.node_mut(kept).kill();
    cluster.node_mut(kept).restart();
    cluster.await_redundancy();
    cluster.assert_replicas_agree();
    assert_eq!(cluster.client(kept).line("GET new").text(), "v");
}

/// A disk is lost, and before that has healed another machine its power. The third holds all that is left anywhere: nobody
/// waits for the disk for ever.
#[test]
fn a_lost_disk_and_a_loss_of_power_heal_where_a_whole_replica_is_left() {
    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let directives =
        ["--cluster-shards", "1", "--appendfsync", "everysec", "--wal-sync-mark", "yes"];
    let mut cluster = TestCluster::start(3, &directives);
    let leader = cluster.leader_of("k");
    let emptied = cluster.follower_of("k");
    assert_eq!(cluster.client(leader).line("SET k v"), Value::ok());
    // Synced everywhere: nothing of it may be lost.
    let_pass(Duration::from_millis(2_500));
    cluster.node_mut(emptied).kill();
    damage(cluster.node(emptied), Damage::Everything);
    cluster.node_mut(emptied).spawn();
    lose_power(cluster.node_mut(leader), 1);
    cluster.node_mut(leader).spawn();
    for index in [leader, emptied] {
        cluster.node_mut(index).await_ready();
    }
    cluster.await_redundancy();
    assert_eq!(cluster.client(emptied).line("GET k").text(), "v");
}

#[test]
fn a_node_alone_that_lost_its_power_serves_again() {
    if !can_act_boots() {
        return eprintln!("SKIPPED: no right to make a mount namespace; nothing was tested");
    }
    let mut server = TestServer::start(&EVERYSEC);
    for round in 1..=rounds(2, 6) {
        assert_eq!(server.client().line("SET k v"), Value::ok());
        lose_power(&mut server, round);
        server.restart();
    }
    assert_eq!(server.client().line("PING"), Value::Simple("PONG".into()));
}
