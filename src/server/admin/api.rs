//! What the JSON pages say: each is a struct whose fields are those of the object.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::OwnedMutexGuard;

use crate::ids::{GroupId, NodeId};
use crate::node::Node;
use crate::ring::Topology;
use crate::shard::{HashRefused, Shard, StateHash};
use crate::slot::Slot;

/// `/api/leader`.
#[derive(Debug, Serialize)]
pub(super) struct KeyPlace {
    slot: u16,
    shard: u32,
    leader: Option<String>,
}

impl KeyPlace {
    /// Who leads the shard of `key`, as this node knows it.
    pub(super) fn of(node: &Node, key: &[u8]) -> Self {
        let (slot, topology) = (Slot::of(key), node.topology());
        let shard = topology.shard_of(slot);
        let leader = node.leader_of(shard).map(|id| name_of(&topology, id));
        Self { slot: slot.number(), shard: shard.0, leader }
    }
}

/// A replica on this node: an element of `/api/shards`.
#[derive(Debug, Serialize)]
pub(super) struct Replica {
    shard: u32,
    slots: [u16; 2],
    role: &'static str,
    leader: Option<String>,
    term: u64,
    last_log: Option<u64>,
    applied: Option<u64>,
    snapshot: Option<u64>,
    #[serde(flatten)]
    hashes: Option<Hashes>,
    keys: usize,
    log_bytes: u64,
    sessions: usize,
    session_packets: usize,
    session_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

/// What a replica with the same `index` says on every node. 64 bits are text: JSON's numbers have 53.
#[derive(Debug, Serialize)]
struct Hashes {
    index: u64,
    history: String,
    keyspace: String,
}

impl Replica {
    /// The replicas on this node; with a `turn` to hash, their hashes too, which walks all keys.
    ///
    /// # Errors
    /// A shard is busy with a snapshot or another hash.
    pub(super) async fn all(
        node: &Arc<Node>,
        turn: Option<Arc<OwnedMutexGuard<()>>>,
    ) -> Result<Vec<Self>, HashRefused> {
        let mut replicas = Vec::new();
        for shard in node.shards() {
            let Some(status) = shard.status() else { continue };
            // Walking all keys takes its time: not on a runtime that serves clients.
            let hash = match &turn {
                Some(turn) => state_hash(Arc::clone(shard), Arc::clone(turn)).await?,
                None => None,
            };
            let topology = node.topology();
            let gauges = shard.gauges();
            replicas.push(Self {
                shard: shard.id().0,
                slots: ends(&shard.slots()),
                role: status.role,
                leader: shard.leader().map(|id| name_of(&topology, id)),
                term: status.term,
                last_log: status.last_log_index,
                applied: status.applied_index,
                snapshot: status.snapshot_index,
                hashes: hash.map(Hashes::of),
                keys: hash.map_or_else(|| gauges.len(), |hash| hash.keys),
                log_bytes: node.wal().group_bytes(GroupId::of_shard(shard.id())),
                sessions: gauges.sessions.sessions,
                session_packets: gauges.sessions.packets,
                session_bytes: gauges.sessions.bytes,
                stopped: status.stopped,
            });
        }
        Ok(replicas)
    }
}

impl Hashes {
    fn of(hash: StateHash) -> Self {
        Self { index: hash.index, history: hex(hash.history), keyspace: hex(hash.keyspace) }
    }
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

/// `/api/topology`: the nodes and where each shard lies.
#[derive(Debug, Serialize)]
pub(super) struct Map<'a> {
    epoch: u64,
    cluster: String,
    replication_factor: u8,
    virtual_nodes: u16,
    nodes: Vec<Member<'a>>,
    shards: Vec<Place>,
}

#[derive(Debug, Serialize)]
struct Member<'a> {
    name: &'a str,
    id: String,
    host: &'a str,
    peer_port: u16,
    weight: u16,
    zone: &'a str,
    doors: Option<MemberDoors<'a>>,
}

#[derive(Debug, Serialize)]
struct MemberDoors<'a> {
    host: &'a str,
    port: u16,
    cluster_port: u16,
}

#[derive(Debug, Serialize)]
struct Place {
    shard: u32,
    slots: [u16; 2],
    preferred_leader: String,
    replicas: Vec<String>,
}

impl<'a> Map<'a> {
    pub(super) fn of(topology: &'a Topology) -> Self {
        let nodes = topology.nodes().values().map(|node| Member {
            name: &node.name,
            id: node.id.to_string(),
            host: &node.host,
            peer_port: node.peer_port,
            weight: node.weight,
            zone: &node.zone,
            doors: node.doors.as_ref().map(|doors| MemberDoors {
                host: &doors.host,
                port: doors.port,
                cluster_port: doors.cluster_port,
            }),
        });
        let shards = topology.placements().map(|(shard, placement)| Place {
            shard: shard.0,
            slots: ends(&topology.slots_of(shard)),
            preferred_leader: name_of(topology, placement.leader),
            replicas: placement.replicas.iter().map(|id| name_of(topology, *id)).collect(),
        });
        Self {
            epoch: topology.epoch(),
            cluster: hex(topology.cluster_id()),
            replication_factor: topology.replication_factor(),
            virtual_nodes: topology.virtual_nodes(),
            nodes: nodes.collect(),
            shards: shards.collect(),
        }
    }
}

fn name_of(topology: &Topology, id: NodeId) -> String {
    topology.node(id).map_or_else(|| id.to_string(), |node| node.name.clone())
}

fn ends(slots: &RangeInclusive<u16>) -> [u16; 2] {
    [*slots.start(), *slots.end()]
}

fn hex(bits: u64) -> String {
    format!("{bits:016x}")
}
