//! What a replica says of itself and of its group, by what openraft last said. Nothing here vouches for anything: that is
//! `lease`'s.

use std::sync::atomic::Ordering;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;

use super::group::Group;
use super::limits::ROOM_AGE_MAX;
use super::state_machine::StateMachine;
use crate::ids::{NodeId, RaftId};

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

impl<S: StateMachine> Group<S> {
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

    /// Whether it has stopped in order, because this node does.
    pub fn was_asked_to_stop(&self) -> bool {
        self.shared.was_asked_to_stop.load(Ordering::Acquire)
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

    /// The memory that the replicas' nodes have left, the least of them, in bytes: as leader by what the others last said.
    pub fn room(&self) -> u64 {
        let shared = &self.shared;
        let others = if self.leadership() == Leadership::Here {
            let metrics = shared.metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let since = shared.acknowledgements.now().minus(ROOM_AGE_MAX);
            let is_member = |replica| membership.get_node(&replica).is_some();
            shared.acknowledgements.least_room(since, is_member)
        } else {
            u64::MAX
        };
        shared.budget.room().min(others)
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

    /// Index of the last entry that the log of `node` is known to hold; `None` when not leading.
    pub(super) fn replicated_to(&self, node: NodeId) -> Option<u64> {
        let id = self.replica_on(node)?;
        let metrics = self.shared.metrics.borrow_watched();
        let log_id = metrics.replication.as_ref()?.get(&id)?.as_ref()?;
        Some(log_id.index)
    }
}
