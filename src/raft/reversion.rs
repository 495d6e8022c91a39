//! Notices replicas whose log has gone back: they had entries, said so, and no longer do. A disk that lost what it had
//! acknowledged does that. openraft repairs the log (`allow_log_reversion`), but what the replica vouched for in
//! between it could not vouch for, and somebody must hear of it.

use std::collections::BTreeMap;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::group::Group;
use super::state_machine::StateMachine;
use crate::ids::RaftId;

/// How far each replica's log was known to agree with that of this leader.
#[derive(Debug, Default)]
pub(super) struct Matches {
    term: u64,
    /// Index of the last entry known to be there.
    known: BTreeMap<RaftId, u64>,
}

/// A log that has gone back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reversion {
    /// Whose.
    pub(super) replica: RaftId,
    /// Index of the last entry it had.
    pub(super) had: u64,
    /// Index of the last entry it is known to have now.
    pub(super) has: Option<u64>,
}

impl Matches {
    /// Compares what a leader of `term` knows now with what it knew, and remembers it. Each loss is told once.
    pub(super) fn look(
        &mut self,
        term: u64,
        now: impl Iterator<Item = (RaftId, Option<u64>)>,
    ) -> Vec<Reversion> {
        if self.term != term {
            // A new leader begins by asking everybody.
            *self = Self { term, known: BTreeMap::new() };
        }
        let before = std::mem::take(&mut self.known);
        let mut reversions = Vec::new();
        for (replica, has) in now {
            if let Some(&had) = before.get(&replica)
                && has < Some(had)
            {
                reversions.push(Reversion { replica, had, has });
            }
            if let Some(has) = has {
                self.known.insert(replica, has);
            }
        }
        reversions
    }
}

impl<S: StateMachine> Group<S> {
    /// As leader: raises an alarm for each log that has gone back since the last look.
    pub(super) fn look_for_reversions(&self) {
        let shared = &self.shared;
        let metrics = shared.metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return };
        let matched = replication.iter().map(|(id, log_id)| (*id, log_id.map(|id| id.index)));
        for reversion in shared.matches.lock().look(metrics.current_term, matched) {
            tracing::error!(
                group = %shared.group,
                replica = %reversion.replica,
                had = reversion.had,
                has = reversion.has,
                "a replica has lost entries that it had acknowledged; they are sent again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_goes_back_is_told_once() {
        const ONE: RaftId = RaftId(1);
        const TWO: RaftId = RaftId(2);
        let mut matches = Matches::default();
        let mut look =
            |term, now: &[(RaftId, Option<u64>)]| matches.look(term, now.iter().copied());
        assert_eq!(look(3, &[(ONE, Some(9)), (TWO, None)]), []);
        assert_eq!(look(3, &[(ONE, Some(9)), (TWO, Some(4))]), []);
        let lost = Reversion { replica: ONE, had: 9, has: None };
        assert_eq!(look(3, &[(ONE, None), (TWO, Some(5))]), [lost]);
        assert_eq!(look(3, &[(ONE, None), (TWO, Some(5))]), []);
        let shorter = Reversion { replica: TWO, had: 5, has: Some(2) };
        assert_eq!(look(3, &[(ONE, Some(6)), (TWO, Some(2))]), [shorter]);
        assert_eq!(look(4, &[(ONE, None), (TWO, None)]), [], "another leadership");
        assert_eq!(look(4, &[(TWO, None)]), [], "one replica has left");
    }
}
