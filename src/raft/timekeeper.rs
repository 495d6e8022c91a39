//! The time of a group, as far as this room has to do with it: it travels with every message of a leader, so that its
//! followers go on with it, and candidates ask their voters for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a replica makes of its group's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// What time it is, in µs since the Unix epoch.
    pub micros: u64,
    /// What that rests on. Of two words the later one counts; the wall clock, where there was none in this start of the
    /// process.
    pub word: Option<Word>,
}

/// The last word of a leader on the time. A later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Word {
    /// The leader's term.
    pub term: u64,
    /// The time it said, in µs since the Unix epoch.
    pub micros: u64,
}

/// Keeps the time of one group on one node.
pub trait Timekeeper: Send + Sync + fmt::Debug {
    /// What time it is now.
    fn estimate(&self) -> Estimate;

    /// A leader said so just now, or as long ago as its message took.
    fn hear(&self, word: Word);

    /// This replica leads in `term` and is about to say what time it is; in µs since the Unix epoch.
    fn tell(&self, term: u64) -> u64;

    /// This replica is about to stand for election, with the votes of `voters` or some of them.
    fn agree(&self, voters: &[Estimate]);
}

/// For a group whose entries do not depend on the time.
#[derive(Clone, Copy, Debug)]
pub struct Timeless;

impl Timekeeper for Timeless {
    fn estimate(&self) -> Estimate {
        Estimate { micros: 0, word: Some(Word { term: 0, micros: 0 }) }
    }

    fn hear(&self, _word: Word) {}

    fn tell(&self, _term: u64) -> u64 {
        0
    }

    fn agree(&self, _voters: &[Estimate]) {}
}
