//! Handing the lead over, as an operation with preconditions, an outcome and a deadline.
//!
//! openraft's own trigger is not used: it marks the leader for the rest of its term, which from then on refuses writes
//! and beats no heart, whatever becomes of the transfer. Here the leader lets proposals wait and lets go of its lease,
//! waits until the target has all of its log, and asks the target to stand. Then:
//!
//! | outcome | the target | this leader |
//! | --- | --- | --- |
//! | accepted | leads | follows |
//! | refused | was not asked, or said no | has its lease again, proposals go on |
//! | unknown | may still stand, at any time | proposals go on; reads ask a quorum for the rest of the term |
//!
//! Source: Raft thesis §3.10, and §6.4.1 for what it does to the lease.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use tokio::time::{Instant, timeout_at};

use super::group::Group;
use super::limits::{HAND_OVER_LAG_BYTES_MAX, HAND_OVER_LAG_MAX, QUORUM_ASK_INTERVAL};
use super::network::{kind, put_meant};
use super::state_machine::StateMachine;
use super::type_config::TypeConfig;
use crate::ids::{Holder, NodeId, RaftId};
use crate::stdx::planted::{Bug, is_planted};

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// Another replica leads.
    Accepted,
    /// Nothing has changed.
    Refused(TransferRefusal),
    /// The target was asked and did not come to lead in time.
    Unknown,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferRefusal {
    /// This replica does not lead, or is handing over already.
    NotLeading,
    /// The target may not lead: it is no voter for good, or no replica.
    NotEligible,
    /// It is too far behind, or did not catch up in time; a snapshot may be on its way to it.
    Behind,
    /// It did not answer just now.
    Silent,
    /// It said no, or could not be asked.
    Declined,
}

/// The answer to `TRANSFER_LEADER`: one byte.
pub(super) const DECLINED: u8 = 0;
pub(super) const TAKEN: u8 = 1;

/// A replica that leads, as it decides about a transfer.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: RaftId,
    holder: Holder,
    term: u64,
}

impl<S: StateMachine> Group<S> {
    /// Whether this replica leads and `target` could be handed the lead right now: it is a voter, has all but the last
    /// few entries, and answered a moment ago.
    pub fn could_hand_over(&self, target: NodeId) -> bool {
        self.candidate(target).is_ok_and(|candidate| self.answered_recently(candidate))
    }

    /// The nodes that could be handed the lead right now, who has most of the log first.
    pub fn successors(&self) -> Vec<NodeId> {
        let shared = &self.shared;
        let others: Vec<NodeId> = {
            let metrics = shared.metrics.borrow_watched();
            let nodes = metrics.membership_config.nodes();
            nodes.filter(|(id, _)| **id != shared.id).map(|(_, holder)| holder.node).collect()
        };
        let mut fit: Vec<NodeId> =
            others.into_iter().filter(|node| self.could_hand_over(*node)).collect();
        fit.sort_by_key(|node| std::cmp::Reverse(self.replicated_to(*node)));
        fit
    }

    /// Hands leadership to the replica on `target`. Takes at most two leases and a heartbeat; proposals and reads of the
    /// lease wait for one lease at most.
    pub async fn transfer_leader(&self, target: NodeId) -> TransferOutcome {
        let candidate = match self.candidate(target) {
            Ok(candidate) => candidate,
            Err(refusal) => return TransferOutcome::Refused(refusal),
        };
        // Before anybody waits for it: whoever is paused or cut off does not answer now.
        if !self.answers(candidate).await && !is_planted(Bug::TransferToOneBehind) {
            return TransferOutcome::Refused(TransferRefusal::Silent);
        }
        let shared = &self.shared;
        let Some(_pause) = shared.pledge.pause() else {
            return TransferOutcome::Refused(TransferRefusal::NotLeading);
        };
        // Before the target is told to stand, so that no read is answered by a lease that it may break.
        shared.pledge.give_up(candidate.term);
        let deadline = Instant::now() + shared.timing.lease;
        let outcome = match self.catch_up_and_ask(candidate, deadline).await {
            Ok(()) => self.succeeded(candidate.term, deadline).await,
            Err(outcome) => outcome,
        };
        match outcome {
            TransferOutcome::Refused(_) => shared.pledge.take_back(candidate.term),
            TransferOutcome::Unknown => shared.pledge.give_away(candidate.term),
            TransferOutcome::Accepted => {}
        }
        tracing::info!(group = %shared.group, to = %target, ?outcome, "handed over the lead");
        outcome
    }

