//! A group's log: openraft's storage traits over the node's shared WAL, with the tail in memory.
//!
//! Rules that must hold, and where they do:
//! - An entry is readable as soon as `append` returns: it enters the tail before the WAL sees it.
//! - `IOFlushed` fires when the WAL says the entry is as durable as `appendfsync` demands; the tail
//!   knows entries the WAL has not, never the other way round.
//! - Votes are on disk before `save_vote` returns, whatever the policy (Raft thesis §3.8).
//! - Votes, appends and truncations of a group reach the WAL in the order openraft made them: all are
//!   called by its one core task, and the WAL keeps the order of calls.
//!
//! The commit index is not stored: a restarted node learns it from the next leader, and a leader that
//! restarts is elected anew (`enable_leader_restore` is off), as in the thesis (§3.8).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::codec;
use super::limits::{APPEND_ENTRIES_BYTES_MAX, SYNC_TURNS, TAIL_IDLE, TAIL_IDLE_BYTES_MAX};
use super::state_machine::AppliedTerm;
use super::type_config::{Entry, LogId, TypeConfig, Vote};
use super::workers::on;
use crate::ids::GroupId;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::{Work, Workers};
use crate::wal::{GroupState, Record, SyncOwed, Wal};

/// The log of one group; clones share it, and a clone is the reader openraft asks for.
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    group: GroupId,
    wal: Wal,
    /// Who reads from it what is in memory no more.
    workers: Arc<dyn Workers>,
    applied: Arc<AppliedTerm>,
    /// What stays in memory of what is on the disk.
    tail_bytes_max: usize,
    tail: Mutex<Tail>,
}

/// A leader's log lacks entries that are applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the leader has lost entries that are applied here: up to {applied} here, it keeps {kept:?}"
)]
struct AppliedEntriesLost {
    applied: u64,
    kept: Option<u64>,
}

/// The newest entries of the log, and what is known of the whole.
#[derive(Debug)]
struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Highest index the WAL has reported durable; entries above it live only here.
    flushed: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    /// The last entry at the last look, and since when it is that.
    seen: Option<(LogId, Instant)>,
}

impl LogStore {
    /// The log of `group` as the WAL recovered it (`None` for a group it has never seen), of which `tail_bytes_max` stay in
    /// memory.
    ///
    /// # Errors
    /// When a recovered record cannot be read or is not one this version writes.
    pub(super) fn open(
        group: GroupId,
        (wal, workers): (Wal, Arc<dyn Workers>),
        recovered: Option<GroupState>,
        applied: Arc<AppliedTerm>,
        tail_bytes_max: usize,
    ) -> io::Result<Self> {
        let mut tail = Tail {
            entries: VecDeque::new(),
            bytes: 0,
            flushed: 0,
            last: None,
            purged: None,
            vote: None,
            seen: None,
        };
        if let Some(state) = recovered {
            if let Some(vote) = state.vote {
                tail.vote = Some(decode_cold(&vote)?);
            }
            if let Some((_, marker)) = state.purged {
                tail.purged = Some(decode_cold(&marker)?);
            }
            tail.last = tail.purged;
            if let Some(last_index) = state.last_index {
                let records =
                    wal.read(group, last_index..last_index + 1, 1).map_err(io::Error::other)?;
                let (index, record) = records
                    .into_iter()
                    .next()
                    .ok_or_else(|| io::Error::other("last log record is missing"))?;
                tail.last = Some(entry_of(index, record)?.log_id);
                tail.flushed = last_index;
            }
        }
        let tail = Mutex::new(tail);
        let shared = Shared { group, wal, workers, applied, tail_bytes_max, tail };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Gives memory back when nothing was written for a while; to be called now and then.
    pub(super) fn rest(&self, now: Instant) {
        self.shared.tail.lock().rest(now);
    }

    /// Term of its vote; 0 before the first.
    pub(super) fn voted_term(&self) -> u64 {
        self.shared.tail.lock().vote.map_or(0, |vote| vote.leader_id().term)
    }

    /// Notes that the replica lacks nothing any more.
    pub(super) fn note_whole(&self) -> Result<(), Arc<crate::wal::WalError>> {
        self.shared.wal.whole(self.shared.group)
    }

    /// Whether this replica has ever voted: a fresh one owes nobody a lease.
    pub(super) fn has_voted(&self) -> bool {
        self.shared.tail.lock().vote.is_some()
    }

    /// The newest entry, durable or not.
    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.shared.tail.lock().last
    }

