//! What is due at a shard regularly: overdue answers, the course of time, purges, the end of sessions, snapshots.
//!
//! Owns nothing of the shard but whose turn it is: of each kind of work one piece is under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::front::Front;
use super::limits::{BUSY_LOOKS_MAX, PURGE_KEYS_MAX, PURGE_REST, TIGHT_BYTES};
use super::machine::ShardMachine;
use super::proposal;
use super::proposer::Proposer;
use super::reads::Reads;
use super::seat::Seat;
use super::shard::{Ground, ShardOptions, Sizes};
use super::time::ShardTime;
use crate::ids::{Incarnation, Session, ShardId};
use crate::keyspace::DueKeys;
use crate::raft::{Leadership, on};
use crate::stdx::workers::{Report, Work, Workers};

/// The regular work of one shard on this node.
pub(super) struct Upkeep {
    shard: ShardId,
    seat: Arc<Seat>,
    front: Arc<Front>,
    machine: Arc<ShardMachine>,
    time: Arc<ShardTime>,
    workers: Arc<dyn Workers>,
    sizes: Sizes,
    proposer: Arc<Proposer>,
    reads: Arc<Reads>,
    asking: Turns,
    purging: Turns,
    /// How many looks for due keys in a row have found the state taken.
    busy_looks: AtomicU32,
    closing: Turns,
    /// The open sessions, when they had to be waited for, until they are looked through.
    open_sessions: Arc<Mutex<Option<OpenSessions>>>,
}

/// The sessions of a shard that have not ended.
type OpenSessions = Vec<(Incarnation, Session)>;

/// Lets one of a kind of work be under way at a time.
#[derive(Debug, Default)]
struct Turns(Arc<AtomicBool>);

/// The turn of one piece of work, which ends with it, however it ends.
#[derive(Debug)]
struct Turn(Arc<AtomicBool>);

