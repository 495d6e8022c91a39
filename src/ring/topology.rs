//! The topology: which nodes there are and which of them hold which shard. The value meta replicates.
//!
//! A value, never changed in place: every change is a new topology with the next epoch.
//!
//! Invariants, proven by [`Topology::new`], by every change and again when decoded from bytes: there are
//! 1..=[`SHARDS_MAX`] shards and at least one node; every slot belongs to exactly one shard; every
//! shard has min(replication factor, nodes) distinct nodes of this topology, its leader among them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, ShardId};
use crate::ring::limits::{
    HOST_BYTES_MAX, LOAD_SLACK_PERCENT, NAME_BYTES_MAX, NODES_MAX, REPLICAS_MAX, SHARDS_MAX,
    TOKENS_MAX, VIRTUAL_NODES_MAX, WEIGHT_MAX, ZONE_BYTES_MAX,
};
use crate::ring::share::{Demand, Member, Share};
use crate::ring::{Ring, Token, leaders, preference};
use crate::slot::Slot;

/// The version of the encoded form; another is refused.
const FORMAT: u16 = 1;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedNode {
    /// Its id, unique in the cluster.
    pub id: NodeId,
    /// Its configured name, unique in the cluster; the ring hashes it.
    pub name: String,
    /// Where peers reach it: a host name or an IP address, without brackets.
    pub host: String,
    /// The port of its peer door.
    pub peer_port: u16,
    /// How much it takes compared with others, 1..=[`WEIGHT_MAX`].
    pub weight: u16,
    /// What fails together with it (a rack, a data centre); empty where zones are not used.
    pub zone: String,
    /// Where its clients connect, once it has said so.
    pub doors: Option<Doors>,
}

/// What CLUSTER SLOTS announces of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doors {
    /// The host clients connect to.
    pub host: String,
    /// The port of the plain door.
    pub port: u16,
    /// The port of the cluster door.
    pub cluster_port: u16,
}

/// Where one shard lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Its nodes in preference order, all distinct.
    pub replicas: Vec<NodeId>,
    /// Which of them should lead, so that leaders are spread evenly.
    pub leader: NodeId,
}

/// What a cluster is created from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologySpec {
    /// The cluster's identity, which peers compare.
    pub cluster_id: u64,
    /// Shards, 1..=[`SHARDS_MAX`]; fixed for the life of the cluster.
    pub shard_count: u32,
    /// Replicas of each shard wanted, 1..=[`REPLICAS_MAX`]; fewer while there are fewer nodes.
    pub replication_factor: u8,
    /// Virtual nodes of a node of weight 1, 1..=[`VIRTUAL_NODES_MAX`].
    pub virtual_nodes: u16,
    /// The nodes, in any order.
    pub nodes: Vec<ListedNode>,
}

