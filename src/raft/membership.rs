//! Changing who the members of a group are: from what they are and what they are to be, the next small call.
//!
//! Pure but for its one caller: a leader looks a few times a second and makes the call that is due. Whatever a leader
//! leaves half done stands in the group's own log, and the next leader goes on from there.
//!
//! **Why it is safe.** Members change by joint consensus only (Raft thesis §4.3), and a replica counts only once a
//! membership that names it is in the log. A raft id is never used twice, so the votes and acknowledgements of a lost
//! directory are never taken for those of the one that replaces it.
//!
//! **Why it is live.** A replica comes in as a learner and becomes a voter when it has all but the newest entries:
//! the joint change then commits at once, and the group never waits for a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::Precondition;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::core::Shared;
use super::group::Group;
use super::state_machine::StateMachine;
use super::type_config::LogId;
use crate::ids::{Holder, RaftId};
use crate::stdx::planted::{Bug, is_planted};

/// How the members of a group relate to what they are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This replica does not lead, so it cannot say.
    NotLeading,
    /// They are to change, or changed in a way that is not committed yet.
    UnderWay,
    /// They are what they are to be, in a committed and uniform membership.
    Committed,
}

/// What a leader remembers between two looks at its group's members.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// A change that this replica asked for is on its way.
    is_changing: AtomicBool,
    rounds: Mutex<Rounds>,
}

impl<S: StateMachine> Group<S> {
    /// Looks whether the members are `target`, and as leader does the next thing to make them so; of those that are no
    /// members yet, only `joining` is taken in. Returns at once; to be called again and again.
    pub fn settle(&self, target: &BTreeMap<RaftId, Holder>, joining: Option<RaftId>) -> Settled {
        let shared = &self.shared;
        let (members, last, matched, base) = {
            let metrics = shared.metrics.borrow_watched();
            if metrics.state != ServerState::Leader || metrics.current_leader != Some(shared.id) {
                return Settled::NotLeading;
            }
            let newest = &metrics.membership_config;
            let base = *newest.log_id();
            let members = Members {
                configs: newest.get_joint_config().clone(),
                nodes: newest.nodes().map(|(id, holder)| (*id, *holder)).collect(),
                is_committed: shared.applied.membership() == base,
            };
            let matched: BTreeMap<RaftId, Option<u64>> = metrics
                .replication
                .iter()
                .flatten()
                .map(|(id, matched)| (*id, matched.as_ref().map(|log_id| log_id.index)))
                .collect();
            (members, metrics.last_log_index.unwrap_or(0), matched, base)
        };
        let now = Instant::now();
        let call = {
            let mut rounds = shared.settling.rounds.lock();
            let is_learner =
                |id: RaftId| !members.configs.iter().any(|voters| voters.contains(&id));
            rounds.retain(is_learner);
            let looked: BTreeSet<RaftId> = members
                .nodes
                .keys()
                .copied()
                .filter(|id| is_learner(*id))
                .filter(|id| {
                    let matched = matched.get(id).copied().flatten();
                    rounds.has_caught_up(*id, matched, last, shared.timing.lease, now)
                })
                .collect();
            next_call(&members, target, joining, |id| looked.contains(&id))
        };
        match call {
            Call::Done => Settled::Committed,
            Call::Wait => Settled::UnderWay,
            Call::AddLearner(..)
            | Call::ChangeVoters(_)
            | Call::Flatten
            | Call::RemoveLearners(_) => {
                if !shared.settling.is_changing.swap(true, Ordering::AcqRel) {
                    tokio::spawn(carry_out(Arc::clone(shared), call, base));
                }
                Settled::UnderWay
            }
        }
    }
}

