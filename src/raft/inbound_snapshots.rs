//! Snapshots that a leader sends: received in chunks, checked and loaded, then handed to openraft.
//!
//! `snapshots` decides what is taken. Each transfer has a task of its own, which alone has the transfer's file; the
//! messages reach it by a short queue, in the order they came. Every message is answered, also the refused one, so
//! that the sender knows to wait.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3Default;

use super::core::Shared;
use super::group::Group;
use super::limits::{SNAPSHOT_META_BYTES_MAX, SNAPSHOT_WINDOW};
use super::network::SnapshotAnswer;
use super::snapshot::{Chunks, Received, SnapshotHandle};
use super::snapshots::{Desk, Refusal, Transfer};
use super::state_machine::{EntryPosition, StateMachine};
use super::type_config::{LogId, Snapshot, SnapshotMeta, Vote};
use super::workers::blocking;
use crate::ids::RaftId;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::Work;
use crate::transport::Responder;

/// The decisions of one replica about snapshots, shared by those who act on them.
pub(super) type SnapshotDesk = Arc<Mutex<Desk<mpsc::Sender<Job>>>>;

/// What the task of a transfer is given.
#[derive(Debug)]
pub(super) enum Job {
    /// The next chunk.
    Chunk(Bytes, Responder),
    /// That was all, and this is the hash of it.
    End { hash: u64, vote: Vote, responder: Responder },
}

impl<S: StateMachine> Group<S> {
    pub(super) fn handle_snapshot_begin(&self, body: Bytes, responder: Responder) {
        let answer = match self.begin_transfer(body) {
            Ok(()) => SnapshotAnswer::GoOn,
            Err(answer) => answer,
        };
        answer.send(responder);
    }

    fn begin_transfer(&self, body: Bytes) -> Result<(), SnapshotAnswer> {
        let malformed = SnapshotAnswer::Refused(Refusal::Failed);
        let Some((transfer, rest)) = take_transfer(body) else { return Err(malformed) };
        if rest.len() > SNAPSHOT_META_BYTES_MAX {
            return Err(malformed);
        }
        let Ok((vote, meta)) = postcard::from_bytes::<(Vote, SnapshotMeta)>(&rest) else {
            return Err(malformed);
        };
        let leader = vote.leader_id();
        let is_of_leader = vote.is_committed()
            && (leader.term, leader.voted_for) == (transfer.term, transfer.sender);
        // Neither can come of a leader, and openraft ends the process's thread over it.
        let Some(last) = meta.last_log_id.filter(|last| last.leader_id.term <= leader.term) else {
            return Err(malformed);
        };
        if !is_of_leader {
            return Err(malformed);
        }
        if self.has_stopped() {
            return Err(SnapshotAnswer::Refused(Refusal::Stopped));
        }
        let applied = {
            let metrics = self.shared.metrics.borrow_watched();
            if !matches!(
                vote.partial_cmp(&metrics.vote),
                Some(std::cmp::Ordering::Equal | std::cmp::Ordering::Greater)
            ) {
                return Err(SnapshotAnswer::HigherVote(metrics.vote));
            }
            metrics.last_applied
        };
        if applied >= Some(last) {
            // All of it is applied here already; the leader did not know.
            return Err(SnapshotAnswer::Installed(vote));
        }
        // What a leader's log begins with, it cannot lack: see `lost`.
        if applied.is_some_and(|applied| applied.index >= last.index) {
            if leader.term >= self.shared.log.voted_term() {
                self.shared.give_up_state(last);
            }
            return Err(malformed);
        }
        // One place more than the sender may use: the end comes behind the last chunks.
        let (sender, jobs) = mpsc::channel(SNAPSHOT_WINDOW + 1);
        let begun = self.shared.desk.lock().begin(transfer, Instant::now(), sender);
        begun.map_err(SnapshotAnswer::Refused)?;
        tokio::spawn(receive(Arc::clone(&self.shared), transfer, (vote, meta), jobs));
        Ok(())
    }

    pub(super) fn handle_snapshot_chunk(&self, body: Bytes, responder: Responder) {
        let Some((transfer, mut rest)) = take_transfer(body) else {
            return SnapshotAnswer::Refused(Refusal::Failed).send(responder);
        };
        let Ok(number) = rest.try_get_u64_le() else {
            return SnapshotAnswer::Refused(Refusal::Failed).send(responder);
        };
        let mut desk = self.shared.desk.lock();
        match desk.chunk(transfer, number, Instant::now()) {
            Ok(writer) => {
                if let Err(unsent) = writer.try_send(Job::Chunk(rest, responder)) {
                    // Too much at a time, or its task has failed.
                    desk.finish(transfer);
                    refuse(unsent.into_inner(), Refusal::Busy);
                }
            }
            Err(refusal) => SnapshotAnswer::Refused(refusal).send(responder),
        }
    }

