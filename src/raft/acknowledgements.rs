//! Whose word a leader has, and how fresh it is: the time of the latest message each replica has itself answered.
//!
//! openraft keeps such times too, but not of this kind: it files an acknowledgement under the log position it proves,
//! and an answer to one message counts for every message with that position, also for a later one without entries
//! that the replica may never have seen. A lease or a ReadIndex round may not rest on that. Here a time is noted by
//! the call that got the answer, so it is the time at which that very message was sent.
//!
//! **Invariant:** a noted time is one at which the answered message had not been queued yet. The replica received it
//! later, so its promise not to elect anybody else (Raft thesis §6.4.1) ends later than one counted from here. The clock
//! is one that goes on while the machine is suspended: the replica's does not wait for this one to wake.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::RaftId;
use crate::stdx::clock::{Clock, MonotonicMicros};
use crate::stdx::planted::{Bug, is_planted};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The latest message each replica of a group has answered to this one as its leader.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    /// What all its times are of.
    clock: Arc<dyn Clock>,
    /// One for each replica ever heard; a group has a handful, so a list beats a map.
    latest: Mutex<Vec<Acknowledgement>>,
    /// The memory that each had left when it last answered, in bytes, and to a message sent when.
    rooms: Mutex<Vec<(RaftId, u64, MonotonicMicros)>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Acknowledgement {
    replica: RaftId,
    term: u64,
    sent: MonotonicMicros,
}

impl Acknowledgements {
    /// None yet. They are timed by `clock`.
    pub(super) fn by(clock: Arc<dyn Clock>) -> Self {
        let (latest, rooms) = (Mutex::default(), Mutex::default());
        Self { clock, latest, rooms, changed: Notify::new() }
    }

    /// What time it is here.
    pub(super) fn now(&self) -> MonotonicMicros {
        self.clock.monotonic()
    }

    /// Notes that `replica` took the word of this leader of `term`, in answer to a message sent at `sent` or later.
    pub(super) fn note(&self, replica: RaftId, term: u64, sent: MonotonicMicros) {
        {
            let mut latest = self.latest.lock();
            match latest.iter_mut().find(|known| known.replica == replica) {
                // Answers overtake one another: a late one never takes back what a newer one has proven.
                Some(known) if (known.term, known.sent) >= (term, sent) => return,
                Some(known) => (known.term, known.sent) = (term, sent),
                None => latest.push(Acknowledgement { replica, term, sent }),
            }
        }
        self.changed.notify_waiters();
    }

    /// Notes what memory the node of `replica` has left, in answer to a message sent at `sent`.
    pub(super) fn note_room(&self, replica: RaftId, room: u64, sent: MonotonicMicros) {
        let mut rooms = self.rooms.lock();
        match rooms.iter_mut().find(|(known, ..)| *known == replica) {
            Some((_, _, latest)) if *latest > sent => {}
            Some((_, before, latest)) => (*before, *latest) = (room, sent),
            None => rooms.push((replica, room, sent)),
        }
    }

    /// The least memory that one of `replicas` has left which has answered a message sent at or after `since`; `u64::MAX`
    /// when none has. Who is gone stops nobody.
    pub(super) fn least_room(
        &self,
        since: MonotonicMicros,
        replicas: impl Fn(RaftId) -> bool,
    ) -> u64 {
        let rooms = self.rooms.lock();
        let fresh = rooms.iter().filter(|(replica, _, sent)| *sent >= since && replicas(*replica));
        fresh.map(|(_, room, _)| *room).min().unwrap_or(u64::MAX)
    }

    /// Whether, in each of `configs` (one, or two while the membership changes), a majority of the voters has
    /// answered a message of `term` sent at or after `since`. `leader` needs no message to itself.
    pub(super) fn has_quorum_since(
        &self,
        term: u64,
        since: MonotonicMicros,
        configs: &[BTreeSet<RaftId>],
        leader: RaftId,
    ) -> bool {
        let latest = self.latest.lock();
        let counts = |voter: RaftId| {
            voter == leader
                || latest.iter().any(|known| {
                    known.replica == voter && known.term == term && known.sent >= since
                })
        };
        let has_majority = |voters: &BTreeSet<RaftId>| {
            if is_planted(Bug::LearnerCounted) {
                let fresh = latest.iter().filter(|it| it.term == term && it.sent >= since);
                return fresh.count() + 1 > voters.len() / 2;
            }
            voters.iter().filter(|voter| counts(**voter)).count() > voters.len() / 2
        };
        // Nobody is no quorum: a replica that knows of no members is vouched for by none.
        !configs.is_empty() && configs.iter().all(has_majority)
    }