/// Makes one call. What becomes of it is seen at the next look.
async fn carry_out<S: StateMachine>(shared: Arc<Shared<S>>, call: Call, base: Option<LogId>) {
    let group = shared.group;
    // Only on top of the membership that the call was decided on: another leader, or an earlier call, may be ahead.
    let unchanged = || [Precondition::LastMembershipLogId { last_membership_log_id: base }];
    let raft = &shared.raft;
    let outcome = match call {
        Call::AddLearner(id, holder) => {
            tracing::info!(%group, %id, %holder, "takes in a replica");
            let change = ChangeMembers::AddNodes(BTreeMap::from([(id, holder)]));
            raft.change_membership_if(change, true, unchanged()).await
        }
        Call::ChangeVoters(voters) => {
            tracing::info!(%group, ?voters, "changes its voters");
            let change = ChangeMembers::ReplaceAllVoters(voters);
            raft.change_membership_if(change, false, unchanged()).await
        }
        Call::Flatten => {
            let change = ChangeMembers::AddVoterIds(BTreeSet::new());
            raft.change_membership_if(change, false, unchanged()).await
        }
        Call::RemoveLearners(ids) => {
            let change = ChangeMembers::RemoveNodes(ids);
            raft.change_membership_if(change, true, unchanged()).await
        }
        Call::Done | Call::Wait => unreachable!("nothing is to be carried out"),
    };
    if let Err(error) = outcome {
        tracing::debug!(%group, %error, "a change of members came to nothing");
    }
    shared.settling.is_changing.store(false, Ordering::Release);
}

/// What the members of a group are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// One set of voters, or two while they change.
    pub(super) configs: Vec<BTreeSet<RaftId>>,
    /// Voters and learners.
    pub(super) nodes: BTreeMap<RaftId, Holder>,
    /// The newest membership in the log is committed.
    pub(super) is_committed: bool,
}

/// What a leader does next about the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Nothing; they are what they are to be.
    Done,
    /// Wait for an entry to be committed or for a learner to catch up.
    Wait,
    /// Take a learner in.
    AddLearner(RaftId, Holder),
    /// Make the voters those, in one joint change.
    ChangeVoters(BTreeSet<RaftId>),
    /// Leave a joint membership that another leader has left behind.
    Flatten,
    /// Drop learners that are not wanted.
    RemoveLearners(BTreeSet<RaftId>),
}

/// The next call. `has_caught_up` says of a learner that it has all but the newest entries. Only `joining` may be taken
/// in: a view of the cluster that names another stranger is older than the group's own members, and the directory it
/// means may be gone.
pub(super) fn next_call(
    members: &Members,
    target: &BTreeMap<RaftId, Holder>,
    joining: Option<RaftId>,
    has_caught_up: impl Fn(RaftId) -> bool,
) -> Call {
    if !(members.is_committed || is_planted(Bug::ChangeUncommitted)) || target.is_empty() {
        return Call::Wait;
    }
    let [voters] = members.configs.as_slice() else { return Call::Flatten };
    if let Some((id, holder)) = target.iter().find(|(id, _)| !members.nodes.contains_key(id)) {
        return if joining == Some(*id) { Call::AddLearner(*id, *holder) } else { Call::Wait };
    }
    if !target.keys().eq(voters) {
        let new = target.keys().filter(|id| !voters.contains(id));
        let is_ready = new.copied().all(has_caught_up) || is_planted(Bug::SwapEarly);
        return if is_ready {
            Call::ChangeVoters(target.keys().copied().collect())
        } else {
            Call::Wait
        };
    }
    let strays: BTreeSet<_> =
        members.nodes.keys().filter(|id| !target.contains_key(id)).copied().collect();
    if strays.is_empty() { Call::Done } else { Call::RemoveLearners(strays) }
}

/// Notices when a learner has caught up: within one round it got all that was in the leader's log when the round began,
/// and the round was shorter than an election (Raft thesis §4.2.1).
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// What each learner is to reach, and since when.
    goals: BTreeMap<RaftId, (u64, Instant)>,
}

impl Rounds {
    /// Looks at a learner whose log matches the leader's up to `matched`, while the leader's ends at `last`.
    pub(super) fn has_caught_up(
        &mut self,
        id: RaftId,
        matched: Option<u64>,
        last: u64,
        round_max: Duration,
        now: Instant,
    ) -> bool {
        let (goal, since) = *self.goals.entry(id).or_insert((last, now));
        if matched.is_none_or(|matched| matched < goal) {
            return false;
        }
        self.goals.insert(id, (last, now));
        now.duration_since(since) <= round_max
    }

