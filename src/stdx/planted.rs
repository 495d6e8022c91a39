//! Bugs planted on purpose, each of which the simulation must find.
//!
//! A check that never failed proves nothing. Where a line keeps a promise, `is_planted` can undo it: in the build of the simulation
//! alone (`cfg(kvorum_sim)`), one bug at a time, chosen when it runs. Everywhere else it is `false` when compiled, and costs nothing.

/// Declares the bugs with their names on the command line.
macro_rules! bugs {
    ($($(#[$meta:meta])* $bug:ident = $name:literal,)+) => {
        /// A promise that is not kept. What is told of each is what the node does then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$meta])* $bug,)+
        }

        impl Bug {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$bug,)+];

            /// Its name for people and scripts.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }
        }
    };
}

bugs! {
    /// A front end calls itself by its node's name, as if each start and each directory were the same (faults, R1).
    SessionByName = "session-by-name",
    /// A replica answers what was meant for the one before it (faults, R2).
    StrangersMessage = "strangers-message",
    /// A follower that lost its tail is not sent it again (faults, R3).
    NoReversion = "no-reversion",
    /// The lead is handed to whoever lags or is silent (faults, R4).
    TransferToOneBehind = "transfer-to-one-behind",
    /// A snapshot replaces a better one (faults, R7).
    LesserSnapshot = "lesser-snapshot",
    /// Chunks of a snapshot are taken in any order (faults, R10).
    ChunksUnnumbered = "chunks-unnumbered",
    /// The log that was replayed is not written once more after its tear (faults, R11).
    NoRewrite = "no-rewrite",
    /// An idle log does not vouch for what it synced last (faults, R12).
    NoIdleMark = "no-idle-mark",
    /// A read may be given a time that an entry on its way is stamped before (faults, R21).
    ReadAheadOfStamps = "read-ahead-of-stamps",
    /// Each node reads by its own wall clock (faults, T1).
    ReadByWall = "read-by-wall",
    /// A new leader begins with its wall clock, whatever time it heard (faults, T2).
    LeadByWall = "lead-by-wall",
    /// A replica that replaces another gets its id (membership, §11).
    IdReused = "id-reused",
    /// A learner's answer counts toward a majority.
    LearnerCounted = "learner-counted",
    /// The next membership is begun before the last one is committed.
    ChangeUncommitted = "change-uncommitted",
    /// A learner votes before it has caught up.
    SwapEarly = "swap-early",
    /// A replica that may lack what it acknowledged has a say in elections all the same.
    ShortVotes = "short-votes",
    /// A short replica is whole again after one more restart.
    ShortForgotten = "short-forgotten",
    /// Who leads answers for a fence with an index that proves nothing.
    FenceWithoutEntry = "fence-without-entry",
    /// A copy of a directory is let in beside it.
    CopyAccepted = "copy-accepted",
    /// The lead is handed to a learner.
    TransferToLearner = "transfer-to-learner",
    /// Reads are answered without a look at the lease.
    LeaseUnchecked = "lease-unchecked",
    /// Reads are answered before an entry of the leader's own term is applied.
    ReadBeforeOwnTerm = "read-before-own-term",
    /// A lease is counted from when the answer came.
    LeaseFromAnswer = "lease-from-answer",
    /// A vote is answered before it is in the log.
    VoteNotSynced = "vote-not-synced",
    /// A vote is given while another leader's lease may hold.
    VoteUnderLease = "vote-under-lease",
    /// A replica votes right after its restart, having forgotten whose lease holds.
    VoteAfterRestart = "vote-after-restart",
    /// A snapshot has no session table.
    SessionsNotInSnapshot = "sessions-not-in-snapshot",
    /// A packet that comes again is applied again.
    DuplicateApplied = "duplicate-applied",
    /// A packet that was given up is applied late.
    FloorIgnored = "floor-ignored",
    /// A follower applies all it has.
    ApplyUncommitted = "apply-uncommitted",
    /// An entry is acknowledged before it is in the log.
    AcknowledgedEarly = "acknowledged-early",
    /// Whoever waits for a sync is told before it.
    ToldBeforeSync = "told-before-sync",
    /// A snapshot may outlive a power cut that the truncation before it does not.
    SnapshotUnsynced = "snapshot-unsynced",
    /// A shard's time goes back where a leader's clock does.
    StampNotClamped = "stamp-not-clamped",
    /// What was applied may be cut off the log.
    AppliedTruncated = "applied-truncated",
}

/// Whether `bug` is there.
#[cfg(not(kvorum_sim))]
#[inline]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}

#[cfg(kvorum_sim)]
pub use chosen::{is_planted, plant};

#[cfg(kvorum_sim)]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Has `bug` be there on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is there.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn bugs_have_names_of_their_own_and_none_is_planted() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        assert!(!Bug::ALL.iter().any(|bug| is_planted(*bug)));
    }
}
