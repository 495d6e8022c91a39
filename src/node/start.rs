//! How a node comes to be: its directory, its log, its peers, its cluster, then the replicas that lie in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::admission::{Admission, Sightings};
use super::birth::{self, Newcomer};
use super::doorkeeper::Judge;
use super::error::NodeError;
use super::leaders;
use super::membership::Membership;
use super::node::{Node, Parts};
use super::progress::Progress;
use super::residence::{Residence, TIMING};
use super::sizes::Sizes;
use super::switchboard::{Gate, Myself, Switchboard};
use super::upkeep;
use crate::command::Registry;
use crate::config::{AppendFsync, Config, Options, ReadConsistency};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId, RaftId};
use crate::meta::Cluster;
use crate::raft::on;
use crate::ring::{
    Doors, ListedNode, NodeSpec, Topology, TopologySpec, VIRTUAL_NODES_DEFAULT, auto_shard_count,
};
use crate::shard::{self, Shard, ShardOptions};
use crate::stdx::clock::Clock;
use crate::stdx::disk::Disk;
use crate::stdx::entropy::Entropy;
use crate::stdx::memory::Budget;
use crate::stdx::workers::{Work, Workers};
use crate::transport::{
    self, Credentials, Door, Handler, LocalIdentity, Meant, Net, PeerClient, PeerIdentity,
    PeerOptions, PeerServer, Peers,
};
use crate::wal::{
    BootId, Claim, DataDir, GroupState, Stepper, SyncPolicy, Wal, WalError, WalOptions,
};

/// How long a replica waits for the one that should begin its group before it begins it itself.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);

/// What a node is started from.
#[derive(Debug)]
pub struct NodeOptions {
    /// The configuration.
    pub config: Arc<Config>,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// The disk its data directory lies on.
    pub disk: Arc<dyn Disk>,
    /// The network it finds its peers on.
    pub net: Net,
    /// Who does what blocks.
    pub workers: Arc<dyn Workers>,
    /// Who works for its log.
    pub log: LogWork,
    /// Random bits that nobody can guess.
    pub entropy: Entropy,
    /// This start of the machine; `None` counts as another one than any before.
    pub boot_id: Option<BootId>,
    /// When it cuts logs, takes snapshots and moves work elsewhere.
    pub sizes: Sizes,
    /// The runtimes that shards live on, this one first.
    pub runtimes: Vec<Handle>,
    /// Where clients find this node, as the cluster shall announce it.
    pub doors: Doors,
    /// What the door for peers may hold.
    pub peer_limits: transport::Limits,
    /// Every command there is.
    pub registry: Registry,
    /// Where it says what it waits for.
    pub progress: Arc<Progress>,
}

/// Who writes and syncs the log beside its callers.
#[derive(Debug, Default)]
pub enum LogWork {
    /// Threads of its own.
    #[default]
    Threads,
    /// Whoever hears this, step by step.
    Steps(mpsc::Sender<Stepper>),
}

/// A started node and what must be stopped with it.
#[derive(Debug)]
pub struct Started {
    /// The node.
    pub node: Arc<Node>,
    peer_server: PeerServer,
    data_dir: Arc<Mutex<DataDir>>,
    workers: Arc<dyn Workers>,
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
        self.node.meta().stop().await;
        self.peer_server.close();
        let wal = self.node.wal().clone();
        let (closed, closing) = (wal.closed(), wal.clone());
        if let Err(error) = on(&*self.workers, Work::Disk, move || closing.close()).await {
            tracing::error!(%error, "the log did not close");
            return;
        }
        closed.await;
        if let Some(error) = wal.failure() {
            tracing::error!(%error, "the log did not close cleanly");
            return;
        }
        // The directory may be moved only once its log has ended in order.
        let data_dir = self.data_dir;
        match on(&*self.workers, Work::Disk, move || data_dir.lock().note_stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the stop could not be noted"),
            Err(error) => tracing::error!(%error, "the stop was not noted"),
        }
    }
}

