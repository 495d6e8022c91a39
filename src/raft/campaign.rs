//! Standing for election: a pre-vote of our own, then openraft's election.
//!
//! openraft's pre-vote obeys openraft's lease, which is too long (see `pledge`), and so do its answers to others'. So
//! candidates ask here, and `inbound` answers. A pre-vote changes nothing anywhere and waits for no disk. What time it is
//! for the group is asked in the same breath: whoever leads goes on with that.
//!
//! The vote itself may take as long as two slow disks do. While it can still be won, this replica neither begins another
//! campaign nor encourages others to: see [`Ballot`].
//!
//! Source: Raft thesis §9.6.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::{VoteRequest, VoteResponse};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::census::Roll;
use super::core::Shared;
use super::group::Group;
use super::limits::{PRE_VOTE_TIMEOUT, VOTE_TIMEOUT};
use super::network::{kind, put_meant};
use super::state_machine::StateMachine;
use super::timekeeper::Estimate;
use super::type_config::{TypeConfig, Vote, is_voter};
use crate::ids::{Holder, RaftId};

/// Who may still give this replica, a candidate, the vote it needs.
#[derive(Debug, Default)]
pub(super) struct Ballot {
    waiting: Mutex<Option<Waiting>>,
    /// The short replicas that were counted for this replica's election.
    roll: Mutex<Roll>,
    /// Counts campaigns: a newer one puts an end to the pre-vote of an older.
    round: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    voters: BTreeSet<RaftId>,
}

impl Ballot {
    /// The short replicas that may vote for this one.
    pub(super) fn roll(&self) -> Roll {
        self.roll.lock().clone()
    }

    /// They are `roll` from now on.
    pub(super) fn set_roll(&self, roll: Roll) {
        *self.roll.lock() = roll;
    }

    /// `voters` are asked for their votes from `now` on.
    pub(super) fn open(&self, voters: BTreeSet<RaftId>, now: Instant) {
        *self.waiting.lock() = Some(Waiting { since: now, voters });
    }

    /// `voter` has answered, whatever it said, or will not any more. An answer of an older ballot ends this one's wait
    /// too, which only makes this replica less patient.
    pub(super) fn answered(&self, voter: RaftId) {
        if let Some(waiting) = &mut *self.waiting.lock() {
            waiting.voters.remove(&voter);
        }
    }

    /// Whether the vote can still be won at `now`.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.waiting
            .lock()
            .as_ref()
            .is_some_and(|waiting| !waiting.voters.is_empty() && now < waiting.since + VOTE_TIMEOUT)
    }
}

impl<S: StateMachine> Group<S> {
    /// Campaigns now (with a pre-vote) instead of waiting for the election timer; returns at once.
    pub fn campaign(&self) {
        let shared = &self.shared;
        let now = Instant::now();
        let (may_campaign, is_alone) = {
            let metrics = shared.metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let is_voter = is_voter(membership.get_joint_config(), shared.id);
            (
                metrics.state != ServerState::Leader && is_voter,
                membership.voter_ids().eq([shared.id]),
            )
        };
        // Who votes alone owes nobody anything, also not just after a restart.
        let roll = shared.ballot.roll();
        if !may_campaign
            || !(shared.may_elect(now, &roll) || (is_alone && shared.has_a_say_in(&roll)))
        {
            return;
        }
        let group = self.clone();
        let round = shared.ballot.round.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move { group.pre_vote_and_elect(round).await });
    }

    async fn pre_vote_and_elect(&self, round: u64) {
        let shared = &self.shared;
        let Some(willing) = shared.pre_vote().await else { return };
        if shared.ballot.round.load(Ordering::Relaxed) != round {
            return;
        }
        // This replica's own vote keeps its promise as one for anybody else does.
        let decide = |promise: &mut super::pledge::Promise| {
            let now = Instant::now();
            let is_free =
                !promise.is_bound(now, shared.timing.lease) && !shared.pledge.is_weighing();
            if is_free {
                // Its vote for itself: of the term after the last that openraft may have heard of.
                let known = shared.metrics.borrow_watched().current_term;
                shared.pledge.voted(known.max(promise.term()).saturating_add(1));
                shared.ballot.open(willing, now);
            }
            is_free
        };
        let trigger = shared.raft.trigger();
        let call = pin!(trigger.elect(false));
        let elected = shared.pledge.queue(decide, call).await;
        if let Some(Err(fatal)) = elected {
            tracing::warn!(group = %shared.group, %fatal, "cannot campaign");
        }
    }
}

impl<S: StateMachine> Shared<S> {
    /// Whether an election would not break this replica's promises, and none is under way here: what it says to others'
    /// pre-votes and to its own timer.
    pub(super) fn may_elect(&self, now: Instant, roll: &Roll) -> bool {
        self.has_a_say_in(roll)
            && now >= self.votes_from
            && !self.pledge.is_weighing()
            && !self.ballot.is_open(now)
            && !self.pledge.with(|promise| promise.is_bound(now, self.timing.lease))
    }

    /// Asks the voters whether they would elect this replica. The others who would, if they and it are a quorum.
    async fn pre_vote(&self) -> Option<BTreeSet<RaftId>> {
        let (term, configs, others) = {
            let metrics = self.metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let others: Vec<(RaftId, Holder)> = membership
                .voter_ids()
                .filter(|voter| *voter != self.id)
                .filter_map(|voter| Some((voter, *membership.get_node(&voter)?)))
                .collect();
            (metrics.current_term, membership.get_joint_config().clone(), others)
        };
        let is_quorum = |willing: &BTreeSet<RaftId>| {
            configs.iter().all(|voters| {
                let counted = |voter: &&RaftId| **voter == self.id || willing.contains(*voter);
                voters.iter().filter(counted).count() > voters.len() / 2
            })
        };
        let mut willing = BTreeSet::new();
        let mut times = Vec::new();
        let is_told = |estimate: &Estimate| estimate.word.is_some();
        let knows_time = is_told(&self.time.estimate());
        if is_quorum(&willing) {
            self.time.agree(&times);
            return Some(willing);
        }
        let request: VoteRequest<TypeConfig> =
            VoteRequest::new(Vote::new(term.checked_add(1)?, self.id), self.log.last_log_id());
        let body = postcard::to_stdvec(&(request, self.ballot.roll())).ok()?;
        let mut answers: FuturesUnordered<_> = others
            .into_iter()
            .filter_map(|(voter, holder)| {
                let peer = self.peers.get(holder.node)?;
                let answer = peer.call_with(self.group, kind::PRE_VOTE, PRE_VOTE_TIMEOUT, |out| {
                    put_meant(voter, out);
                    out.extend_from_slice(&body);
                });
                Some(async move { (voter, answer.await) })
            })
            .collect();
        while let Some((voter, answer)) = answers.next().await {
            let Ok(answer) = answer else { continue };
            match postcard::from_bytes::<(VoteResponse<TypeConfig>, Estimate)>(&answer) {
                Ok((answer, time)) => {
                    times.push(time);
                    if answer.vote_granted {
                        willing.insert(voter);
                    }
                    // Where nobody knows what time it is, the last one asked may.
                    if is_quorum(&willing) && (knows_time || times.iter().any(is_told)) {
                        self.time.agree(&times);
                        return Some(willing);
                    }
                }
                Err(error) => tracing::warn!(group = %self.group, %error, "refused an answer"),
            }
        }
        is_quorum(&willing).then(|| {
            self.time.agree(&times);
            willing
        })
    }
}