    /// Bytes of the entries behind `index`, about.
    pub(super) fn bytes_after(&self, index: u64) -> u64 {
        self.shared.wal.group_bytes_after(self.shared.group, index)
    }

    /// Bytes of the entries behind `index`; `None` when not all of them are in memory.
    pub(super) fn bytes_in_memory_after(&self, index: u64) -> Option<usize> {
        self.shared.tail.lock().bytes_after(index)
    }

    /// The last entry purged.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.shared.tail.lock().purged
    }

    /// Entries `[start, end)` as far as they exist, at least one if there is one, up to `bytes_max`.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let cached_from = {
            let tail = self.shared.tail.lock();
            let from = tail.first_index();
            if start >= from {
                return Ok(tail.range(start, end, bytes_max));
            }
            from
        };
        let (wal, group) = (self.shared.wal.clone(), self.shared.group);
        let until = end.min(cached_from);
        // A lagging follower or a restart reads old segments: that may wait for the disk, so not here.
        let read = move || wal.read(group, start..until, bytes_max);
        let records = on(&*self.shared.workers, Work::Disk, read)
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        records.into_iter().map(|(index, record)| entry_of(index, record)).collect()
    }
}

impl Tail {
    /// Index of the first cached entry; one past the last entry when nothing is cached.
    fn first_index(&self) -> u64 {
        match self.entries.front() {
            Some(entry) => entry.log_id.index,
            None => self.last.map_or(0, |last| last.index + 1),
        }
    }

    fn bytes_after(&self, index: u64) -> Option<usize> {
        let is_behind = |entry: &&Entry| entry.log_id.index > index;
        let behind = || self.entries.iter().rev().take_while(is_behind);
        (self.first_index() <= index + 1).then(|| behind().map(bytes_of).sum())
    }

    fn range(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        let skip = usize::try_from(start - self.first_index()).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut out = Vec::new();
        for entry in self.entries.iter().skip(skip).take_while(|entry| entry.log_id.index < end) {
            bytes += bytes_of(entry);
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += bytes_of(&entry);
        self.last = Some(entry.log_id);
        self.entries.push_back(entry);
    }

    /// Drops cached entries that can be read back from disk until the cache is within `bytes_max`.
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(front) = self.entries.front() else { return };
            if front.log_id.index > self.flushed {
                return;
            }
            self.drop_front();
        }
    }

    /// Gives memory back when nothing was written for a while at `now`.
    fn rest(&mut self, now: Instant) {
        match (self.last, self.seen) {
            (Some(last), Some((seen, since))) if last == seen => {
                if now.saturating_duration_since(since) >= TAIL_IDLE
                    && self.bytes > TAIL_IDLE_BYTES_MAX
                {
                    self.shrink(TAIL_IDLE_BYTES_MAX);
                    self.entries.shrink_to_fit();
                }
            }
            (last, _) => self.seen = last.map(|last| (last, now)),
        }
    }

    fn drop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= bytes_of(&entry);
        }
    }
}

/// Bytes an entry is counted with: its proposal and about what its bookkeeping costs.
fn bytes_of(entry: &Entry) -> usize {
    const OVERHEAD: usize = 64;
    match &entry.payload {
        openraft::EntryPayload::Normal(proposal) => OVERHEAD + proposal.0.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => OVERHEAD,
    }
}