/// Starts the node: returns when the replicas in its directory are running, whether or not they have leaders yet. Its
/// clients' doors may open once `options.progress` says so.
///
/// # Errors
/// [`NodeError`] when its data or its configuration cannot be used.
///
/// # Panics
/// When the sizes contradict each other.
pub async fn start(mut options: NodeOptions) -> Result<Started, NodeError> {
    assert!(options.sizes.is_sound(), "{:?}", options.sizes);
    let ground = Ground::lay(&mut options).await?;
    let (cluster, born) = ground.enter(&mut options).await?;
    let shards = ground.shards(&cluster, &options);
    ground.switchboard.set_shards(shards.clone());
    let (starts, snapshots) = {
        let data_dir = ground.data_dir.lock();
        (data_dir.starts().to_vec(), data_dir.snapshots())
    };
    let residence = Arc::new(Residence {
        myself: ground.myself.clone(),
        data_dir: Arc::clone(&ground.data_dir),
        starts,
        clock: Arc::clone(&options.clock),
        budget: Arc::clone(&ground.budget),
        snapshots,
        wal: ground.wal.clone(),
        recovered: ground.recovered,
        peers: ground.peers.clone(),
        switchboard: Arc::clone(&ground.switchboard),
        workers: Arc::clone(&options.workers),
        sizes: options.sizes.raft,
        runtimes: options.runtimes.clone(),
        seed: ground.seed,
    });
    residence.start_all(born).await?;
    // What the directory adopted says nothing of what has happened since; its log does.
    let has_begun = !birth::is_at_birth(&cluster) || residence.has_history();
    for (number, runtime) in options.runtimes.iter().enumerate() {
        let own = shards.iter().skip(number).step_by(options.runtimes.len());
        let own: Vec<Arc<Shard>> = own.map(Arc::clone).collect();
        for shard in &own {
            runtime.spawn(Arc::clone(shard).run());
        }
        runtime.spawn(upkeep::tick_shards(own));
    }
    let node = Node::new(Parts {
        myself: ground.myself.clone(),
        config: Arc::clone(&options.config),
        clock: options.clock,
        wal: ground.wal,
        peers: ground.peers.clone(),
        switchboard: Arc::clone(&ground.switchboard),
        progress: Arc::clone(&options.progress),
        topology: Arc::clone(cluster.topology()),
        seed: ground.seed,
        budget: ground.budget,
        registry: options.registry,
    });
    let sightings = Arc::new(Sightings::default());
    ground.switchboard.set_gate(Arc::new(Admission {
        me: ground.myself.node,
        switchboard: Arc::clone(&ground.switchboard),
        sightings: Arc::clone(&sightings),
    }) as Arc<dyn Gate>);
    let membership = Arc::new(Membership {
        myself: ground.myself.clone(),
        residence,
        switchboard: Arc::clone(&ground.switchboard),
        peers: ground.peers,
        progress: options.progress,
        sightings,
        doors: options.doors,
        has_begun: AtomicBool::new(has_begun),
        has_heard: AtomicBool::new(false),
        is_noted: AtomicBool::new(false),
        stir: Notify::new(),
        done: Mutex::default(),
    });
    if birth::is_at_birth(&cluster) {
        tokio::spawn(begin_groups(Arc::clone(&membership), cluster, ground.myself));
    }
    upkeep::spawn(&node, membership, TIMING, options.sizes.log_bytes_max);
    Ok(Started {
        node,
        peer_server: ground.peer_server,
        data_dir: ground.data_dir,
        workers: options.workers,
    })
}

/// What every group of the node stands on.
struct Ground {
    config: Arc<Options>,
    myself: Myself,
    /// The nodes of `cluster-nodes` by name, or this one alone.
    listed: Vec<ListedNode>,
    door: Door,
    data_dir: Arc<Mutex<DataDir>>,
    budget: Arc<Budget>,
    wal: Wal,
    recovered: BTreeMap<GroupId, GroupState>,
    peers: Peers,
    peer_server: PeerServer,
    switchboard: Arc<Switchboard>,
    seed: u64,
}

