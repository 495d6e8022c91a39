//! One replica of one Raft group: start it, propose to it, ask whether it may answer reads.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::Instant as _;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::{AppendEntriesResponse, ReadPolicy};
use openraft::{Config, Raft, ServerState, SnapshotPolicy, StepDownPolicy};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::acknowledgements::Acknowledgements;
use super::codec;
use super::limits::{
    APPEND_ENTRIES_COUNT_MAX, APPEND_PIPELINE_MAX, QUORUM_ASK_INTERVAL, STALL_MIN,
};
use super::log_store::LogStore;
use super::network::{GroupNetworkFactory, kind, take_transfer};
use super::snapshot::{SnapshotHandle, SnapshotStore, decode_meta};
use super::state_machine::{Adapter, AppliedTerm, StateMachine};
use super::type_config::{
    Callback, Proposal, Snapshot, SnapshotMeta, TypeConfig, Vote, WriteResponder,
};
use crate::ids::{GroupId, NodeId};
use crate::stdx::prng::SplitMix64;
use crate::transport::{Message, Peers, Responder};
use crate::wal::snapshot_file::SnapshotWriter;
use crate::wal::{GroupState, Wal};

/// The clock of consensus. A follower that heard from a leader refuses votes for `lease` after it, and
/// campaigns after `lease` + a random time from `election`; a leader trusts its lease for a little less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader that is otherwise silent sends a heartbeat.
    pub heartbeat: Duration,
    /// How long a leader's word binds a follower; also the upper end of the election timeout.
    pub lease: Duration,
    /// The lower end of the election timeout.
    pub election_min: Duration,
}

impl Timing {
    /// Detects a dead leader in well under a second, and forgives a node that stalls for a few hundred milliseconds.
    pub const DEFAULT: Self = Self {
        heartbeat: Duration::from_millis(200),
        lease: Duration::from_millis(500),
        election_min: Duration::from_millis(300),
    };

    /// How long after a quorum-acknowledged message was *sent* the leader may answer reads alone: the
    /// followers' lease less 15 % for clocks that run at different rates.
    pub fn read_lease(&self) -> Duration {
        self.lease * 85 / 100
    }
}

/// What a replica is started with.
#[derive(Debug)]
pub struct GroupOptions {
    /// Which group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// The node's shared log.
    pub wal: Wal,
    /// What the log remembers of this group.
    pub recovered: Option<GroupState>,
    /// Where its snapshots are.
    pub snapshots: SnapshotStore,
    /// The ways to its replicas.
    pub peers: Peers,
    /// Its clock.
    pub timing: Timing,
    /// Random bits that differ between replicas, for their election timeouts.
    pub seed: u64,
}

/// A group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log or its snapshot cannot be used.
    #[error("group {group}: cannot restore from disk: {source}")]
    Storage {
        /// The group.
        group: GroupId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// openraft refused to start.
    #[error("group {group}: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// openraft's words.
        reason: String,
    },
}

/// The fate of a proposal, as far as this replica can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalFate {
    /// Committed and applied here.
    Applied,
    /// Refused before it entered any log: it may be proposed elsewhere freely.
    NotAppended {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// It was in a log that changed hands: it may or may not be committed.
    Unknown {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
}

/// The replica has stopped for good and takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica has stopped")]
pub struct Stopped;

/// Why a linearizable read could not be vouched for; nothing happened, it may be asked again anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefused {
    /// This replica does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// It leads, but no quorum confirmed it in time.
    #[error("no quorum")]
    NoQuorum,
}

/// Who leads the group, as this replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This replica.
    Here,
    /// Another one.
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
    shared: Arc<Shared<S>>,
}

struct Shared<S: StateMachine> {
    group: GroupId,
    node: NodeId,
    raft: Raft<TypeConfig, Adapter<S>>,
    metrics: WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>,
    machine: Arc<S>,
    applied: Arc<AppliedTerm>,
    /// What the lease and ReadIndex rest on.
    acknowledgements: Arc<Acknowledgements>,
    timing: Timing,
    /// Votes are refused until then: before the restart this replica may have promised a leader its lease.
    votes_from: Instant,
    /// Term whose lease was given up by starting a leader transfer; 0 = none. Followers drop a leader's
    /// lease early when it hands over, so from then on only a quorum can vouch for its reads.
    transferring_term: AtomicU64,
    snapshots: SnapshotStore,
    incoming: Mutex<Option<IncomingSnapshot>>,
    timer: Mutex<Timer>,
    stopping: AtomicBool,
}