    /// Whether `replica` has answered a message of `term` sent at or after `since`.
    pub(super) fn has_since(&self, replica: RaftId, term: u64, since: MonotonicMicros) -> bool {
        let latest = self.latest.lock();
        let mut of_replica = latest.iter().filter(|known| known.replica == replica);
        of_replica.any(|known| known.term == term && known.sent >= since)
    }

    /// Resolves at the first news after this call, polled or not.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::super::options::Timing;
    use super::*;
    use crate::stdx::clock::ManualClock;
    use crate::stdx::golden::{check, number};

    const LEADER: RaftId = RaftId(1);
    const TERM: u64 = 4;

    fn none() -> Acknowledgements {
        Acknowledgements::by(Arc::new(ManualClock::default()))
    }

    fn voters(ids: &[u64]) -> BTreeSet<RaftId> {
        ids.iter().map(|id| RaftId(*id)).collect()
    }

    /// `count` times, a second apart.
    fn times<const N: usize>() -> [MonotonicMicros; N] {
        std::array::from_fn(|second| MonotonicMicros(second as u64 * 1_000_000))
    }

    #[test]
    fn an_answer_proves_nothing_about_later_messages() {
        let [before, sent, after] = times();
        let acknowledgements = none();
        let has_quorum_since =
            |since| acknowledgements.has_quorum_since(TERM, since, &[voters(&[1, 2, 3])], LEADER);
        assert!(!has_quorum_since(before), "nobody but the leader itself");
        acknowledgements.note(RaftId(2), TERM, sent);
        assert!(has_quorum_since(before));
        assert!(has_quorum_since(sent));
        assert!(!has_quorum_since(after));
    }

    #[test]
    fn a_replica_that_is_gone_has_no_say_in_what_room_there_is() {
        let [first, second, third] = times();
        let acknowledgements = none();
        let least = |since| acknowledgements.least_room(since, |replica| replica != RaftId(9));
        assert_eq!(least(first), u64::MAX);
        acknowledgements.note_room(RaftId(2), 500, second);
        acknowledgements.note_room(RaftId(2), 0, first);
        acknowledgements.note_room(RaftId(3), 70, first);
        acknowledgements.note_room(RaftId(9), 1, third);
        assert_eq!(least(first), 70);
        assert_eq!(least(second), 500, "what is old does not count");
        assert_eq!(least(third), u64::MAX);
    }

    #[test]
    fn a_late_answer_takes_nothing_back() {
        let [first, second] = times();
        let acknowledgements = none();
        acknowledgements.note(RaftId(2), TERM, second);
        acknowledgements.note(RaftId(2), TERM, first);
        acknowledgements.note(RaftId(2), TERM - 1, second.plus(Duration::from_secs(1)));
        let configs = [voters(&[1, 2, 3])];
        assert!(acknowledgements.has_quorum_since(TERM, second, &configs, LEADER));
    }

    #[test]
    fn only_the_very_term_counts() {
        let [sent] = times();
        let acknowledgements = none();
        acknowledgements.note(RaftId(2), TERM, sent);
        let configs = [voters(&[1, 2, 3])];
        for term in [TERM - 1, TERM + 1] {
            assert!(!acknowledgements.has_quorum_since(term, sent, &configs, LEADER), "{term}");
        }
    }

    /// Thesis §4.3: in joint consensus, agreement needs a majority of the old and a majority of the new members.
    #[test]
    fn a_joint_membership_needs_both_majorities() {
        let [sent] = times();
        let acknowledgements = none();
        let configs = [voters(&[1, 2, 3]), voters(&[1, 4, 5])];
        let has_quorum = || acknowledgements.has_quorum_since(TERM, sent, &configs, LEADER);
        acknowledgements.note(RaftId(2), TERM, sent);
        acknowledgements.note(RaftId(3), TERM, sent);
        assert!(!has_quorum());
        acknowledgements.note(RaftId(5), TERM, sent);
        assert!(has_quorum());
    }

