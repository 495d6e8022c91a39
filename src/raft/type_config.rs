//! The types openraft is run with, and the short names the rest of the house uses for them.
//!
//! One configuration serves every group of the process (shards and meta): a proposal is bytes to
//! Raft, and its answer travels outside Raft, so the response type is `()`.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf, WriteResponderOf,
};
use openraft::raft::responder::Responder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::SnapshotHandle;
use crate::ids::{Holder, RaftId};

/// What a group replicates: opaque bytes whose meaning belongs to its state machine.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proposal(pub(super) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

// openraft's `serde` feature asks every payload for these; the log and the wire use `raft::codec`.
impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Self(bytes.into()))
    }
}

/// Runs a closure with the fate of a proposal: applied, refused before it was appended, or discarded.
pub(super) struct Callback<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Callback<T> {
    /// A responder that calls `f` once, from the group's runtime; `f` must be cheap and must not block.
    pub(super) fn new(f: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(f))
    }
}

impl<T> fmt::Debug for Callback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// openraft's configuration for every group of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = ();
    /// A server of the thesis is one replica in one directory.
    type NodeId = RaftId;
    /// Where it lies; addresses are the transport's business, not Raft's.
    type Node = Holder;
    type Term = u64;
    /// One leader per term, as in the thesis (§3.2).
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, RaftId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, RaftId, Holder>;
    type Entry = openraft::impls::Entry<
        openraft::vote::leader_id_std::CommittedLeaderId<u64>,
        Self::Payload,
    >;
    type AsyncRuntime = super::runtime::Runtime;
    type Responder<T>
        = Callback<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Whether `replica` is a voter of one of `configs`: openraft's `voter_ids` makes a set of its own for the answer.
pub(super) fn is_voter(configs: &[BTreeSet<RaftId>], replica: RaftId) -> bool {
    configs.iter().any(|voters| voters.contains(&replica))
}

/// Term and index of an entry.
pub(super) type LogId = LogIdOf<TypeConfig>;
/// A vote: term, candidate, and whether a quorum granted it.
pub(super) type Vote = VoteOf<TypeConfig>;
/// An entry of the log.
pub(super) type Entry = EntryOf<TypeConfig>;
/// A membership and the entry that set it.
pub(super) type StoredMembership = StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub(super) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A snapshot: what it covers and where its bytes are.
pub(super) type Snapshot = SnapshotOf<TypeConfig, SnapshotHandle>;
/// The responder of a proposal.
pub(super) type WriteResponder = WriteResponderOf<TypeConfig>;