    pub(super) fn handle_snapshot_end(&self, body: Bytes, responder: Responder) {
        let Some((transfer, rest)) = take_transfer(body) else {
            return SnapshotAnswer::Refused(Refusal::Failed).send(responder);
        };
        let Ok((chunks, hash, vote)) = postcard::from_bytes::<(u64, u64, Vote)>(&rest) else {
            return SnapshotAnswer::Refused(Refusal::Failed).send(responder);
        };
        let mut desk = self.shared.desk.lock();
        match desk.end(transfer, chunks) {
            Ok(writer) => {
                if let Err(unsent) = writer.try_send(Job::End { hash, vote, responder }) {
                    desk.finish(transfer);
                    refuse(unsent.into_inner(), Refusal::Busy);
                }
            }
            Err(refusal) => SnapshotAnswer::Refused(refusal).send(responder),
        }
    }
}

fn refuse(job: Job, refusal: Refusal) {
    match job {
        Job::Chunk(_, responder) | Job::End { responder, .. } => {
            SnapshotAnswer::Refused(refusal).send(responder);
        }
    }
}

/// Says that a transfer's task is over, however it ends.
struct Finish<'a, S: StateMachine> {
    shared: &'a Shared<S>,
    transfer: Transfer,
}

impl<S: StateMachine> Drop for Finish<'_, S> {
    fn drop(&mut self) {
        self.shared.desk.lock().finish(self.transfer);
    }
}

/// The task of one transfer.
async fn receive<S: StateMachine>(
    shared: Arc<Shared<S>>,
    transfer: Transfer,
    begun: (Vote, SnapshotMeta),
    mut jobs: mpsc::Receiver<Job>,
) {
    let _finish = Finish { shared: &shared, transfer };
    if let Err(error) = receive_all(&shared, begun, &mut jobs).await {
        tracing::warn!(group = %shared.group, %error, "a snapshot was not received");
    }
    // What came after a failure is answered, too.
    jobs.close();
    while let Some(job) = jobs.recv().await {
        refuse(job, Refusal::Failed);
    }
}

async fn receive_all<S: StateMachine>(
    shared: &Shared<S>,
    (begun_by, meta): (Vote, SnapshotMeta),
    jobs: &mut mpsc::Receiver<Job>,
) -> io::Result<()> {
    let (snapshots, covers) = (shared.snapshots.clone(), meta.clone());
    let workers = &*shared.workers;
    let mut writer = blocking(workers, Work::Disk, move || snapshots.create(&covers)).await?;
    let mut received = Xxh3Default::new();
    // No more comes when a newer transfer took its place, or it was idle for too long: the file goes with the writer.
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Chunk(bytes, responder) => {
                let written = blocking(workers, Work::Disk, move || {
                    received.update(&bytes);
                    writer.write_chunk(&bytes).map_err(io::Error::other)?;
                    Ok((writer, received))
                });
                match written.await {
                    Ok(both) => (writer, received) = both,
                    Err(error) => {
                        SnapshotAnswer::Refused(Refusal::Failed).send(responder);
                        return Err(error);
                    }
                }
                SnapshotAnswer::GoOn.send(responder);
            }
            Job::End { hash, vote, responder } => {
                // The vote at the beginning was judged; openraft relies on it.
                let is_whole = hash == received.digest() || is_planted(Bug::ChunksUnnumbered);
                if !is_whole || vote != begun_by {
                    SnapshotAnswer::Refused(Refusal::Failed).send(responder);
                    return Err(io::Error::other("it is not what was sent"));
                }
                let machine = Arc::clone(&shared.machine);
                let loaded = blocking(workers, Work::State, move || {
                    let file = writer.complete().map_err(io::Error::other)?;
                    let mut chunks = Chunks::of(file.reader().map_err(io::Error::other)?);
                    let restored = machine.prepare(&mut chunks)?;
                    Ok(Received { file, restored })
                });
                let received = match loaded.await {
                    Ok(received) => SnapshotHandle::received(received),
                    Err(error) => {
                        SnapshotAnswer::Refused(Refusal::Failed).send(responder);
                        return Err(error);
                    }
                };
                let position =
                    |id: LogId| EntryPosition { term: id.leader_id.term, index: id.index };
                let _installing = shared.applied.install(meta.last_log_id.map(position));
                let snapshot = Snapshot { meta, snapshot: received };
                match shared.raft.install_full_snapshot(vote, snapshot).await {
                    Ok(answer) => SnapshotAnswer::Installed(answer.vote).send(responder),
                    Err(fatal) => {
                        SnapshotAnswer::Refused(Refusal::Stopped).send(responder);
                        return Err(io::Error::other(fatal));
                    }
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Splits `term u64 | sender u64 | nonce u64 | rest`.
fn take_transfer(mut body: Bytes) -> Option<(Transfer, Bytes)> {
    let term = body.try_get_u64_le().ok()?;
    let sender = RaftId(body.try_get_u64_le().ok()?);
    let nonce = body.try_get_u64_le().ok()?;
    Some((Transfer { term, sender, nonce }, body))
}
