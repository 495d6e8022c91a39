//! Replicas that may lack a tail of what they acknowledged: how one becomes whole again, and who leads when too few are.
//!
//! A machine that lost power may have forgotten entries that counted before they were synced. Its replicas are *short*:
//! they follow and acknowledge (what they say they have, they have), but give no vote and seek none, so that what they
//! forgot is still held by all who decide. A short replica is whole again once it has applied
//!
//! - an entry of a term above that of its vote at this start: whoever led that term was elected without it, and so by
//!   replicas that hold all that was committed; or
//! - the entry that a leader appended after this very start asked for it, a **fence**: all that this replica ever
//!   acknowledged to that leader comes before. That it is asked for by the start, in memory, and not by the replica in the
//!   log, is what makes a second loss of power ask again.
//!
//! When no leader can be elected, the voters take a census: see `census`.
//!
//! Source: Raft thesis §3.6 (leader completeness), §3.8 (what must be on disk).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::census::{Roll, Standing, Verdict, judge};
use super::core::Shared;
use super::group::Group;
use super::limits::{CENSUS_INTERVAL, CENSUS_TIMEOUT, FENCE_TIMEOUT};
use super::network::{kind, put_meant};
use super::state_machine::StateMachine;
use super::type_config::is_voter;
use crate::ids::{Holder, RaftId, Session};
use crate::stdx::planted::{Bug, is_planted};

/// What a replica knows of its own shortness.
#[derive(Debug)]
pub(super) struct Shortness {
    /// This start.
    session: Session,
    is_short: AtomicBool,
    /// Term of its vote at this start.
    term: AtomicU64,
    /// Index that it must have applied to be whole, as a leader has told this start; 0 before.
    fence: AtomicU64,
    /// A question to others is on its way.
    is_asking: AtomicBool,
    /// When it may ask again.
    next: Mutex<Instant>,
    /// Since when every census could do without those that are missing.
    incomplete_since: Mutex<Option<Instant>>,
}

impl Shortness {
    pub(super) fn new(is_short: bool, session: Session, term: u64, now: Instant) -> Self {
        Self {
            session,
            is_short: AtomicBool::new(is_short),
            term: AtomicU64::new(term),
            fence: AtomicU64::new(0),
            is_asking: AtomicBool::new(false),
            next: Mutex::new(now + CENSUS_INTERVAL),
            incomplete_since: Mutex::new(None),
        }
    }

    /// Makes a replica short as if it had been restarted with a vote of `term`.
    #[cfg(test)]
    pub(super) fn shorten(&self, term: u64) {
        self.term.store(term, Ordering::Release);
        self.is_short.store(true, Ordering::Release);
    }

    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire)
    }

    /// Whether the replica `id` may have a say in an election for which the short ones in `roll` were counted.
    pub(super) fn may_take_part(&self, id: RaftId, roll: &Roll) -> bool {
        !self.is_short() || roll.get(&id) == Some(&self.session) || is_planted(Bug::ShortVotes)
    }

    /// Whether what was applied, up to an entry of `term` at `index`, makes the replica whole.
    fn is_mended_by(&self, term: u64, index: u64) -> bool {
        let fence = self.fence.load(Ordering::Acquire);
        term > self.term.load(Ordering::Acquire) || (fence > 0 && index >= fence)
    }
}

impl<S: StateMachine> Group<S> {
    /// Does what is due about shortness; a part of the tick.
    pub(super) fn mend(&self, now: Instant) {
        let shared = &self.shared;
        let (applied, leader, is_leader, is_voter) = {
            let metrics = shared.metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let leader = metrics.current_leader.filter(|leader| *leader != shared.id);
            let leader = leader.and_then(|id| Some((id, *membership.get_node(&id)?)));
            let is_voter = is_voter(membership.get_joint_config(), shared.id);
            (metrics.last_applied, leader, metrics.state == ServerState::Leader, is_voter)
        };
        let shortness = &shared.shortness;
        if shortness.is_short()
            && applied.is_some_and(|it| shortness.is_mended_by(it.leader_id.term, it.index))
        {
            self.become_whole();
        }
        let follows = shared.pledge.with(|promise| promise.is_bound(now, shared.timing.lease));
        if follows || is_leader {
            shared.ballot.set_roll(Roll::new());
            *shortness.incomplete_since.lock() = None;
        }
        let must_fence =
            shortness.is_short() && follows && shortness.fence.load(Ordering::Acquire) == 0;
        let must_count = is_voter && !follows && !is_leader;
        if !(must_fence || must_count) || *shortness.next.lock() > now {
            return;
        }
        if shortness.is_asking.swap(true, Ordering::AcqRel) {
            return;
        }
        *shortness.next.lock() = now + CENSUS_INTERVAL;
        let group = self.clone();
        tokio::spawn(async move {
            match leader.filter(|_| must_fence) {
                Some(leader) => group.shared.ask_for_fence(leader).await,
                None if must_count => group.take_census().await,
                None => {}
            }
            group.shared.shortness.is_asking.store(false, Ordering::Release);
        });
    }

    /// The replica has all that it ever acknowledged.
    pub fn become_whole(&self) {
        let shared = &self.shared;
        if shared.shortness.is_short.swap(false, Ordering::AcqRel) {
            tracing::info!(group = %shared.group, "the replica is whole again after a loss of power");
            // Should this be lost, the replica is taken for short once more, which does no harm.
            if let Err(error) = shared.log.note_whole() {
                tracing::warn!(group = %shared.group, %error, "cannot note that the replica is whole");
            }
        }
    }

