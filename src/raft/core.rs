//! What the parts of one replica share: openraft, its machine, and the little that this room keeps beside openraft.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use openraft::Raft;
use openraft::alias::WatchReceiverOf;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::acknowledgements::Acknowledgements;
use super::inbound_snapshots::IncomingSnapshot;
use super::options::Timing;
use super::snapshot::SnapshotStore;
use super::state_machine::{Adapter, AppliedTerm, StateMachine};
use super::timer::Timer;
use super::type_config::TypeConfig;
use crate::ids::{GroupId, RaftId};

/// What the parts of one replica share.
pub(super) struct Shared<S: StateMachine> {
    pub(super) group: GroupId,
    /// This replica.
    pub(super) id: RaftId,
    pub(super) raft: Raft<TypeConfig, Adapter<S>>,
    pub(super) metrics: WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>,
    pub(super) machine: Arc<S>,
    pub(super) applied: Arc<AppliedTerm>,
    /// What the lease and ReadIndex rest on.
    pub(super) acknowledgements: Arc<Acknowledgements>,
    pub(super) timing: Timing,
    /// Votes are refused until then: before the restart this replica may have promised a leader its lease.
    pub(super) votes_from: Instant,
    /// Term whose lease was given up by starting a leader transfer; 0 = none. Followers drop a leader's
    /// lease early when it hands over, so from then on only a quorum can vouch for its reads.
    pub(super) transferring_term: AtomicU64,
    pub(super) snapshots: SnapshotStore,
    pub(super) incoming: Mutex<Option<IncomingSnapshot>>,
    pub(super) timer: Mutex<Timer>,
    pub(super) stopping: AtomicBool,
}
