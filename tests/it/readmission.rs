//! A node that comes back without its memory: it waits at the door, is let in under a new identity, and is filled again.

use std::fs;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::TestCluster;
use crate::support::damage::{Damage, damage};
use crate::support::load::Load;
use crate::support::node::{Doors, TestServer};
use crate::support::{PATIENCE, let_pass, rounds, wait_for};

/// Two shards and the strictest policy: what is acknowledged is on two disks.
const ALWAYS: [&str; 6] =
    ["--cluster-shards", "2", "--appendfsync", "always", "--wal-sync-mark", "yes"];

/// The line of CLUSTER NODES that a node says of itself: its id in the cluster.
fn own_id(client: &mut Client) -> String {
    client.line("CLUSTER MYID").text()
}

/// Ends the load and reads back through every node what was acknowledged.
#[track_caller]
fn assert_nothing_lost(cluster: &TestCluster, load: Load) {
    let ledger = load.finish();
    for index in 0..cluster.len() {
        ledger.verify(&mut cluster.client(index));
    }
    cluster.assert_replicas_agree();
}

#[test]
fn an_emptied_node_is_let_in_again_and_nothing_is_lost() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    let load = Load::start(&cluster.ports());
    let losses = [Damage::Everything, Damage::Log, Damage::Identity];
    for round in 0..rounds(3, 12) {
        load.await_progress(100);
        let lost = (round + 1) % 3;
        let before = own_id(&mut cluster.client(lost));
        cluster.node_mut(lost).kill();
        damage(cluster.node(lost), losses[round % 3]);
        cluster.node_mut(lost).restart();
        let after = own_id(&mut cluster.client(lost));
        assert_ne!(before[..32], after[..32], "another directory is another node");
        assert_eq!(before[32..], after[32..], "of the same cluster");
        cluster.await_serving();
    }
    assert_nothing_lost(&cluster, load);
}

/// What was acknowledged by n1 and n2 is not lost when n2's disk is, although n3 never had it (faults.md, R2).
#[test]
fn an_empty_directory_elects_nobody() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    cluster.node_mut(2).kill();
    let mut client = cluster.client(0);
    for number in 0..100 {
        let key = format!("acknowledged:{number}");
        assert_eq!(client.cmd(&["SET", &key, "v"]), Value::ok());
    }
    cluster.node_mut(0).kill();
    cluster.node_mut(1).kill();
    damage(cluster.node(1), Damage::Everything);
    cluster.node_mut(1).spawn();
    cluster.node_mut(2).spawn();
    wait_for("n2 says what it waits for", PATIENCE, || {
        let text = cluster.node(1).admin("/readyz").unwrap_or_else(|error| error);
        if text.contains("n1") && text.contains("readmission") { Ok(()) } else { Err(text) }
    });
    // Two elections' time and more: nobody may lead.
    let_pass(Duration::from_secs(3));
    let mut stale = cluster.client(2);
    stale.set_timeout(PATIENCE);
    let reply = stale.line("GET acknowledged:1");
    assert!(reply.error().is_some(), "answered without n1: {reply:?}");
    cluster.node_mut(0).spawn();
    for index in 0..3 {
        cluster.node_mut(index).await_ready();
    }
    cluster.await_serving();
    for index in 0..3 {
        let mut client = cluster.client(index);
        for number in 0..100 {
            let key = format!("acknowledged:{number}");
            assert_eq!(client.cmd(&["GET", &key]), Value::bulk("v"), "{key} at node {index}");
        }
    }
    cluster.assert_replicas_agree();
}

/// A node may lose its disk again while it is being filled.
#[test]
fn a_node_emptied_during_its_own_readmission_is_let_in_again() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    let load = Load::start(&cluster.ports());
    load.await_progress(100);
    for pause_ms in [0, 50, 500, 5_500, 6_500] {
        cluster.node_mut(1).kill();
        damage(cluster.node(1), Damage::Everything);
        cluster.node_mut(1).spawn();
        let_pass(Duration::from_millis(pause_ms));
    }
    cluster.node_mut(1).await_ready();
    cluster.await_serving();
    assert_nothing_lost(&cluster, load);
}

