//! A disk that takes no more: played by a limit on the size of files, beyond which writes fail.

use std::time::Duration;

use crate::support::client::{Client, Value};
use crate::support::cluster::TestCluster;
use crate::support::node::TestServer;
use crate::support::{PATIENCE, wait_for};

/// The log is longer than this when the limit comes, so the next write to it fails.
const LIMIT_BYTES: u64 = 64 << 10;

/// Writes more than [`LIMIT_BYTES`]; returns how many keys.
fn fill(client: &mut Client) -> usize {
    let value = vec![b'v'; 1000];
    for number in 0..200 {
        let key = format!("before:{number}");
        assert_eq!(client.cmd(&[b"SET", key.as_bytes(), &value]), Value::ok());
    }
    200
}

#[test]
fn a_full_disk_stops_the_writes_of_a_lonely_node_and_loses_nothing() {
    let mut server = TestServer::start(&["--appendfsync", "always"]);
    let mut client = server.client();
    let count = fill(&mut client);
    client.set_timeout(PATIENCE);
    server.limit_file_bytes(Some(LIMIT_BYTES));
    // The node may answer an error or end itself; it may not acknowledge, and not keep silent for ever.
    for number in 0..3 {
        match client.try_cmd(&["SET", &format!("after:{number}"), "v"]) {
            Ok(Value::Error(text)) => eprintln!("a full disk says: {text}"),
            Ok(other) => panic!("acknowledged without a log: {other:?}"),
            Err(error) => {
                let is_closed = error.kind() != std::io::ErrorKind::WouldBlock;
                assert!(is_closed, "no answer within {PATIENCE:?}");
                break;
            }
        }
    }
    if server.poll_exit().is_none() {
        server.kill();
    }
    server.restart();
    let mut client = server.client();
    for number in 0..count {
        assert_eq!(client.line(&format!("STRLEN before:{number}")), Value::Integer(1000));
    }
    assert_eq!(client.line("SET after v"), Value::ok());
}

#[test]
fn a_leader_with_a_full_disk_gives_way() {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1", "--appendfsync", "always"]);
    let full = cluster.leader_of("before:0");
    let rest: Vec<usize> = (0..3).filter(|&index| index != full).collect();
    let mut client = cluster.client(rest[0]);
    let count = fill(&mut client);
    cluster.node(full).limit_file_bytes(Some(LIMIT_BYTES));
    for number in 0..50 {
        // Inside the cluster the write finds its way to a leader that can.
        wait_for("write beside a full disk", Duration::from_secs(20), || {
            match client.cmd(&["SET", &format!("after:{number}"), "v"]) {
                Value::Error(text) => Err(text),
                other => {
                    assert_eq!(other, Value::ok());
                    Ok(())
                }
            }
        });
    }
    assert_ne!(cluster.leader_among("before:0", &rest), full);
    let said = cluster.node(full).log_tail().to_lowercase();
    assert!(said.contains("file too large") || said.contains("efbig"), "it says why: {said}");

    let node = cluster.node_mut(full);
    if node.poll_exit().is_none() {
        node.kill();
    }
    node.restart();
    cluster.await_serving();
    let mut client = cluster.client(full);
    for number in 0..count {
        assert_eq!(client.line(&format!("STRLEN before:{number}")), Value::Integer(1000));
    }
    for number in 0..50 {
        assert_eq!(client.line(&format!("GET after:{number}")), Value::bulk("v"));
    }
    cluster.assert_replicas_agree();
}