/// When this replica last had reason to believe in a leader, and when it next does something about it.
struct Timer {
    heard: Instant,
    /// Silence after which it campaigns; drawn anew for each round.
    patience: Duration,
    next_heartbeat: Instant,
    /// When the node last looked at this timer.
    looked: Instant,
    /// No campaign was begun yet.
    is_first: bool,
    random: SplitMix64,
}

struct IncomingSnapshot {
    transfer: u64,
    meta: SnapshotMeta,
    writer: SnapshotWriter,
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
        let refused = |reason: String| StartError::Raft { group, reason };

        let log = LogStore::open(group, options.wal, options.recovered).map_err(storage)?;
        let votes_from =
            if log.has_voted() { Instant::now() + options.timing.lease } else { Instant::now() };
        let applied = Arc::new(AppliedTerm::default());
        let adapter =
            Adapter::open(Arc::clone(&machine), options.snapshots.clone(), Arc::clone(&applied))
                .map_err(storage)?;
        let config = raft_config(group, &options.timing).map_err(&refused)?;
        let acknowledgements = Arc::new(Acknowledgements::default());
        let network = GroupNetworkFactory::new(group, options.peers, Arc::clone(&acknowledgements));
        let raft = Raft::new(options.node, Arc::new(config), network, log, adapter)
            .await
            .map_err(|fatal| refused(fatal.to_string()))?;
        let metrics = raft.metrics();
        let mut random = SplitMix64::new(options.seed);
        // Never below the lease (before the restart this replica may have promised it), and not the same everywhere.
        let patience =
            options.timing.lease + random_below(options.timing.election_min, &mut random);
        let shared = Shared {
            group,
            node: options.node,
            metrics,
            raft,
            machine,
            applied,
            acknowledgements,
            timing: options.timing,
            votes_from,
            transferring_term: AtomicU64::new(0),
            snapshots: options.snapshots,
            incoming: Mutex::new(None),
            stopping: AtomicBool::new(false),
            timer: Mutex::new(Timer {
                heard: Instant::now(),
                patience,
                next_heartbeat: Instant::now(),
                looked: Instant::now(),
                is_first: true,
                random,
            }),
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

    /// Gives a group without any history its first members. Harmless when it has some already.
    ///
    /// # Errors
    /// When the replica has stopped.
    pub async fn initialize(&self, members: BTreeSet<NodeId>) -> Result<(), String> {
        match self.shared.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(fatal.to_string()),
        }
    }

