//! What a replica is started with: its clock, its disk, its peers; and what openraft is told of them.

use std::io;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use super::limits::{APPEND_ENTRIES_COUNT_MAX, APPEND_PIPELINE_MAX};
use super::snapshot::SnapshotStore;
use crate::ids::{GroupId, Holder, RaftId};
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
    pub fn read_lease(&self) -> Duration {
        self.lease * 85 / 100
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

/// openraft's settings for a group: no timers of its own, no snapshots of its own accord.
pub(super) fn raft_config(group: GroupId, timing: &Timing) -> Result<Config, String> {
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
