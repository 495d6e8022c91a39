//! One replica of one Raft group: start it, drive it, ask how it is. Its parts: proposals go in by `proposal`, reads
//! are vouched for by `lease`, peers' messages come in by `inbound`, what is due when is decided by `timer`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::RaftError;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::acknowledgements::Acknowledgements;
use super::campaign::Ballot;
use super::core::Shared;
use super::holdback::Holdback;
use super::inbound_snapshots::SnapshotDesk;
use super::limits::HELD_LOG_BYTES_MIN;
use super::log_store::LogStore;
use super::membership::Settling;
use super::network::GroupNetworkFactory;
use super::options::{GroupOptions, StartError, raft_config};
use super::pledge::Pledge;
use super::proposal::Stopped;
use super::reversion::Matches;
use super::short::Shortness;
use super::snapshot::blocking;
use super::state_machine::{Adapter, AppliedTerm, StateMachine};
use super::timer::{Due, Role, Timer, View, Voice};
use super::type_config::LogId;
use crate::ids::{GroupId, Holder, NodeId, RaftId};

/// Who leads the group, as this replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This replica.
    Here,
    /// The replica on another node.
    There(NodeId),
    /// Nobody known.
    Unknown,
}

/// A replica's state for operators.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Raft term.
    pub term: u64,
    /// Leader, if known.
    pub leader: Option<NodeId>,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: &'static str,
    /// Index of the newest entry in this replica's log.
    pub last_log_index: Option<u64>,
    /// Index of the newest entry applied here.
    pub applied_index: Option<u64>,
    /// Index the newest snapshot covers.
    pub snapshot_index: Option<u64>,
    /// Set when this replica has stopped for good.
    pub stopped: Option<String>,
}

