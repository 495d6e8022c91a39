//! Who may lead after a loss of power that left too few replicas whole. Pure.
//!
//! A *short* replica may lack the unsynced tail of what it acknowledged. It gives no vote and seeks none, so that what
//! it forgot is still held by everyone who decides. When too few whole replicas are left to elect anybody, that would be
//! for ever; so the voters count what there is: a **census**. It allows an election
//!
//! 1. when all voters have answered: whatever any disk still holds is known, and who holds the most leads; or
//! 2. when for ten seconds short ones have been a majority: then the entries that they forgot may be gone wherever the
//!    missing ones are, and waiting for those could be for ever; or
//! 3. when for ten seconds all have answered but those whose disk is lost: another directory goes by the name of their node.
//!    What those held is gone, whoever waits.
//!
//! While short and whole ones are mixed and one is missing, it may hold the very entry the short ones forgot: wait.
//!
//! What can be lost: by the first, what no disk has any more; by the second, what was acknowledged in the last unsynced
//! second. Either is reported. A census names the start of each short replica: one that lost power again since then
//! counts anew.
//!
//! Source: Raft thesis §3.4, §3.6 for what an election must see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::ids::{RaftId, Session};

/// How long short replicas must have been a majority before they elect without the others.
pub(super) const SHORT_MAJORITY_PATIENCE: Duration = Duration::from_secs(10);

/// What a replica says of itself in a census.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The start in which it is short; `None` when it is whole.
    pub(super) short: Option<Session>,
    /// Term and index of the last entry of its log.
    pub(super) last: Option<(u64, u64)>,
    /// It knows a leader: then there is nothing to count.
    pub(super) knows_leader: bool,
}

/// The short replicas of a census, by the starts in which they took part: the ones that may vote for its outcome.
pub(super) type Roll = BTreeMap<RaftId, Session>;

/// What is to be done after a census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Wait: for a missing one, or for a whole one to lead.
    Wait,
    /// Another one holds more and will stand.
    Another,
    /// Stand, with the votes of these.
    Stand(Roll),
}