impl Turns {
    /// A turn, unless one is under way.
    fn take(&self) -> Option<Turn> {
        let is_free = !self.0.swap(true, Ordering::AcqRel);
        is_free.then(|| Turn(Arc::clone(&self.0)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Upkeep {
    /// The upkeep of a shard, with nothing under way.
    pub(super) fn new(
        options: &ShardOptions,
        ground: &Ground,
        proposer: Arc<Proposer>,
        reads: Arc<Reads>,
    ) -> Self {
        let Ground { seat, front, machine, time } = ground.clone();
        let (asking, purging, closing) = (Turns::default(), Turns::default(), Turns::default());
        Self {
            shard: options.shard,
            seat,
            front,
            machine,
            time,
            workers: Arc::clone(&options.workers),
            sizes: options.sizes,
            proposer,
            reads,
            asking,
            purging,
            busy_looks: AtomicU32::new(0),
            closing,
            open_sessions: Arc::default(),
        }
    }

    /// What is due some ten times a second: overdue answers, the course of time, keys past their deadline.
    pub(super) fn tick(self: &Arc<Self>) {
        let now = Instant::now();
        self.front.expire(now, self.reads.take_long());
        if self.front.confirm(now) {
            self.front.wake.notify_one();
        }
        if self.seat.leader().is_some_and(|leader| self.front.must_follow(leader)) {
            // Whoever waits for the old leader would wake nobody.
            self.front.wake.notify_one();
        }
        self.ask_for_room();
        let Some(replica) = self.seat.replica() else { return };
        self.time.pass(self.machine.now());
        if replica.group.leadership() == Leadership::Here {
            self.proposer.look_for_room(&replica);
            self.time.lead();
            // Who is cut off from its followers would lead them astray.
            if replica.group.is_served() {
                self.time.steer();
            }
            self.purge_due_keys();
        }
    }

    /// Elsewhere than at the leader: asks it for the room that is left while that is little. Commands are refused
    /// meanwhile, so no answer to one would tell.
    fn ask_for_room(&self) {
        let is_due = self.front.take_refusal() || self.front.room() < TIGHT_BYTES;
        if !is_due || self.seat.leads() {
            return;
        }
        let Some(turn) = self.asking.take() else { return };
        let reads = Arc::clone(&self.reads);
        tokio::spawn(async move {
            reads.ask_for_room().await;
            drop(turn);
        });
    }

    /// As leader: begins to remove keys past their deadline, unless that is under way.
    fn purge_due_keys(self: &Arc<Self>) {
        let Some(turn) = self.purging.take() else { return };
        let found = self.look_for_due_keys();
        let is_worth_a_task = match &found {
            Some((due, _)) => !due.is_all || !due.keys.is_empty(),
            None => self.busy_looks.load(Ordering::Relaxed) >= BUSY_LOOKS_MAX,
        };
        if !is_worth_a_task {
            return;
        }
        let upkeep = Arc::clone(self);
        tokio::spawn(async move {
            upkeep.purge(found).await;
            drop(turn);
        });
    }

    /// Removes what is `due`, and what else is, until a sweep has been everywhere: at whatever rate keys expire, as long
    /// as the log takes their removal. One purge is under way at a time, beside the entries of clients: its keys are
    /// many, so that a wait for the disk is worth it, and few enough to be applied between two heartbeats. A look that finds
    /// little is followed by a rest, so that a sweep over millions of keys leaves the thread to its clients.
    /// What could not be looked for in place is waited for.
    async fn purge(&self, mut found: Option<(DueKeys, Duration)>) {
        loop {
            let (due, took) = match found {
                Some(found) => found,
                None => match self.wait_for_due_keys().await {
                    Some(found) => found,
                    None => return,
                },
            };
            if !due.keys.is_empty() {
                let purge = |stamp| proposal::encode_purge(stamp, &due.keys);
                if self.proposer.propose_apart(purge).await.is_err() {
                    tracing::debug!(shard = %self.shard, "nothing is purged by a stopped replica");
                    return;
                }
            }
            if due.is_all || !self.seat.leads() {
                return;
            }
            if due.keys.len() < PURGE_KEYS_MAX / 2 {
                tokio::time::sleep(took * PURGE_REST).await;
            } else {
                tokio::task::yield_now().await;
            }
            found = self.look_for_due_keys();
        }
    }

    /// What is due, and how long it took to find it; `None` while somebody has the state for long.
    fn look_for_due_keys(&self) -> Option<(DueKeys, Duration)> {
        let now = self.time.now().max(self.machine.now());
        let begun = Instant::now();
        let due = self.machine.due_keys(now, PURGE_KEYS_MAX);
        match due {
            Some(_) => self.busy_looks.store(0, Ordering::Relaxed),
            None => {
                self.busy_looks.fetch_add(1, Ordering::Relaxed);
            }
        }
        Some((due?, begun.elapsed()))
    }

    /// The same, after whoever has the state; `None` when the runtime ends.
    async fn wait_for_due_keys(&self) -> Option<(DueKeys, Duration)> {
        let now = self.time.now().max(self.machine.now());
        let begun = Instant::now();
        let machine = Arc::clone(&self.machine);
        let look = move || machine.due_keys_long(now, PURGE_KEYS_MAX);
        let due = on(&*self.workers, Work::State, look).await.ok()?;
        self.busy_looks.store(0, Ordering::Relaxed);
        Some((due, begun.elapsed()))
    }

    /// As leader: has the shard close the sessions that have ended for good. `last_ended` knows the number of a directory's
    /// last one that has, or `None`. Looked at again and again until the entry is applied.
    pub(super) fn close_sessions(&self, last_ended: impl Fn(Incarnation) -> Option<u64>) {
        let waited_for = self.open_sessions.lock().take();
        if !self.seat.leads() {
            return;
        }
        let Some(turn) = self.closing.take() else { return };
        let Some(open) = waited_for.or_else(|| self.machine.open_sessions()) else {
            // There will be somebody again the next time.
            let (machine, found) = (Arc::clone(&self.machine), Arc::clone(&self.open_sessions));
            let look = move || {
                let open = machine.open_sessions_long();
                Box::new(move || {
                    *found.lock() = Some(open);
                    drop(turn);
                }) as Report
            };
            return self.workers.run(Work::State, Box::new(look));
        };
        let ended: Vec<(Incarnation, u64)> = open
            .into_iter()
            .filter_map(|(incarnation, session)| {
                let upto = last_ended(incarnation).filter(|upto| session.number <= *upto)?;
                Some((incarnation, upto))
            })
            .collect();
        if ended.is_empty() {
            return;
        }
        tracing::info!(shard = %self.shard, sessions = ended.len(), "closes sessions that have ended");
        let (shard, proposer) = (self.shard, Arc::clone(&self.proposer));
        tokio::spawn(async move {
            let close = |stamp| proposal::encode_close(stamp, &ended);
            if proposer.propose_apart(close).await.is_err() {
                tracing::debug!(%shard, "nothing is closed by a stopped replica");
            }
            drop(turn);
        });
    }

    /// Starts a snapshot when the log since the last one has outgrown it, or when this shard's log alone keeps
    /// the node's oldest log segment alive; purges what a snapshot covers, but for its last part.
    pub(super) async fn snapshot_if_due(&self, log_bytes_max: u64) {
        let Some(replica) = self.seat.working_replica() else { return };
        let (group, wal) = (replica.group.id(), &replica.wal);
        let covered = replica.group.snapshot_covers();
        let log_bytes = wal.group_bytes_after(group, covered);
        // First: under endless writes the next snapshot is always due.
        if let Some(upto) = wal.purgeable(group, covered, self.sizes.log_kept_bytes) {
            replica.group.purge(upto).await;
        }
        if log_bytes > self.sizes.snapshot_log_bytes.max(replica.group.snapshot_bytes())
            || replica.group.is_snapshot_damaged()
        {
            replica.group.snapshot().await;
        } else if wal.live_bytes() > log_bytes_max && wal.pinned_by() == Some(group) {
            replica.group.release_log().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_of_a_kind_of_work_is_under_way_at_a_time() {
        let turns = Turns::default();
        let first = turns.take();
        assert!(first.is_some() && turns.take().is_none());
        drop(first);
        assert!(turns.take().is_some());
    }

    /// Else no key would expire any more on a node where a purge has failed.
    #[test]
    fn a_turn_ends_with_a_panic_too() {
        let turns = Turns::default();
        let turn = turns.take();
        let ended = std::thread::spawn(move || {
            let _turn = turn;
            panic!("as the test wants");
        });
        assert!(ended.join().is_err());
        assert!(turns.take().is_some());
    }
}
