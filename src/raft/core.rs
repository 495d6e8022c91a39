//! What the parts of one replica share: openraft, its machine, and the little that this room keeps beside openraft.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::acknowledgements::Acknowledgements;
use super::campaign::Ballot;
use super::census::Roll;
use super::holdback::Holdback;
use super::inbound_snapshots::SnapshotDesk;
use super::log_store::LogStore;
use super::membership::Settling;
use super::options::Timing;
use super::pledge::Pledge;
use super::reversion::Matches;
use super::short::Shortness;
use super::snapshot::SnapshotStore;
use super::state_machine::{Adapter, AppliedTerm, StateMachine};
use super::timekeeper::Timekeeper;
use super::timer::Timer;
use super::type_config::TypeConfig;
use crate::ids::{GroupId, RaftId};
use crate::stdx::memory::Budget;
use crate::stdx::workers::Workers;
use crate::transport::Peers;

/// What the parts of one replica share.
pub(super) struct Shared<S: StateMachine> {
    pub(super) group: GroupId,
    /// This replica.
    pub(super) id: RaftId,
    pub(super) raft: Raft<TypeConfig, Adapter<S>>,
    pub(super) metrics: WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>,
    pub(super) machine: Arc<S>,
    pub(super) log: LogStore,
    pub(super) peers: Peers,
    pub(super) applied: Arc<AppliedTerm>,
    /// What the lease and ReadIndex rest on.
    pub(super) acknowledgements: Arc<Acknowledgements>,
    /// What this replica has promised, and what it may believe of itself.
    pub(super) pledge: Pledge,
    /// Its own candidacy.
    pub(super) ballot: Arc<Ballot>,
    /// Whom the log is kept for.
    pub(super) holdback: Arc<Holdback>,
    pub(super) timing: Timing,
    pub(super) time: Arc<dyn Timekeeper>,
    pub(super) budget: Arc<Budget>,
    pub(super) workers: Arc<dyn Workers>,
    pub(super) held_log_bytes_min: u64,
    pub(super) settling: Settling,
    /// Votes are refused until then: before the restart this replica may have promised a leader its lease.
    pub(super) votes_from: Instant,
    pub(super) snapshots: SnapshotStore,
    pub(super) desk: SnapshotDesk,
    pub(super) timer: Mutex<Timer>,
    /// Whether its log may have lost what it acknowledged.
    pub(super) shortness: Shortness,
    pub(super) matches: Mutex<Matches>,
    /// A heartbeat's commit index is on its way through openraft.
    pub(super) is_committing: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// It stops in order, and not because something failed.
    pub(super) was_asked_to_stop: AtomicBool,
}

impl<S: StateMachine> Shared<S> {
    /// Whether this replica may have a say in elections: give a vote or a pre-vote, stand, or be handed the lead. A short
    /// one may not: its vote could elect a leader without entries that it had acknowledged itself. It follows and
    /// acknowledges like any other, for what it says it has, it has. One that has stopped says nothing at all.
    pub(super) fn has_a_say(&self) -> bool {
        self.has_a_say_in(&Roll::new())
    }

    /// The same in an election for which the short replicas in `roll` were counted: see `census`.
    pub(super) fn has_a_say_in(&self, roll: &Roll) -> bool {
        self.shortness.may_take_part(self.id, roll) && !self.has_stopped()
    }

    /// Whether the replica has stopped for good. openraft no longer answers then, but what it last said of itself stands.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
            || self.metrics.borrow_watched().running_state.is_err()
    }

    /// Whether this replica leads and a majority took its word within the last lease: then it elects nobody else, and
    /// proposals may enter its log.
    pub(super) fn leads_with_quorum(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return false;
        }
        let configs = metrics.membership_config.get_joint_config();
        let since = self.acknowledgements.now().minus(self.timing.lease);
        self.acknowledgements.has_quorum_since(metrics.current_term, since, configs, self.id)
    }
}
