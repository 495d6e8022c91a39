//! What a group applies its log to, and the adapter that lets openraft drive it.
//!
//! Contract of determinism: `apply` may use nothing but the machine's state and the entry. Two replicas
//! that applied the same prefix are equal; a snapshot taken at an index equals the state at that index.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::inbound_snapshots::SnapshotDesk;
use super::snapshot::{Received, SnapshotBuilder, SnapshotHandle, SnapshotStore};
use super::snapshots::Pause;
use super::type_config::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use super::workers::blocking;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::{Work, Workers};
use crate::wal::{CompleteSnapshot, Wal};

/// Position of the entry being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPosition {
    /// Raft term of the leader that proposed it.
    pub term: u64,
    /// Its index in the log.
    pub index: u64,
}

/// Who proposed the entry being applied. Nothing that it does may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process, which knows what it proposed.
    Here,
    /// Perhaps another program.
    Elsewhere,
}

/// Whether a snapshot needs further steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotProgress {
    /// Call `snapshot_step` again.
    More,
    /// All state is out.
    Done,
    /// Somebody else has the state for long: [`StateMachine::snapshot_step_long`] waits for that.
    Busy,
    /// The state is not there any more: it was replaced by a snapshot, or another was begun.
    Lost,
}

/// Names a begun snapshot, so that a step of one is never taken for a step of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTicket(pub u64);

/// A state that was loaded beside the present one; called, it takes that one's place. That cannot fail.
pub type Restored = Box<dyn FnOnce() + Send>;

/// An entry that this program does not know how to apply: its version, its kind or a command in it is of a newer one, or it
/// is damaged in a way that a checksum does not see. To skip it would make this replica differ from those that know it.
#[derive(Debug, thiserror::Error)]
#[error("this program cannot apply an entry of the log: {source}")]
pub struct UnknownEntry {
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

impl UnknownEntry {
    /// Why, in the words of the room that looked at it.
    pub fn because(source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source) }
    }
}

/// How far an entry is applied.
#[must_use = "the entry is not applied before the rest is run"]
pub enum Applied {
    /// Whole.
    Whole,
    /// All but this, which takes long, or waits for who does. It is run on a thread where that keeps nobody from their
    /// heartbeats, and nothing else is applied before it has ended.
    Rest(Box<dyn FnOnce() + Send>),
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "Whole",
            Self::Rest(_) => "Rest",
        })
    }
}

impl Applied {
    /// Does here what is left, for tests.
    #[cfg(test)]
    pub(crate) fn finish(self) {
        match self {
            Self::Whole => {}
            Self::Rest(rest) => rest(),
        }
    }
}