impl Ground {
    /// Opens the data directory and the log, and begins to listen and connect to peers.
    async fn lay(options: &mut NodeOptions) -> Result<Self, NodeError> {
        let config = options.config.options();
        let id = NodeId::of_name(&config.node_id);
        let listed = members(&config.node_id, &config.cluster_nodes, config.peer_port)?;
        // What it meets others with, what its own randomness begins with, then what a new directory needs.
        let secrets = options.entropy.draw_bytes();
        let seed = options.entropy.draw();
        let data_dir = {
            let claim = Claim {
                node_name: &config.node_id,
                is_sole: listed.len() == 1,
                boot_id: options.boot_id,
            };
            let mut draw = || options.entropy.draw();
            DataDir::open(Arc::clone(&options.disk), &config.dir, claim, &mut draw)?
        };
        data_dir.snapshots().remove_strays()?;
        let record = data_dir.adopted();
        let known = record.as_deref().map(birth::adopted).transpose()?;
        let is_alone = listed.len() == 1
            && known.as_ref().is_none_or(|cluster| cluster.topology().nodes().len() == 1);
        let nonce = options.entropy.draw();
        let drawn = (nonce, options.sizes.segment_bytes);
        let wal_options = wal_options(&data_dir, &config, drawn, is_alone);
        let log = std::mem::take(&mut options.log);
        let (wal, recovered) = open_wal(&data_dir, wal_options, log)?;
        let myself = Myself {
            name: config.node_id.clone(),
            node: id,
            incarnation: data_dir.incarnation(),
            session: data_dir.session(),
        };
        let switchboard = Switchboard::new();
        let maxmemory = config.maxmemory;
        if let Some(cluster) = &known {
            switchboard.meta().learn(cluster);
        }
        let cluster = known.as_ref().map_or(ClusterId::NONE, |cluster| cluster.id());
        let Myself { name, incarnation, session, .. } = &myself;
        let identity = LocalIdentity::new(PeerIdentity::new(cluster, name, *incarnation, *session));
        let judge = Arc::new(Judge { switchboard: Arc::clone(&switchboard) });
        tokio::spawn(upkeep::keep_time(Arc::clone(&switchboard)));
        let handler = Arc::clone(&switchboard) as Arc<dyn Handler>;
        let secret = config.cluster_secret.expose().as_bytes();
        let credentials = Credentials::new(secret, secrets);
        let net = options.net.clone();
        let door = Door { local: identity, credentials, keeper: judge, net };
        let address = peer_address(&config, listed.len());
        if listed.len() > 1 && !config.cluster_secret.is_set() {
            tracing::warn!(
                "peers are not authenticated: whoever reaches peer-port reads and writes everything; give every node the same long, random cluster-secret"
            );
        }
        let limits = options.peer_limits;
        let peer_server = PeerServer::bind_with_limits(&address, door.clone(), limits, handler);
        let peer_server = peer_server.await.map_err(NodeError::Bind)?;
        let peers = Peers::new();
        for member in listed.iter().filter(|member| member.id != id) {
            peers.insert(PeerClient::new(PeerOptions {
                door: door.clone(),
                meant: Meant { node: member.id, incarnation: Incarnation::NONE },
                addresses: vec![joined(&member.host, member.peer_port)],
            }));
        }
        Ok(Self {
            config,
            myself,
            listed,
            door,
            data_dir: Arc::new(Mutex::new(data_dir)),
            budget: Arc::new(Budget::of(maxmemory)),
            wal,
            recovered,
            peers,
            peer_server,
            switchboard,
            seed,
        })
    }

    /// The cluster this directory belongs to, and the replicas it was given just now; waits for one when it is empty.
    async fn enter(
        &self,
        options: &mut NodeOptions,
    ) -> Result<(Arc<Cluster>, BTreeMap<GroupId, RaftId>), NodeError> {
        if let Some(cluster) = self.switchboard.cluster() {
            return Ok((cluster, BTreeMap::new()));
        }
        let held = self.recovered.iter().filter_map(|(group, it)| Some((*group, it.raft_id?)));
        let held = held.collect();
        let newcomer = Newcomer {
            myself: &self.myself,
            listed: &self.listed,
            peers: &self.peers,
            data_dir: &self.data_dir,
            wal: &self.wal,
            workers: &*options.workers,
            held: &held,
            switchboard: &self.switchboard,
            identity: &self.door.local,
            progress: &options.progress,
        };
        let threads = options.runtimes.len();
        let draw = |id| fresh_topology(&self.config, self.listed.clone(), id, threads);
        let cluster = newcomer.enter(draw, &mut options.entropy).await?;
        let born = if birth::is_at_birth(&cluster) {
            cluster.assigned_to(self.myself.incarnation)
        } else {
            BTreeMap::new()
        };
        Ok((cluster, born))
    }