fn entry_of(index: u64, record: Bytes) -> io::Result<Entry> {
    codec::entry_of_record(index, record)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn decode_cold<'a, T: serde::Deserialize<'a>>(bytes: &'a Bytes) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn encode_cold<T: serde::Serialize>(value: &T) -> io::Result<Bytes> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(io::Error::other)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (mut start, end) = bounds(&range);
        let mut out = Vec::new();
        loop {
            let mut part = self.read(start, end, usize::MAX).await?;
            let Some(last) = part.last() else { return Ok(out) };
            start = last.log_id.index + 1;
            out.append(&mut part);
            if start >= end {
                return Ok(out);
            }
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.tail.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, APPEND_ENTRIES_BYTES_MAX).await
    }

    /// What apply reads: in portions, so that replaying a long log never holds it all in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let portion =
            Portion { store: self.clone(), next: start, end, ready: Vec::new().into_iter() };
        stream::unfold(portion, |mut portion| async move {
            let item = portion.next().await?;
            Some((item, portion))
        })
    }
}

/// A walk over a range of the log, a bounded portion at a time.
struct Portion {
    store: LogStore,
    next: u64,
    end: u64,
    ready: std::vec::IntoIter<Entry>,
}

impl Portion {
    async fn next(&mut self) -> Option<io::Result<Entry>> {
        if let Some(entry) = self.ready.next() {
            return Some(Ok(entry));
        }
        if self.next >= self.end {
            return None;
        }
        match self.store.read(self.next, self.end, APPEND_ENTRIES_BYTES_MAX).await {
            Ok(entries) => {
                self.next = entries.last().map_or(self.end, |last| last.log_id.index + 1);
                self.ready = entries.into_iter();
                self.ready.next().map(Ok)
            }
            Err(error) => {
                self.next = self.end;
                Some(Err(error))
            }
        }
    }
}

impl LogStore {
    /// Hands entries to the log, which calls back when they are as safe as the policy demands; whether it has already.
    fn append_now<I>(&self, entries: I, callback: IOFlushed<TypeConfig>) -> bool
    where
        I: IntoIterator<Item = Entry>,
    {
        let entries: SmallVec<[Entry; 1]> = entries.into_iter().collect();
        let Some(last) = entries.last().map(|entry| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return false;
        };
        let parts: SmallVec<[_; 1]> = entries
            .iter()
            .map(|entry| (entry.log_id.index, codec::record_head(entry), codec::record_body(entry)))
            .collect();
        let records: SmallVec<[_; 1]> =
            parts.iter().map(|(index, head, body)| Record { index: *index, head, body }).collect();
        {
            let mut tail = self.shared.tail.lock();
            for entry in entries {
                tail.push(entry);
            }
        }
        let shared = Arc::clone(&self.shared);
        let mut callback = Some(callback);
        if is_planted(Bug::AcknowledgedEarly)
            && let Some(callback) = callback.take()
        {
            callback.io_completed(Ok(()));
        }
        let done = move |result: Result<(), Arc<crate::wal::WalError>>| {
            if result.is_ok() {
                let mut tail = shared.tail.lock();
                tail.flushed = tail.flushed.max(last);
                tail.shrink(shared.tail_bytes_max);
            }
            if let Some(callback) = callback {
                callback.io_completed(result.map_err(io::Error::other));
            }
        };
        if let Some(owed) = self.shared.wal.append(self.shared.group, &records, Box::new(done)) {
            tokio::spawn(sync_what_gathers(owed));
        }
        self.shared.tail.lock().flushed >= last
    }
}

