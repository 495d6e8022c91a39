//! Replicas that catch up by a snapshot, on real processes.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::TestCluster;
use crate::support::{let_pass, wait_for};

/// Long enough for a debug build to write, send and load some hundred MiB; reaching it is a failure.
const PATIENCE: Duration = Duration::from_mins(2);
const VALUE_BYTES: usize = 1 << 20;
/// More log than makes a snapshot due and than is kept behind one, in values.
const VALUES: usize = 160;

/// Writes [`VALUES`] values over few keys: a long log of little data.
fn write_much(client: &mut Client) {
    write_over(client, 8);
}

/// Writes [`VALUES`] values over as many `keys`.
fn write_over(client: &mut Client, keys: usize) {
    let value = vec![b'v'; VALUE_BYTES];
    for number in 0..VALUES {
        let key = format!("k{}", number % keys);
        assert_eq!(client.cmd(&[b"SET", key.as_bytes(), &value]), Value::ok());
    }
}

fn client_of(cluster: &TestCluster, index: usize) -> Client {
    let mut client = cluster.client(index);
    client.set_timeout(PATIENCE);
    client
}

fn snapshot_files(dir: &Path) -> Vec<String> {
    files(dir, ".snapshot")
}

/// Snapshots that are being built or received.
fn unpublished(dir: &Path) -> Vec<String> {
    let mut names = files(dir, ".tmp");
    names.retain(|name| name.contains(".snapshot"));
    names
}

#[track_caller]
fn await_snapshot(cluster: &TestCluster, index: usize) {
    wait_for("a snapshot", PATIENCE, || {
        let files = snapshot_files(&cluster.node(index).dir());
        if files.is_empty() { Err("none yet".to_owned()) } else { Ok(()) }
    });
}

/// The names of the files under `dir` that end with `suffix`.
fn files(dir: &Path, suffix: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        // A file may go while one looks.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                left.push(entry.path());
            } else if name.ends_with(suffix) {
                names.push(name);
            }
        }
    }
    names.sort();
    names
}

/// Faults R7 and M1: a replica whose log is gone from the others takes a snapshot with a value that no chunk holds.
#[test]
fn a_replica_left_behind_catches_up_by_a_snapshot() {
    const LARGE_BYTES: usize = 30 << 20;
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let late = cluster.follower_of("k0");
    let other = (0..3).find(|&index| index != late).unwrap();
    cluster.node_mut(late).kill();
    let mut client = cluster.client(other);
    client.set_timeout(PATIENCE);
    let large = vec![b'L'; LARGE_BYTES];
    assert_eq!(client.cmd(&[&b"SET"[..], b"large", &large]), Value::ok());
    write_much(&mut client);
    for index in (0..3).filter(|&index| index != late) {
        await_snapshot(&cluster, index);
    }
    // Meanwhile what the first snapshots cover goes from the log.
    write_much(&mut client);
    cluster.node_mut(late).spawn();
    cluster.node_mut(late).await_ready();
    cluster.assert_replicas_agree();
    let log = cluster.node(late).log_tail();
    assert!(log.contains("installed a snapshot"), "it came by the log: {log}");
}

/// Fault R5: it stood still while it built a snapshot, the others went on, and one was sent to it before its own was done.
#[test]
fn a_follower_that_stands_still_in_the_middle_of_a_build_goes_on() {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let still = cluster.follower_of("k0");
    let other = (0..3).find(|&index| index != still).unwrap();
    let dir = cluster.node(still).dir();
    let mut client = client_of(&cluster, other);
    thread::scope(|scope| {
        let writes = scope.spawn(|| write_over(&mut client, 64));
        wait_for("a build", PATIENCE, || unpublished(&dir).pop().ok_or_else(String::new));
        cluster.node_mut(still).pause();
        writes.join().unwrap();
    });
    assert!(!unpublished(&dir).is_empty(), "it was done already");
    write_much(&mut client);
    (0..3).filter(|&index| index != still).for_each(|index| await_snapshot(&cluster, index));
    write_much(&mut client);
    cluster.node_mut(still).resume();
    cluster.assert_replicas_agree();
    // None of it is in its way at the next start.
    cluster.node_mut(still).kill();
    cluster.node_mut(still).restart();
    cluster.assert_replicas_agree();
    assert_eq!(unpublished(&dir), [] as [&str; 0]);
}

/// Faults R6 and R10: a transfer that starts over, because either end died in the middle of it.
#[test]
fn a_transfer_that_either_end_cuts_short_is_made_anew() {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let late = cluster.follower_of("k0");
    cluster.node_mut(late).kill();
    let others: Vec<usize> = (0..3).filter(|&index| index != late).collect();
    let mut client = client_of(&cluster, others[0]);
    write_over(&mut client, 64);
    others.iter().for_each(|&index| await_snapshot(&cluster, index));
    write_over(&mut client, 64);
    drop(client);
    let dir = cluster.node(late).dir();
    let await_transfer =
        || wait_for("a transfer", PATIENCE, || unpublished(&dir).pop().ok_or_else(String::new));
    cluster.node_mut(late).spawn();
    await_transfer();
    cluster.node_mut(late).kill();
    cluster.node_mut(late).spawn();
    await_transfer();
    let leader = cluster.leader_of("k0");
    cluster.node_mut(leader).kill();
    cluster.node_mut(leader).spawn();
    for index in 0..3 {
        cluster.node_mut(index).await_ready();
    }
    cluster.assert_replicas_agree();
    let log = cluster.node(late).log_tail();
    assert!(log.contains("installed a snapshot"), "it came by the log: {log}");
    assert_eq!(unpublished(&dir), [] as [&str; 0]);
}

/// Fault R13: few large entries made a snapshot due again as soon as one was done, for ever.
#[test]
fn an_idle_cluster_builds_no_snapshots() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    write_over(&mut client_of(&cluster, 0), 40);
    (0..3).for_each(|index| await_snapshot(&cluster, index));
    let all =
        || -> Vec<_> { (0..3).map(|index| snapshot_files(&cluster.node(index).dir())).collect() };
    // One falls due within a second, and takes less than that: three seconds without any are an end.
    let mut seen = all();
    wait_for("an end of snapshots", PATIENCE, || {
        let_pass(Duration::from_secs(3));
        let before = std::mem::replace(&mut seen, all());
        if before == seen { Ok(()) } else { Err(format!("{before:?}, then {seen:?}")) }
    });
}
