//! The time of a group, as far as this room has to do with it: it travels with every message of a leader, so that its
//! followers go on with it, and candidates ask their voters for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a replica makes of its group's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// µs since the Unix epoch.
    pub micros: u64,
    /// Whether it was heard from a leader in this start of the process, directly or not. Else it is what the wall clock says.
    pub is_known: bool,
}

/// Keeps the time of one group on one node.
pub trait Timekeeper: Send + Sync + fmt::Debug {
    /// What time it is now.
    fn estimate(&self) -> Estimate;

    /// A leader said just now, or as long ago as its message took, that it is `time`, in µs since the Unix epoch.
    fn hear(&self, time: u64);

    /// This replica is about to stand for election, with the votes of `voters` or some of them.
    fn agree(&self, voters: &[Estimate]);
}

/// For a group whose entries do not depend on the time.
#[derive(Clone, Copy, Debug)]
pub struct Timeless;

impl Timekeeper for Timeless {
    fn estimate(&self) -> Estimate {
        Estimate { micros: 0, is_known: false }
    }

    fn hear(&self, _time: u64) {}

    fn agree(&self, _voters: &[Estimate]) {}
}
