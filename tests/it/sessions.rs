//! What shards keep so that a retry is applied once: only what may still be asked for.

use std::time::Duration;

use serde_json::Value as Json;

use crate::support::client::Value;
use crate::support::cluster::TestCluster;
use crate::support::proxy::Link;
use crate::support::{PATIENCE, let_pass, wait_for};

/// The sum of what the replicas on node `index` say of `name` in `/api/shards`.
fn sum(cluster: &TestCluster, index: usize, name: &str) -> Result<u64, String> {
    let json = cluster.node(index).admin("/api/shards")?;
    let shards: Vec<Json> =
        serde_json::from_str(&json).map_err(|error| format!("{error}: {json}"))?;
    shards.iter().map(|shard| shard[name].as_u64().ok_or_else(|| json.clone())).sum()
}

fn sums(cluster: &TestCluster, name: &str) -> Result<Vec<u64>, String> {
    cluster.serving().into_iter().map(|index| sum(cluster, index, name)).collect()
}

/// faults.md R17: replies of 100 MB each stayed on all replicas, and in each snapshot, for ever.
#[test]
fn replies_go_soon_after_the_front_end_that_has_them_falls_silent() {
    const VALUE_BYTES: usize = 8 << 20;
    let cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let mut client = cluster.client(cluster.follower_of("big:0"));
    let value = "x".repeat(VALUE_BYTES);
    // The last small replies of the warm-up stay, for each front end.
    let before = sums(&cluster, "session_bytes").unwrap();
    assert!(before.iter().all(|bytes| *bytes < 10_000), "{before:?}");
    for number in 0..3 {
        assert_eq!(client.cmd(&["SET", &format!("big:{number}"), &value]), Value::ok());
    }
    for number in 0..3 {
        let taken = client.cmd(&["GETDEL", &format!("big:{number}")]);
        assert!(taken == Value::bulk(&value), "the whole value");
    }
    wait_for("small session tables", Duration::from_secs(5), || {
        let kept = sums(&cluster, "session_bytes")?;
        let is_small = kept.iter().zip(&before).all(|(now, before)| now <= before);
        if is_small { Ok(()) } else { Err(format!("{kept:?}")) }
    });
    cluster.assert_replicas_agree();
    // And what was small is not written about: an idle cluster writes nothing for its sake.
    assert_eq!(client.cmd(&["SET", "small", "x"]), Value::ok());
    let packets = sums(&cluster, "session_packets").unwrap();
    let_pass(Duration::from_secs(2));
    assert_eq!(sums(&cluster, "session_packets").unwrap(), packets);
}

/// Answers are lost while large replies are confirmed: everything sent again is still applied once.
#[test]
fn a_retry_over_a_confirmation_is_applied_once() {
    let cluster = TestCluster::start_proxied(3, &["--cluster-shards", "1"]);
    let leader = cluster.leader_of("counter");
    let front = cluster.follower_of("counter");
    let mut client = cluster.client(front);
    let value = "x".repeat(1 << 20);
    for round in 1..=4 {
        assert_eq!(client.cmd(&["SET", "big", &value]), Value::ok());
        assert!(client.cmd(&["GETDEL", "big"]) == Value::bulk(&value));
        // About when the confirmation leaves.
        let_pass(Duration::from_millis(300 + 150 * round));
        client.send(&["INCR", "counter"]).unwrap();
        cluster.link(front, leader, Link::Cut);
        let_pass(Duration::from_millis(50));
        cluster.heal();
        assert_eq!(client.read().unwrap(), Value::Integer(i64::try_from(round).unwrap()));
    }
    cluster.assert_replicas_agree();
}

/// The sessions of a process that does not come back, and of one that comes back and says nothing, are closed.
#[test]
fn sessions_of_earlier_starts_are_closed() {
    let mut cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let front = cluster.follower_of("key");
    assert_eq!(cluster.client(front).cmd(&["SET", "key", "1"]), Value::ok());
    let before = sums(&cluster, "session_packets").unwrap();
    assert!(before.iter().all(|packets| *packets == before[0] && *packets >= 3), "{before:?}");
    cluster.node_mut(front).kill();
    cluster.node_mut(front).restart();
    wait_for("end of the session", PATIENCE, || {
        let now = sums(&cluster, "session_packets")?;
        if now.iter().all(|packets| *packets < before[0]) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    cluster.await_serving();
    cluster.assert_replicas_agree();
}