    /// Counts what the voters have, and stands if it is this replica's turn.
    async fn take_census(&self) {
        let shared = &self.shared;
        let (configs, voters) = {
            let metrics = shared.metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let voters: Vec<(RaftId, Holder)> = membership
                .voter_ids()
                .filter_map(|voter| Some((voter, *membership.get_node(&voter)?)))
                .collect();
            (membership.get_joint_config().clone(), voters)
        };
        let standings = shared.standings_of(&voters).await;
        let is_lost = |(id, holder): &&(RaftId, Holder)| {
            !standings.contains_key(id) && shared.has_lost_disk(*holder)
        };
        let lost: BTreeSet<RaftId> = voters.iter().filter(is_lost).map(|it| it.0).collect();
        let verdict = {
            let mut since = shared.shortness.incomplete_since.lock();
            judge(&configs, (&standings, &lost), shared.id, &mut since, Instant::now())
        };
        let Verdict::Stand(roll) = verdict else { return };
        let missing: BTreeSet<RaftId> = configs
            .iter()
            .flatten()
            .filter(|voter| !standings.contains_key(voter))
            .copied()
            .collect();
        tracing::error!(
            group = %shared.group, last = ?shared.log.last_log_id(), short = roll.len(), ?missing,
            "after a loss of power too few replicas are whole: elects by what is left; what was acknowledged in the last \
             unsynced second may be lost"
        );
        shared.ballot.set_roll(roll);
        self.campaign();
    }
}

impl<S: StateMachine> Shared<S> {
    /// Whether another directory goes by the name of `holder`'s node now.
    fn has_lost_disk(&self, holder: Holder) -> bool {
        let identity = self.peers.get(holder.node).and_then(|peer| peer.connected_identity());
        identity.is_some_and(|it| it.incarnation != holder.incarnation)
    }

    /// What this replica says of itself in a census.
    pub(super) fn standing(&self) -> Standing {
        let now = Instant::now();
        let follows = self.pledge.with(|promise| promise.is_bound(now, self.timing.lease));
        Standing {
            short: self.shortness.is_short().then_some(self.shortness.session),
            last: self.log.last_log_id().map(|last| (last.leader_id.term, last.index)),
            knows_leader: follows || self.leads_with_quorum(),
        }
    }

    async fn standings_of(&self, voters: &[(RaftId, Holder)]) -> BTreeMap<RaftId, Standing> {
        let mut standings = BTreeMap::from([(self.id, self.standing())]);
        let others = voters.iter().filter(|(voter, _)| *voter != self.id);
        let mut answers: FuturesUnordered<_> = others
            .filter_map(|(voter, holder)| {
                let peer = self.peers.get(holder.node)?;
                let put = |out: &mut Vec<u8>| put_meant(*voter, out);
                let answer = peer.call_with(self.group, kind::CENSUS, CENSUS_TIMEOUT, put);
                let voter = *voter;
                Some(async move { (voter, answer.await) })
            })
            .collect();
        while let Some((voter, answer)) = answers.next().await {
            let standing = answer.ok().and_then(|answer| postcard::from_bytes(&answer).ok());
            standings.extend(standing.map(|standing| (voter, standing)));
        }
        standings
    }

    /// Asks the leader for an entry that comes after all it has of this replica's acknowledgements.
    async fn ask_for_fence(&self, (leader, holder): (RaftId, Holder)) {
        let Some(peer) = self.peers.get(holder.node) else { return };
        let put = |out: &mut Vec<u8>| put_meant(leader, out);
        let Ok(answer) = peer.call_with(self.group, kind::FENCE, FENCE_TIMEOUT, put).await else {
            return;
        };
        if let Some((index, [])) = answer.split_first_chunk() {
            self.shortness.fence.store(u64::from_le_bytes(*index), Ordering::Release);
        }
    }

    /// As leader: appends an entry for a short replica and says where, once it is committed.
    pub(super) async fn build_fence(self: Arc<Self>) -> Option<u64> {
        if !self.leads_with_quorum() {
            return None;
        }
        if is_planted(Bug::FenceWithoutEntry) {
            return self.metrics.borrow_watched().last_applied.map(|log_id| log_id.index);
        }
        Some(self.raft.write_blank().await.ok()?.log_id.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(random: u64) -> Session {
        Session { number: 3, random }
    }

    fn short() -> Shortness {
        Shortness::new(true, session(1), 5, Instant::now())
    }

    #[test]
    fn a_short_replica_takes_part_only_where_this_very_start_was_counted() {
        let (own, other) = (RaftId(1), RaftId(2));
        let roll = |id, random| Roll::from([(id, session(random))]);
        assert!(!short().may_take_part(own, &Roll::new()));
        assert!(!short().may_take_part(own, &roll(other, 1)));
        assert!(!short().may_take_part(own, &roll(own, 2)), "it lost power again since");
        assert!(short().may_take_part(own, &roll(own, 1)));
        let whole = Shortness::new(false, session(1), 5, Instant::now());
        assert!(whole.may_take_part(own, &Roll::new()));
    }

    #[test]
    fn a_later_term_or_a_fence_makes_it_whole() {
        let shortness = short();
        assert!(
            !shortness.is_mended_by(5, 1000),
            "the leader of that term may have its acknowledgements"
        );
        assert!(shortness.is_mended_by(6, 1), "elected without it");
        shortness.fence.store(70, Ordering::Release);
        assert!(!shortness.is_mended_by(5, 69));
        assert!(shortness.is_mended_by(5, 70));
    }
}