/// Comes back once every task that is ready now has had its turn, and without a look at the sockets, as tokio's
/// `yield_now` takes.
async fn let_others_run() {
    let mut is_back = false;
    poll_fn(|context| {
        if is_back {
            return Poll::Ready(());
        }
        is_back = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.shared.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let saved = self.shared.wal.save_vote(self.shared.group, encode_cold(vote)?);
        if is_planted(Bug::VoteNotSynced) {
            drop(tokio::spawn(saved));
        } else {
            saved.await.map_err(io::Error::other)?;
        }
        self.shared.tail.lock().vote = Some(*vote);
        Ok(())
    }

    /// Kept in memory alone: openraft says it just before it hands the entries up to there to the machine's worker.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(LogId { leader_id, index }) = committed {
            self.shared.applied.hand(leader_id.term, index);
        }
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        // A core with others to tell sends them the entry when this returns; and one that only listens takes what has
        // come together in one turn, unless there is news.
        if self.append_now(entries, callback) && self.shared.applied.has_sole_voter() {
            let_others_run().await;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_kept: Option<LogId>) -> io::Result<()> {
        let kept = last_kept.map_or(0, |log_id| log_id.index + 1);
        // What is applied was committed. A leader without it was elected by replicas that had lost it, and this one's
        // state is no longer that of the group: openraft would go on without a word.
        // So it is with what was handed to who applies, however far behind that one is.
        let applied = self.shared.applied.destined().map_or(0, |position| position.index);
        if applied >= kept.max(1) && !is_planted(Bug::AppliedTruncated) {
            let lost = AppliedEntriesLost { applied, kept: last_kept.map(|log_id| log_id.index) };
            self.shared.applied.note_lost();
            return Err(io::Error::other(lost));
        }
        self.shared
            .wal
            .truncate_after(self.shared.group, last_kept.map(|log_id| log_id.index))
            .map_err(io::Error::other)?;
        let mut tail = self.shared.tail.lock();
        while tail.entries.back().is_some_and(|entry| entry.log_id.index >= kept) {
            if let Some(entry) = tail.entries.pop_back() {
                tail.bytes -= bytes_of(&entry);
            }
        }
        tail.flushed = tail.flushed.min(kept.saturating_sub(1));
        tail.last = last_kept;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared
            .wal
            .purge(self.shared.group, upto.index, encode_cold(&upto)?)
            .map_err(io::Error::other)?;
        let mut tail = self.shared.tail.lock();
        while tail.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            tail.drop_front();
        }
        tail.purged = Some(upto);
        if tail.last.is_none_or(|last| last.index < upto.index) {
            tail.last = Some(upto);
        }
        Ok(())
    }
}

