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
use serde::Serialize;

use super::api::{KeyPlace, Map, Replica};
use super::metrics;
use crate::node::Node;
use crate::server::house::House;
use crate::shard::HashRefused;

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

    fn json(said: &impl Serialize) -> Self {
        match serde_json::to_string(said) {
            Ok(body) => {
                Self { status: StatusCode::OK, kind: "application/json", body: body + "\n" }
            }
            Err(error) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
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
            let replicas = Replica::all(node, turn).await;
            replicas.map_or_else(Page::refused, |replicas| Page::json(&replicas))
        }
        "/api/leader" => match parameter(query, "key") {
            Some(key) => Page::json(&KeyPlace::of(node, &key)),
            None => Page::text(StatusCode::BAD_REQUEST, "write /api/leader?key=KEY\n"),
        },
        "/api/topology" => Page::json(&Map::of(&node.topology())),
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
