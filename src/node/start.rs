//! How a node comes to be: its directory, its log, its peers, the meta group, then the shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::MissedTickBehavior;

use super::leaders;
use super::node::{Node, Parts};
use super::upkeep;
use crate::command::Registry;
use crate::config::{AppendFsync, Config, Options, ReadConsistency};
use crate::ids::{ClusterId, GroupId, Holder, Incarnation, NodeId, RaftId, ShardId};
use crate::meta::{self, Command, TopologyMachine};
use crate::raft::{
    Group, GroupOptions, Leadership, ProposalFate, SnapshotStore, StartError, Timing,
};
use crate::ring::{
    Doors, Node as RingNode, NodeSpec, NodeSpecError, Topology, TopologyError, TopologySpec,
    VIRTUAL_NODES_DEFAULT, auto_shard_count,
};
use crate::shard::{self, Shard, ShardOptions};
use crate::stdx::clock::Clock;
use crate::transport::{
    BindError, Credentials, Door, Doorkeeper, Handler, LocalIdentity, Meant, Message, PeerClient,
    PeerIdentity, PeerOptions, PeerServer, Peers, Refusal, Responder, Side, Verdict,
};
use crate::wal::{DataDir, SyncPolicy, Wal, WalError, WalOptions, snapshot_file};

/// The clock of all groups.
const TIMING: Timing = Timing::DEFAULT;

/// How often groups look whether a heartbeat or a campaign is due.
const BEAT: Duration = Duration::from_millis(50);

/// Voters of the meta group at most: more would only slow its few decisions.
const META_VOTERS_MAX: usize = 5;

/// How long a replica waits for the one that should begin its group before it begins it itself.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);

/// How long one try at the meta leader may take, and the pause before the next.
const META_TIMEOUT: Duration = Duration::from_secs(2);
const META_PAUSE: Duration = Duration::from_millis(50);

