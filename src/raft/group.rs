//! One replica of one Raft group: start it, drive it, stop it. Its parts: proposals go in by `proposal`, reads are vouched
//! for by `lease`, peers' messages come in by `inbound`, what is due when is decided by `timer`, what is kept by
//! `retention`; how it is says `status`.

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
use super::log_store::LogStore;
use super::membership::Settling;
use super::network::{GroupNetworkFactory, Transfers};
use super::options::{GroupOptions, StartError, raft_config};
use super::pledge::Pledge;
use super::proposal::Stopped;
use super::reversion::Matches;
use super::short::Shortness;
use super::state_machine::{Adapter, AppliedTerm, StateMachine};
use super::status::Leadership;
use super::timer::{Due, Role, Timer, View, Voice};
use super::type_config::{LogId, is_voter};
use super::workers::on;
use crate::ids::{GroupId, Holder, RaftId};
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::Work;

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
        let workers = options.workers;
        let log = LogStore::open(
            group,
            (options.wal, Arc::clone(&workers)),
            options.recovered,
            Arc::clone(&applied),
            options.sizes.tail_bytes_max,
        )
        .map_err(storage)?;
        let now = Instant::now();
        let voted_term = log.voted_term();
        let must_wait = log.has_voted() && !is_planted(Bug::VoteAfterRestart);
        let votes_from = if must_wait { now + options.timing.lease } else { now };
        let desk = SnapshotDesk::default();
        let adapter = Adapter::open(
            Arc::clone(&machine),
            options.snapshots.clone(),
            Arc::clone(&desk),
            (wal, Arc::clone(&workers)),
            Arc::clone(&applied),
            options.sizes.snapshot_chunk_bytes,
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
        let acknowledgements = Arc::new(Acknowledgements::by(options.clock));
        let ballot = Arc::new(Ballot::default());
        let holdback = Arc::new(Holdback::default());
        let network = GroupNetworkFactory::new(
            group,
            options.peers.clone(),
            Arc::clone(&acknowledgements),
            Arc::clone(&ballot),
            Transfers::new(options.snapshots.clone(), Arc::clone(&holdback), Arc::clone(&workers)),
            Arc::clone(&options.time),
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
            time: options.time,
            budget: options.budget,
            workers,
            held_log_bytes_min: options.sizes.held_log_bytes_min,
            settling: Settling::default(),
            votes_from,
            snapshots: options.snapshots,
            desk,
            shortness: Shortness::new(options.is_short, options.session, voted_term, now),
            matches: Mutex::new(Matches::default()),
            is_committing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            was_asked_to_stop: AtomicBool::new(false),
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

    /// Does what is due: as leader a heartbeat, as follower a campaign when no leader was heard for too long.
    ///
    /// The node calls this for all its groups at once, some twenty times a second, in place of openraft's timer
    /// per group: one wake-up instead of one for each, and the heartbeats of all groups leave in one write.
    pub async fn tick(&self) {
        let shared = &self.shared;
        let now = Instant::now();
        shared.desk.lock().expire(now);
        shared.log.rest(now);
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

    fn view(&self, now: Instant) -> View {
        let shared = &self.shared;
        let has_a_say = shared.has_a_say();
        let metrics = shared.metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let committed = &metrics.committed_membership_config;
        // A leader that is being voted out leads until that is committed.
        let is_voter = is_voter(membership.get_joint_config(), shared.id)
            || (metrics.state == ServerState::Leader
                && is_voter(committed.get_joint_config(), shared.id));
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

    /// Stops the replica and waits for its tasks. Then nothing touches its machine any more.
    pub async fn stop(&self) {
        if !self.has_stopped() {
            self.shared.was_asked_to_stop.store(true, Ordering::Release);
        }
        // What openraft last said of itself stands still from now on, and would go on to call this replica leader.
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.desk.lock().stop();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(group = %self.shared.group, %error, "a task of the group panicked");
        }
        // What applies is a task of its own, which openraft does not wait for.
        let applied = Arc::clone(&self.shared.applied);
        let ended = on(&*self.shared.workers, Work::State, move || applied.end());
        if let Err(error) = ended.await {
            tracing::warn!(group = %self.shared.group, %error, "the runtime ends before the group");
        }
    }
}
