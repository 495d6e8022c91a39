//! This process: what it hosts, whom it knows, and how it comes to be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::clients::Clients;
use super::counters::Counters;
use super::error::NodeError;
use super::progress::Progress;
use super::switchboard::{Myself, Switchboard};
use crate::command::Registry;
use crate::config::{Changed, Config, ConfigError};
use crate::ids::{Incarnation, NodeId, Session, ShardId};
use crate::meta::{Cluster, Meta};
use crate::ring::Topology;
use crate::shard::Shard;
use crate::stdx::clock::{Clock, MonotonicMicros, UnixMillis};
use crate::stdx::memory::Budget;
use crate::transport::Peers;
use crate::wal::Wal;

/// What a node is made of once its cluster exists; see [`super::start()`].
pub(super) struct Parts {
    pub(super) myself: Myself,
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wal: Wal,
    pub(super) peers: Peers,
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) progress: Arc<Progress>,
    pub(super) topology: Arc<Topology>,
    pub(super) seed: u64,
    pub(super) budget: Arc<Budget>,
    pub(super) registry: Registry,
}

/// This process as connections and operators see it.
pub struct Node {
    myself: Myself,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    started: UnixMillis,
    started_monotonic: MonotonicMicros,
    wal: Wal,
    peers: Peers,
    switchboard: Arc<Switchboard>,
    progress: Arc<Progress>,
    topology: RwLock<Arc<Topology>>,
    topology_epoch: AtomicU64,
    budget: Arc<Budget>,
    level: AtomicU16,
    clients: Arc<Clients>,
    counters: Counters,
    /// Whether some shard here holds more keys than lie near; see [`Self::looks_ahead`].
    looks_ahead: AtomicBool,
    registry: Registry,
    run_seed: u64,
    random: AtomicU64,
    config_changes: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
    failure: Mutex<Option<NodeError>>,
    /// Held by who has replicas hashed.
    hashing: Arc<tokio::sync::Mutex<()>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.myself.name).finish_non_exhaustive()
    }
}