#[test]
fn two_lost_disks_of_three_are_waited_for_and_said_so() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    let mut client = cluster.client(0);
    assert_eq!(client.line("SET k v"), Value::ok());
    for index in [1, 2] {
        cluster.node_mut(index).kill();
        damage(cluster.node(index), Damage::Everything);
    }
    for index in [1, 2] {
        cluster.node_mut(index).spawn();
    }
    for index in [1, 2] {
        wait_for("it says that too few are left", PATIENCE, || {
            let text = cluster.node(index).admin("/readyz").unwrap_or_else(|error| error);
            let says_it = text.contains("1 of 3 left") && text.contains("its disk is empty too");
            if says_it { Ok(()) } else { Err(text) }
        });
        let mut client = cluster.client(index);
        let reply = client.line("GET k");
        assert!(reply.error().is_some_and(|text| text.starts_with("LOADING")), "{reply:?}");
    }
    // The one that is left is not ready either, lets nobody in without a majority, and is never told to be emptied.
    let readyz = |cluster: &TestCluster| cluster.node(0).admin("/readyz");
    wait_for("it is not ready", PATIENCE, || readyz(&cluster).err().ok_or_else(String::new));
    let_pass(Duration::from_secs(7));
    let log = cluster.node(0).log_tail();
    assert!(!log.contains("takes the place of a lost one"), "{log}");
    cluster.node_mut(0).kill();
    cluster.node_mut(0).spawn();
    wait_for("it says that it alone is left", PATIENCE, || {
        let text = readyz(&cluster).unwrap_or_else(|error| error);
        assert!(!text.contains("empty them"), "{text}");
        if text.contains("1 of 3 left") { Ok(()) } else { Err(text) }
    });
}

/// A cluster is born once all its nodes are there, and not before.
#[test]
fn a_new_cluster_waits_for_all_its_nodes() {
    let mut cluster = TestCluster::start_without(3, &ALWAYS, &[2]);
    for index in [0, 1] {
        wait_for("it says whom it waits for", PATIENCE, || {
            let text = cluster.node(index).admin("/readyz").unwrap_or_else(|error| error);
            if text.contains("new cluster") { Ok(()) } else { Err(text) }
        });
    }
    let text = cluster.node(0).admin("/readyz").unwrap_or_else(|error| error);
    assert!(text.contains("n3"), "{text}");
    cluster.node_mut(2).spawn();
    for index in 0..3 {
        cluster.node_mut(index).await_ready();
    }
    cluster.await_serving();
}

