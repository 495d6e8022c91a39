//! When a replica beats its heart and when it campaigns. Pure: it is told the time and what openraft says, and says
//! what is due; `Group::tick` does it.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::{HAND_OVER_PAUSE, STALL_MIN};
use super::options::Timing;
use crate::stdx::prng::SplitMix64;

/// When this replica last had reason to believe in a leader, and when it next does something about it.
#[derive(Debug)]
pub(super) struct Timer {
    heard: Instant,
    /// Silence after which it campaigns; drawn anew for each round.
    patience: Duration,
    next_heartbeat: Instant,
    next_hand_over: Instant,
    /// When the node last looked at this timer.
    looked: Instant,
    /// Time for which this process stood still was left out of the present silence already.
    has_forgiven: bool,
    /// No campaign was begun yet.
    is_first: bool,
    random: SplitMix64,
}

/// What the timer is told of the replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// What it is.
    pub(super) role: Role,
    /// Its say in elections.
    pub(super) voice: Voice,
}

/// A replica's part, as far as its timer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It leads.
    Leader,
    /// It knows a leader of its term.
    Follower,
    /// It knows none.
    Orphan,
    /// A vote is under way, its own or one it was asked for: with a slow disk that takes seconds.
    Voting,
}

/// A replica's say in elections, by the newest membership it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// There is nobody else.
    Alone,
    /// It votes, nobody else does.
    Sole,
    /// It votes.
    Voter,
    /// It does not vote.
    None,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// Send heartbeats.
    Heartbeat,
    /// Stand for election.
    Campaign,
    /// Lead no longer: this replica was voted out, and openraft leaves it to us to notice.
    HandOver,
}

impl Timer {
    /// A timer that starts now: patient for at least a lease (before the restart this replica may have promised it),
    /// and not equally long everywhere.
    pub(super) fn new(now: Instant, timing: &Timing, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let patience = timing.lease + random_below(timing.election_min, &mut random);
        Self {
            heard: now,
            patience,
            next_heartbeat: now,
            next_hand_over: now,
            looked: now,
            has_forgiven: false,
            is_first: true,
            random,
        }
    }

    /// A leader was heard, or is about to be.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.has_forgiven = false;
    }

    /// What is due at `now`.
    pub(super) fn due(&mut self, now: Instant, view: View, timing: &Timing) -> Due {
        let since = now.saturating_duration_since(self.looked);
        self.looked = now;
        if since > STALL_MIN && !self.has_forgiven {
            // Time in which this process did not run is no silence of the leader: its heartbeats may be waiting in
            // the socket, or the whole machine stood still. But only once until the leader is heard again: where every
            // look comes late, a dead leader is to be missed all the same.
            self.heard += since;
            self.has_forgiven = true;
        }
        match view.role {
            Role::Leader => {
                self.hear(now);
                if view.voice == Voice::None && now >= self.next_hand_over {
                    self.next_hand_over = now + HAND_OVER_PAUSE;
                    Due::HandOver
                } else if now < self.next_heartbeat || view.voice == Voice::Alone {
                    Due::Nothing
                } else {
                    self.next_heartbeat = now + timing.heartbeat;
                    Due::Heartbeat
                }
            }
            Role::Voting => {
                self.hear(now);
                Due::Nothing
            }
            Role::Follower | Role::Orphan => self.due_of_follower(now, since, view, timing),
        }
    }

    /// `since` is how long ago the timer was last looked at.
    fn due_of_follower(
        &mut self,
        now: Instant,
        since: Duration,
        view: View,
        timing: &Timing,
    ) -> Due {
        if self.is_first && matches!(view.voice, Voice::Alone | Voice::Sole) {
            // Who is alone with itself has nobody to wait for. Once: the campaign may take a while.
            self.is_first = false;
            self.hear(now);
            return Due::Campaign;
        }
        if now.saturating_duration_since(self.heard) < self.patience {
            return Due::Nothing;
        }
        let lease = if view.role == Role::Follower { timing.lease } else { Duration::ZERO };
        // Two candidates that look at the same rare moments must still come to differ, or they would split every vote.
        let range = timing.lease.saturating_sub(timing.election_min).max(since * LOOKS_TO_DIFFER);
        let random = random_below(range, &mut self.random);
        self.patience = lease + timing.election_min + random;
        self.heard = now;
        if view.voice == Voice::None { Due::Nothing } else { Due::Campaign }
    }
}

/// Over how many looks candidates spread at least.
const LOOKS_TO_DIFFER: u32 = 4;