    /// Proposes `proposal`; `done` learns its fate, once, on this group's runtime.
    ///
    /// # Errors
    /// [`Stopped`] when the replica has stopped; `done` has then been told that the fate is unknown.
    pub async fn propose(
        &self,
        proposal: Bytes,
        done: impl FnOnce(ProposalFate) + Send + 'static,
    ) -> Result<(), Stopped> {
        let mut answer = OnceAnswered(Some(done));
        let responder: WriteResponder = Callback::new(move |result| {
            answer.answer(match result {
                Ok(_) => ProposalFate::Applied,
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    ProposalFate::NotAppended { leader: forward.leader_id }
                }
                Err(ClientWriteError::LogEntryDiscarded(forward)) => {
                    ProposalFate::Unknown { leader: forward.leader_id }
                }
                // Only membership changes and conditional writes can answer anything else.
                Err(_) => ProposalFate::Unknown { leader: None },
            });
        });
        // A replica that has stopped drops the responder, which then answers "unknown".
        let taken = self.shared.raft.client_write_ff(Proposal(proposal), Some(responder)).await;
        taken.map_err(|fatal| {
            tracing::debug!(group = %self.shared.group, %fatal, "the replica has stopped");
            Stopped
        })
    }

    /// Who leads, as this replica sees it.
    pub fn leadership(&self) -> Leadership {
        if self.has_stopped() {
            return Leadership::Unknown;
        }
        let metrics = self.shared.metrics.borrow_watched();
        match metrics.current_leader {
            Some(leader) if leader == self.shared.node => {
                if metrics.state == ServerState::Leader {
                    Leadership::Here
                } else {
                    Leadership::Unknown
                }
            }
            Some(leader) => Leadership::There(leader),
            None => Leadership::Unknown,
        }
    }

    /// Whether the replica has stopped for good, because its disk or its state cannot be trusted any more. It
    /// neither leads nor follows; the others carry on without it.
    pub fn has_stopped(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
            || self.shared.metrics.borrow_watched().running_state.is_err()
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
        self.shared.snapshots.newest_bytes()
    }

    /// Whether this replica may answer a linearizable read from its applied state right now, without asking
    /// anyone: it leads, has applied an entry of its own term, and its lease holds.
    ///
    /// Source: Raft thesis §6.4.1. The check must come after the request arrived; being paused after it
    /// is harmless, for the state read is the one that was current at the check.
    pub fn may_read(&self) -> bool {
        let metrics = self.shared.metrics.borrow_watched();
        if metrics.state != ServerState::Leader || metrics.current_leader != Some(self.shared.node)
        {
            return false;
        }
        let term = metrics.current_term;
        if self.shared.applied.get() != term {
            return false;
        }
        if self.shared.applied.is_sole_voter() {
            return true;
        }
        if self.shared.transferring_term.load(Ordering::Acquire) == term {
            return false;
        }
        let lease = self.shared.timing.read_lease();
        // openraft's own reckoning, which may hold an answer to one message for an answer to a later one, says nothing
        // about the others. But it is by this one that the core refuses to vote for another leader, and this replica
        // counts in the quorum: an answer the core has not seen yet does not bind it.
        if metrics.last_quorum_acked.is_none_or(|acked| acked.into_inner().elapsed() >= lease) {
            return false;
        }
        let Some(since) = Instant::now().checked_sub(lease) else { return false };
        let configs = metrics.membership_config.get_joint_config();
        self.shared.acknowledgements.has_quorum_since(term, since, configs, self.shared.node)
    }

    /// Asks a quorum whether this replica still leads and waits until all that was committed is applied
    /// here (ReadIndex, thesis §6.4). One round serves every read that waits for it.
    ///
    /// # Errors
    /// When it does not lead, or no quorum answers within the lease.
    pub async fn read_index(&self) -> Result<(), ReadRefused> {
        let asked = Instant::now();
        let linearizer = match self.shared.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(openraft::error::LinearizableReadError::ForwardToLeader(
                forward,
            ))) => return Err(ReadRefused::NotLeader { leader: forward.leader_id }),
            Err(_) => return Err(ReadRefused::NoQuorum),
        };
        // The index to be applied belongs to the term in which this replica led when it took it.
        let term = linearizer.read_log_id().log_id().leader_id.term;
        linearizer.await_ready(&self.shared.raft).await.map_err(|_| ReadRefused::NoQuorum)?;
        // openraft may have been content with an answer to a message sent before the read was asked for.
        self.await_quorum_since(term, asked).await
    }

    /// Waits until a quorum has answered messages of `term` that were sent at `since` or later, for at most one lease.
    async fn await_quorum_since(&self, term: u64, since: Instant) -> Result<(), ReadRefused> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.timing.lease;
        let mut ask_at = Instant::now();
        loop {
            // Before the look, so that no answer falls between it and the wait.
            let changed = shared.acknowledgements.changed();
            let is_leader = self.leadership() == Leadership::Here;
            {
                let metrics = shared.metrics.borrow_watched();
                if !is_leader || metrics.current_term != term {
                    let leader = metrics.current_leader.filter(|leader| *leader != shared.node);
                    return Err(ReadRefused::NotLeader { leader });
                }
                let configs = metrics.membership_config.get_joint_config();
                if shared.acknowledgements.has_quorum_since(term, since, configs, shared.node) {
                    return Ok(());
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(ReadRefused::NoQuorum);
            }
            // Once for each interval and not for each answer. However many reads ask, openraft makes one message of
            // what it has not sent yet.
            if now >= ask_at {
                ask_at = now + QUORUM_ASK_INTERVAL;
                if shared.raft.trigger().heartbeat().await.is_err() {
                    return Err(ReadRefused::NotLeader { leader: None });
                }
            }
            // In time or not, what is known now decides.
            drop(timeout_at(ask_at.min(deadline), changed).await);
        }
    }

    /// Does what is due: as leader a heartbeat, as follower a campaign when no leader was heard for too long.
    ///
    /// The node calls this for all its groups at once, some twenty times a second, in place of openraft's timer
    /// per group: one wake-up instead of one for each, and the heartbeats of all groups leave in one write.
    pub async fn tick(&self) {
        enum Due {
            Nothing,
            Heartbeat,
            Campaign,
        }
        let now = Instant::now();
        let due = {
            let metrics = self.shared.metrics.borrow_watched();
            let mut timer = self.shared.timer.lock();
            let since = now.duration_since(timer.looked);
            timer.looked = now;
            if since > STALL_MIN {
                // Time in which this process did not run is no silence of the leader: its heartbeats may be waiting
                // in the socket, or the whole machine stood still.
                timer.heard += since;
            }
            if metrics.state == ServerState::Leader {
                timer.heard = now;
                if now < timer.next_heartbeat || self.shared.applied.is_sole_voter() {
                    Due::Nothing
                } else {
                    timer.next_heartbeat = now + self.shared.timing.heartbeat;
                    Due::Heartbeat
                }
            } else if timer.is_first && metrics.membership_config.voter_ids().eq([self.shared.node])
            {
                // Who is alone with itself has nobody to wait for. Once: the campaign may take a while.
                timer.is_first = false;
                timer.heard = now;
                Due::Campaign
            } else if now.duration_since(timer.heard) < timer.patience {
                Due::Nothing
            } else {
                let lease = if metrics.current_leader.is_some() {
                    self.shared.timing.lease
                } else {
                    Duration::ZERO
                };
                let range =
                    self.shared.timing.lease.saturating_sub(self.shared.timing.election_min);
                let random = random_below(range, &mut timer.random);
                timer.patience = lease + self.shared.timing.election_min + random;
                timer.heard = now;
                let node = self.shared.node;
                let is_voter = metrics.membership_config.voter_ids().any(|voter| voter == node);
                if is_voter { Due::Campaign } else { Due::Nothing }
            }
        };
        match due {
            Due::Nothing => {}
            Due::Heartbeat => {
                if let Err(fatal) = self.shared.raft.trigger().heartbeat().await {
                    tracing::debug!(group = %self.shared.group, %fatal, "the replica has stopped");
                }
            }
            Due::Campaign => self.campaign().await,
        }
    }

    /// Starts to hand leadership to `target`. Nothing happens when this replica does not lead.
    pub async fn transfer_leader(&self, target: NodeId) {
        let term = self.shared.metrics.borrow_watched().current_term;
        // Before the followers are told to forget the lease, this leader must have.
        self.shared.transferring_term.store(term, Ordering::Release);
        if let Err(fatal) = self.shared.raft.trigger().transfer_leader(target).await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot hand over leadership");
        }
    }

    /// Campaigns now (with a pre-vote) instead of waiting for the election timer.
    pub async fn campaign(&self) {
        if let Err(fatal) = self.shared.raft.trigger().elect(true).await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot campaign");
        }
    }

    /// Starts to write a snapshot; the log it covers is purged when it is complete.
    pub async fn snapshot(&self) {
        if let Err(fatal) = self.shared.raft.trigger().snapshot().await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot take a snapshot");
        }
    }

    /// Lets go of the whole log as soon as a snapshot covers it: the group keeps the node's oldest log segment
    /// alive. Takes two calls, one for the snapshot and, once that is there, one to purge.
    pub async fn release_log(&self) {
        let (snapshot, applied) = {
            let metrics = self.shared.metrics.borrow_watched();
            (metrics.snapshot, metrics.last_applied)
        };
        match snapshot {
            Some(covered) if snapshot >= applied => {
                if let Err(fatal) = self.shared.raft.trigger().purge_log(covered.index).await {
                    tracing::warn!(group = %self.shared.group, %fatal, "cannot purge the log");
                }
            }
            Some(_) | None => self.snapshot().await,
        }
    }

    /// This replica's state for operators.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.shared.metrics.borrow_watched();
        GroupStatus {
            term: metrics.current_term,
            leader: metrics.current_leader,
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
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Index of the last applied entry that every voter's log is known to hold; `None` when not leading.
    pub fn replicated_to(&self, node: NodeId) -> Option<u64> {
        let metrics = self.shared.metrics.borrow_watched();
        let log_id = metrics.replication.as_ref()?.get(&node)?.as_ref()?;
        Some(log_id.index)
    }

    /// Stops the replica and waits for its tasks.
    pub async fn stop(&self) {
        // What openraft last said of itself stands still from now on, and would go on to call this replica leader.
        self.shared.stopping.store(true, Ordering::Release);
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(group = %self.shared.group, %error, "a task of the group panicked");
        }
    }

    /// Takes a message of this room from a peer. Returns at once; the answer follows.
    pub fn handle(&self, message: Message, responder: Responder) {
        match message.kind {
            kind::APPEND_ENTRIES => self.handle_append(message.body, responder),
            kind::VOTE => self.handle_cold(message.body, responder, VoteKind::Vote),
            kind::PRE_VOTE => self.handle_cold(message.body, responder, VoteKind::PreVote),
            kind::TRANSFER_LEADER => self.handle_cold(message.body, responder, VoteKind::Transfer),
            kind::SNAPSHOT_BEGIN => self.handle_snapshot_begin(message.body, responder),
            kind::SNAPSHOT_CHUNK => self.handle_snapshot_chunk(message.body, responder),
            kind::SNAPSHOT_END => self.handle_snapshot_end(message.body, responder),
            // An unanswered responder tells the peer that nobody handles this.
            _ => drop(responder),
        }
    }

    fn handle_append(&self, body: Bytes, responder: Responder) {
        let request = match codec::take_append_entries(body) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "refused a message");
                return;
            }
        };
        let shared = Arc::clone(&self.shared);
        if shared.metrics.borrow_watched().vote == request.vote {
            // The word of the leader it follows counts from its arrival: what follows may wait for a slow disk, and
            // that is no silence of the leader.
            shared.timer.lock().heard = Instant::now();
        }
        // Tasks of a runtime start in the order they were spawned, so entries reach the core in order; were
        // they not to, the core would answer Conflict and the leader would send them again.
        tokio::spawn(async move {
            if let Ok(answer) = shared.raft.append_entries(request).await {
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    shared.timer.lock().heard = Instant::now();
                }
                responder.send_with(|out| codec::put_append_response(&answer, out));
            }
        });
    }

    fn handle_cold(&self, body: Bytes, responder: Responder, what: VoteKind) {
        if what != VoteKind::Transfer && Instant::now() < self.shared.votes_from {
            return; // Not answering is refusing: see `votes_from`.
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let raft = &shared.raft;
            let answer = match what {
                VoteKind::Vote => match postcard::from_bytes(&body) {
                    Ok(request) => {
                        let answer = raft.vote(request).await;
                        if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                            // The candidate is given its time to become leader.
                            shared.timer.lock().heard = Instant::now();
                        }
                        encode(answer)
                    }
                    Err(error) => Err(error.to_string()),
                },
                VoteKind::PreVote => match postcard::from_bytes(&body) {
                    Ok(request) => encode(raft.pre_vote(request).await),
                    Err(error) => Err(error.to_string()),
                },
                VoteKind::Transfer => match postcard::from_bytes(&body) {
                    Ok(request) => encode(raft.handle_transfer_leader(request).await),
                    Err(error) => Err(error.to_string()),
                },
            };
            match answer {
                Ok(answer) => responder.send(answer),
                Err(error) => tracing::warn!(group = %shared.group, error, "refused a message"),
            }
        });
    }

    fn handle_snapshot_begin(&self, body: Bytes, responder: Responder) {
        let Some((transfer, meta)) = take_transfer(body) else { return };
        let begun =
            decode_meta(&meta).and_then(|meta| Ok((self.shared.snapshots.create(&meta)?, meta)));
        match begun {
            Ok((writer, meta)) => {
                *self.shared.incoming.lock() = Some(IncomingSnapshot { transfer, meta, writer });
                responder.send(Bytes::new());
            }
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "cannot receive a snapshot");
            }
        }
    }

    fn handle_snapshot_chunk(&self, body: Bytes, responder: Responder) {
        let Some((transfer, chunk)) = take_transfer(body) else { return };
        let mut incoming = self.shared.incoming.lock();
        let Some(receiving) = incoming.as_mut().filter(|receiving| receiving.transfer == transfer)
        else {
            return;
        };
        // A chunk is a page-cache write of at most a few hundred KiB; the fsync comes at the end, elsewhere.
        match receiving.writer.write_chunk(&chunk) {
            Ok(()) => responder.send(Bytes::new()),
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "cannot receive a snapshot");
                *incoming = None;
            }
        }
    }

    fn handle_snapshot_end(&self, body: Bytes, responder: Responder) {
        let Some((transfer, vote)) = take_transfer(body) else { return };
        let Some(received) =
            self.shared.incoming.lock().take().filter(|receiving| receiving.transfer == transfer)
        else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            match install(&shared, &vote, received).await {
                Ok(answer) => responder.send(answer),
                Err(error) => {
                    tracing::warn!(group = %shared.group, error, "cannot install a snapshot");
                }
            }
        });
    }
}

