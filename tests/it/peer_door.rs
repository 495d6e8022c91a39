//! The door between nodes: whoever does not hold the secret gets nothing from it, whatever it has read elsewhere.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use kvorum::ids::{ClusterId, GroupId, Incarnation, NodeId, Session, ShardId};
use kvorum::transport::kinds::shard as kind;
use kvorum::transport::{
    Credentials, Door, Meant, PeerClient, PeerIdentity, PeerOptions, Refusal, TransportError,
};

use crate::support::client::Value;
use crate::support::cluster::TestCluster;
use crate::support::node::TestServer;
use crate::support::{PATIENCE, wait_for};

const SECRET: &str = "of-this-very-test";

/// Somebody who says to be n2, with the cluster id that anyone can read.
fn impostor(cluster: ClusterId, secret: &str) -> Door {
    static STARTS: AtomicU8 = AtomicU8::new(0);
    let session = Session { number: 1 << 63, random: 1 };
    let identity = PeerIdentity::new(cluster, "n2", Incarnation::NONE, session);
    let entropy = [STARTS.fetch_add(1, Ordering::Relaxed); 32];
    Door::new(identity, Credentials::new(secret.as_bytes(), entropy))
}

/// Faults, row D2.
#[test]
fn the_public_cluster_id_opens_no_door() {
    let cluster = TestCluster::start(3, &["--cluster-secret", SECRET]);
    let info = cluster.client(0).line("INFO replication").text();
    let public = info.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap();
    let id = ClusterId(u64::from_str_radix(&public[24..40], 16).unwrap());
    let topology = cluster.node(0).admin("/api/topology").unwrap();
    assert!(topology.contains(&id.to_string()), "{topology}");

    let address = format!("127.0.0.1:{}", cluster.node(0).peer_port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for secret in ["", "a guess"] {
            let client = PeerClient::new(PeerOptions {
                door: impostor(id, secret),
                meant: Meant { node: NodeId::of_name("n1"), incarnation: Incarnation::NONE },
                addresses: vec![address.clone()],
            });
            let mut refusals = client.refusals();
            let refused = refusals.wait_for(Option::is_some);
            let refusal = *tokio::time::timeout(PATIENCE, refused).await.unwrap().unwrap();
            assert_eq!(refusal, Some(Refusal::Secret), "{secret:?}");
            let group = GroupId::of_shard(ShardId(0));
            for kind in [kind::SUBMIT, kind::READ] {
                let answer = client.call(group, kind, Bytes::new(), PATIENCE).await;
                assert_eq!(answer, Err(TransportError::NotConnected));
            }
        }
    });
    let log = cluster.node(0).log();
    assert!(log.contains("cluster-secret differs"));
    assert!(!log.contains("peers are not authenticated"), "they are: {log}");

    // And the secret itself is told to nobody.
    let mut client = cluster.client(0);
    assert_eq!(client.line("CONFIG GET cluster-secret").array()[1], Value::bulk("(set)"));
    let all = [
        client.line("CONFIG GET *").array().iter().map(Value::text).collect(),
        client.line("INFO everything").text(),
        cluster.node(0).admin("/api/topology").unwrap(),
        cluster.node(0).log_tail(),
    ];
    for text in all {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert_eq!(client.line("SET k v"), Value::ok(), "n2's writes and all others go on");
}

/// Faults, row D2: whoever starts nodes that believe everybody is told so.
#[test]
fn peers_without_a_secret_are_warned_of_at_the_start() {
    const SAID: &str = "peers are not authenticated";
    let cluster = TestCluster::start_without(3, &[], &[1, 2]);
    wait_for("a warning", PATIENCE, || match cluster.node(0).log() {
        log if log.matches(SAID).count() == 1 => Ok(()),
        log => Err(log),
    });
    let alone = TestServer::start(&[]);
    assert!(!alone.log().contains(SAID), "{}", alone.log());
}

/// A cluster that does not come to be says on every side why, and comes to be when that is mended.
#[test]
fn a_node_with_another_secret_is_waited_for_and_said_why() {
    let mut cluster = TestCluster::start_without(3, &["--cluster-secret", SECRET], &[2]);
    cluster.node_mut(2).also(&["--cluster-secret", "another that is long and random as well"]);
    cluster.node_mut(2).spawn();
    let says = |cluster: &TestCluster, index: usize, name: &str| {
        let text = cluster.node(index).admin("/readyz").unwrap_or_else(|error| error);
        let is_said = text.contains(&format!("{name} (cluster-secret differs"));
        if is_said { Ok(()) } else { Err(text) }
    };
    wait_for("n1 says why it waits", PATIENCE, || says(&cluster, 0, "n3"));
    wait_for("n3 says why it waits", PATIENCE, || says(&cluster, 2, "n1"));
    cluster.node_mut(2).kill();
    cluster.node_mut(2).also(&["--cluster-secret", SECRET]);
    cluster.node_mut(2).spawn();
    for index in 0..3 {
        cluster.node_mut(index).await_ready();
    }
    cluster.await_serving();
}