/// Why a topology cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There is no node, or the last one was to be removed.
    #[error("a cluster needs at least one node")]
    NoNodes,
    /// More than [`NODES_MAX`] nodes.
    #[error("{0} nodes are too many: at most {NODES_MAX}")]
    TooManyNodes(usize),
    /// The shard count is out of range.
    #[error("the number of shards must be 1..={SHARDS_MAX}, not {0}")]
    ShardCount(u32),
    /// The replication factor is out of range.
    #[error("the replication factor must be 1..={REPLICAS_MAX}, not {0}")]
    ReplicationFactor(u8),
    /// The number of virtual nodes is out of range.
    #[error("virtual nodes must be 1..={VIRTUAL_NODES_MAX}, not {0}")]
    VirtualNodes(u16),
    /// Virtual nodes times weights make too long a ring.
    #[error("virtual nodes times weights are {0}: at most {TOKENS_MAX}")]
    TooManyTokens(u64),
    /// Two nodes have one id: the same name twice, or two names with one hash.
    #[error("nodes \"{0}\" and \"{1}\" have the same id")]
    DuplicateId(String, String),
    /// Two nodes have one name.
    #[error("node \"{0}\" is named twice")]
    DuplicateName(String),
    /// A name, host, zone, weight or port of a node is out of range.
    #[error("node \"{name}\": {what}")]
    BadNode {
        /// The node's name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No node has this id.
    #[error("node {0} is not in the topology")]
    UnknownNode(NodeId),
    /// The epoch cannot rise any further.
    #[error("the topology's epoch is exhausted")]
    EpochExhausted,
    /// The bytes are of a format this version does not know.
    #[error("topology format {0} is not known here (known: {FORMAT})")]
    UnknownFormat(u16),
    /// The bytes hold placements that break an invariant.
    #[error("the placement of shard {0} is broken: {1}")]
    BadPlacement(ShardId, &'static str),
    /// The bytes hold more or fewer placements than shards.
    #[error("{placements} placements for {shards} shards")]
    PlacementCount {
        /// Placements found.
        placements: usize,
        /// Shards declared.
        shards: u32,
    },
}

/// The nodes of the cluster and the placement of its shards at one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Encoded", try_from = "Encoded")]
pub struct Topology {
    epoch: u64,
    cluster_id: u64,
    shard_count: u32,
    replication_factor: u8,
    virtual_nodes: u16,
    nodes: BTreeMap<NodeId, ListedNode>,
    placements: Vec<Placement>,
}

/// A topology as it travels and lies on disk; the order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct Encoded {
    format: u16,
    epoch: u64,
    cluster_id: u64,
    shard_count: u32,
    replication_factor: u8,
    virtual_nodes: u16,
    nodes: Vec<ListedNode>,
    placements: Vec<Placement>,
}

impl Topology {
    /// The topology of epoch 1 of a new cluster: the placement follows from `spec` alone, whatever
    /// the order of its nodes.
    ///
    /// # Errors
    /// When a number of `spec` is out of range, or two nodes share a name or an id.
    pub fn new(spec: TopologySpec) -> Result<Self, TopologyError> {
        let mut topology = Self {
            epoch: 1,
            cluster_id: spec.cluster_id,
            shard_count: spec.shard_count,
            replication_factor: spec.replication_factor,
            virtual_nodes: spec.virtual_nodes,
            nodes: index_nodes(spec.nodes)?,
            placements: Vec::new(),
        };
        topology.validate_numbers()?;
        topology.place();
        Ok(topology)
    }

    /// The shard that owns `slot`.
    ///
    /// Shard `s` of S owns the slots from ceil(s·16384/S) on, so this is one multiplication and a shift.
    pub fn shard_of(&self, slot: Slot) -> ShardId {
        ShardId((u32::from(slot.number()) * self.shard_count) / u32::from(Slot::COUNT))
    }

    /// The slots of `shard`: contiguous, and within one of as many as any other shard's.
    ///
    /// # Panics
    /// When `shard` is not of this topology.
    pub fn slots_of(&self, shard: ShardId) -> RangeInclusive<u16> {
        assert!(shard.0 < self.shard_count, "{shard} is not one of {} shards", self.shard_count);
        let first = |shard: u32| (shard * u32::from(Slot::COUNT)).div_ceil(self.shard_count);
        let number = |slot: u32| u16::try_from(slot).expect("slots end at 16383");
        number(first(shard.0))..=number(first(shard.0 + 1) - 1)
    }

    /// Where `shard` lives.
    ///
    /// # Panics
    /// When `shard` is not of this topology; [`Topology::shard_of`] gives only such as are.
    pub fn placement(&self, shard: ShardId) -> &Placement {
        &self.placements[shard.0 as usize]
    }

    /// Every shard with its placement, in the order of their numbers.
    pub fn placements(&self) -> impl ExactSizeIterator<Item = (ShardId, &Placement)> {
        (0..self.shard_count).map(ShardId).zip(&self.placements)
    }