/// One replica of a group whose state machine is `S`. Cheap to clone.
pub struct Group<S: StateMachine> {
    pub(super) shared: Arc<Shared<S>>,
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: StateMachine> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("group", &self.shared.group).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Group<S> {
    /// Restores the replica from disk and starts it on the current runtime.
    ///
    /// # Errors
    /// When its log or snapshot cannot be used.
    pub async fn start(options: GroupOptions, machine: Arc<S>) -> Result<Self, StartError> {
        let group = options.group;
        let storage = |source| StartError::Storage { group, source };
        let wal = options.wal.clone();
        let applied = Arc::new(AppliedTerm::default());
        let log = LogStore::open(group, options.wal, options.recovered, Arc::clone(&applied))
            .map_err(storage)?;
        let now = Instant::now();
        let voted_term = log.voted_term();
        let votes_from = if log.has_voted() { now + options.timing.lease } else { now };
        let desk = SnapshotDesk::default();
        let adapter = Adapter::open(
            Arc::clone(&machine),
            options.snapshots.clone(),
            Arc::clone(&desk),
            wal,
            Arc::clone(&applied),
        )
        .map_err(storage)?;
        let (purged, restored) = (log.purged(), adapter.last_applied());
        if purged.map(|log_id| log_id.index) > restored.map(|log_id| log_id.index) {
            let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
            let (purged, restored) = (index(purged), index(restored));
            return Err(StartError::SnapshotMissing { group, purged, restored });
        }
        let config = raft_config(group, &options.timing)
            .map_err(|source| StartError::Config { group, source })?;
        let acknowledgements = Arc::new(Acknowledgements::default());
        let ballot = Arc::new(Ballot::default());
        let holdback = Arc::new(Holdback::default());
        let network = GroupNetworkFactory::new(
            group,
            options.peers.clone(),
            Arc::clone(&acknowledgements),
            Arc::clone(&ballot),
            options.snapshots.clone(),
            Arc::clone(&holdback),
        );
        let raft = Raft::new(options.id, Arc::new(config), network, log.clone(), adapter)
            .await
            .map_err(|fatal| StartError::Raft { group, source: Box::new(fatal) })?;
        let shared = Shared {
            group,
            id: options.id,
            metrics: raft.metrics(),
            raft,
            machine,
            log,
            peers: options.peers,
            applied,
            acknowledgements,
            pledge: Pledge::default(),
            ballot,
            holdback,
            timing: options.timing,
            settling: Settling::default(),
            votes_from,
            snapshots: options.snapshots,
            desk,
            shortness: Shortness::new(options.is_short, options.session, voted_term, now),
            matches: Mutex::new(Matches::default()),
            is_committing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            timer: Mutex::new(Timer::new(now, &options.timing, options.seed)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The state machine.
    pub fn machine(&self) -> &Arc<S> {
        &self.shared.machine
    }

    /// Which group this is.
    pub fn id(&self) -> GroupId {
        self.shared.group
    }

    /// Which replica of it this is.
    pub fn raft_id(&self) -> RaftId {
        self.shared.id
    }

    /// Whether this replica's log may have lost what it acknowledged, by a loss of power. Then it gives no vote and seeks
    /// none until [`Self::become_whole`].
    pub fn is_short(&self) -> bool {
        self.shared.shortness.is_short()
    }

    /// Gives a group without any history its first members. Harmless when it has some already.
    ///
    /// # Errors
    /// When the replica has stopped.
    pub async fn initialize(&self, members: BTreeMap<RaftId, Holder>) -> Result<(), Stopped> {
        match self.shared.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(fatal)) => {
                tracing::debug!(group = %self.shared.group, %fatal, "the replica has stopped");
                Err(Stopped)
            }
        }
    }

    /// Gives a group without any history its first members: at once where it `begins`, elsewhere only when nobody else
    /// has within `patience`. All give it the same ones, so it does not matter who comes first.
    pub async fn begin(&self, members: BTreeMap<RaftId, Holder>, begins: bool, patience: Duration) {
        if !begins {
            let known = self.wait_for_leadership(|leadership| leadership != Leadership::Unknown);
            if tokio::time::timeout(patience, known).await.is_ok() {
                return;
            }
        }
        if let Err(error) = self.initialize(members).await {
            tracing::error!(group = %self.id(), %error, "cannot begin the group");
        }
    }

    /// Who leads, as this replica sees it.
    pub fn leadership(&self) -> Leadership {
        if self.has_stopped() {
            return Leadership::Unknown;
        }
        let metrics = self.shared.metrics.borrow_watched();
        match metrics.current_leader {
            Some(leader) if leader == self.shared.id => {
                if metrics.state == ServerState::Leader {
                    Leadership::Here
                } else {
                    Leadership::Unknown
                }
            }
            Some(leader) => {
                let holder = metrics.membership_config.get_node(&leader);
                holder.map_or(Leadership::Unknown, |holder| Leadership::There(holder.node))
            }
            None => Leadership::Unknown,
        }
    }

    /// The replica on `node`, by the newest membership here. While one is replaced there are two: the later one lives.
    fn replica_on(&self, node: NodeId) -> Option<RaftId> {
        let metrics = self.shared.metrics.borrow_watched();
        let nodes = metrics.membership_config.nodes();
        nodes.filter(|(_, holder)| holder.node == node).map(|(id, _)| *id).max()
    }

    /// Whether the replica has stopped for good, because its disk or its state cannot be trusted any more. It
    /// neither leads nor follows; the others carry on without it.
    pub fn has_stopped(&self) -> bool {
        self.shared.has_stopped()
    }

    /// Whether it has stopped because the group lost entries that are applied here, by a loss of power of too many.
    /// Nothing mends such a state: another replica is to take its place.
    pub fn must_be_rebuilt(&self) -> bool {
        self.shared.applied.is_lost()
    }

    /// Whether the group has a leader that works, as far as this replica can tell: as leader it has heard a majority lately,
    /// else it has heard the leader. Openraft's own idea of a leader stands until there is another.
    pub fn is_served(&self) -> bool {
        let shared = &self.shared;
        match self.leadership() {
            Leadership::Here => shared.applied.has_sole_voter() || shared.leads_with_quorum(),
            Leadership::There(_) => {
                let (now, patience) = (Instant::now(), 4 * shared.timing.lease);
                shared.pledge.with(|promise| promise.is_bound(now, patience))
            }
            Leadership::Unknown => false,
        }
    }

    /// Waits until `condition` holds of the leadership.
    pub async fn wait_for_leadership(&self, condition: impl Fn(Leadership) -> bool) {
        let mut metrics = self.shared.metrics.clone();
        loop {
            if condition(self.leadership()) {
                return;
            }
            if metrics.changed().await.is_err() {
                // The replica has stopped; its leadership will not change again.
                return std::future::pending().await;
            }
        }
    }

    /// Size of the newest snapshot in bytes; 0 when there is none.
    pub fn snapshot_bytes(&self) -> u64 {
        self.shared.snapshots.best_bytes()
    }

    /// Index of the last entry the best snapshot covers; 0 when there is none.
    pub fn snapshot_covers(&self) -> u64 {
        self.shared.snapshots.covered_index()
    }

    /// Whether the best snapshot could not be read when it was needed: another should be written.
    pub fn is_snapshot_damaged(&self) -> bool {
        self.shared.snapshots.is_damaged()
    }

    /// Does what is due: as leader a heartbeat, as follower a campaign when no leader was heard for too long.
    ///
    /// The node calls this for all its groups at once, some twenty times a second, in place of openraft's timer
    /// per group: one wake-up instead of one for each, and the heartbeats of all groups leave in one write.
    pub async fn tick(&self) {
        let shared = &self.shared;
        let now = Instant::now();
        shared.desk.lock().expire(now);
        self.mend(now);
        let view = self.view(now);
        let due = shared.timer.lock().due(now, view, &shared.timing);
        match due {
            Due::Nothing => {}
            Due::Heartbeat => {
                if let Err(fatal) = self.shared.raft.trigger().heartbeat().await {
                    tracing::debug!(group = %self.shared.group, %fatal, "the replica has stopped");
                }
            }
            Due::Campaign => self.campaign(),
            Due::HandOver => {
                let group = self.clone();
                tokio::spawn(async move {
                    if let Some(successor) = group.successors().first() {
                        group.transfer_leader(*successor).await;
                    }
                });
            }
        }
        self.look_for_reversions();
    }

    fn look_for_reversions(&self) {
        let shared = &self.shared;
        let metrics = shared.metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return };
        let matched = replication.iter().map(|(id, log_id)| (*id, log_id.map(|id| id.index)));
        for reversion in shared.matches.lock().look(metrics.current_term, matched) {
            tracing::error!(
                group = %shared.group,
                replica = %reversion.replica,
                had = reversion.had,
                has = reversion.has,
                "a replica has lost entries that it had acknowledged; they are sent again"
            );
        }
    }

    fn view(&self, now: Instant) -> View {
        let shared = &self.shared;
        let has_a_say = shared.has_a_say();
        let metrics = shared.metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let committed = &metrics.committed_membership_config;
        // A leader that is being voted out leads until that is committed.
        let is_voter = membership.voter_ids().any(|voter| voter == shared.id)
            || (metrics.state == ServerState::Leader
                && committed.voter_ids().any(|voter| voter == shared.id));
        let voice = if !is_voter || !has_a_say {
            Voice::None
        } else if membership.nodes().count() == 1 {
            Voice::Alone
        } else if membership.voter_ids().count() == 1 {
            Voice::Sole
        } else {
            Voice::Voter
        };
        let role = if metrics.state == ServerState::Leader {
            Role::Leader
        } else if shared.pledge.is_weighing() || shared.ballot.is_open(now) {
            Role::Voting
        } else if metrics.current_leader.is_some() {
            Role::Follower
        } else {
            Role::Orphan
        };
        View { role, voice }
    }

    /// Starts to write a snapshot, unless one is being written or a failed one was just now.
    pub async fn snapshot(&self) {
        if !self.shared.desk.lock().may_build(Instant::now()) {
            return;
        }
        if let Err(fatal) = self.shared.raft.trigger().snapshot().await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot take a snapshot");
        }
    }