impl Node {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let level = parts.switchboard.cluster().map_or(0, |cluster| cluster.level());
        Arc::new(Self {
            myself: parts.myself,
            started: parts.clock.now(),
            started_monotonic: parts.clock.monotonic(),
            config: parts.config,
            clock: parts.clock,
            wal: parts.wal,
            peers: parts.peers,
            switchboard: parts.switchboard,
            progress: parts.progress,
            topology_epoch: AtomicU64::new(parts.topology.epoch()),
            level: AtomicU16::new(level),
            topology: RwLock::new(parts.topology),
            clients: Arc::default(),
            counters: Counters::default(),
            looks_ahead: AtomicBool::new(false),
            budget: parts.budget,
            registry: parts.registry,
            hashing: Arc::default(),
            run_seed: parts.seed,
            random: AtomicU64::new(parts.seed),
            config_changes: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            failure: Mutex::new(None),
        })
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.myself.node
    }

    /// Whether reads do well to look ahead ([`Shard::look_ahead`]): with few keys that would only cost time. As of the
    /// last tick.
    pub fn looks_ahead(&self) -> bool {
        self.looks_ahead.load(Ordering::Relaxed)
    }

    /// The turn to have this node's replicas hashed, until it is dropped; `None` while somebody else has it. Hashing takes
    /// some of the time in which commands could be applied, so it is not to be had several times over.
    pub fn turn_to_hash(&self) -> Option<Arc<tokio::sync::OwnedMutexGuard<()>>> {
        Arc::clone(&self.hashing).try_lock_owned().ok().map(Arc::new)
    }

    /// What memory this node may take.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Looks anew whether reads do well to look ahead.
    pub(super) fn note_size(&self) {
        let is_large = self.shards().iter().any(|shard| shard.is_large());
        self.looks_ahead.store(is_large, Ordering::Relaxed);
    }

    /// Its name (`node-id`).
    pub fn name(&self) -> &str {
        &self.myself.name
    }

    /// Its data directory.
    pub fn incarnation(&self) -> Incarnation {
        self.myself.incarnation
    }

    /// Which start of its directory this is.
    pub fn session(&self) -> Session {
        self.myself.session
    }

    /// What it waits for before it may serve.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The cluster as this node knows it.
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.switchboard.cluster()
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The machine's clocks.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// When it started.
    pub fn started(&self) -> UnixMillis {
        self.started
    }

    /// How long it has been up.
    pub fn uptime(&self) -> Duration {
        Duration::from_micros(self.clock.monotonic().since(self.started_monotonic))
    }

    /// Its log.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// The ways to other nodes.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The meta group, with a replica here or not.
    pub fn meta(&self) -> &Arc<Meta> {
        self.switchboard.meta()
    }

    /// The latest topology known here.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.read())
    }

    /// The epoch of [`Self::topology`], cheap to compare.
    pub fn epoch(&self) -> u64 {
        self.topology_epoch.load(Ordering::Acquire)
    }

    /// The behaviour that every member of the cluster knows: nothing newer may get into a log.
    pub fn level(&self) -> u16 {
        self.level.load(Ordering::Relaxed)
    }

    pub(super) fn note_level(&self, level: u16) {
        self.level.fetch_max(level, Ordering::Relaxed);
    }

    pub(super) fn adopt_topology(&self, topology: Arc<Topology>) {
        let epoch = topology.epoch();
        *self.topology.write() = topology;
        self.topology_epoch.store(epoch, Ordering::Release);
    }

    /// The shard `id`.
    ///
    /// # Panics
    /// When there is no such shard: ids come from the topology that the shards were made from.
    pub fn shard(&self, id: ShardId) -> &Arc<Shard> {
        &self.shards()[id.0 as usize]
    }

    /// All shards, by id.
    pub fn shards(&self) -> &[Arc<Shard>] {
        self.switchboard.shards()
    }

    /// The clients of this node.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Whether clients must authenticate.
    pub fn requires_password(&self) -> bool {
        self.config.options().requirepass.is_set()
    }

    /// How long a silent client may stay; `None` for ever.
    #[inline]
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.config.timeout()
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Every command there is.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Random bits drawn when the process started: they tell this run from any other.
    pub fn run_seed(&self) -> u64 {
        self.run_seed
    }

    /// CONFIG SET: takes all of `pairs`, or none, and tells [`Self::config_changes`].
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn set_config(&self, pairs: &[(&[u8], &[u8])]) -> Result<Changed, ConfigError> {
        let changed = self.config.set(pairs)?;
        if !changed.names.is_empty() {
            self.config_changes.send_replace(self.config.version());
        }
        Ok(changed)
    }

    /// Changes whenever the configuration has changed.
    pub fn config_changes(&self) -> watch::Receiver<u64> {
        self.config_changes.subscribe()
    }

    /// Random bits for choices that need not agree with anybody's.
    pub fn random(&self) -> u64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        crate::stdx::prng::SplitMix64::new(state).next_u64()
    }

    /// Names of the nodes by id.
    pub fn names(&self) -> BTreeMap<NodeId, String> {
        let topology = self.topology();
        topology.nodes().values().map(|node| (node.id, node.name.clone())).collect()
    }

    /// Asks the process to stop because it must not go on.
    pub(super) fn fail(&self, error: NodeError) {
        *self.failure.lock() = Some(error);
        self.stop();
    }

    /// Why the process must not go on, if that is why it stops.
    pub fn take_failure(&self) -> Option<NodeError> {
        self.failure.lock().take()
    }

    /// Asks the process to stop: clients are let go, then the replicas stop.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether the node was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves once the node is asked to stop.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives in the node, so this ends only by a stop.
        let _stopped = stopping.wait_for(|stopping| *stopping).await;
    }
}
