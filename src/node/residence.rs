//! Begins, starts and ends the replicas that lie in this node's directory.
//!
//! A replica is *born* when the log has noted its raft id, before it says a word; it has ended when the log has noted
//! that too. So a directory never speaks for an id that it does not know everything of.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::error::NodeError;
use super::switchboard::{Myself, Switchboard};
use crate::ids::{GroupId, Holder, RaftId, Session};
use crate::raft::{GroupOptions, Sizes, SnapshotStore, Timekeeper, Timeless, Timing, on};
use crate::stdx::clock::Clock;
use crate::stdx::memory::Budget;
use crate::stdx::workers::{Work, Workers};
use crate::transport::Peers;
use crate::wal::{DataDir, GroupState, SnapshotDir, Wal};

/// The clock of all groups.
pub(super) const TIMING: Timing = Timing::DEFAULT;

/// What replicas stand on.
#[derive(Debug)]
pub(super) struct Residence {
    pub(super) myself: Myself,
    /// Never locked on a thread that beats hearts: it is held while the disk is written to.
    pub(super) data_dir: Arc<Mutex<DataDir>>,
    /// Every start that the directory remembered when it was opened, this one last.
    pub(super) starts: Vec<Session>,
    pub(super) clock: Arc<dyn Clock>,
    /// What memory this node may take.
    pub(super) budget: Arc<Budget>,
    /// Where snapshots belong.
    pub(super) snapshots: SnapshotDir,
    pub(super) wal: Wal,
    /// What the log remembered of each group when it was opened.
    pub(super) recovered: BTreeMap<GroupId, GroupState>,
    pub(super) peers: Peers,
    pub(super) switchboard: Arc<Switchboard>,
    /// Who does what blocks.
    pub(super) workers: Arc<dyn Workers>,
    pub(super) sizes: Sizes,
    /// The runtimes that shards live on; meta lives on the first.
    pub(super) runtimes: Vec<Handle>,
    pub(super) seed: u64,
}

impl Residence {
    fn options(&self, group: GroupId, id: RaftId) -> GroupOptions {
        // Of another replica that lived here before, nothing counts.
        let recovered = self.recovered.get(&group).cloned();
        let recovered = recovered.filter(|state| state.raft_id == Some(id));
        GroupOptions {
            group,
            id,
            holder: Holder { node: self.myself.node, incarnation: self.myself.incarnation },
            wal: self.wal.clone(),
            snapshots: SnapshotStore::new(self.snapshots.clone(), group),
            is_short: recovered.as_ref().is_some_and(|state| state.is_short),
            recovered,
            session: self.myself.session,
            peers: self.peers.clone(),
            timing: TIMING,
            clock: Arc::clone(&self.clock),
            budget: Arc::clone(&self.budget),
            workers: Arc::clone(&self.workers),
            sizes: self.sizes,
            time: self.switchboard.shard(group).map_or_else(
                || Arc::new(Timeless) as Arc<dyn Timekeeper>,
                |shard| shard.timekeeper(),
            ),
            seed: self.seed ^ u64::from(group.0).rotate_left(48),
        }
    }

    /// Whether a replica here has voted or had entries: its group was given its first members, so the birth of the cluster
    /// was sealed.
    pub(super) fn has_history(&self) -> bool {
        self.recovered.values().any(|it| it.vote.is_some() || it.last_index.is_some())
    }

    fn runtime(&self, group: GroupId) -> &Handle {
        let shard = group.shard().map_or(0, |shard| shard.0 as usize);
        &self.runtimes[shard % self.runtimes.len()]
    }

    /// The replica of `group` here that works or has stopped, but not ended.
    pub(super) fn replica(&self, group: GroupId) -> Option<RaftId> {
        match self.switchboard.shard(group) {
            Some(shard) => shard.replica_id(),
            None if group == GroupId::META => self.switchboard.meta().replica_id(),
            None => None,
        }
    }

    /// Starts every replica that the log remembers or was just told of, meta's first: it says what the others are for.
    pub(super) async fn start_all(&self, born: BTreeMap<GroupId, RaftId>) -> Result<(), NodeError> {
        let mut replicas = born;
        let remembered = self.recovered.iter();
        replicas.extend(remembered.filter_map(|(group, state)| Some((*group, state.raft_id?))));
        for (group, id) in replicas {
            self.start(group, id).await?;
        }
        Ok(())
    }

    /// Begins the replica `id` of `group`, which has never been in any directory: empty, and without members until
    /// the group's leader sends it some.
    pub(super) async fn begin(&self, group: GroupId, id: RaftId) -> Result<(), NodeError> {
        // Of one that ended here, and died while it was at it. They do not say whose they are.
        self.forget_snapshots(group).await.map_err(NodeError::Snapshots)?;
        self.wal.born(group, id).await.map_err(NodeError::Log)?;
        tracing::info!(%group, %id, "a replica begins");
        self.start(group, id).await
    }

    async fn start(&self, group: GroupId, id: RaftId) -> Result<(), NodeError> {
        let options = self.options(group, id);
        if group == GroupId::META {
            return Ok(self.switchboard.meta().start_replica(options).await?);
        }
        let Some(shard) = self.switchboard.shard(group).cloned() else {
            return Err(NodeError::UnknownGroup(group));
        };
        let starting = self.runtime(group).spawn(async move { shard.start_replica(options).await });
        Ok(starting.await.map_err(|_| NodeError::Runtime)??)
    }

    /// Ends the replica `id` of `group`: meta has it as ended, so nobody will ask it for anything again.
    pub(super) async fn end(&self, group: GroupId, id: RaftId) -> Result<(), NodeError> {
        if let Some(shard) = self.switchboard.shard(group) {
            shard.end_replica().await;
        } else {
            self.switchboard.meta().end_replica().await;
        }
        // In this order: a log that was purged is nothing without its snapshot, and the node would not start. Snapshots
        // that a death in between leaves behind go before the next replica begins.
        self.wal.ended(group, id).await.map_err(NodeError::Log)?;
        if let Err(error) = self.forget_snapshots(group).await {
            tracing::warn!(%group, %error, "a snapshot of an ended replica stays behind");
        }
        tracing::info!(%group, %id, "a replica has ended");
        Ok(())
    }

    async fn forget_snapshots(&self, group: GroupId) -> io::Result<()> {
        let store = SnapshotStore::new(self.snapshots.clone(), group);
        let forgotten = on(&*self.workers, Work::Disk, move || store.forget_all()).await;
        forgotten.unwrap_or(Ok(()))
    }

    /// The replicas here that others are to take the place of.
    pub(super) fn to_be_rebuilt(&self) -> Vec<(GroupId, RaftId)> {
        let meta = self.switchboard.meta();
        let meta = meta.replica_id().filter(|_| meta.must_be_rebuilt());
        let meta = meta.map(|id| (GroupId::META, id));
        let shards = self.switchboard.shards().iter().filter(|shard| shard.must_be_rebuilt());
        let shards = shards.filter_map(|it| Some((GroupId::of_shard(it.id()), it.replica_id()?)));
        // Meta's first: it is small, and decides about the others.
        meta.into_iter().chain(shards).collect()
    }
}