    /// Forgets learners that are none any more.
    pub(super) fn retain(&mut self, learners: impl Fn(RaftId) -> bool) {
        self.goals.retain(|id, _| learners(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, NodeId};

    fn holder(id: u64) -> Holder {
        Holder { node: NodeId(id), incarnation: Incarnation(u128::from(id)) }
    }

    fn nodes(ids: &[u64]) -> BTreeMap<RaftId, Holder> {
        ids.iter().map(|id| (RaftId(*id), holder(*id))).collect()
    }

    fn ids(ids: &[u64]) -> BTreeSet<RaftId> {
        ids.iter().map(|id| RaftId(*id)).collect()
    }

    fn members(configs: &[&[u64]], learners: &[u64]) -> Members {
        let configs: Vec<_> = configs.iter().map(|config| ids(config)).collect();
        let all: Vec<u64> =
            configs.iter().flatten().map(|id| id.0).chain(learners.iter().copied()).collect();
        Members { configs, nodes: nodes(&all), is_committed: true }
    }

    #[test]
    fn a_lost_replica_is_swapped_for_a_new_one() {
        let target = nodes(&[1, 3, 4]);
        let steps = [
            (members(&[&[1, 2, 3]], &[]), false, Call::AddLearner(RaftId(4), holder(4))),
            (members(&[&[1, 2, 3]], &[4]), false, Call::Wait),
            (members(&[&[1, 2, 3]], &[4]), true, Call::ChangeVoters(ids(&[1, 3, 4]))),
            (members(&[&[1, 2, 3], &[1, 3, 4]], &[]), true, Call::Flatten),
            (members(&[&[1, 3, 4]], &[2]), true, Call::RemoveLearners(ids(&[2]))),
            (members(&[&[1, 3, 4]], &[]), true, Call::Done),
        ];
        for (now, has_caught_up, expected) in steps {
            assert_eq!(
                next_call(&now, &target, Some(RaftId(4)), |_| has_caught_up),
                expected,
                "{now:?}"
            );
        }
    }

    #[test]
    fn nothing_is_built_on_a_membership_that_may_be_lost() {
        let mut now = members(&[&[1, 2, 3]], &[4]);
        now.is_committed = false;
        assert_eq!(next_call(&now, &nodes(&[1, 3, 4]), Some(RaftId(4)), |_| true), Call::Wait);
        assert_eq!(next_call(&members(&[&[1]], &[]), &BTreeMap::new(), None, |_| true), Call::Wait);
    }

    /// Its directory was lost again before meta heard that the group had taken it in.
    #[test]
    fn a_voter_that_meta_has_given_up_is_swapped_too() {
        let now = members(&[&[1, 3, 4]], &[]);
        let target = nodes(&[1, 3, 5]);
        let taken_in = next_call(&now, &target, Some(RaftId(5)), |_| false);
        assert_eq!(taken_in, Call::AddLearner(RaftId(5), holder(5)));
        let now = members(&[&[1, 3, 4]], &[5]);
        let swapped = next_call(&now, &target, Some(RaftId(5)), |_| true);
        assert_eq!(swapped, Call::ChangeVoters(ids(&[1, 3, 5])));
    }

    /// A leader that has just started knows the cluster as it was when its directory was made.
    #[test]
    fn a_view_from_before_a_swap_takes_nobody_in_and_throws_nobody_out() {
        let now = members(&[&[1, 3, 4]], &[]);
        assert_eq!(next_call(&now, &nodes(&[1, 2, 3]), None, |_| true), Call::Wait);
    }

    /// Thesis §4.2.1: rounds, until one is shorter than an election timeout.
    #[test]
    fn a_learner_has_caught_up_when_a_round_was_short() {
        let mut rounds = Rounds::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let max = Duration::from_millis(500);
        let learner = RaftId(4);
        let mut look =
            |matched, last, ms| rounds.has_caught_up(learner, matched, last, max, at(ms));
        assert!(!look(None, 1000, 0));
        assert!(!look(Some(500), 3000, 2000), "still in its first round");
        assert!(!look(Some(1000), 4000, 4000), "the first round took four seconds");
        assert!(!look(Some(2000), 5000, 4200));
        assert!(look(Some(4000), 5000, 4400), "the second took 400 ms");
    }
}