    /// Which replica of `shard` should lead.
    ///
    /// # Panics
    /// When `shard` is not of this topology.
    pub fn preferred_leader(&self, shard: ShardId) -> NodeId {
        self.placement(shard).leader
    }

    /// The nodes by id.
    pub fn nodes(&self) -> &BTreeMap<NodeId, ListedNode> {
        &self.nodes
    }

    /// The node with `id`.
    pub fn node(&self, id: NodeId) -> Option<&ListedNode> {
        self.nodes.get(&id)
    }

    /// The node called `name`.
    pub fn node_named(&self, name: &str) -> Option<&ListedNode> {
        self.nodes.values().find(|node| node.name == name)
    }

    /// The version of this topology: 1 for a new cluster, one more with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The cluster's identity.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> u32 {
        self.shard_count
    }

    /// How many replicas each shard should have; see [`Topology::replica_count`].
    pub fn replication_factor(&self) -> u8 {
        self.replication_factor
    }

    /// How many replicas each shard has: the replication factor, or the nodes when they are fewer.
    pub fn replica_count(&self) -> usize {
        self.nodes.len().min(usize::from(self.replication_factor))
    }

    /// Virtual nodes of a node of weight 1.
    pub fn virtual_nodes(&self) -> u16 {
        self.virtual_nodes
    }

    /// Each node's fair share of replicas by its weight, as far as its zone allows.
    pub fn shares(&self) -> BTreeMap<NodeId, Share> {
        self.nodes.keys().copied().zip(self.demand().shares()).collect()
    }

    /// The most replicas each node may hold: ceil((1+ε)·share) with ε of [`LOAD_SLACK_PERCENT`] percent, and
    /// never more than there are shards.
    pub fn caps(&self) -> BTreeMap<NodeId, u64> {
        self.nodes.keys().copied().zip(self.demand().caps(LOAD_SLACK_PERCENT)).collect()
    }

    /// How many replicas each node holds.
    pub fn replica_totals(&self) -> BTreeMap<NodeId, u64> {
        self.totals(self.placements.iter().flat_map(|placement| &placement.replicas))
    }

    /// How many shards each node should lead.
    pub fn leader_totals(&self) -> BTreeMap<NodeId, u64> {
        self.totals(self.placements.iter().map(|placement| &placement.leader))
    }

    /// The topology after `node` joined.
    ///
    /// It takes at most its fair share, rounded up, mostly where the ring would put it.
    ///
    /// # Errors
    /// When `node` has a bad field, its name or id is taken, or a limit is reached.
    pub fn with_node(&self, node: ListedNode) -> Result<Self, TopologyError> {
        let nodes = self.nodes.values().cloned().chain([node]).collect();
        self.with_nodes(index_nodes(nodes)?)
    }

    /// The topology after the node with `id` left; what it held is taken over by the others.
    ///
    /// # Errors
    /// When there is no such node, or it is the last.
    pub fn without_node(&self, id: NodeId) -> Result<Self, TopologyError> {
        let mut nodes = self.nodes.clone();
        nodes.remove(&id).ok_or(TopologyError::UnknownNode(id))?;
        self.with_nodes(nodes)
    }

    /// The topology after the node with `id` announced `doors`; the same epoch when it had already.
    ///
    /// # Errors
    /// When there is no such node, or the host is empty or too long.
    pub fn with_doors(&self, id: NodeId, doors: Doors) -> Result<Self, TopologyError> {
        let mut changed = self.clone();
        let node = changed.nodes.get_mut(&id).ok_or(TopologyError::UnknownNode(id))?;
        if node.doors.as_ref() != Some(&doors) {
            node.doors = Some(doors);
            validate_node(node)?;
            changed.epoch = self.next_epoch()?;
        }
        Ok(changed)
    }

    fn with_nodes(&self, nodes: BTreeMap<NodeId, ListedNode>) -> Result<Self, TopologyError> {
        let mut changed = Self { epoch: self.next_epoch()?, nodes, ..self.clone() };
        changed.validate_numbers()?;
        changed.place();
        Ok(changed)
    }

    fn next_epoch(&self) -> Result<u64, TopologyError> {
        self.epoch.checked_add(1).ok_or(TopologyError::EpochExhausted)
    }

    fn totals<'a>(&'a self, held: impl Iterator<Item = &'a NodeId>) -> BTreeMap<NodeId, u64> {
        let mut totals: BTreeMap<NodeId, u64> = self.nodes.keys().map(|&id| (id, 0)).collect();
        for id in held {
            *totals.entry(*id).or_default() += 1;
        }
        totals
    }

    /// Computes the placements for the present nodes, starting from the placements so far.
    fn place(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let position = |id: &NodeId| ids.binary_search(id).ok();
        let demand = self.demand();
        let mut before = vec![Vec::new(); self.shard_count as usize];
        let mut leaders = vec![None; self.shard_count as usize];
        for (shard, placement) in self.placements.iter().enumerate() {
            before[shard] = placement.replicas.iter().filter_map(position).collect();
            leaders[shard] = position(&placement.leader);
        }
        let replicas = preference::place(&demand, &self.walks(), before);
        let weights: Vec<u64> = demand.members().iter().map(|member| member.weight).collect();
        let leaders = leaders::balance(&replicas, &weights, &leaders);
        let placement = |(nodes, leader): (Vec<usize>, usize)| Placement {
            replicas: nodes.into_iter().map(|node| ids[node]).collect(),
            leader: ids[leader],
        };
        self.placements = replicas.into_iter().zip(leaders).map(placement).collect();
    }

    /// For each shard, the positions of the nodes in the order of its clockwise walk.
    fn walks(&self) -> Vec<Vec<usize>> {
        let ring = Ring::new(self.nodes.values().map(|node| {
            (node.name.as_str(), u32::from(node.weight) * u32::from(self.virtual_nodes))
        }));
        (0..self.shard_count).map(|shard| ring.walk(Token::of_shard(ShardId(shard)))).collect()
    }

    fn demand(&self) -> Demand {
        let zones: BTreeSet<&str> = self.nodes.values().map(|node| node.zone.as_str()).collect();
        let number = |zone: &str| zones.iter().take_while(|&&other| other < zone).count();
        let member =
            |node: &ListedNode| Member { weight: u64::from(node.weight), zone: number(&node.zone) };
        let members = self.nodes.values().map(member).collect();
        Demand::new(members, self.shard_count, self.replication_factor)
    }

    fn validate_numbers(&self) -> Result<(), TopologyError> {
        if self.nodes.is_empty() {
            return Err(TopologyError::NoNodes);
        }
        if self.nodes.len() > NODES_MAX {
            return Err(TopologyError::TooManyNodes(self.nodes.len()));
        }
        if !(1..=SHARDS_MAX).contains(&self.shard_count) {
            return Err(TopologyError::ShardCount(self.shard_count));
        }
        if !(1..=REPLICAS_MAX).contains(&self.replication_factor) {
            return Err(TopologyError::ReplicationFactor(self.replication_factor));
        }
        if !(1..=VIRTUAL_NODES_MAX).contains(&self.virtual_nodes) {
            return Err(TopologyError::VirtualNodes(self.virtual_nodes));
        }
        let weights: u64 = self.nodes.values().map(|node| u64::from(node.weight)).sum();
        let tokens = weights * u64::from(self.virtual_nodes);
        if tokens > TOKENS_MAX { Err(TopologyError::TooManyTokens(tokens)) } else { Ok(()) }
    }

    fn validate_placements(&self) -> Result<(), TopologyError> {
        if self.placements.len() != self.shard_count as usize {
            let (placements, shards) = (self.placements.len(), self.shard_count);
            return Err(TopologyError::PlacementCount { placements, shards });
        }
        for (shard, placement) in self.placements() {
            let distinct: BTreeSet<&NodeId> = placement.replicas.iter().collect();
            let fault = if placement.replicas.len() != self.replica_count() {
                "wrong number of replicas"
            } else if distinct.len() != placement.replicas.len() {
                "a node twice"
            } else if !distinct.iter().all(|id| self.nodes.contains_key(id)) {
                "an unknown node"
            } else if !distinct.contains(&placement.leader) {
                "a leader that is no replica"
            } else {
                continue;
            };
            return Err(TopologyError::BadPlacement(shard, fault));
        }
        Ok(())
    }
}

