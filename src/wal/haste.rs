//! Whether who appends may write to the page cache itself.
//!
//! That costs less than waking a thread, and mostly takes microseconds. But the kernel makes whoever writes wait, up to 200 ms
//! at a time, once too many pages of the machine are dirty, and who appends also beats hearts. So it writes only what is
//! short, which is made to wait once at most, and not while the kernel is about to do so, nor for some time after a write
//! that was slow for whatever reason. Then the writer does it (`writer.rs`).
//!
//! On a node alone, which beats no hearts, who appends also syncs what is short, but for some time after a sync that was
//! slow (`caller.rs`).
//!
//! Source: `balance_dirty_pages` in Linux' mm/page-writeback.c.

use std::time::Duration;

use super::limits::INLINE_BYTES_MAX;
use crate::stdx::clock::BootInstant;
use crate::stdx::disk::Disk;

/// How often the disk is asked whether it is crowded.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A write that takes longer than this is slow.
const SLOW: Duration = Duration::from_millis(10);

/// For how long after a slow one nobody but the writer writes.
const CAUTION: Duration = Duration::from_secs(5);

/// A sync that takes longer than this is slow.
const SYNC_SLOW: Duration = Duration::from_millis(2);

/// How many times as long as a slow one took who appends does not sync.
const SYNC_CAUTION: u32 = 50;

/// What is known of the disk's mood.
#[derive(Debug, Default)]
pub(super) struct Haste {
    is_crowded: bool,
    look_at: Option<BootInstant>,
    cautious_until: Option<BootInstant>,
    /// Before, nobody but the log's thread syncs.
    sync_at: Option<BootInstant>,
}

impl Haste {
    /// Whether who appends may write `bytes` at `now`.
    pub(super) fn allows(&mut self, bytes: usize, now: BootInstant, disk: &dyn Disk) -> bool {
        if bytes > INLINE_BYTES_MAX || self.cautious_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.look_at.is_none_or(|at| now >= at) {
            self.look_at = Some(now + LOOK_INTERVAL);
            self.is_crowded = disk.is_crowded();
        }
        !self.is_crowded
    }

    /// Whether who appends may sync at `now`.
    pub(super) fn allows_sync(&self, now: BootInstant) -> bool {
        self.sync_at.is_none_or(|at| now >= at)
    }

    /// A sync that was allowed at `begun` was over at `ended`. After a slow one there is none for some time: who appends
    /// waits for slow ones a fiftieth of its time at most.
    pub(super) fn note_sync(&mut self, begun: BootInstant, ended: BootInstant) {
        let took = ended.since(begun);
        if took > SYNC_SLOW {
            self.sync_at = Some(ended + SYNC_CAUTION * took);
        }
    }

    /// A write that was allowed at `begun` was over at `ended`.
    pub(super) fn note(&mut self, begun: BootInstant, ended: BootInstant) {
        if ended > begun + SLOW {
            self.cautious_until = Some(ended + CAUTION);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::memory_disk::MemoryDisk;

    #[test]
    fn after_a_slow_write_the_writer_writes_for_some_time() {
        let (mut haste, disk) = (Haste::default(), MemoryDisk::new());
        let begun = BootInstant::now();
        assert!(haste.allows(100, begun, &disk));
        haste.note(begun, begun + SLOW);
        assert!(haste.allows(100, begun + SLOW, &disk));
        let ended = begun + 2 * SLOW;
        haste.note(begun, ended);
        assert!(!haste.allows(100, ended, &disk));
        assert!(!haste.allows(100, ended + CAUTION / 2, &disk));
        assert!(haste.allows(100, ended + CAUTION, &disk));
        assert!(!haste.allows(INLINE_BYTES_MAX + 1, ended + CAUTION, &disk));
    }

    #[test]
    fn after_a_slow_sync_the_thread_syncs_for_some_time() {
        let mut haste = Haste::default();
        let begun = BootInstant::now();
        assert!(haste.allows_sync(begun));
        haste.note_sync(begun, begun + SYNC_SLOW);
        assert!(haste.allows_sync(begun + SYNC_SLOW));
        let ended = begun + 2 * SYNC_SLOW;
        haste.note_sync(begun, ended);
        assert!(!haste.allows_sync(ended));
        assert!(!haste.allows_sync(ended + 99 * SYNC_SLOW));
        assert!(haste.allows_sync(ended + 100 * SYNC_SLOW));
    }
}
