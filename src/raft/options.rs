//! What a replica is started with: its clock, its disk, its peers; and what openraft is told of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy, StepDownPolicy};

use super::limits::{
    APPEND_ENTRIES_COUNT_MAX, COMMITS_WAITING_MAX, HEARTBEAT_QUIET_PART, HELD_LOG_BYTES_MIN,
    PRE_VOTE_TIMEOUT, QUORUM_ASK_INTERVAL, SNAPSHOT_CHUNK_BYTES, TAIL_BYTES_MAX, VOTE_TIMEOUT,
};
use super::snapshot::SnapshotStore;
use super::timekeeper::Timekeeper;
use crate::ids::{GroupId, Holder, RaftId, Session};
use crate::stdx::clock::Clock;
use crate::stdx::memory::Budget;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::Workers;
use crate::transport::Peers;
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
    pub const fn read_lease(&self) -> Duration {
        Duration::from_millis(millis(self.lease) * 85 / 100)
    }

    /// What must hold between these times, and between them and others of this room.
    const fn is_sound(&self) -> bool {
        let (heartbeat, lease) = (millis(self.heartbeat), millis(self.lease));
        let election_min = millis(self.election_min);
        let read_lease = millis(self.read_lease());
        // A leader may lose a message and still keep its lease.
        heartbeat > 0 && 2 * heartbeat < lease
            // It stops believing before its followers do.
            && read_lease < lease && heartbeat < read_lease
            // Silence has a random part, and candidates of an equal log do not wait for more than a lease.
            && 0 < election_min && election_min < lease
            // The time for which openraft sends no further heartbeat is over before a quorum is asked again.
            && heartbeat / HEARTBEAT_QUIET_PART <= millis(QUORUM_ASK_INTERVAL)
            // openraft's lease is no shorter than ours, or it would give up a leader that we do not.
            && lease < millis(VOTE_TIMEOUT)
            && millis(PRE_VOTE_TIMEOUT) <= millis(VOTE_TIMEOUT)
    }
}

const _: () = assert!(Timing::DEFAULT.is_sound(), "the times of consensus contradict each other");

const fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + duration.subsec_millis() as u64
}

/// Sizes of a replica's log and snapshots. A simulation makes them small, so that little data meets all that much would;
/// replicas of one group may have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the log's tail that stay in memory; what is older is read back from the disk.
    pub tail_bytes_max: usize,
    /// Bytes of one chunk of a snapshot that is written here.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of log kept for replicas that a snapshot is on its way to, at most, where twice the snapshot is less.
    pub held_log_bytes_min: u64,
}

impl Sizes {
    /// Those of a real node.
    pub const DEFAULT: Self = Self {
        tail_bytes_max: TAIL_BYTES_MAX,
        snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
        held_log_bytes_min: HELD_LOG_BYTES_MIN,
    };

    /// Whether a snapshot file takes such chunks.
    pub const fn is_sound(&self) -> bool {
        0 < self.snapshot_chunk_bytes
            && self.snapshot_chunk_bytes <= crate::wal::limits::SNAPSHOT_CHUNK_BYTES_MAX
    }
}

const _: () = assert!(Sizes::DEFAULT.is_sound(), "no file takes a chunk of a snapshot");

impl Default for Sizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a replica is started with.
#[derive(Debug)]
pub struct GroupOptions {
    /// Which group.
    pub group: GroupId,
    /// Which replica of it: never used for another, not even for one that replaces it.
    pub id: RaftId,
    /// Where it lies.
    pub holder: Holder,
    /// The node's shared log.
    pub wal: Wal,
    /// What the log remembers of this group.
    pub recovered: Option<GroupState>,
    /// Where its snapshots are.
    pub snapshots: SnapshotStore,
    /// Its log may have lost what this replica acknowledged: see [`Group::is_short`](super::Group::is_short).
    pub is_short: bool,
    /// Which start of its directory this is: a census counts short replicas by it.
    pub session: Session,
    /// The ways to its replicas.
    pub peers: Peers,
    /// The clock of consensus.
    pub timing: Timing,
    /// What leases are counted by.
    pub clock: Arc<dyn Clock>,
    /// What time it is for the group.
    pub time: Arc<dyn Timekeeper>,
    /// What memory this node has left: a leader hears it with every acknowledgement.
    pub budget: Arc<Budget>,
    /// Who does what blocks.
    pub workers: Arc<dyn Workers>,
    /// How much of its log and snapshots is where.
    pub sizes: Sizes,
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
    /// The log was purged behind what any snapshot that can be read covers: what lies between is on no disk here.
    #[error(
        "group {group}: the log begins behind entry {purged}, but no readable snapshot covers more than entry \
         {restored}; this copy cannot be restored"
    )]
    SnapshotMissing {
        /// The group.
        group: GroupId,
        /// The last entry purged.
        purged: u64,
        /// The last entry restored; 0: none.
        restored: u64,
    },
    /// openraft refused to start.
    #[error("group {group}: {source}")]
    Config {
        /// The group.
        group: GroupId,
        /// openraft's words.
        #[source]
        source: ConfigError,
    },
    /// openraft could not start.
    #[error("group {group}: {source}")]
    Raft {
        /// The group.
        group: GroupId,
        /// openraft's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// openraft's settings for a group: no timers of its own, no snapshots of its own accord.
pub(super) fn raft_config(group: GroupId, timing: &Timing) -> Result<Config, ConfigError> {
    let config = Config {
        cluster_name: group.to_string(),
        heartbeat_interval: millis(timing.heartbeat),
        // A write's acknowledgement proves what a heartbeat would; under load none are sent.
        heartbeat_min_interval: Some(millis(timing.heartbeat) / HEARTBEAT_QUIET_PART),
        // See Group::tick, which drives elections and heartbeats.
        enable_tick: false,
        // How long a vote may take. Not when elections begin: that is `timer`'s.
        election_timeout_min: millis(VOTE_TIMEOUT),
        // openraft's lease, which neither guards votes nor vouches for reads here: see `pledge`.
        election_timeout_max: millis(VOTE_TIMEOUT) + 1,
        // Pre-votes are our own: see `campaign`.
        enable_pre_vote: Some(false),
        enable_leader_restore: Some(false),
        max_payload_entries: APPEND_ENTRIES_COUNT_MAX,
        state_machine_channel_size: Some(COMMITS_WAITING_MAX),
        // The shard decides when, by bytes; see Shard::snapshot_if_due.
        snapshot_policy: SnapshotPolicy::Never,
        // A replica gets a snapshot when the log it needs is gone, not when it merely lags.
        replication_lag_threshold: u64::MAX,
        // What a snapshot covers is purged by bytes, see Shard::snapshot_if_due; openraft would count entries.
        max_in_snapshot_log_to_keep: u64::MAX,
        backoff: "20ms 40ms 80ms ...250ms".to_string(),
        // openraft would hand over by itself, past the guard of the lease: see Group::tick.
        removed_leader_step_down: StepDownPolicy::Never,
        // A replica that lost its tail is sent it again; `reversion` tells of it.
        allow_log_reversion: Some(!is_planted(Bug::NoReversion)),
        // With it the core also leaves its loop over messages as soon as there is news: `LogStore::append` makes some come.
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    config.validate()
}