/// Answers once, at the latest when it is dropped: a stopped replica drops what it will never answer.
struct OnceAnswered<F: FnOnce(ProposalFate)>(Option<F>);

impl<F: FnOnce(ProposalFate)> OnceAnswered<F> {
    fn answer(&mut self, fate: ProposalFate) {
        if let Some(done) = self.0.take() {
            done(fate);
        }
    }
}

impl<F: FnOnce(ProposalFate)> Drop for OnceAnswered<F> {
    fn drop(&mut self) {
        self.answer(ProposalFate::Unknown { leader: None });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VoteKind {
    Vote,
    PreVote,
    Transfer,
}

async fn install<S: StateMachine>(
    shared: &Shared<S>,
    vote: &[u8],
    received: IncomingSnapshot,
) -> Result<Vec<u8>, String> {
    let vote: Vote = postcard::from_bytes(vote).map_err(|error| error.to_string())?;
    let IncomingSnapshot { meta, writer, .. } = received;
    let file = tokio::task::spawn_blocking(move || writer.finish())
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let snapshot = Snapshot { meta, snapshot: SnapshotHandle::new(file) };
    encode(shared.raft.install_full_snapshot(vote, snapshot).await.map(|answer| answer.vote))
}

fn encode<A: serde::Serialize, E: fmt::Display>(answer: Result<A, E>) -> Result<Vec<u8>, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    postcard::to_stdvec(&answer).map_err(|error| error.to_string())
}

/// A random time shorter than `range`.
fn random_below(range: Duration, random: &mut SplitMix64) -> Duration {
    Duration::from_micros(random.below(u64::try_from(range.as_micros()).unwrap_or(u64::MAX)))
}

fn raft_config(group: GroupId, timing: &Timing) -> Result<Config, String> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: group.to_string(),
        heartbeat_interval: ms(timing.heartbeat),
        // A write's acknowledgement proves what a heartbeat would; under load none are sent.
        heartbeat_min_interval: Some(ms(timing.heartbeat) / 4),
        // See Group::tick, which drives elections and heartbeats.
        enable_tick: false,
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.lease),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        max_payload_entries: APPEND_ENTRIES_COUNT_MAX,
        // The shard decides when, by bytes; see Shard::snapshot_if_due.
        snapshot_policy: SnapshotPolicy::Never,
        // A replica gets a snapshot when the log it needs is gone, not when it merely lags.
        replication_lag_threshold: u64::MAX,
        max_in_snapshot_log_to_keep: 4 * APPEND_PIPELINE_MAX as u64,
        purge_batch_size: 64,
        backoff: "20ms 40ms 80ms ...250ms".to_string(),
        removed_leader_step_down: StepDownPolicy::After(150),
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}