/// A replicated state machine.
///
/// Those calls that say so come from threads that may take their time; the others from the group's runtime. Nothing is
/// applied while [`Applied::Rest`], `begin_snapshot` or what `prepare` returns is called.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies a committed proposal. One that makes no sense has the same answer on every replica.
    ///
    /// # Errors
    /// [`UnknownEntry`] for what this program does not know, with the state as it was before. The replica stops there, and
    /// a program that knows the entry goes on with it.
    fn apply(
        &self,
        position: EntryPosition,
        origin: Origin,
        proposal: &Bytes,
    ) -> Result<Applied, UnknownEntry>;

    /// Fixes the state that the following [`Self::snapshot_step`]s write out, however it changes meanwhile. Takes its time.
    fn begin_snapshot(&self) -> SnapshotTicket;

    /// Appends about `budget` bytes of the fixed state to `out`. All steps together make one stream of bytes, which
    /// comes back to [`Self::prepare`] cut elsewhere. Takes no time; where somebody else does, it says so.
    fn snapshot_step(
        &self,
        ticket: SnapshotTicket,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> SnapshotProgress;

    /// The same after [`SnapshotProgress::Busy`], which it never says: takes its time.
    fn snapshot_step_long(
        &self,
        ticket: SnapshotTicket,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> SnapshotProgress {
        self.snapshot_step(ticket, budget, out)
    }

    /// Gives up a begun snapshot; nothing when it is over. Takes its time, and may come when the next one is begun already.
    fn abort_snapshot(&self, ticket: SnapshotTicket);

    /// Loads the state whose stream, cut anywhere, is in `chunks`, beside the present one, which is unchanged until the
    /// result is called. So both are in memory for a while. Takes its time, and so does what it returns.
    ///
    /// # Errors
    /// When a chunk cannot be read or the stream is not one that a snapshot of this version holds.
    fn prepare(
        self: Arc<Self>,
        chunks: &mut dyn Iterator<Item = io::Result<Bytes>>,
    ) -> io::Result<Restored>;
}

/// What apply tells the lease check and the log.
#[derive(Debug, Default)]
pub(super) struct AppliedTerm {
    term: AtomicU64,
    sole_voter: AtomicBool,
    /// The last applied entry.
    position: Mutex<Option<EntryPosition>>,
    /// The last entry that openraft's core has handed to the worker that applies. That one may be far behind: while an
    /// entry takes its time, and while what follows waits for it.
    handed: Mutex<Option<EntryPosition>>,
    /// The last entry of the snapshot that openraft has to install, until it has or refuses to.
    installing: Mutex<Option<EntryPosition>>,
    membership: Mutex<Option<LogId>>,
    is_lost: AtomicBool,
    /// The replica has ended. The first is held while its machine is touched, the second while its snapshots are:
    /// openraft's worker may outlive the rest. Who applies never waits for who waits for the disk.
    has_ended: [Mutex<bool>; 2],
}

impl AppliedTerm {
    /// Touches the machine of the replica, which does not end meanwhile.
    ///
    /// # Errors
    /// When it has.
    pub(super) fn unless_ended<R>(&self, touch: impl FnOnce() -> R) -> io::Result<R> {
        self.touch(0, touch)
    }

    /// Touches its snapshots, likewise; may wait for the disk.
    ///
    /// # Errors
    /// When the replica has ended.
    pub(super) fn publish_unless_ended<R>(
        &self,
        publish: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.touch(1, publish).flatten()
    }

    fn touch<R>(&self, what: usize, touch: impl FnOnce() -> R) -> io::Result<R> {
        let has_ended = self.has_ended[what].lock();
        if *has_ended {
            return Err(io::Error::other("the replica has ended"));
        }
        Ok(touch())
    }

    /// From now on nothing touches them any more. Waits for who does, which may take as long as the longest command.
    pub(super) fn end(&self) {
        for has_ended in &self.has_ended {
            *has_ended.lock() = true;
        }
    }

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

    /// The last entry that is applied, or will be whatever comes: it was handed to who applies, and nothing takes it back.
    /// `None` when there is none.
    pub(super) fn destined(&self) -> Option<EntryPosition> {
        let (applied, handed) = (*self.position.lock(), *self.handed.lock());
        let place = |position: &EntryPosition| (position.term, position.index);
        applied.into_iter().chain(handed).max_by_key(place)
    }

    /// The same, or the last entry of the snapshot that is being installed, whose turn comes when what was handed before
    /// is applied. That one is no bound for what is cut off: openraft does away with what contradicts it first.
    pub(super) fn promised(&self) -> Option<EntryPosition> {
        let installing = *self.installing.lock();
        let place = |position: &EntryPosition| (position.term, position.index);
        self.destined().into_iter().chain(installing).max_by_key(place)
    }

    /// Notes that a snapshot up to `last` is given to openraft, until what is returned goes.
    pub(super) fn install(&self, last: Option<EntryPosition>) -> Installing<'_> {
        *self.installing.lock() = last;
        Installing(self)
    }

    /// Notes that the entry at `term` and `index`, with all before it, is handed to who applies.
    pub(super) fn hand(&self, term: u64, index: u64) {
        *self.handed.lock() = Some(EntryPosition { term, index });
    }

    /// Notes that the entry at `term` and `index` is applied.
    pub(super) fn set(&self, term: u64, index: u64) {
        *self.position.lock() = Some(EntryPosition { term, index });
        self.term.store(term, Ordering::Release);
    }

    /// Notes that the group has lost entries that are applied here.
    pub(super) fn note_lost(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    /// Whether the group has lost entries that are applied here: the state is not that of the group any more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    fn set_membership(&self, membership: &StoredMembership) {
        self.sole_voter.store(membership.voter_ids().count() == 1, Ordering::Release);
        *self.membership.lock() = *membership.log_id();
    }
}

/// A snapshot is with openraft, to be installed; there is one at a time.
#[derive(Debug)]
pub(super) struct Installing<'a>(&'a AppliedTerm);