/// Any node may die, with or without its disk, at any moment of the birth.
#[test]
fn a_birth_survives_the_death_of_any_node() {
    for round in 0..rounds(6, 60) {
        let mut cluster = TestCluster::start_without(3, &ALWAYS, &[0, 1, 2]);
        for index in 0..3 {
            cluster.node_mut(index).spawn();
        }
        let victim = round % 3;
        let_pass(Duration::from_millis(u64::try_from(round * 37 % 400).unwrap()));
        cluster.node_mut(victim).kill();
        if round % 2 == 0 && cluster.node(victim).dir().exists() {
            damage(cluster.node(victim), Damage::Everything);
        }
        cluster.node_mut(victim).spawn();
        for index in 0..3 {
            cluster.node_mut(index).await_ready();
        }
        cluster.await_serving();
        let ids: Vec<String> = (0..3).map(|index| own_id(&mut cluster.client(index))).collect();
        assert!(ids.iter().all(|id| id[32..] == ids[0][32..]), "one cluster: {ids:?}");
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// A death in the middle of an adoption leaves replicas without a cluster; one that was drawn otherwise must not have them.
#[test]
fn replicas_of_another_cluster_are_not_adopted() {
    let mut server = TestServer::start(&["--cluster-shards", "4", "--appendfsync", "always"]);
    assert_eq!(server.client().line("SET k v"), Value::ok());
    assert!(server.terminate().success());
    let mut other = TestServer::new(Doors::reserve(), &["--cluster-shards", "2"]);
    copy_dir(&server.dir(), &other.dir());
    let record = other.dir().join("cluster");
    fs::remove_file(&record).unwrap();
    other.spawn();
    assert!(!other.await_exit().success());
    assert!(other.log_tail().contains("put the file back"), "{}", other.log_tail());
    assert!(!record.exists(), "adopting is for good");
    fs::copy(server.dir().join("cluster"), &record).unwrap();
    other.restart();
    assert_eq!(other.client().line("GET k").text(), "v");
}

/// What a readmitted directory adopted names peers that were replaced since. It must find those who are there now.
#[test]
fn a_readmitted_node_finds_one_that_was_readmitted_later() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    for lost in [1, 2] {
        cluster.node_mut(lost).kill();
        damage(cluster.node(lost), Damage::Everything);
        cluster.node_mut(lost).restart();
        cluster.await_redundancy();
    }
    // The start of n1 is news of the meta group that n3 does not have: only n2 can lead it without n1.
    cluster.node_mut(2).pause();
    cluster.node_mut(0).kill();
    cluster.node_mut(0).restart();
    (0..3).for_each(|index| cluster.node_mut(index).kill());
    cluster.node_mut(1).spawn();
    cluster.node_mut(2).spawn();
    cluster.node_mut(1).await_ready();
    cluster.node_mut(2).await_ready();
    assert_eq!(cluster.client(1).line("SET k v"), Value::ok());
}

/// A backup of one member is older than what the cluster has heard of it: it must not act.
#[test]
fn an_old_backup_of_a_directory_is_refused() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    let load = Load::start(&cluster.ports());
    load.await_progress(50);
    assert!(cluster.node_mut(1).terminate().success());
    let backup = tempfile::tempdir().unwrap();
    copy_dir(&cluster.node(1).dir(), backup.path());
    cluster.node_mut(1).restart();
    load.await_progress(200);
    cluster.await_serving();
    assert!(cluster.node_mut(1).terminate().success());
    damage(cluster.node(1), Damage::Everything);
    copy_dir(backup.path(), &cluster.node(1).dir());
    cluster.node_mut(1).spawn();
    let status = cluster.node_mut(1).await_exit();
    assert!(!status.success());
    let log = cluster.node(1).log_tail();
    assert!(log.contains("copy") || log.contains("copied"), "{log}");
    damage(cluster.node(1), Damage::Everything);
    cluster.node_mut(1).restart();
    let ledger = load.finish();
    ledger.verify(&mut cluster.client(1));
    cluster.assert_replicas_agree();
}

/// Of three nodes one is down: no majority can say that the directory is an old one, and one word must do.
#[test]
fn one_node_is_enough_to_refuse_an_old_backup() {
    let mut cluster = TestCluster::start(3, &ALWAYS);
    assert_eq!(cluster.client(0).line("SET k v"), Value::ok());
    assert!(cluster.node_mut(1).terminate().success());
    let backup = tempfile::tempdir().unwrap();
    copy_dir(&cluster.node(1).dir(), backup.path());
    cluster.node_mut(1).restart();
    cluster.await_serving();
    assert!(cluster.node_mut(1).terminate().success());
    cluster.node_mut(2).kill();
    damage(cluster.node(1), Damage::Everything);
    copy_dir(backup.path(), &cluster.node(1).dir());
    cluster.node_mut(1).spawn();
    assert!(!cluster.node_mut(1).await_exit().success());
    let log = cluster.node(1).log_tail();
    assert!(log.contains("copy") || log.contains("copied"), "{log}");
}
