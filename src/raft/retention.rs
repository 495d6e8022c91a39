//! What a replica keeps: snapshots, and the log behind them.

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;

use super::group::Group;
use super::state_machine::StateMachine;

impl<S: StateMachine> Group<S> {
    /// Size of the newest snapshot in bytes; 0 when there is none.
    pub fn snapshot_bytes(&self) -> u64 {
        self.shared.snapshots.best_bytes()
    }

    /// Index of the last entry the best snapshot covers; 0 when there is none.
    pub fn snapshot_covers(&self) -> u64 {
        self.shared.snapshots.covered_index()
    }

    /// Whether the best snapshot could not be read when it was needed: another should be written.
    pub fn is_snapshot_damaged(&self) -> bool {
        self.shared.snapshots.is_damaged()
    }

    /// Starts to write a snapshot, unless one is being written or a failed one was just now.
    pub async fn snapshot(&self) {
        if !self.shared.desk.lock().may_build(Instant::now()) {
            return;
        }
        if let Err(fatal) = self.shared.raft.trigger().snapshot().await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot take a snapshot");
        }
    }

    /// Purges the log up to `index`, as far as a snapshot covers it, and as far as nobody waits for it whom a snapshot was
    /// just sent to.
    pub async fn purge(&self, index: u64) {
        let index = index.min(self.held_back().unwrap_or(u64::MAX));
        if let Err(fatal) = self.shared.raft.trigger().purge_log(index).await {
            tracing::warn!(group = %self.shared.group, %fatal, "cannot purge the log");
        }
    }

    /// Up to where the log may be purged, for the sake of replicas that catch up; within bounds.
    fn held_back(&self) -> Option<u64> {
        let shared = &self.shared;
        let floor = {
            let metrics = shared.metrics.borrow_watched();
            let matched = |id| Some((*metrics.replication.as_ref()?.get(&id)?)?.index);
            shared.holdback.floor(metrics.last_log_index.unwrap_or(0), Instant::now(), matched)?
        };
        let bytes_max = shared.held_log_bytes_min.max(2 * shared.snapshots.best_bytes());
        (shared.log.bytes_after(floor) <= bytes_max).then_some(floor)
    }

    /// Lets go of all log that a snapshot covers, and if that was done before, takes a snapshot: the group keeps the
    /// node's oldest log segment alive. It does not wait for a snapshot of all that is applied: under writes there
    /// would never be one.
    pub async fn release_log(&self) {
        let (snapshot, purged) = {
            let metrics = self.shared.metrics.borrow_watched();
            (metrics.snapshot, metrics.purged)
        };
        match snapshot {
            Some(covered) if snapshot > purged => self.purge(covered.index).await,
            Some(_) | None => self.snapshot().await,
        }
    }
}