impl From<Topology> for Encoded {
    fn from(topology: Topology) -> Self {
        Self {
            format: FORMAT,
            epoch: topology.epoch,
            cluster_id: topology.cluster_id,
            shard_count: topology.shard_count,
            replication_factor: topology.replication_factor,
            virtual_nodes: topology.virtual_nodes,
            nodes: topology.nodes.into_values().collect(),
            placements: topology.placements,
        }
    }
}

impl TryFrom<Encoded> for Topology {
    type Error = TopologyError;

    fn try_from(encoded: Encoded) -> Result<Self, TopologyError> {
        if encoded.format != FORMAT {
            return Err(TopologyError::UnknownFormat(encoded.format));
        }
        let topology = Self {
            epoch: encoded.epoch,
            cluster_id: encoded.cluster_id,
            shard_count: encoded.shard_count,
            replication_factor: encoded.replication_factor,
            virtual_nodes: encoded.virtual_nodes,
            nodes: index_nodes(encoded.nodes)?,
            placements: encoded.placements,
        };
        topology.validate_numbers()?;
        topology.validate_placements()?;
        Ok(topology)
    }
}

/// The shards a new cluster gets by default: one for each runtime thread that will lead, so that every
/// core has one to lead and no batch pays for more groups than that; 1..=[`SHARDS_MAX`].
pub fn auto_shard_count(nodes: usize, io_threads: usize) -> u32 {
    let threads = nodes.saturating_mul(io_threads);
    u32::try_from(threads).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX)
}