/// Lets the other groups of this thread append what they have, and syncs it all at once.
async fn sync_what_gathers(owed: SyncOwed) {
    for _ in 0..SYNC_TURNS {
        tokio::task::yield_now().await;
    }
    owed.sync();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::storage::RaftLogReader;
    use openraft::type_config::TypeConfigExt as _;

    use super::super::state_machine::EntryPosition;
    use super::super::type_config::Proposal;
    use super::super::workers::BlockingPool;
    use super::*;
    use crate::stdx::fs::SystemDisk;
    use crate::wal::{Next, WalOptions, Woken};

    /// faults.md M7: 44 MB stayed after ten idle minutes.
    #[tokio::test]
    async fn an_idle_log_gives_its_memory_back_and_is_read_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(&folder.path().join("wal"), WalOptions::default()).unwrap();
        wal.born(GroupId(1), crate::ids::RaftId(1)).await.unwrap();
        let mut log = LogStore::open(
            GroupId(1),
            (wal.clone(), BlockingPool::shared()),
            None,
            Arc::default(),
            usize::MAX,
        )
        .unwrap();
        let payload = || openraft::EntryPayload::Normal(Proposal(vec![7; 200_000].into()));
        let entry = |index| Entry { log_id: LogId::new_term_index(2, index), payload: payload() };
        log.append((0..20).map(entry), IOFlushed::noop()).await.unwrap();
        // What is not on the disk yet is kept.
        wal.sync().unwrap();
        let kept = |log: &LogStore| log.shared.tail.lock().bytes;
        let now = Instant::now();
        log.rest(now);
        log.rest(now + TAIL_IDLE / 2);
        assert!(kept(&log) > 4_000_000);
        log.rest(now + TAIL_IDLE);
        assert!(kept(&log) <= TAIL_IDLE_BYTES_MAX, "{}", kept(&log));
        let all = log.try_get_log_entries(0..20).await.unwrap();
        assert!(all.iter().map(|it| it.log_id.index).eq(0..20));
    }

    #[tokio::test]
    async fn what_a_short_tail_lets_go_of_is_read_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(&folder.path().join("wal"), WalOptions::default()).unwrap();
        wal.born(GroupId(1), crate::ids::RaftId(1)).await.unwrap();
        let log = (wal.clone(), BlockingPool::shared());
        let mut log = LogStore::open(GroupId(1), log, None, Arc::default(), 1000).unwrap();
        let payload = || openraft::EntryPayload::Normal(Proposal(vec![7; 200].into()));
        let entry = |index| Entry { log_id: LogId::new_term_index(2, index), payload: payload() };
        log.append((0..20).map(entry), IOFlushed::noop()).await.unwrap();
        wal.sync().unwrap();
        assert!(log.shared.tail.lock().bytes <= 1000);
        assert_eq!(log.bytes_in_memory_after(19), Some(0));
        assert_eq!(log.bytes_in_memory_after(17), Some(2 * bytes_of(&entry(18))));
        assert_eq!(log.bytes_in_memory_after(10), None);
        let all = log.try_get_log_entries(0..20).await.unwrap();
        assert!(all.iter().map(|it| it.log_id.index).eq(0..20));
    }

    /// The sync that a thread owes waits for its turn there; another thread's append must not wait for that.
    #[test]
    fn an_append_does_not_wait_for_another_thread_that_is_busy() {
        let folder = tempfile::tempdir().unwrap();
        let sync = crate::wal::SyncPolicy::Always;
        let options = WalOptions { sync, callers_sync: true, ..WalOptions::default() };
        let (wal, _, mut stepper) =
            Wal::open_stepped(&SystemDisk::shared(), &folder.path().join("wal"), options).unwrap();
        let born = [1, 2].map(|group| wal.born(GroupId(group), crate::ids::RaftId(1)));
        while stepper.step(Woken::ByWork) == Next::More {}
        drop(born);
        // The log's thread, which might help, does nothing from here on.
        let run = |group, then: &dyn Fn()| {
            let log = LogStore::open(
                GroupId(group),
                (wal.clone(), BlockingPool::shared()),
                None,
                Arc::default(),
                usize::MAX,
            )
            .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (done, is_done) = TypeConfig::oneshot();
                let (log_id, payload) =
                    (LogId::new_term_index(2, 0), openraft::EntryPayload::Blank);
                let entry = Entry { log_id, payload };
                log.clone().append([entry], IOFlushed::signal(done)).await.unwrap();
                then();
                let is_done = tokio::time::timeout(Duration::from_secs(20), is_done).await;
                is_done.expect("nobody syncs it").unwrap().unwrap();
            });
        };
        let other = || std::thread::scope(|scope| scope.spawn(|| run(2, &|| {})).join().unwrap());
        run(1, &other);
    }

    /// A leader that lacks what was applied here was elected by replicas that had lost it.
    #[tokio::test]
    async fn what_is_applied_is_never_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(&folder.path().join("wal"), WalOptions::default()).unwrap();
        wal.born(GroupId(1), crate::ids::RaftId(1)).await.unwrap();
        let applied = Arc::new(AppliedTerm::default());
        let mut log = LogStore::open(
            GroupId(1),
            (wal, BlockingPool::shared()),
            None,
            Arc::clone(&applied),
            usize::MAX,
        )
        .unwrap();
        let entry = |index| Entry {
            log_id: LogId::new_term_index(2, index),
            payload: openraft::EntryPayload::Blank,
        };
        log.append((0..5).map(entry), IOFlushed::noop()).await.unwrap();
        applied.set(2, 3);
        let kept = |index| Some(LogId::new_term_index(2, index));
        log.truncate_after(kept(2)).await.unwrap_err();
        log.truncate_after(None).await.unwrap_err();
        assert_eq!(log.last_log_id(), kept(4), "nothing was cut");
        // The machine takes its time, and will apply it.
        log.save_committed(kept(4)).await.unwrap();
        log.truncate_after(kept(3)).await.unwrap_err();
        assert_eq!(log.last_log_id(), kept(4), "nothing was cut");
        assert_eq!(applied.destined(), Some(EntryPosition { term: 2, index: 4 }));
        log.append([entry(5)], IOFlushed::noop()).await.unwrap();
        log.truncate_after(kept(4)).await.unwrap();
        assert_eq!(log.last_log_id(), kept(4));
    }
}