impl Drop for Installing<'_> {
    fn drop(&mut self) {
        *self.0.installing.lock() = None;
    }
}

/// openraft's view of a [`StateMachine`].
pub(super) struct Adapter<S> {
    machine: Arc<S>,
    snapshots: SnapshotStore,
    desk: SnapshotDesk,
    wal: Wal,
    workers: Arc<dyn Workers>,
    snapshot_chunk_bytes: usize,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    applied_term: Arc<AppliedTerm>,
}

impl<S: StateMachine> Adapter<S> {
    /// The machine as its newest snapshot left it; openraft replays the log from there.
    pub(super) fn open(
        machine: Arc<S>,
        snapshots: SnapshotStore,
        desk: SnapshotDesk,
        (wal, workers): (Wal, Arc<dyn Workers>),
        applied_term: Arc<AppliedTerm>,
        snapshot_chunk_bytes: usize,
    ) -> io::Result<Self> {
        let mut adapter = Self {
            machine,
            snapshots,
            desk,
            wal,
            workers,
            snapshot_chunk_bytes,
            last_applied: None,
            membership: StoredMembership::default(),
            applied_term,
        };
        let machine = &adapter.machine;
        let restored = adapter.snapshots.recover(|chunks| {
            Arc::clone(machine).prepare(chunks)?();
            Ok(())
        })?;
        if let Some(meta) = restored {
            adapter.adopt(&meta);
        }
        Ok(adapter)
    }

    /// The last entry that the restored state has.
    pub(super) fn last_applied(&self) -> Option<LogId> {
        self.last_applied
    }

    /// Gives a received snapshot its name, however often the disk refuses: openraft has accepted it and would end the
    /// replica over an error.
    async fn publish(&self, meta: &SnapshotMeta, mut file: CompleteSnapshot) -> io::Result<()> {
        let mut pause = Pause::default();
        loop {
            // openraft may have truncated entries that contradict the snapshot just now. Were the snapshot to survive a
            // power cut and the truncation not, the next start would find both.
            if !is_planted(Bug::SnapshotUnsynced) {
                self.wal.synced().await.map_err(io::Error::other)?;
            }
            let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
            let applied = Arc::clone(&self.applied_term);
            let published;
            (file, published) = blocking(&*self.workers, Work::Disk, move || {
                let published =
                    applied.publish_unless_ended(|| snapshots.publish(&mut file, &meta));
                Ok((file, published))
            })
            .await?;
            let Err(error) = published else { return Ok(()) };
            if self.desk.lock().is_stopped() {
                return Err(error);
            }
            tracing::error!(%error, "cannot publish a received snapshot; trying again");
            pause.fail(Instant::now());
            if let Some(until) = pause.until() {
                tokio::time::sleep_until(until).await;
            }
        }
    }

    /// # Errors
    /// For an entry that this program does not know. openraft ends the replica over it and has none of what follows
    /// applied; its log and its snapshots stay good.
    async fn apply_proposal(
        &self,
        position: EntryPosition,
        origin: Origin,
        proposal: &Bytes,
    ) -> io::Result<()> {
        let apply = || self.machine.apply(position, origin, proposal);
        let applied = self.applied_term.unless_ended(apply)?;
        let applied = applied.map_err(|error| {
            let (group, EntryPosition { term, index }) = (self.snapshots.group(), position);
            tracing::error!(
                %group,
                term,
                index,
                %error,
                "the replica stops before this entry; start a newer kvorum on this node"
            );
            io::Error::other(error)
        })?;
        match applied {
            Applied::Whole => Ok(()),
            // openraft's core goes on meanwhile, for this worker is a task of its own: it beats hearts, hears of them and
            // commits. What it commits waits here, in order.
            Applied::Rest(rest) => {
                let applied = Arc::clone(&self.applied_term);
                let rest = move || applied.unless_ended(rest);
                blocking(&*self.workers, Work::Entry, rest).await
            }
        }
    }