fn index_nodes(nodes: Vec<ListedNode>) -> Result<BTreeMap<NodeId, ListedNode>, TopologyError> {
    let mut by_id: BTreeMap<NodeId, ListedNode> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for node in nodes {
        validate_node(&node)?;
        if !names.insert(node.name.clone()) {
            return Err(TopologyError::DuplicateName(node.name));
        }
        if let Some(other) = by_id.get(&node.id) {
            return Err(TopologyError::DuplicateId(other.name.clone(), node.name));
        }
        by_id.insert(node.id, node);
    }
    Ok(by_id)
}

fn validate_node(node: &ListedNode) -> Result<(), TopologyError> {
    let is_host = |host: &str| (1..=HOST_BYTES_MAX).contains(&host.len());
    let what = if !(1..=NAME_BYTES_MAX).contains(&node.name.len()) {
        "the name must have 1..=64 bytes"
    } else if !is_host(&node.host) {
        "the host must have 1..=255 bytes"
    } else if !(1..=WEIGHT_MAX).contains(&node.weight) {
        "the weight must be 1..=100"
    } else if node.zone.len() > ZONE_BYTES_MAX {
        "the zone must have at most 64 bytes"
    } else if node.doors.as_ref().is_some_and(|doors| !is_host(&doors.host)) {
        "the announced host must have 1..=255 bytes"
    } else {
        return Ok(());
    };
    Err(TopologyError::BadNode { name: node.name.clone(), what })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::ring::testing::{golden, node, spec, topology};

    fn three() -> Topology {
        topology(16, 3, &[("n1", 1, ""), ("n2", 1, ""), ("n3", 1, "")])
    }

    #[test]
    fn placements_are_golden() {
        let mut text = String::new();
        let mut add = |title: &str, topology: &Topology| {
            writeln!(text, "# {title}").unwrap();
            for (shard, placement) in topology.placements() {
                let name = |id: &NodeId| topology.nodes()[id].name.clone();
                let replicas: Vec<String> = placement.replicas.iter().map(name).collect();
                let (replicas, leader) = (replicas.join(" "), name(&placement.leader));
                writeln!(text, "{shard} {replicas} leader {leader}").unwrap();
            }
        };
        let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
        let flat: Vec<_> = names.iter().map(|name| (*name, 1, "")).collect();
        add("one node, one shard", &topology(1, 3, &flat[..1]));
        add("three nodes, eight shards", &topology(8, 3, &flat[..3]));
        let five = topology(16, 3, &flat[..5]);
        add("five nodes", &five);
        let six = five.with_node(node("n6", 1, "")).unwrap();
        add("then n6 joined", &six);
        add("then n2 left", &six.without_node(NodeId::of_name("n2")).unwrap());
        let zoned: Vec<_> = names
            .iter()
            .zip(["a", "a", "b", "b", "c", "c", "c"])
            .map(|(n, z)| (*n, 1, z))
            .collect();
        add("three zones", &topology(16, 3, &zoned));
        add("weights 1 2 3", &topology(12, 1, &[("n1", 1, ""), ("n2", 2, ""), ("n3", 3, "")]));
        golden!("placements.txt", text);
    }

    #[test]
    fn encoding_is_golden_and_round_trips() {
        let doors = Doors { host: "10.0.0.1".into(), port: 6379, cluster_port: 7379 };
        let original = topology(2, 2, &[("n1", 1, "a"), ("n2", 3, "b")])
            .with_doors(NodeId::of_name("n1"), doors)
            .unwrap();
        let bytes = postcard::to_stdvec(&original).unwrap();
        let mut text = String::new();
        for line in bytes.chunks(32) {
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
        golden!("encoded.txt", text);
        assert_eq!(postcard::from_bytes::<Topology>(&bytes).unwrap(), original);
        for length in 0..bytes.len() {
            assert!(postcard::from_bytes::<Topology>(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn flipped_bits_never_give_a_broken_topology() {
        let bytes = postcard::to_stdvec(&three()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = postcard::from_bytes::<Topology>(&flipped) {
                decoded.validate_placements().unwrap();
                for slot in [0, 8191, 16_383] {
                    decoded.placement(decoded.shard_of(Slot::new(slot).unwrap()));
                }
            }
        }
    }

    #[test]
    fn broken_placements_are_refused() {
        let broken = |change: fn(&mut Encoded)| {
            let mut encoded = Encoded::from(three());
            change(&mut encoded);
            Topology::try_from(encoded).unwrap_err().to_string()
        };
        let known = |change, message: &str| assert_eq!(broken(change), message);
        known(|e| e.format = 2, "topology format 2 is not known here (known: 1)");
        known(|e| e.placements.truncate(15), "15 placements for 16 shards");
        known(
            |e| e.placements[3].leader = NodeId(1),
            "the placement of shard s3 is broken: a leader that is no replica",
        );
        known(
            |e| e.placements[0].replicas[0] = NodeId(1),
            "the placement of shard s0 is broken: an unknown node",
        );
        known(
            |e| e.placements[0].replicas[0] = e.placements[0].replicas[1],
            "the placement of shard s0 is broken: a node twice",
        );
        known(
            |e| e.placements[0].replicas.truncate(2),
            "the placement of shard s0 is broken: wrong number of replicas",
        );
    }

    #[test]
    fn every_slot_belongs_to_one_shard() {
        for shards in [1, 2, 3, 5, 7, 16, 100, 255, 256, 1000, 1023, 1024] {
            let topology = topology(shards, 1, &[("n1", 1, "")]);
            let mut next = 0;
            let mut lengths = Vec::new();
            for (shard, _) in topology.placements() {
                let slots = topology.slots_of(shard);
                assert_eq!(u32::from(*slots.start()), next, "{shards} shards, {shard}");
                for slot in slots.clone() {
                    assert_eq!(topology.shard_of(Slot::new(slot).unwrap()), shard);
                }
                lengths.push(slots.len());
                next = u32::from(*slots.end()) + 1;
            }
            assert_eq!(next, 16_384);
            assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn bad_specs_are_refused() {
        let check = |shards, replicas, virtual_nodes, nodes, message: &str| {
            let spec = TopologySpec { virtual_nodes, ..spec(shards, replicas, nodes) };
            assert_eq!(Topology::new(spec).unwrap_err().to_string(), message);
        };
        let n1 = || node("n1", 1, "");
        check(16, 3, 128, vec![], "a cluster needs at least one node");
        check(0, 3, 128, vec![n1()], "the number of shards must be 1..=1024, not 0");
        check(1025, 3, 128, vec![n1()], "the number of shards must be 1..=1024, not 1025");
        check(16, 0, 128, vec![n1()], "the replication factor must be 1..=9, not 0");
        check(16, 3, 0, vec![n1()], "virtual nodes must be 1..=1024, not 0");
        check(16, 3, 128, vec![n1(), n1()], "node \"n1\" is named twice");
        let impostor = ListedNode { id: NodeId::of_name("n1"), ..node("n2", 1, "") };
        check(16, 3, 128, vec![n1(), impostor], "nodes \"n1\" and \"n2\" have the same id");
        check(1, 1, 1, vec![node("n1", 0, "")], "node \"n1\": the weight must be 1..=100");
        check(1, 1, 1, vec![node("", 1, "")], "node \"\": the name must have 1..=64 bytes");
        let long = node("n1", 1, &"z".repeat(65));
        check(1, 1, 1, vec![long], "node \"n1\": the zone must have at most 64 bytes");
        let heavy: Vec<ListedNode> = (0..11).map(|i| node(&format!("n{i}"), 100, "")).collect();
        check(1, 1, 1024, heavy, "virtual nodes times weights are 1126400: at most 1048576");
        let many: Vec<ListedNode> = (0..257).map(|i| node(&format!("n{i}"), 1, "")).collect();
        check(1, 1, 1, many, "257 nodes are too many: at most 256");
    }

    #[test]
    fn the_epoch_counts_changes_only() {
        let first = three();
        let (id, doors) =
            (NodeId::of_name("n2"), Doors { host: "h".to_owned(), port: 6379, cluster_port: 7379 });
        assert_eq!(first.epoch(), 1);
        let second = first.with_doors(id, doors.clone()).unwrap();
        assert_eq!((second.epoch(), second.node(id).unwrap().doors.as_ref()), (2, Some(&doors)));
        assert_eq!(second.with_doors(id, doors.clone()).unwrap(), second);
        assert_eq!(second.with_node(node("n4", 1, "")).unwrap().epoch(), 3);
        assert_eq!(second.without_node(id).unwrap().epoch(), 3);
        let unknown = TopologyError::UnknownNode(NodeId(5));
        assert_eq!(first.with_doors(NodeId(5), doors).unwrap_err(), unknown);
        assert_eq!(first.without_node(NodeId(5)).unwrap_err(), unknown);
        let last = topology(4, 3, &[("n1", 1, "")]);
        assert_eq!(last.without_node(NodeId::of_name("n1")).unwrap_err(), TopologyError::NoNodes);
        let error = first.with_node(node("n1", 1, "")).unwrap_err();
        assert_eq!(error, TopologyError::DuplicateName("n1".to_owned()));
        let end = Topology { epoch: u64::MAX, ..first };
        assert_eq!(end.without_node(id).unwrap_err(), TopologyError::EpochExhausted);
    }

    #[test]
    fn auto_shards_are_one_per_thread() {
        for (nodes, threads, shards) in
            [(3, 1, 3), (3, 8, 24), (0, 4, 1), (200, 64, 1024), (usize::MAX, 2, 1024)]
        {
            assert_eq!(auto_shard_count(nodes, threads), shards);
        }
    }
}
