//! The codes of all messages between nodes, in one place, so that none gets two meanings.
//!
//! Part of the wire format: append only. What a message holds is said here, what it means in the room that has it.

use super::Kind;

/// Names the kinds of one room.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        use super::Kind;

        $($(#[$doc])* pub const $name: Kind = Kind($code);)*

        /// All of them, by name.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, Kind)] = &[$((stringify!($name), $name)),*];
    };
}

/// Messages of consensus, within any group.
pub mod raft {
    kinds! {
        /// AppendEntries, also as heartbeat.
        APPEND_ENTRIES = 1;
        /// RequestVote.
        VOTE = 2;
        /// RequestVote without a new term (thesis §9.6).
        PRE_VOTE = 3;
        /// The leader hands over (thesis §3.10); answered with one byte, see `raft/transfer.rs`.
        TRANSFER_LEADER = 4;
        /// Starts a snapshot: `transfer | (Vote, SnapshotMeta)`; a transfer is `term u64 | sender u64 | nonce u64`. This one
        /// and the next two are answered with `SnapshotAnswer`.
        SNAPSHOT_BEGIN = 5;
        /// One chunk: `transfer | number u64 | bytes`, numbers from 0.
        SNAPSHOT_CHUNK = 6;
        /// Ends a snapshot: `transfer | (chunks u64, xxh3 of all bytes u64, Vote)`; answered once it is installed.
        SNAPSHOT_END = 7;
        /// AppendEntries without entries, to learn whether the receiver still follows: answered before the disk.
        HEARTBEAT = 8;
        /// What do you have? Answered with a standing: see `raft/census.rs`.
        CENSUS = 9;
        /// A short replica asks the leader for a fence: see `raft/short.rs`. Answered with an index, u64.
        FENCE = 10;
    }
}

/// Messages to a shard's leader.
pub mod shard {
    kinds! {
        /// A write packet.
        SUBMIT = 34;
        /// Reads.
        READ = 35;
    }
}

/// Messages about the cluster.
pub mod meta {
    kinds! {
        /// A change of the cluster for its leader; answered with nothing once it is applied there.
        PROPOSE = 48;
        /// Asks for the cluster as the other node has it; answered with the change that creates it.
        FETCH = 49;
        /// An empty directory asks to be let into a cluster that exists; answered with a sentence.
        JOIN = 51;
    }
}

impl Kind {
    /// Whether a call of this kind may pass what was sent to its group before: who leads, who would and how far each is, and
    /// reads, which see what was answered before they were asked.
    pub(super) fn may_overtake(self) -> bool {
        [raft::HEARTBEAT, raft::VOTE, raft::PRE_VOTE, raft::CENSUS, shard::READ].contains(&self)
    }

    /// Whether elections hang on it.
    pub(super) fn is_urgent(self) -> bool {
        [raft::HEARTBEAT, raft::VOTE, raft::PRE_VOTE].contains(&self)
    }
}

/// Codes that once meant something, and mean nothing any more. 32 and 33 were SUBMIT and READ before submissions were marked.
#[cfg(test)]
const RETIRED: &[Kind] = &[Kind(32), Kind(33)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_code_has_one_meaning_for_ever() {
        let mut meanings = BTreeMap::new();
        for (name, kind) in [raft::ALL, shard::ALL, meta::ALL].concat() {
            assert_eq!(meanings.insert(kind, name), None, "{kind} is {name} too");
            assert!(!RETIRED.contains(&kind), "{name}: {kind} meant something else once");
        }
        assert_eq!(meanings.len(), 15);
    }
}
