//! What `GET /api/shards?hash=1` of a node says.

use serde::Deserialize;

use super::node::TestServer;

/// One replica as its node describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Replica {
    pub(crate) shard: u64,
    pub(crate) role: String,
    pub(crate) term: u64,
    /// Index of the last entry in the state that was hashed.
    pub(crate) index: u64,
    /// Hash of every entry applied until then, in their order.
    pub(crate) history: String,
    /// Hash of the keyspace.
    pub(crate) keyspace: String,
    pub(crate) keys: u64,
}

/// The replicas in the text of `GET /api/shards?hash=1`.
pub(crate) fn parse(json: &str) -> Result<Vec<Replica>, String> {
    serde_json::from_str(json).map_err(|error| format!("{error} in {json}"))
}

/// What a replica has done for its log.
#[derive(Deserialize)]
struct Work {
    /// Index of the last entry in its snapshot.
    snapshot: Option<u64>,
    /// Why it has stopped.
    stopped: Option<String>,
}

/// Whether every replica on `node` has a snapshot, and none has stopped.
///
/// # Errors
/// What the node says instead.
pub(crate) fn has_snapshots(node: &TestServer) -> Result<(), String> {
    let json = node.admin("/api/shards")?;
    let replicas: Vec<Work> = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    let is_done = |it: &Work| it.snapshot.is_some() && it.stopped.is_none();
    if !replicas.is_empty() && replicas.iter().all(is_done) { Ok(()) } else { Err(json) }
}

#[test]
fn the_documented_form_is_read() {
    let json = r#"[{"shard":0,"slots":[0,8191],"role":"leader","leader":"n1","term":3,"applied":17,
        "index":18,"history":"ab","keyspace":"cd","keys":12}, {"shard":1,"slots":[8192,16383],
        "role":"follower","leader":"n2","term":1,"applied":0,"index":0,"history":"","keyspace":"0","keys":0}]"#;
    let replicas = parse(json).unwrap();
    assert_eq!(replicas.len(), 2);
    let first = &replicas[0];
    assert_eq!((first.shard, &first.role[..], first.term), (0, "leader", 3));
    assert_eq!((first.index, &first.history[..], &first.keyspace[..]), (18, "ab", "cd"));
    assert_eq!((first.keys, &replicas[1].role[..]), (12, "follower"));
    assert_eq!(parse("[]").unwrap(), []);
    assert!(parse("{}").is_err());
    assert!(parse(r#"[{"shard":0}]"#).unwrap_err().contains("role"));
    assert!(parse(r#"[{"shard":"x"}]"#).is_err());
}