/// Judges a census by `own`, one of the voters in `configs`, of whom the `lost` are gone with their disks. `since` is when it
/// was first seen that it need not be complete, without a break, and is kept up to date here.
pub(super) fn judge(
    configs: &[BTreeSet<RaftId>],
    (standings, lost): (&BTreeMap<RaftId, Standing>, &BTreeSet<RaftId>),
    own: RaftId,
    since: &mut Option<Instant>,
    now: Instant,
) -> Verdict {
    let is_short = |id: &RaftId| standings.get(id).is_some_and(|it| it.short.is_some());
    let has_short_majority = !configs.is_empty()
        && configs
            .iter()
            .all(|voters| voters.iter().filter(|id| is_short(id)).count() > voters.len() / 2);
    let has_answered = |id: &RaftId| standings.contains_key(id);
    let is_all = |is_there: &dyn Fn(&RaftId) -> bool| {
        !configs.is_empty() && configs.iter().flatten().all(is_there)
    };
    let is_complete = is_all(&has_answered);
    let is_all_there_is = is_all(&|id| has_answered(id) || lost.contains(id));
    let first_seen = (has_short_majority || is_all_there_is).then(|| since.unwrap_or(now));
    *since = first_seen;
    let is_patient_enough =
        first_seen.is_some_and(|seen| now.duration_since(seen) >= SHORT_MAJORITY_PATIENCE);
    // Who is whole elects without the short ones where it can; where nobody is short, nothing is to be counted.
    let voters: BTreeSet<RaftId> = configs.iter().flatten().copied().collect();
    let roll: Roll = standings
        .iter()
        .filter(|(id, _)| voters.contains(id))
        .filter_map(|(id, standing)| Some((*id, standing.short?)))
        .collect();
    if standings.values().any(|standing| standing.knows_leader)
        || roll.is_empty()
        || !(is_complete || is_patient_enough)
    {
        return Verdict::Wait;
    }
    let greatest = standings
        .iter()
        .filter(|(id, _)| voters.contains(id))
        .max_by_key(|(id, standing)| (standing.last, std::cmp::Reverse(**id)));
    match greatest {
        Some((id, _)) if *id == own => Verdict::Stand(roll),
        Some(_) | None => Verdict::Another,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<RaftId> {
        ids.iter().map(|id| RaftId(*id)).collect()
    }

    fn session(random: u64) -> Session {
        Session { number: 2, random }
    }

    const WHOLE: Option<Session> = None;

    fn standings(all: &[(u64, Option<Session>, u64)]) -> BTreeMap<RaftId, Standing> {
        all.iter()
            .map(|(id, short, index)| {
                let last = Some((1, *index));
                (RaftId(*id), Standing { short: *short, last, knows_leader: false })
            })
            .collect()
    }

    fn verdict(own: u64, all: &[(u64, Option<Session>, u64)]) -> Verdict {
        let found = (&standings(all), &ids(&[]));
        judge(&[ids(&[1, 2, 3])], found, RaftId(own), &mut None, Instant::now())
    }

    /// A disk was emptied, and another machine lost power before that was healed.
    #[test]
    fn who_is_gone_with_its_disk_is_not_waited_for_for_ever() {
        let all = standings(&[(1, Some(session(1)), 5), (2, WHOLE, 9)]);
        let (configs, start, mut since) = ([ids(&[1, 2, 3])], Instant::now(), None);
        let mut at = |seconds, lost: &[u64]| {
            let now = start + Duration::from_secs(seconds);
            judge(&configs, (&all, &ids(lost)), RaftId(2), &mut since, now)
        };
        assert_eq!(at(0, &[3]), Verdict::Wait);
        assert_eq!(at(9, &[3]), Verdict::Wait);
        assert_eq!(at(9, &[]), Verdict::Wait, "it may be there after all");
        assert_eq!(at(12, &[3]), Verdict::Wait, "the ten seconds begin anew");
        assert!(matches!(at(22, &[3]), Verdict::Stand(_)));
    }

    #[test]
    fn when_all_answered_the_longest_log_leads() {
        let all = [(1, Some(session(1)), 5), (2, Some(session(2)), 9), (3, WHOLE, 7)];
        let roll = Roll::from([(RaftId(1), session(1)), (RaftId(2), session(2))]);
        assert_eq!(verdict(2, &all), Verdict::Stand(roll.clone()));
        assert_eq!(verdict(1, &all), Verdict::Another);
        assert_eq!(verdict(3, &all), Verdict::Another);
        let equal = [(1, Some(session(1)), 9), (2, Some(session(2)), 9), (3, WHOLE, 9)];
        assert_eq!(verdict(1, &equal), Verdict::Stand(roll), "one of equals stands");
        assert_eq!(verdict(2, &equal), Verdict::Another);
    }

    #[test]
    fn a_missing_one_may_hold_what_the_short_ones_forgot() {
        let mixed = [(1, Some(session(1)), 5), (2, WHOLE, 9)];
        assert_eq!(verdict(2, &mixed), Verdict::Wait);
        assert_eq!(verdict(1, &mixed), Verdict::Wait);
    }

    #[test]
    fn short_ones_that_stay_a_majority_elect_in_the_end() {
        let all = standings(&[(1, Some(session(1)), 5), (2, Some(session(2)), 9)]);
        let configs = [ids(&[1, 2, 3])];
        let mut since = None;
        let start = Instant::now();
        let mut at = |seconds, all: &BTreeMap<_, _>| {
            let now = start + Duration::from_secs(seconds);
            judge(&configs, (all, &ids(&[])), RaftId(2), &mut since, now)
        };
        assert_eq!(at(0, &all), Verdict::Wait);
        assert_eq!(at(9, &all), Verdict::Wait);
        let one = standings(&[(1, Some(session(1)), 5)]);
        assert_eq!(at(9, &one), Verdict::Wait, "no majority for a moment");
        assert_eq!(at(12, &all), Verdict::Wait, "the ten seconds begin anew");
        assert!(matches!(at(22, &all), Verdict::Stand(_)));
    }

    #[test]
    fn nothing_is_counted_while_somebody_leads_or_nobody_is_short() {
        let whole = [(1, WHOLE, 5), (2, WHOLE, 9), (3, WHOLE, 7)];
        assert_eq!(verdict(2, &whole), Verdict::Wait, "an ordinary election");
        let mut all = standings(&[(1, Some(session(1)), 5), (2, WHOLE, 9), (3, WHOLE, 7)]);
        all.entry(RaftId(3)).and_modify(|it| it.knows_leader = true);
        let found = (&all, &ids(&[]));
        let verdict = judge(&[ids(&[1, 2, 3])], found, RaftId(2), &mut None, Instant::now());
        assert_eq!(verdict, Verdict::Wait);
    }

    /// Thesis §4.3: while members change, both majorities decide.
    #[test]
    fn a_joint_membership_is_counted_in_both_sets() {
        let configs = [ids(&[1, 2, 3]), ids(&[1, 3, 4])];
        let three = [(1, Some(session(1)), 9), (2, Some(session(2)), 5), (3, WHOLE, 7)];
        let judged = |all: &[_]| {
            let found = (&standings(all), &ids(&[]));
            judge(&configs, found, RaftId(1), &mut None, Instant::now())
        };
        assert_eq!(judged(&three), Verdict::Wait, "4 has not answered");
        let four = [three[0], three[1], three[2], (4, WHOLE, 0)];
        assert!(matches!(judged(&four), Verdict::Stand(_)));
        let with_stranger = [three[0], three[1], three[2], (4, WHOLE, 0), (9, WHOLE, 99)];
        assert!(matches!(judged(&with_stranger), Verdict::Stand(_)), "9 is no voter");
    }

    #[test]
    fn nobody_stands_for_a_group_without_members() {
        let none = judge(&[], (&BTreeMap::new(), &ids(&[1])), RaftId(1), &mut None, Instant::now());
        assert_eq!(none, Verdict::Wait);
    }
}
