//! What a group applies its log to, and the adapter that lets openraft drive it.
//!
//! Contract of determinism: `apply` may use nothing but the machine's state and the entry. Two replicas
//! that applied the same prefix are equal; a snapshot taken at an index equals the state at that index.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use parking_lot::Mutex;

use super::snapshot::{SnapshotBuilder, SnapshotHandle, SnapshotStore};
use super::type_config::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Position of the entry being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPosition {
    /// Raft term of the leader that proposed it.
    pub term: u64,
    /// Its index in the log.
    pub index: u64,
}

/// Whether a snapshot needs further steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotProgress {
    /// Call `snapshot_step` again.
    More,
    /// All state is out.
    Done,
}

/// A replicated state machine.
///
/// All calls for one machine come from its group's runtime, except `restore`, which runs on a thread
/// of its own while nothing is applied.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies a committed proposal. Must not fail for anything that was proposed: a proposal that
    /// makes no sense has the same answer on every replica.
    fn apply(&self, position: EntryPosition, proposal: &Bytes);

    /// Fixes the state that the following [`Self::snapshot_step`]s write out, however it changes meanwhile.
    fn begin_snapshot(&self);

    /// Writes about `budget` bytes of the fixed state to `out`. Chunks are self-contained.
    fn snapshot_step(&self, budget: usize, out: &mut Vec<u8>) -> SnapshotProgress;

    /// Gives up a begun snapshot.
    fn abort_snapshot(&self);

    /// Replaces the whole state by the one in `chunks`.
    ///
    /// # Errors
    /// When a chunk cannot be read or is not one a snapshot of this version holds; the state is unchanged.
    fn restore(&self, chunks: &mut dyn Iterator<Item = io::Result<Bytes>>) -> io::Result<()>;
}

/// What apply tells the lease check and the log.
#[derive(Debug, Default)]
pub(super) struct AppliedTerm {
    term: AtomicU64,
    index: AtomicU64,
    sole_voter: AtomicBool,
    membership: Mutex<Option<LogId>>,
}

impl AppliedTerm {
    /// Term of the last applied entry. A leader may serve reads once an entry of its own term is applied
    /// (Raft thesis §6.4), because only then does it surely know all that is committed.
    pub(super) fn get(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Whether the applied membership has one voter: if that is the leader, it needs nobody's acknowledgement.
    pub(super) fn has_sole_voter(&self) -> bool {
        self.sole_voter.load(Ordering::Acquire)
    }

    /// The entry that set the newest membership that is committed, as far as this replica has applied the log.
    pub(super) fn membership(&self) -> Option<LogId> {
        *self.membership.lock()
    }

    /// Index of the last applied entry; 0 when there is none, or only the first, which nothing comes before.
    pub(super) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// Notes that the entry at `term` and `index` is applied.
    pub(super) fn set(&self, term: u64, index: u64) {
        self.index.store(index, Ordering::Release);
        self.term.store(term, Ordering::Release);
    }

    fn set_membership(&self, membership: &StoredMembership) {
        self.sole_voter.store(membership.voter_ids().count() == 1, Ordering::Release);
        *self.membership.lock() = *membership.log_id();
    }
}

/// openraft's view of a [`StateMachine`].
pub(super) struct Adapter<S> {
    machine: Arc<S>,
    snapshots: SnapshotStore,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    applied_term: Arc<AppliedTerm>,
}

impl<S: StateMachine> Adapter<S> {
    /// The machine as its newest snapshot left it; openraft replays the log from there.
    pub(super) fn open(
        machine: Arc<S>,
        snapshots: SnapshotStore,
        applied_term: Arc<AppliedTerm>,
    ) -> io::Result<Self> {
        let mut adapter = Self {
            machine,
            snapshots,
            last_applied: None,
            membership: StoredMembership::default(),
            applied_term,
        };
        if let Some(snapshot) = adapter.snapshots.latest()? {
            adapter.machine.restore(&mut snapshot.snapshot.chunks()?)?;
            adapter.adopt(&snapshot.meta);
        }
        Ok(adapter)
    }

    fn adopt(&mut self, meta: &SnapshotMeta) {
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.applied_term.set_membership(&self.membership);
        if let Some(log_id) = meta.last_log_id {
            self.applied_term.set(log_id.leader_id.term, log_id.index);
        }
    }
}

impl<S: StateMachine> RaftStateMachine<TypeConfig> for Adapter<S> {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = SnapshotBuilder<S>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let log_id = entry.log_id;
            let position = EntryPosition { term: log_id.leader_id.term, index: log_id.index };
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(proposal) => self.machine.apply(position, &proposal.0),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                    self.applied_term.set_membership(&self.membership);
                }
            }
            self.last_applied = Some(log_id);
            self.applied_term.set(position.term, position.index);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<S> {
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        SnapshotBuilder::begin(Arc::clone(&self.machine), self.snapshots.clone(), meta)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> io::Result<()> {
        let machine = Arc::clone(&self.machine);
        let snapshots = self.snapshots.clone();

        tokio::task::spawn_blocking(move || {
            machine.restore(&mut snapshot.chunks()?)?;
            snapshots.forget_older()
        })
        .await
        .map_err(io::Error::other)??;
        self.adopt(meta);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.snapshots.latest()
    }
}
