//! Whether this replica may answer reads: alone under its lease, or after a round to a quorum.

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::RaftError;
use openraft::raft::ReadPolicy;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, timeout_at};

use super::group::{Group, Leadership};
use super::limits::QUORUM_ASK_INTERVAL;
use super::state_machine::StateMachine;
use crate::ids::NodeId;

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

impl<S: StateMachine> Group<S> {
    /// Whether this replica may answer a linearizable read from its applied state right now, without asking
    /// anyone: it leads, has applied an entry of its own term, and its lease holds.
    ///
    /// Source: Raft thesis §6.4.1. The check must come after the request arrived; being paused after it
    /// is harmless, for the state read is the one that was current at the check.
    pub fn may_read(&self) -> bool {
        let metrics = self.shared.metrics.borrow_watched();
        if metrics.state != ServerState::Leader || metrics.current_leader != Some(self.shared.id) {
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
        self.shared.acknowledgements.has_quorum_since(term, since, configs, self.shared.id)
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
            ))) => {
                let leader = forward.leader_node.map(|holder| holder.node);
                return Err(ReadRefused::NotLeader { leader });
            }
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
                    let leader = metrics.current_leader.filter(|leader| *leader != shared.id);
                    let holder = leader.and_then(|id| metrics.membership_config.get_node(&id));
                    let leader = holder.map(|holder| holder.node);
                    return Err(ReadRefused::NotLeader { leader });
                }
                let configs = metrics.membership_config.get_joint_config();
                if shared.acknowledgements.has_quorum_since(term, since, configs, shared.id) {
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
}