    /// A builder for the snapshot begun as `ticket`.
    fn builder(&self, meta: SnapshotMeta, ticket: SnapshotTicket) -> SnapshotBuilder<S> {
        let (machine, snapshots) = (Arc::clone(&self.machine), self.snapshots.clone());
        let (wal, workers) = (self.wal.clone(), Arc::clone(&self.workers));
        let (applied, desk) = (Arc::clone(&self.applied_term), Arc::clone(&self.desk));
        let (begun, chunk_bytes) = ((meta, ticket), self.snapshot_chunk_bytes);
        SnapshotBuilder::new(machine, snapshots, (wal, workers), applied, desk, begun, chunk_bytes)
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
                EntryPayload::Normal(proposal) => {
                    let origin = if responder.is_some() { Origin::Here } else { Origin::Elsewhere };
                    self.apply_proposal(position, origin, &proposal.0).await?;
                }
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

    /// `None` when there is nothing better to write than what is there, so that an idle group writes nothing.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder<S>> {
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        if !self.snapshots.wants(&meta) || !self.desk.lock().begin_build(Instant::now()) {
            return None;
        }
        // The machine may have to wait for who reads it; nothing is applied meanwhile.
        let (machine, applied) = (Arc::clone(&self.machine), Arc::clone(&self.applied_term));
        let begin = move || applied.unless_ended(|| machine.begin_snapshot());
        match blocking(&*self.workers, Work::State, begin).await {
            Ok(ticket) => Some(self.builder(meta, ticket)),
            Err(error) => {
                tracing::warn!(group = %self.snapshots.group(), %error, "a snapshot was not begun");
                self.desk.lock().drop_build();
                None
            }
        }
    }

    /// openraft calls it nowhere but in the default of [`Self::try_create_snapshot_builder`].
    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<S> {
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        self.builder(meta, self.machine.begin_snapshot())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> io::Result<()> {
        let received = match &snapshot {
            SnapshotHandle::Received(received) => received.lock().take(),
            SnapshotHandle::Published(_) | SnapshotHandle::Nothing => None,
        };
        let Received { file, restored } =
            received.ok_or_else(|| io::Error::other("only a received snapshot is installed"))?;
        // Published first: openraft purges the log it covers as soon as this returns.
        self.publish(meta, file).await?;
        // Freeing the old state takes as long as it is large.
        let applied = Arc::clone(&self.applied_term);
        let swap = move || applied.unless_ended(restored);
        blocking(&*self.workers, Work::State, swap).await?;
        self.adopt(meta);
        tracing::info!(group = %self.snapshots.group(), last = ?meta.last_log_id, "installed a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.best())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Counter;
    use super::super::workers::BlockingPool;
    use super::*;
    use crate::ids::{GroupId, RaftId};
    use crate::stdx::fs::SystemDisk;
    use crate::wal::{SnapshotDir, WalOptions};

    /// While it waited for its turn, behind an entry that took long, a leader without what it holds was followed.
    #[test]
    fn what_a_snapshot_brings_counts_before_it_is_installed() {
        let applied = AppliedTerm::default();
        let (before, last) =
            (EntryPosition { term: 1, index: 10 }, EntryPosition { term: 2, index: 100 });
        applied.set(before.term, before.index);
        let installing = applied.install(Some(last));
        assert_eq!((applied.promised(), applied.destined()), (Some(last), Some(before)));
        // It was refused.
        drop(installing);
        assert_eq!(applied.promised(), Some(before));
        let installing = applied.install(Some(last));
        applied.set(last.term, last.index);
        drop(installing);
        assert_eq!(applied.promised(), Some(last));
    }

    /// By then the machine may be empty, or the next replica's.
    #[tokio::test]
    async fn no_snapshot_is_begun_of_a_replica_that_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(&folder.path().join("wal"), WalOptions::default()).unwrap();
        wal.born(GroupId(1), RaftId(1)).await.unwrap();
        let directory = SnapshotDir::new(SystemDisk::shared(), folder.path().to_owned());
        let snapshots = SnapshotStore::new(directory, GroupId(1));
        let (machine, applied) = (Arc::new(Counter::default()), Arc::new(AppliedTerm::default()));
        let (desk, log) = (SnapshotDesk::default(), (wal, BlockingPool::shared()));
        let mut adapter =
            Adapter::open(Arc::clone(&machine), snapshots, desk, log, Arc::clone(&applied), 1)
                .unwrap();
        adapter.last_applied = Some(LogId::new_term_index(1, 7));
        drop(adapter.try_create_snapshot_builder(false).await.unwrap());
        applied.end();
        assert!(adapter.try_create_snapshot_builder(false).await.is_none());
        assert_eq!(machine.snapshots_begun.load(Ordering::Relaxed), 1);
    }
}
