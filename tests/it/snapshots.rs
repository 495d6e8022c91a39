//! Replicas that catch up by a snapshot, on real processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::TestCluster;
use crate::support::wait_for;

/// Long enough for a debug build to write, send and load some hundred MiB; reaching it is a failure.
const PATIENCE: Duration = Duration::from_mins(2);
const VALUE_BYTES: usize = 1 << 20;
/// More log than makes a snapshot due and than is kept behind one, in values.
const VALUES: usize = 160;

/// Writes [`VALUES`] values over few keys: a long log of little data.
fn write_much(client: &mut Client) {
    let value = vec![b'v'; VALUE_BYTES];
    for number in 0..VALUES {
        let key = format!("k{}", number % 8);
        assert_eq!(client.cmd(&[b"SET", key.as_bytes(), &value]), Value::ok());
    }
}

fn snapshot_files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        // A file may go while one looks.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                left.push(entry.path());
            } else if name.ends_with(".snapshot") {
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
        wait_for("a snapshot", PATIENCE, || {
            let files = snapshot_files(&cluster.node(index).dir());
            if files.is_empty() { Err("none yet".to_owned()) } else { Ok(()) }
        });
    }
    // Meanwhile what the first snapshots cover goes from the log.
    write_much(&mut client);
    cluster.node_mut(late).spawn();
    cluster.node_mut(late).await_ready();
    cluster.assert_replicas_agree();
    let log = cluster.node(late).log_tail();
    assert!(log.contains("installed a snapshot"), "it came by the log: {log}");
}