    /// Purges the log up to `index`, as far as a snapshot covers it, and as far as nobody waits for it whom a snapshot was
    /// just sent to.
    pub async fn purge(&self, index: u64) {
        let index = index.min(self.held_back().unwrap_or(u64::MAX));
        if let Err(fatal) = self.shared.raft.trigger().purge_log(index).await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot purge the log");
        }
    }

    /// Up to where the log may be purged, for the sake of replicas that catch up; within bounds.
    fn held_back(&self) -> Option<u64> {
        let shared = &self.shared;
        let floor = {
            let metrics = shared.metrics.borrow_watched();
            let matched = |id| Some((*metrics.replication.as_ref()?.get(&id)?)?.index);
            shared.holdback.floor(metrics.last_log_index.unwrap_or(0), Instant::now(), matched)?
        };
        let bytes_max = HELD_LOG_BYTES_MIN.max(2 * shared.snapshots.best_bytes());
        (shared.log.bytes_after(floor) <= bytes_max).then_some(floor)
    }

    /// Lets go of all log that a snapshot covers, and if that was done before, takes a snapshot: the group keeps the
    /// node's oldest log segment alive. It does not wait for a snapshot of all that is applied: under writes there
    /// would never be one.
    pub async fn release_log(&self) {
        let (snapshot, purged) = {
            let metrics = self.shared.metrics.borrow_watched();
            (metrics.snapshot, metrics.purged)
        };
        match snapshot {
            Some(covered) if snapshot > purged => self.purge(covered.index).await,
            Some(_) | None => self.snapshot().await,
        }
    }

    /// This replica's state for operators.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.shared.metrics.borrow_watched();
        GroupStatus {
            term: metrics.current_term,
            leader: metrics
                .current_leader
                .and_then(|leader| metrics.membership_config.get_node(&leader))
                .map(|holder| holder.node),
            role: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Learner => "learner",
                ServerState::Shutdown => "stopped",
            },
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|log_id| log_id.index),
            snapshot_index: metrics.snapshot.map(|log_id| log_id.index),
            stopped: if self.must_be_rebuilt() {
                Some("the group has lost entries that are applied here; it is made anew".into())
            } else {
                metrics.running_state.as_ref().err().map(ToString::to_string)
            },
        }
    }

    /// Index of the last applied entry that every voter's log is known to hold; `None` when not leading.
    pub fn replicated_to(&self, node: NodeId) -> Option<u64> {
        let id = self.replica_on(node)?;
        let metrics = self.shared.metrics.borrow_watched();
        let log_id = metrics.replication.as_ref()?.get(&id)?.as_ref()?;
        Some(log_id.index)
    }

    /// Stops the replica and waits for its tasks. Then nothing touches its machine any more.
    pub async fn stop(&self) {
        // What openraft last said of itself stands still from now on, and would go on to call this replica leader.
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.desk.lock().stop();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(group = %self.shared.group, %error, "a task of the group panicked");
        }
        // What applies is a task of its own, which openraft does not wait for.
        let applied = Arc::clone(&self.shared.applied);
        let ended = blocking(move || {
            applied.end();
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!(group = %self.shared.group, %error, "the runtime ends before the group");
        }
    }
}