/// Why a node cannot start: one line that says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its data cannot be used.
    #[error(transparent)]
    Data(#[from] WalError),
    /// A group's data cannot be used.
    #[error(transparent)]
    Group(#[from] StartError),
    /// `cluster-nodes` is wrong.
    #[error("cluster-nodes: {0}")]
    Nodes(#[from] NodeSpecError),
    /// The cluster described cannot be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The peer port is taken.
    #[error("{0}: {source}", source = .0.source)]
    Bind(BindError),
    /// The log failed while the node started.
    #[error(transparent)]
    Log(#[from] Arc<WalError>),
    /// A thread of the node has ended.
    #[error("a runtime of the node has stopped")]
    Runtime,
}

/// What a node is started from.
#[derive(Debug)]
pub struct NodeOptions {
    /// The configuration.
    pub config: Arc<Config>,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub seed: u64,
    /// The runtimes that shards live on, this one first.
    pub runtimes: Vec<tokio::runtime::Handle>,
    /// Where clients find this node, as the cluster shall announce it.
    pub doors: Doors,
    /// Every command there is.
    pub registry: Registry,
}

/// A started node and what must be stopped with it.
#[derive(Debug)]
pub struct Started {
    /// The node.
    pub node: Arc<Node>,
    peer_server: PeerServer,
    data_dir: DataDir,
}

impl Started {
    /// Hands the leads of this node over to others, as far as that goes at once. Clients are still served.
    pub async fn hand_over_leads(&self) {
        leaders::hand_over_all(&self.node).await;
    }

    /// Stops the replicas, then the log, so that the next start finds everything.
    pub async fn stop(self) {
        for shard in self.node.shards() {
            shard.stop().await;
        }
        if let Some(meta) = self.node.meta() {
            meta.stop().await;
        }
        self.peer_server.close();
        let wal = self.node.wal().clone();
        let data_dir = self.data_dir;
        // The directory may be moved only once its log has ended in order.
        let close = move || wal.close().map(|()| data_dir.close());
        match tokio::task::spawn_blocking(close).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the stop could not be noted"),
            Ok(Err(error)) => tracing::error!(%error, "the log did not close cleanly"),
            Err(error) => tracing::error!(%error, "the log did not close"),
        }
    }
}

/// Starts the node: returns when its shards are running here, whether or not they have leaders yet.
///
/// # Errors
/// [`NodeError`] when its data or its configuration cannot be used.
pub async fn start(options: NodeOptions) -> Result<Started, NodeError> {
    let ground = Ground::lay(&options.config, options.seed).await?;
    // Meta first: it says what the shards are.
    let meta_machine = Arc::new(TopologyMachine::new());
    let meta = ground.start_meta(&meta_machine).await?;
    let seed_topology = ground.seed_topology(options.runtimes.len())?;
    let topology = match &meta {
        Some(meta) => first_topology(meta, &meta_machine, seed_topology).await,
        None => ground.fetched_topology().await,
    };
    let shards = ground.start_shards(&topology, &options).await?;
    let node = Node::new(Parts {
        name: ground.config.node_id.clone(),
        epoch: ground.data_dir.session().number,
        config: Arc::clone(&options.config),
        clock: options.clock,
        wal: ground.wal,
        peers: ground.peers,
        meta,
        topology,
        shards,
        seed: options.seed,
        registry: options.registry,
    });
    upkeep::spawn(&node, &meta_machine, options.doors, TIMING);
    Ok(Started { node, peer_server: ground.peer_server, data_dir: ground.data_dir })
}

/// What every group of the node stands on.
struct Ground {
    config: Arc<Options>,
    id: NodeId,
    members: Vec<RingNode>,
    cluster: ClusterId,
    data_dir: DataDir,
    wal: Wal,
    peers: Peers,
    peer_server: PeerServer,
    switchboard: Arc<Switchboard>,
    seed: u64,
}

impl Ground {
    /// Opens the data directory and the log, and begins to listen and connect to peers.
    async fn lay(config: &Config, seed: u64) -> Result<Self, NodeError> {
        let config = config.options();
        let id = NodeId::of_name(&config.node_id);
        let members = members(&config.node_id, &config.cluster_nodes, config.peer_port)?;
        let is_sole = members.len() == 1;
        let data_dir = DataDir::open(&config.dir, &config.node_id, &mut entropy(seed), is_sole)?;
        snapshot_file::remove_strays(&data_dir.snapshot_path())?;
        let wal = open_wal(&data_dir, &config)?;

        // Whoever is not meant is refused before any message: nodes of another cluster, or without the secret.
        let cluster = cluster_of(&members);
        let door = door(&config, cluster, &members, &data_dir, seed);
        if members.len() > 1 && !config.cluster_secret.is_set() {
            tracing::warn!(
                "peers are not authenticated: whoever reaches peer-port reads and writes everything; \
                 give every node the same long, random cluster-secret"
            );
        }
        let switchboard = Arc::new(Switchboard::default());
        tokio::spawn(keep_time(Arc::clone(&switchboard)));
        let handler = Arc::clone(&switchboard) as Arc<dyn Handler>;
        let peer_server =
            PeerServer::bind(&peer_address(&config, members.len()), door.clone(), handler)
                .await
                .map_err(NodeError::Bind)?;
        let peers = Peers::new();
        for member in members.iter().filter(|member| member.id != id) {
            let meant = Meant { node: member.id, incarnation: Incarnation::NONE };
            let addresses = vec![joined(&member.host, member.peer_port)];
            peers.insert(PeerClient::new(PeerOptions { door: door.clone(), meant, addresses }));
        }
        Ok(Self {
            config,
            id,
            members,
            cluster,
            data_dir,
            wal,
            peers,
            peer_server,
            switchboard,
            seed,
        })
    }

    fn group_options(&self, group: GroupId) -> GroupOptions {
        GroupOptions {
            group,
            id: replica_on(self.id).0,
            holder: replica_on(self.id).1,
            wal: self.wal.clone(),
            recovered: self.wal.known(group),
            snapshots: SnapshotStore::new(self.data_dir.snapshot_path(), group),
            is_short: false,
            peers: self.peers.clone(),
            timing: TIMING,
            seed: self.seed ^ u64::from(group.0).rotate_left(48),
        }
    }

    /// The replica of the meta group, where this node has one.
    async fn start_meta(
        &self,
        machine: &Arc<TopologyMachine>,
    ) -> Result<Option<Group<TopologyMachine>>, NodeError> {
        let voters: BTreeMap<RaftId, Holder> =
            self.members.iter().take(META_VOTERS_MAX).map(|member| replica_on(member.id)).collect();
        let meta = if voters.values().any(|holder| holder.node == self.id) {
            let options = self.group_options(GroupId::META);
            give_birth(&options).await?;
            let group = Group::start(options, Arc::clone(machine)).await?;
            let begins = self.members.first().is_some_and(|first| first.id == self.id);
            tokio::spawn(begin(group.clone(), voters, begins));
            Some(group)
        } else {
            None
        };
        self.switchboard.set_meta(meta.clone());
        Ok(meta)
    }

    /// The topology of a cluster of the configured nodes that begins now.
    fn seed_topology(&self, threads: usize) -> Result<Topology, NodeError> {
        fresh_topology(&self.config, self.members.clone(), self.cluster, threads)
    }

    /// The topology as a voter of meta has it, for a node that is none.
    async fn fetched_topology(&self) -> Arc<Topology> {
        loop {
            for voter in self.members.iter().take(META_VOTERS_MAX) {
                if let Some(peer) = self.peers.get(voter.id)
                    && let Some(topology) = fetch(&peer).await
                {
                    return Arc::new(topology);
                }
            }
            tokio::time::sleep(META_PAUSE).await;
        }
    }

    /// All shards of the cluster, with replicas of those placed here, each on a runtime of its own choice.
    async fn start_shards(
        &self,
        topology: &Topology,
        options: &NodeOptions,
    ) -> Result<Vec<Arc<Shard>>, NodeError> {
        let shards: Vec<Arc<Shard>> = topology
            .placements()
            .map(|(shard, placement)| {
                Shard::new(ShardOptions {
                    shard,
                    slots: topology.slots_of(shard),
                    node: self.id,
                    epoch: self.data_dir.session().number,
                    replicas: placement.replicas.clone(),
                    read_consistency: match self.config.read_consistency {
                        ReadConsistency::Lease => shard::ReadConsistency::Lease,
                        ReadConsistency::Quorum => shard::ReadConsistency::Quorum,
                    },
                    peers: self.peers.clone(),
                    clock: Arc::clone(&options.clock),
                    seed: options.seed ^ u64::from(shard.0).rotate_left(32),
                })
            })
            .collect();
        self.switchboard.set_shards(shards.clone());
        for (shard, runtime) in shards.iter().zip(options.runtimes.iter().cycle()) {
            let begins = topology.preferred_leader(shard.id()) == self.id;
            let group = self.group_options(GroupId::of_shard(shard.id()));
            let starting = runtime.spawn(start_shard(Arc::clone(shard), group, begins));
            starting.await.map_err(|_| NodeError::Runtime)??;
        }
        Ok(shards)
    }
}

/// Starts a shard on the current runtime.
async fn start_shard(
    shard: Arc<Shard>,
    group: GroupOptions,
    begins: bool,
) -> Result<(), NodeError> {
    if shard.replicas().contains(&group.holder.node) {
        give_birth(&group).await?;
        shard.start_replica(group).await?;
        let beginner = Arc::clone(&shard);
        let members = shard.replicas().iter().map(|node| replica_on(*node)).collect();
        tokio::spawn(async move { beginner.begin(members, begins, BEGIN_PATIENCE).await });
    }
    tokio::spawn(shard.run());
    Ok(())
}

/// Lets the log know the replica, where it does not yet.
async fn give_birth(options: &GroupOptions) -> Result<(), NodeError> {
    Ok(options.wal.born(options.group, options.id).await?)
}

/// Random bits that no other start has, a word at a time: the machine's, through the keys of std's hasher, and `seed`.
fn entropy(seed: u64) -> impl FnMut() -> u64 {
    let keys = std::hash::RandomState::new();
    let mut count = 0u64;
    move || {
        count += 1;
        std::hash::BuildHasher::hash_one(&keys, (seed, count))
    }
}

/// The replica of any group on `node`, and where it lies: by the node's name as long as meta gives out no ids.
fn replica_on(node: NodeId) -> (RaftId, Holder) {
    (RaftId(node.0), Holder { node, incarnation: Incarnation(u128::from(node.0)) })
}

fn open_wal(data_dir: &DataDir, config: &Options) -> Result<Wal, WalError> {
    let sync = match config.appendfsync {
        AppendFsync::Always => SyncPolicy::Always,
        AppendFsync::Everysec => SyncPolicy::EverySecond,
        AppendFsync::No => SyncPolicy::Never,
    };
    let options = WalOptions {
        sync,
        sync_mark: config.wal_sync_mark,
        incarnation: data_dir.incarnation(),
        session: data_dir.session(),
        boot_id: data_dir.boot_id(),
        ..WalOptions::default()
    };
    Ok(Wal::open(&data_dir.wal_path(), options)?.0)
}

/// Where peers are listened for: a node alone has none, and takes any port that nobody else can reach.
fn peer_address(config: &Options, members: usize) -> String {
    if members > 1 {
        joined(&config.bind[0].ip.to_string(), config.peer_port)
    } else {
        joined("127.0.0.1", 0)
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The topology that a cluster of this configuration begins with, on nodes with `threads` threads each.
///
/// # Errors
/// [`NodeError::Nodes`] and [`NodeError::Topology`] when the configuration describes none.
pub fn planned_topology(config: &Options, threads: usize) -> Result<Topology, NodeError> {
    let members = members(&config.node_id, &config.cluster_nodes, config.peer_port)?;
    let cluster = cluster_of(&members);
    fresh_topology(config, members, cluster, threads)
}

fn fresh_topology(
    config: &Options,
    members: Vec<RingNode>,
    cluster: ClusterId,
    threads: usize,
) -> Result<Topology, NodeError> {
    let shard_count =
        config.cluster_shards.map_or_else(|| auto_shard_count(members.len(), threads), u32::from);
    Ok(Topology::new(TopologySpec {
        cluster_id: cluster.0,
        shard_count,
        replication_factor: config.replication_factor,
        virtual_nodes: VIRTUAL_NODES_DEFAULT,
        nodes: members,
    })?)
}

/// The nodes of the cluster by name; this one alone when `cluster_nodes` is empty.
fn members(name: &str, cluster_nodes: &str, peer_port: u16) -> Result<Vec<RingNode>, NodeError> {
    let mut members: Vec<RingNode> = if cluster_nodes.is_empty() {
        vec![RingNode {
            id: NodeId::of_name(name),
            name: name.to_string(),
            host: "127.0.0.1".to_string(),
            peer_port,
            weight: 1,
            zone: String::new(),
            doors: None,
        }]
    } else {
        NodeSpec::parse_list(cluster_nodes)?.into_iter().map(NodeSpec::into_node).collect()
    };
    members.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(members)
}

/// The cluster of these nodes: a hash of their names, which is public and opens no door. Addresses may differ by the
/// point of view.
fn cluster_of(members: &[RingNode]) -> ClusterId {
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    ClusterId(xxhash_rust::xxh3::xxh3_64(names.join(" ").as_bytes()))
}

/// This node's way to meet its peers.
fn door(
    config: &Options,
    cluster: ClusterId,
    members: &[RingNode],
    data_dir: &DataDir,
    seed: u64,
) -> Door {
    let session = data_dir.session();
    let identity = PeerIdentity::new(cluster, &config.node_id, data_dir.incarnation(), session);
    let local = LocalIdentity::new(identity);
    // The session is drawn at random: nonces would not repeat even if the seed did.
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&seed.to_le_bytes());
    entropy[8..16].copy_from_slice(&session.random.to_le_bytes());
    entropy[16..24].copy_from_slice(&NodeId::of_name(&config.node_id).0.to_le_bytes());
    let credentials = Credentials::new(config.cluster_secret.expose().as_bytes(), entropy);
    let nodes = members.iter().map(|member| member.id).collect();
    Door { local, credentials, keeper: Arc::new(MembersOnly { cluster, nodes }) }
}

/// Lets in the configured nodes of the cluster.
struct MembersOnly {
    cluster: ClusterId,
    nodes: BTreeSet<NodeId>,
}

impl Doorkeeper for MembersOnly {
    fn judge(&self, who: &PeerIdentity, _meant: Option<&Meant>, _side: Side) -> Verdict {
        if who.cluster == self.cluster && self.nodes.contains(&who.node) {
            Verdict::Member
        } else {
            Verdict::Refuse(Refusal::OtherCluster)
        }
    }
}

/// Gives a group without history its first members: at once where it `begins`, elsewhere only when nobody
/// else has for a while. All give it the same ones, so it does not matter who comes first.
async fn begin(group: Group<TopologyMachine>, voters: BTreeMap<RaftId, Holder>, begins: bool) {
    if !begins {
        let known = group.wait_for_leadership(|leadership| leadership != Leadership::Unknown);
        if tokio::time::timeout(BEGIN_PATIENCE, known).await.is_ok() {
            return;
        }
    }
    if let Err(error) = group.initialize(voters).await {
        tracing::error!(group = %group.id(), %error, "cannot begin the group");
    }
}

/// The topology as the meta group has it; its first leader creates it.
async fn first_topology(
    meta: &Group<TopologyMachine>,
    machine: &TopologyMachine,
    seed: Topology,
) -> Arc<Topology> {
    let mut latest = machine.watch();
    let create = Command::Create(Box::new(seed)).encode();
    loop {
        if let Some(topology) = latest.borrow_and_update().clone() {
            return topology;
        }
        if meta.leadership() == Leadership::Here {
            propose(meta, create.clone()).await;
        }
        // Whether it changed, this node came to lead, or neither: look again.
        let _changed = tokio::time::timeout(META_PAUSE, latest.changed()).await;
    }
}

/// Asks `peer` for the topology.
pub(super) async fn fetch(peer: &PeerClient) -> Option<Topology> {
    let answer =
        peer.call(GroupId::META, meta::kind::FETCH, Bytes::new(), META_TIMEOUT).await.ok()?;
    match Command::decode(&answer).ok()? {
        Command::Create(topology) => Some(*topology),
        Command::SetDoors { .. } => None,
    }
}

/// Proposes to the meta group and waits for the outcome; true when it is applied.
pub(super) async fn propose(meta: &Group<TopologyMachine>, command: Bytes) -> bool {
    let (done, fate) = tokio::sync::oneshot::channel();
    let report = move |fate| {
        // Nobody waits any more when the node is stopping.
        let _unheard = done.send(fate);
    };
    if meta.propose(command, report).await.is_err() {
        return false;
    }
    matches!(tokio::time::timeout(META_TIMEOUT, fate).await, Ok(Ok(ProposalFate::Applied)))
}

/// Drives the elections and heartbeats of all groups together, from the first group on.
async fn keep_time(switchboard: Arc<Switchboard>) {
    let mut timer = tokio::time::interval(BEAT);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if let Some(Some(meta)) = switchboard.meta.get() {
            meta.tick().await;
        }
        for shard in switchboard.shards.get().into_iter().flatten() {
            shard.keep_time().await;
        }
    }
}

/// The groups of this node, as messages from peers and the clock find them.
#[derive(Debug, Default)]
struct Switchboard {
    meta: OnceLock<Option<Group<TopologyMachine>>>,
    shards: OnceLock<Vec<Arc<Shard>>>,
}

impl Switchboard {
    fn set_meta(&self, meta: Option<Group<TopologyMachine>>) {
        let is_first = self.meta.set(meta).is_ok();
        debug_assert!(is_first, "set once, while starting");
    }

    fn set_shards(&self, shards: Vec<Arc<Shard>>) {
        let is_first = self.shards.set(shards).is_ok();
        debug_assert!(is_first, "set once, while starting");
    }

    fn handle_meta(&self, message: Message, responder: Responder) {
        let Some(Some(meta)) = self.meta.get() else { return };
        if message.kind == meta::kind::FETCH {
            if let Some(topology) = meta.machine().latest() {
                responder.send(Command::Create(Box::new((*topology).clone())).encode());
            }
            return;
        }
        if message.kind != meta::kind::PROPOSE {
            return meta.handle(message, responder);
        }
        if Command::decode(&message.body).is_err() || meta.leadership() != Leadership::Here {
            return; // Unanswered: the sender asks somebody else.
        }
        let meta = meta.clone();
        tokio::spawn(async move {
            if propose(&meta, message.body).await {
                responder.send(Bytes::new());
            }
        });
    }
}

impl Handler for Switchboard {
    fn handle(&self, message: Message, responder: Responder) {
        if message.group == GroupId::META {
            return self.handle_meta(message, responder);
        }
        // Before the shards are there nobody answers, and the sender tries again.
        let Some(shards) = self.shards.get() else { return };
        let index = ShardId(message.group.0 - 1).0 as usize;
        if let Some(shard) = shards.get(index) {
            shard.handle(message, responder);
        }
    }
}