    /// All shards of the cluster, without replicas yet.
    fn shards(&self, cluster: &Cluster, options: &NodeOptions) -> Vec<Arc<Shard>> {
        let topology = cluster.topology();
        let shard = |(shard, placement): (crate::ids::ShardId, &crate::ring::Placement)| {
            Shard::new(ShardOptions {
                shard,
                slots: topology.slots_of(shard),
                hash_key: cluster.hash_key(),
                node: self.myself.node,
                incarnation: self.myself.incarnation,
                session: self.myself.session,
                replicas: placement.replicas.clone(),
                read_consistency: match self.config.read_consistency {
                    ReadConsistency::Lease => shard::ReadConsistency::Lease,
                    ReadConsistency::Quorum => shard::ReadConsistency::Quorum,
                },
                peers: self.peers.clone(),
                clock: Arc::clone(&options.clock),
                workers: Arc::clone(&options.workers),
                sizes: options.sizes.shard,
                seed: self.seed ^ u64::from(shard.0).rotate_left(32),
            })
        };
        topology.placements().map(shard).collect()
    }
}

/// Once the cluster's birth is sealed, gives the groups of this node their first members: at once those that it should
/// lead, the others only when nobody else has for a while. All give them the same ones, so it does not matter who
/// comes first.
async fn begin_groups(membership: Arc<Membership>, cluster: Arc<Cluster>, myself: Myself) {
    let Membership { switchboard, peers, progress, .. } = &*membership;
    if !membership.has_begun.load(Ordering::Acquire) {
        birth::sealed(&cluster, &myself, switchboard, peers, progress).await;
        membership.has_begun.store(true, Ordering::Release);
    }
    let members = cluster.replicas(GroupId::META).collect();
    let is_first = cluster
        .replicas(GroupId::META)
        .min_by_key(|(id, _)| *id)
        .is_some_and(|(_, holder)| holder.node == myself.node);
    let (meta, leader) = (Arc::clone(switchboard.meta()), Arc::clone(&membership));
    tokio::spawn(async move {
        meta.begin(members, is_first, BEGIN_PATIENCE).await;
        leader.stir.notify_one();
    });
    for shard in switchboard.shards() {
        let shard = Arc::clone(shard);
        let begins = cluster.topology().preferred_leader(shard.id()) == myself.node;
        let members = cluster.replicas(GroupId::of_shard(shard.id())).collect();
        tokio::spawn(async move { shard.begin(members, begins, BEGIN_PATIENCE).await });
    }
}

fn wal_options(
    data_dir: &DataDir,
    config: &Options,
    (nonce, segment_bytes): (u64, u64),
    is_alone: bool,
) -> WalOptions {
    let sync = match config.appendfsync {
        AppendFsync::Always => SyncPolicy::Always,
        AppendFsync::Everysec => SyncPolicy::EverySecond,
        AppendFsync::No => SyncPolicy::Never,
    };
    WalOptions {
        sync,
        segment_bytes,
        sync_mark: config.wal_sync_mark,
        incarnation: data_dir.incarnation(),
        session: data_dir.session(),
        nonce,
        boot_id: data_dir.boot_id(),
        // Its threads beat no hearts.
        callers_sync: is_alone,
    }
}

fn open_wal(
    data_dir: &DataDir,
    options: WalOptions,
    log: LogWork,
) -> Result<(Wal, BTreeMap<GroupId, GroupState>), WalError> {
    let (disk, path) = (data_dir.disk(), data_dir.wal_path());
    match log {
        LogWork::Threads => Wal::open_on(&disk, &path, options),
        LogWork::Steps(steps) => {
            let (wal, groups, stepper) = Wal::open_stepped(&disk, &path, options)?;
            // Whoever does not listen any more wants the node dead.
            let _heard = steps.send(stepper);
            Ok((wal, groups))
        }
    }
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
    fresh_topology(config, members, ClusterId::NONE, threads)
}

fn fresh_topology(
    config: &Options,
    members: Vec<ListedNode>,
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
fn members(name: &str, cluster_nodes: &str, peer_port: u16) -> Result<Vec<ListedNode>, NodeError> {
    let mut members: Vec<ListedNode> = if cluster_nodes.is_empty() {
        vec![ListedNode {
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