/// A random time shorter than `range`.
fn random_below(range: Duration, random: &mut SplitMix64) -> Duration {
    Duration::from_micros(random.below(u64::try_from(range.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::stdx::golden::{check, number};

    const TIMING: Timing = Timing::DEFAULT;
    const FOLLOWER: View = View { role: Role::Follower, voice: Voice::Voter };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// When a replica that is looked at every `gap` does `what` for the first time; it hears its leader at `heard`.
    fn first(what: Due, gap: u64, view: View, heard: &[u64]) -> Option<u64> {
        let start = Instant::now();
        let mut timer = Timer::new(start, &TIMING, 7);
        let mut heard = heard.iter().peekable();
        (1..400).map(|look| look * gap).find(|&at| {
            while let Some(&word) = heard.next_if(|word| **word <= at) {
                timer.hear(start + ms(word));
            }
            timer.due(start + ms(at), view, &TIMING) == what
        })
    }

    /// Fault R9: silence never grew where every look came late.
    #[test]
    fn silence_is_ended_by_a_campaign_however_often_one_looks() {
        let rows = [
            // (ms between two looks, earliest, latest)
            (50, 500, 850),
            (100, 500, 900),
            (200, 500, 1000),
            // One gap is forgiven.
            (250, 750, 1250),
            (400, 900, 1600),
            (1000, 1500, 2000),
        ];
        for (gap, earliest, latest) in rows {
            let at = first(Due::Campaign, gap, FOLLOWER, &[]).expect("it campaigns");
            assert!((earliest..=latest).contains(&at), "every {gap} ms: {at} ms");
        }
    }

    /// Seen as a group that elected nobody for twenty seconds in half of all runs.
    #[test]
    fn candidates_that_look_at_the_same_rare_moments_come_to_differ() {
        let orphan = View { role: Role::Orphan, voice: Voice::Voter };
        let campaigns = |seed| {
            let start = Instant::now();
            let mut timer = Timer::new(start, &TIMING, seed);
            let due = |at: &u64| timer.due(start + ms(at * 250), orphan, &TIMING) == Due::Campaign;
            (1..40).filter(due).collect::<Vec<_>>()
        };
        let (one, other) = (campaigns(1), campaigns(2));
        let alone = one.iter().filter(|at| !other.contains(at)).count();
        assert!(alone >= 3, "{one:?} {other:?}");
    }

    #[test]
    fn a_stall_is_no_silence_of_the_leader() {
        let start = Instant::now();
        let mut timer = Timer::new(start, &TIMING, 7);
        let mut due = |at: u64| timer.due(start + ms(at), FOLLOWER, &TIMING);
        assert_eq!(due(50), Due::Nothing);
        assert_eq!(due(5050), Due::Nothing, "the machine stood still");
        assert_eq!(due(5100), Due::Nothing);
        assert_eq!(due(6050), Due::Campaign, "by now the leader had its time");
    }

    #[test]
    fn a_leader_that_speaks_is_followed() {
        let words: Vec<u64> = (0..200).map(|word| word * 200).collect();
        let at = first(Due::Campaign, 50, FOLLOWER, &words[..50]).expect("it falls silent at 9800");
        assert!((10_300..=10_650).contains(&at), "{at} ms");
    }

    #[test]
    fn who_has_no_vote_does_not_campaign_and_who_is_alone_does_at_once() {
        let of = |role, voice| View { role, voice };
        assert_eq!(first(Due::Campaign, 50, of(Role::Orphan, Voice::None), &[]), None);
        assert_eq!(first(Due::Campaign, 50, of(Role::Voting, Voice::Voter), &[]), None);
        assert_eq!(first(Due::Campaign, 50, of(Role::Orphan, Voice::Alone), &[]), Some(50));
        assert_eq!(first(Due::Campaign, 50, of(Role::Orphan, Voice::Sole), &[]), Some(50));
    }

    #[test]
    fn a_leader_speaks_unless_it_is_alone() {
        let of = |voice| View { role: Role::Leader, voice };
        assert_eq!(first(Due::Heartbeat, 50, of(Voice::Voter), &[]), Some(50));
        assert_eq!(first(Due::Heartbeat, 50, of(Voice::Sole), &[]), Some(50), "learners listen");
        assert_eq!(first(Due::Heartbeat, 50, of(Voice::Alone), &[]), None);
    }

    #[test]
    fn a_leader_that_was_voted_out_gives_way_and_speaks_until_it_has() {
        let of = |voice| View { role: Role::Leader, voice };
        assert_eq!(first(Due::HandOver, 50, of(Voice::None), &[]), Some(50));
        assert_eq!(first(Due::Heartbeat, 50, of(Voice::None), &[]), Some(100));
        assert_eq!(first(Due::HandOver, 50, of(Voice::Voter), &[]), None);
    }

    /// A timer, and the time it is told.
    struct Play {
        start: Instant,
        now: Duration,
        timer: Timer,
        view: View,
    }

    impl Play {
        fn begin(seed: u64) -> Self {
            let start = Instant::now();
            Self { start, now: ms(0), timer: Timer::new(start, &TIMING, seed), view: FOLLOWER }
        }

        /// Looks `count` times, every `gap`; what was due, and when.
        fn look(&mut self, gap: Duration, count: u64) -> String {
            let mut lines = String::new();
            for _ in 0..count {
                self.now += gap;
                let due = self.timer.due(self.start + self.now, self.view, &TIMING);
                if due != Due::Nothing {
                    writeln!(lines, "{:5} {due:?}", self.now.as_millis()).unwrap();
                }
            }
            if lines.is_empty() { "nothing".to_owned() } else { lines }
        }

        fn answer(&mut self, words: &[&str]) -> String {
            match *words {
                ["begin", seed] => {
                    *self = Self::begin(number(seed));
                    return format!("patient for {} ms", self.timer.patience.as_millis());
                }
                ["as", role, voice] => self.view = view(role, voice),
                ["hear"] => self.timer.hear(self.start + self.now),
                ["look", gap, count] => return self.look(ms(number(gap)), number(count)),
                _ => panic!("no such command: {words:?}"),
            }
            String::new()
        }
    }

    fn view(role: &str, voice: &str) -> View {
        let role = match role {
            "leader" => Role::Leader,
            "follower" => Role::Follower,
            "orphan" => Role::Orphan,
            "voting" => Role::Voting,
            _ => panic!("no role: {role}"),
        };
        let voice = match voice {
            "alone" => Voice::Alone,
            "sole" => Voice::Sole,
            "voter" => Voice::Voter,
            "none" => Voice::None,
            _ => panic!("no voice: {voice}"),
        };
        View { role, voice }
    }

    #[test]
    fn timers_run_as_the_script_says() {
        let mut play = Play::begin(0);
        check("raft/timer.txt", |words| play.answer(words));
    }
}
