//! What each path answers.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200 when every shard has a leader that can be reached and the log and all replicas work, else 503 and why |
//! | `/metrics` | for Prometheus |
//! | `/api/shards` | the shards with a replica here; with `?hash=1` their state hashes, which walks all keys: for one caller at a time, others get 503 |
//! | `/api/leader?key=KEY` | who leads the shard of a key |
//! | `/api/topology` | nodes and placement |

use std::sync::Arc;

use hyper::{StatusCode, Uri};
use tokio::sync::OwnedMutexGuard;

use super::json::{Object, array, quoted};
use super::metrics;
use crate::ids::{GroupId, NodeId};
use crate::node::Node;
use crate::ring::Topology;
use crate::server::house::House;
use crate::shard::{HashRefused, Shard, StateHash};
use crate::slot::Slot;

/// One answer.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) body: String,
}

impl Page {
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }

    fn refused(why: HashRefused) -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
    }

    fn json(body: String) -> Self {
        Self { status: StatusCode::OK, kind: "application/json", body: body + "\n" }
    }
}

/// What `path` answers to `query`, the text after the question mark.
pub(super) async fn page(house: &House, path: &str, query: &str) -> Page {
    match house.node() {
        Some(node) => page_of(&node, path, query).await,
        // Before there is a node there is little to say.
        None if path == "/healthz" => Page::text(StatusCode::OK, "ok\n"),
        None => {
            let reason = house.progress().waits_for().unwrap_or_default();
            Page::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n")
        }
    }
}

async fn page_of(node: &Arc<Node>, path: &str, query: &str) -> Page {
    match path {
        "/healthz" => Page::text(StatusCode::OK, "ok\n"),
        "/readyz" => match node.unready_reason() {
            None => Page::text(StatusCode::OK, "ready\n"),
            Some(reason) => Page::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        },
        "/metrics" => Page {
            status: StatusCode::OK,
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics::render(node),
        },
        "/api/shards" => {
            let with_hashes = asks_for_hashes(query);
            let turn = if with_hashes { node.turn_to_hash() } else { None };
            if with_hashes && turn.is_none() {
                return Page::refused(HashRefused);
            }
            let page = shards(node, turn).await;
            page.map_or_else(Page::refused, Page::json)
        }
        "/api/leader" => match parameter(query, "key") {
            Some(key) => Page::json(leader(node, &key)),
            None => Page::text(StatusCode::BAD_REQUEST, "write /api/leader?key=KEY\n"),
        },
        "/api/topology" => Page::json(topology(&node.topology())),
        _ => Page::text(StatusCode::NOT_FOUND, "no such page\n"),
    }
}

/// Whether the page at `uri` takes as long as a walk over all keys.
pub(super) fn walks_all_keys(uri: &Uri) -> bool {
    uri.path() == "/api/shards" && asks_for_hashes(uri.query().unwrap_or_default())
}

fn asks_for_hashes(query: &str) -> bool {
    parameter(query, "hash").as_deref() == Some(b"1")
}

/// The bytes of the parameter `name`, percent escapes undone.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    Some(decoded)
}

fn leader(node: &Node, key: &[u8]) -> String {
    let slot = Slot::of(key);
    let shard = node.topology().shard_of(slot);
    let leader = node.leader_of(shard).map(|id| quoted(&name_of(&node.topology(), id)));
    Object::new().with("slot", slot).with("shard", shard.0).with_option("leader", leader).end()
}

async fn shards(
    node: &Arc<Node>,
    turn: Option<Arc<OwnedMutexGuard<()>>>,
) -> Result<String, HashRefused> {
    let mut items = Vec::new();
    for shard in node.shards() {
        let Some(status) = shard.status() else { continue };
        // Walking all keys takes its time: not on a runtime that serves clients.
        let hash = match &turn {
            Some(turn) => state_hash(Arc::clone(shard), Arc::clone(turn)).await?,
            None => None,
        };
        let topology = node.topology();
        let leader = shard.leader().map(|id| quoted(&name_of(&topology, id)));
        let slots = shard.slots();
        let mut item = Object::new()
            .with("shard", shard.id().0)
            .with("slots", format!("[{},{}]", slots.start(), slots.end()))
            .with_text("role", status.role)
            .with_option("leader", leader)
            .with("term", status.term)
            .with_option("last_log", status.last_log_index)
            .with_option("applied", status.applied_index)
            .with_option("snapshot", status.snapshot_index);
        if let Some(hash) = hash {
            item = item
                .with("index", hash.index)
                .with_text("history", &format!("{:016x}", hash.history))
                .with_text("keyspace", &format!("{:016x}", hash.keyspace));
        }
        let keys = hash.map_or_else(|| shard.gauges().len(), |hash| hash.keys);
        item = item
            .with("keys", keys)
            .with("log_bytes", node.wal().group_bytes(GroupId::of_shard(shard.id())));
        let kept = shard.gauges().sessions;
        item = item
            .with("sessions", kept.sessions)
            .with("session_packets", kept.packets)
            .with("session_bytes", kept.bytes);
        if let Some(stopped) = &status.stopped {
            item = item.with_text("stopped", stopped);
        }
        items.push(item.end());
    }
    Ok(array(items))
}