    #[test]
    fn only_voters_count() {
        let [sent] = times();
        let acknowledgements = none();
        acknowledgements.note(RaftId(9), TERM, sent);
        let has_quorum = |configs: &[BTreeSet<RaftId>]| {
            acknowledgements.has_quorum_since(TERM, sent, configs, LEADER)
        };
        assert!(!has_quorum(&[voters(&[1, 2, 3])]), "a learner answered");
        assert!(!has_quorum(&[voters(&[2, 9, 3])]), "the leader itself is no voter");
        assert!(!has_quorum(&[voters(&[1, 2])]), "half is no majority");
        assert!(!has_quorum(&[]), "there are no members");
        assert!(has_quorum(&[voters(&[1])]), "a sole voter needs nobody");
    }

    #[test]
    fn news_reach_who_asked_before_them() {
        let [first, second] = times();
        let acknowledgements = none();
        let changed = acknowledgements.changed();
        acknowledgements.note(RaftId(2), TERM, second);
        assert!(changed.now_or_never().is_some());
        let changed = acknowledgements.changed();
        acknowledgements.note(RaftId(2), TERM, first);
        assert!(changed.now_or_never().is_none(), "an older answer is no news");
    }

    /// A leader, replica 1, and what it has heard.
    struct Play {
        clock: Arc<ManualClock>,
        acknowledgements: Acknowledgements,
        term: u64,
        configs: Vec<BTreeSet<RaftId>>,
        /// A read was asked for: only messages sent from here on count for it.
        asked: MonotonicMicros,
    }

    /// Of ms, with decimals.
    fn micros(word: &str) -> MonotonicMicros {
        let (whole, part) = word.split_once('.').unwrap_or((word, ""));
        MonotonicMicros(1000 * number::<u64>(whole) + number::<u64>(&format!("{part:0<3}")))
    }

    fn told(is_so: bool) -> String {
        if is_so { "yes" } else { "no" }.to_owned()
    }

    impl Play {
        fn begin(term: u64, voters: &[&str]) -> Self {
            let clock = Arc::new(ManualClock::default());
            let acknowledgements = Acknowledgements::by(Arc::clone(&clock) as Arc<dyn Clock>);
            let config = |ids: &[&str]| ids.iter().map(|id| RaftId(number(id))).collect();
            let mut configs: Vec<_> = voters.split(|word| *word == "+").map(config).collect();
            configs.retain(|config: &BTreeSet<RaftId>| !config.is_empty());
            Self { clock, acknowledgements, term, configs, asked: MonotonicMicros(0) }
        }

        fn has_quorum_since(&self, since: MonotonicMicros) -> bool {
            self.acknowledgements.has_quorum_since(self.term, since, &self.configs, LEADER)
        }

        fn answer(&mut self, words: &[&str]) -> String {
            let acknowledgements = &self.acknowledgements;
            match *words {
                ["begin", term, "voters", ref voters @ ..] => {
                    *self = Self::begin(number(term), voters);
                }
                ["at", time] => {
                    let passed = micros(time).0 - acknowledgements.now().0;
                    self.clock.advance(Duration::from_micros(passed));
                }
                ["elected", term] => self.term = number(term),
                ["answer", replica, "to", sent] => {
                    acknowledgements.note(RaftId(number(replica)), self.term, micros(sent));
                }
                ["answer", replica, "to", sent, "of", term] => {
                    acknowledgements.note(RaftId(number(replica)), number(term), micros(sent));
                }
                // As `Group::may_read` and `Group::confirm` count.
                ["lease"] => {
                    let lease = Timing::DEFAULT.read_lease();
                    return told(self.has_quorum_since(acknowledgements.now().minus(lease)));
                }
                ["read"] => self.asked = acknowledgements.now().plus(Duration::from_micros(1)),
                ["confirmed"] => return told(self.has_quorum_since(self.asked)),
                _ => panic!("no such command: {words:?}"),
            }
            String::new()
        }
    }

    #[test]
    fn leases_and_rounds_of_reads_are_counted_as_the_script_says() {
        let mut play = Play::begin(0, &[]);
        check("raft/lease.txt", |words| play.answer(words));
    }
}
