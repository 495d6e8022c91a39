//! Work that may wait for the disk or for a lock, handed over by those who may not: their thread beats hearts.
//!
//! A job is done in two steps, so that whoever has it done can say when its end becomes known: the work itself, then the report
//! to whoever waits for it. `raft/workers.rs` has threads for that; a test may do it all on the one it has.

use std::fmt;

/// What a job may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The disk, or nothing. It takes no lock of a state.
    Disk,
    /// The lock of a state machine's state, and the disk.
    State,
    /// Nothing: it brings that lock along, so whoever waits for a state waits for it.
    Entry,
}

/// Tells whoever waits for a job that it is done.
pub type Report = Box<dyn FnOnce() + Send>;

/// Work that may take its time.
pub type Job = Box<dyn FnOnce() -> Report + Send>;

/// Has work done where it keeps nobody from their heartbeats.
pub trait Workers: Send + Sync + fmt::Debug {
    /// Has `job` run, once, then its report. Perhaps at once, before this returns: whoever calls holds no lock that the job
    /// takes.
    ///
    /// A job that panics makes no report. When the process ends before one of the two is called, it is dropped.
    fn run(&self, work: Work, job: Job);
}
