//! What this node did since its start, or since CONFIG RESETSTAT: counters cheap enough for the hot path.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals that INFO and the admin door show.
#[derive(Debug, Default)]
pub struct Counters {
    commands: AtomicU64,
    auth_failures: AtomicU64,
}

impl Counters {
    /// Adds the commands of one batch: one addition for all of them.
    pub fn count_commands(&self, count: usize) {
        self.commands.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Commands taken from clients of this node, refused ones included.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Counts a wrong password.
    pub fn count_auth_failure(&self) {
        self.auth_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Wrong passwords, and users there are not, in AUTH and HELLO.
    pub fn auth_failures(&self) -> u64 {
        self.auth_failures.load(Ordering::Relaxed)
    }

    /// Counts from 0 again.
    pub fn reset(&self) {
        self.auth_failures.store(0, Ordering::Relaxed);
        self.commands.store(0, Ordering::Relaxed);
    }
}
