//! Whether this replica may answer reads: alone under its lease, or after a round to a quorum.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::RaftError;
use openraft::raft::ReadPolicy;
use openraft::{RaftMetrics, ServerState};
use tokio::time::{Instant, timeout_at};

use super::group::Group;
use super::limits::{APPEND_TIMEOUT, QUORUM_ASK_INTERVAL};
use super::state_machine::StateMachine;
use super::status::Leadership;
use super::type_config::{TypeConfig, is_voter};
use crate::ids::NodeId;
use crate::stdx::clock::MonotonicMicros;
use crate::stdx::planted::{Bug, is_planted};

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
    /// It leads, but has not applied all that is committed in time.
    #[error("behind what is committed")]
    Behind,
}

impl<S: StateMachine> Group<S> {
    /// Whether this replica may answer a linearizable read from its applied state right now, without asking
    /// anyone: it leads, has applied an entry of its own term, and its lease holds.
    ///
    /// Source: Raft thesis §6.4.1. The check must come after the request arrived; being paused after it
    /// is harmless, for the state read is the one that was current at the check.
    pub fn may_read(&self) -> bool {
        let shared = &self.shared;
        let metrics = shared.metrics.borrow_watched();
        let term = metrics.current_term;
        // First of all, see there.
        if !shared.pledge.may_rely(term) {
            return false;
        }
        if metrics.state != ServerState::Leader || metrics.current_leader != Some(shared.id) {
            return false;
        }
        if shared.applied.get() != term && !is_planted(Bug::ReadBeforeOwnTerm) {
            return false;
        }
        // Who was voted out may not have heard all of those who elect its successor.
        if !is_voter(metrics.committed_membership_config.get_joint_config(), shared.id) {
            return false;
        }
        if shared.applied.has_sole_voter() || is_planted(Bug::LeaseUnchecked) {
            return true;
        }
        let since = shared.acknowledgements.now().minus(shared.timing.read_lease());
        let configs = metrics.membership_config.get_joint_config();
        shared.acknowledgements.has_quorum_since(term, since, configs, shared.id)
    }

    /// Asks a quorum whether this replica still leads, and waits until all that was committed is applied here (ReadIndex,
    /// thesis §6.4), until `deadline` at most. One round serves every read that waits for it.
    ///
    /// # Errors
    /// As [`Self::confirm`] and [`Self::await_applied`].
    pub async fn read_index(&self, deadline: Instant) -> Result<(), ReadRefused> {
        let confirmed = timeout_at(deadline, self.confirm()).await;
        self.await_applied(confirmed.unwrap_or(Err(ReadRefused::NoQuorum))?, deadline).await
    }

    /// The first half of [`Self::read_index`]: whether this replica still leads. The index of an entry that is committed, as
    /// all before it are: once it is applied here, the state answers whoever asked before.
    ///
    /// # Errors
    /// When it does not lead, or no quorum answers within the lease, or takes the first entry of its term in time.
    pub async fn confirm(&self) -> Result<u64, ReadRefused> {
        // Not this very microsecond: what was sent in it may have been sent before.
        let asked = self.shared.acknowledgements.now().plus(Duration::from_micros(1));
        // openraft would wait for as long as its own lease.
        let deadline = Instant::now() + self.shared.timing.lease;
        let asking = self.shared.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let linearizer = match timeout_at(deadline, asking).await {
            Ok(Ok(linearizer)) => linearizer,
            Ok(Err(RaftError::APIError(
                openraft::error::LinearizableReadError::ForwardToLeader(forward),
            ))) => {
                let leader = forward.leader_node.map(|holder| holder.node);
                return Err(ReadRefused::NotLeader { leader });
            }
            Ok(Err(_)) | Err(_) => return Err(ReadRefused::NoQuorum),
        };
        // The index to be applied belongs to the term in which this replica led when it took it.
        let (term, index) = {
            let read = linearizer.read_log_id().log_id();
            (read.leader_id.term, read.index)
        };
        self.await_committed(index).await?;
        // openraft may have been content with an answer to a message sent before the read was asked for.
        self.await_quorum_since(term, asked).await?;
        Ok(index)
    }

    /// The second half: waits until the entry at `index` is applied here. What is heavy may take its time, so that has an end
    /// of its own.
    ///
    /// # Errors
    /// When the replica stops, or [`ReadRefused::Behind`] at `deadline`.
    pub async fn await_applied(&self, index: u64, deadline: Instant) -> Result<(), ReadRefused> {
        let wait = self.shared.raft.wait(None);
        match timeout_at(deadline, wait.applied_index_at_least(Some(index), "reads")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadRefused::NotLeader { leader: None }),
            Err(_) => Err(ReadRefused::Behind),
        }
    }

    /// Waits until the entry at `index` is committed, for as long as a follower may take for an entry.
    async fn await_committed(&self, index: u64) -> Result<(), ReadRefused> {
        let deadline = Instant::now() + APPEND_TIMEOUT;
        let mut metrics = self.shared.metrics.clone();
        loop {
            {
                let metrics = metrics.borrow_watched();
                let committed = metrics.local_committed.as_ref();
                if committed.is_some_and(|committed| committed.index >= index) {
                    return Ok(());
                }
                if metrics.state != ServerState::Leader {
                    return Err(self.led_elsewhere(&metrics));
                }
            }
            match timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                // The replica has stopped.
                Ok(Err(_)) => return Err(ReadRefused::NotLeader { leader: None }),
                Err(_) => return Err(ReadRefused::NoQuorum),
            }
        }
    }

    /// Waits until a quorum has answered messages of `term` that were sent at `since` or later, for at most one lease.
    async fn await_quorum_since(
        &self,
        term: u64,
        since: MonotonicMicros,
    ) -> Result<(), ReadRefused> {
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
                    return Err(self.led_elsewhere(&metrics));
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

    /// That it does not lead, and who does by these `metrics`.
    fn led_elsewhere(&self, metrics: &RaftMetrics<TypeConfig>) -> ReadRefused {
        let leader = metrics.current_leader.filter(|leader| *leader != self.shared.id);
        let holder = leader.and_then(|id| metrics.membership_config.get_node(&id));
        ReadRefused::NotLeader { leader: holder.map(|holder| holder.node) }
    }
}