    /// `target`, if it may be asked to lead. Never a learner: openraft would let it stand. Short replicas will not stand;
    /// they say so when asked.
    fn candidate(&self, target: NodeId) -> Result<Candidate, TransferRefusal> {
        let shared = &self.shared;
        let metrics = shared.metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Err(TransferRefusal::NotLeading);
        }
        let mut nodes = metrics.membership_config.nodes();
        let (id, holder) = nodes
            .find(|(_, holder)| holder.node == target)
            .map(|(id, holder)| (*id, *holder))
            .ok_or(TransferRefusal::NotEligible)?;
        let votes = |voters: &std::collections::BTreeSet<RaftId>| voters.contains(&id);
        let is_voter = metrics.membership_config.get_joint_config().iter().all(votes)
            && metrics.committed_membership_config.get_joint_config().iter().all(votes);
        if id == shared.id || !(is_voter || is_planted(Bug::TransferToLearner)) {
            return Err(TransferRefusal::NotEligible);
        }
        let matched = metrics.replication.as_ref().and_then(|all| *all.get(&id)?);
        let is_near = matched.is_some_and(|matched| self.is_near(matched.index));
        if !is_near && !is_planted(Bug::TransferToOneBehind) {
            return Err(TransferRefusal::Behind);
        }
        Ok(Candidate { id, holder, term: metrics.current_term })
    }

    /// Whether who has all up to `matched` lacks so little that proposals may wait for the rest. What is in memory no more
    /// is too much, or too old.
    fn is_near(&self, matched: u64) -> bool {
        let log = &self.shared.log;
        let last = log.last_log_id().map_or(0, |log_id| log_id.index);
        last.saturating_sub(matched) <= HAND_OVER_LAG_MAX
            && log.bytes_in_memory_after(matched).is_some_and(|it| it <= HAND_OVER_LAG_BYTES_MAX)
    }

    /// Whether the candidate has answered something sent within the last two heartbeats.
    fn answered_recently(&self, candidate: Candidate) -> bool {
        let shared = &self.shared;
        let since = shared.acknowledgements.now().minus(2 * shared.timing.heartbeat);
        shared.acknowledgements.has_since(candidate.id, candidate.term, since)
    }

    /// Asks the candidate, and waits for its answer for at most one heartbeat.
    async fn answers(&self, candidate: Candidate) -> bool {
        let shared = &self.shared;
        // Who has answered within this time is not asked again by openraft.
        let since = shared.acknowledgements.now().minus(QUORUM_ASK_INTERVAL);
        let deadline = Instant::now() + shared.timing.heartbeat;
        if shared.raft.trigger().heartbeat().await.is_err() {
            return false;
        }
        loop {
            let changed = shared.acknowledgements.changed();
            if shared.acknowledgements.has_since(candidate.id, candidate.term, since) {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }

    /// Waits until the candidate has all of this log, which no longer grows, then asks it to stand.
    async fn catch_up_and_ask(
        &self,
        candidate: Candidate,
        deadline: Instant,
    ) -> Result<(), TransferOutcome> {
        let shared = &self.shared;
        let refused = |refusal| Err(TransferOutcome::Refused(refusal));
        // Proposals that were queued before the pause are in the log when the core gets to this.
        if timeout_at(deadline, shared.raft.with_raft_state(|_| ())).await.is_err() {
            return refused(TransferRefusal::Behind);
        }
        let mut metrics = shared.metrics.clone();
        loop {
            {
                let now = metrics.borrow_watched();
                if now.state != ServerState::Leader || now.current_term != candidate.term {
                    return refused(TransferRefusal::NotLeading);
                }
                let matched = now.replication.as_ref().and_then(|all| *all.get(&candidate.id)?);
                if matched >= shared.log.last_log_id() {
                    break;
                }
            }
            if !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                return refused(TransferRefusal::Behind);
            }
        }
        let Some(peer) = shared.peers.get(candidate.holder.node) else {
            return refused(TransferRefusal::Declined);
        };
        let vote = metrics.borrow_watched().vote;
        let request: TransferLeaderRequest<TypeConfig> =
            TransferLeaderRequest::new(vote, candidate.id, shared.log.last_log_id());
        let Ok(body) = postcard::to_stdvec(&request) else {
            return refused(TransferRefusal::Declined);
        };
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let asked = peer.call_with(shared.group, kind::TRANSFER_LEADER, left, |out| {
            put_meant(candidate.id, out);
            out.extend_from_slice(&body);
        });
        match asked.await {
            Ok(answer) if answer[..] == [TAKEN] => Ok(()),
            Err(error) if error.was_sent() => Err(TransferOutcome::Unknown),
            Ok(_) | Err(_) => refused(TransferRefusal::Declined),
        }
    }

    /// Waits until another replica leads.
    async fn succeeded(&self, term: u64, deadline: Instant) -> TransferOutcome {
        let mut metrics = self.shared.metrics.clone();
        loop {
            {
                let now = metrics.borrow_watched();
                let is_led = now.current_leader.is_some_and(|leader| leader != self.shared.id);
                if now.current_term > term && is_led {
                    return TransferOutcome::Accepted;
                }
            }
            if !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                return TransferOutcome::Unknown;
            }
        }
    }
}