/// The turn ends with the work: whoever asked may be gone before.
async fn state_hash(
    shard: Arc<Shard>,
    turn: Arc<OwnedMutexGuard<()>>,
) -> Result<Option<StateHash>, HashRefused> {
    let hashing = tokio::task::spawn_blocking(move || {
        let hash = shard.state_hash();
        drop(turn);
        hash
    });
    hashing.await.unwrap_or(Ok(None))
}

fn topology(topology: &Topology) -> String {
    let nodes = topology.nodes().values().map(|node| {
        let object = Object::new()
            .with_text("name", &node.name)
            .with_text("id", &node.id.to_string())
            .with_text("host", &node.host)
            .with("peer_port", node.peer_port)
            .with("weight", node.weight)
            .with_text("zone", &node.zone);
        match &node.doors {
            None => object.with("doors", "null").end(),
            Some(doors) => object
                .with(
                    "doors",
                    Object::new()
                        .with_text("host", &doors.host)
                        .with("port", doors.port)
                        .with("cluster_port", doors.cluster_port)
                        .end(),
                )
                .end(),
        }
    });
    let shards = topology.placements().map(|(shard, placement)| {
        let slots = topology.slots_of(shard);
        let replicas = placement.replicas.iter().map(|id| quoted(&name_of(topology, *id)));
        Object::new()
            .with("shard", shard.0)
            .with("slots", format!("[{},{}]", slots.start(), slots.end()))
            .with_text("preferred_leader", &name_of(topology, placement.leader))
            .with("replicas", array(replicas))
            .end()
    });
    Object::new()
        .with("epoch", topology.epoch())
        .with_text("cluster", &format!("{:016x}", topology.cluster_id()))
        .with("replication_factor", topology.replication_factor())
        .with("virtual_nodes", topology.virtual_nodes())
        .with("nodes", array(nodes))
        .with("shards", array(shards))
        .end()
}

fn name_of(topology: &Topology, id: NodeId) -> String {
    topology.node(id).map_or_else(|| id.to_string(), |node| node.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TestNode;

    /// faults.md B4: the page was cut off after half a minute, which twenty million keys took.
    #[test]
    fn only_a_walk_over_all_keys_may_take_its_time() {
        for (uri, expected) in [
            ("/api/shards?hash=1", true),
            ("/api/shards?x=y&hash=%31", true),
            ("/api/shards", false),
            ("/api/shards?hash=0", false),
            ("/metrics?hash=1", false),
        ] {
            assert_eq!(walks_all_keys(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let table = [
            ("key=a", Some("a")),
            ("x=1&key=a%20b+c%7Bd%7d", Some("a b c{d}")),
            ("key", Some("")),
            ("key=", Some("")),
            ("keys=a", None),
            ("", None),
            ("key=%", None),
            ("key=%4", None),
            ("key=%zz", None),
        ];
        for (query, expected) in table {
            let expected = expected.map(|text| text.as_bytes().to_vec());
            assert_eq!(parameter(query, "key"), expected, "{query}");
        }
        assert_eq!(parameter("key=%ff", "key"), Some(vec![0xff]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn pages_tell_the_state_of_the_node() {
        let test = TestNode::start(&[]).await;
        let node = &test.started.node;
        let get = async |path: &str, query: &str| page_of(node, path, query).await;
        for (path, query, status) in [
            ("/healthz", "", 200),
            ("/readyz", "", 200),
            ("/metrics", "", 200),
            ("/api/topology", "", 200),
            ("/api/leader", "", 400),
            ("/api/leader", "key=%z", 400),
            ("/", "", 404),
            ("/healthz/", "", 404),
            ("/api/../healthz", "", 404),
        ] {
            assert_eq!(get(path, query).await.status.as_u16(), status, "{path}?{query}");
        }
        let body = get("/api/leader", "key=foo").await.body;
        assert_eq!(body, "{\"slot\":12182,\"shard\":1,\"leader\":\"n1\"}\n");
        let body = get("/api/shards", "").await.body;
        assert!(
            body.starts_with(
                "[{\"shard\":0,\"slots\":[0,8191],\"role\":\"leader\",\"leader\":\"n1\",\"term\":1,"
            ),
            "{body}"
        );
        assert!(!body.contains("history") && body.contains("\"keys\":0"), "{body}");
        let turn = node.turn_to_hash().unwrap();
        let refused = get("/api/shards", "hash=1").await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "one at a time");
        assert!(refused.body.contains("ask again"), "{}", refused.body);
        drop(turn);
        let body = get("/api/shards", "hash=1").await.body;
        assert_eq!(body.matches("\"history\":\"").count(), 2, "{body}");
        let body = get("/api/topology", "").await.body;
        let doors = "\"doors\":{\"host\":\"127.0.0.1\",\"port\":6379,\"cluster_port\":7379}";
        assert!(body.contains(doors), "{body}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_node_whose_shard_lost_its_leader_is_not_ready() {
        let test = TestNode::start(&[]).await;
        let node = &test.started.node;
        node.shards()[1].stop().await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let page = page_of(node, "/readyz", "").await;
            if page.status == StatusCode::SERVICE_UNAVAILABLE {
                assert!(page.body.starts_with("the replica of s1 here has stopped: "));
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{page:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
