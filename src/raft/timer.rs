//! When a replica beats its heart and when it campaigns. Pure: it is told the time and what openraft says, and says
//! what is due; `Group::tick` does it.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::STALL_MIN;
use super::options::Timing;
use crate::stdx::prng::SplitMix64;

/// When this replica last had reason to believe in a leader, and when it next does something about it.
pub(super) struct Timer {
    pub(super) heard: Instant,
    /// Silence after which it campaigns; drawn anew for each round.
    patience: Duration,
    next_heartbeat: Instant,
    /// When the node last looked at this timer.
    looked: Instant,
    /// No campaign was begun yet.
    is_first: bool,
    random: SplitMix64,
}

/// What the timer is told of the replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Whether it leads.
    pub(super) is_leader: bool,
    /// Whether it knows a leader of its term.
    pub(super) knows_leader: bool,
    /// Its say in elections.
    pub(super) voice: Voice,
}

/// A replica's say in elections, by the newest membership it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// Nobody else votes.
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
}

impl Timer {
    /// A timer that starts now: patient for at least a lease (before the restart this replica may have promised it),
    /// and not equally long everywhere.
    pub(super) fn new(now: Instant, timing: &Timing, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let patience = timing.lease + random_below(timing.election_min, &mut random);
        Self { heard: now, patience, next_heartbeat: now, looked: now, is_first: true, random }
    }

    /// What is due at `now`.
    pub(super) fn due(&mut self, now: Instant, view: View, timing: &Timing) -> Due {
        let since = now.duration_since(self.looked);
        self.looked = now;
        if since > STALL_MIN {
            // Time in which this process did not run is no silence of the leader: its heartbeats may be waiting
            // in the socket, or the whole machine stood still.
            self.heard += since;
        }
        if view.is_leader {
            self.heard = now;
            if now < self.next_heartbeat || view.voice == Voice::Sole {
                Due::Nothing
            } else {
                self.next_heartbeat = now + timing.heartbeat;
                Due::Heartbeat
            }
        } else if self.is_first && view.voice == Voice::Sole {
            // Who is alone with itself has nobody to wait for. Once: the campaign may take a while.
            self.is_first = false;
            self.heard = now;
            Due::Campaign
        } else if now.duration_since(self.heard) < self.patience {
            Due::Nothing
        } else {
            let lease = if view.knows_leader { timing.lease } else { Duration::ZERO };
            let range = timing.lease.saturating_sub(timing.election_min);
            let random = random_below(range, &mut self.random);
            self.patience = lease + timing.election_min + random;
            self.heard = now;
            if view.voice == Voice::None { Due::Nothing } else { Due::Campaign }
        }
    }
}

/// A random time shorter than `range`.
fn random_below(range: Duration, random: &mut SplitMix64) -> Duration {
    Duration::from_micros(random.below(u64::try_from(range.as_micros()).unwrap_or(u64::MAX)))
}
