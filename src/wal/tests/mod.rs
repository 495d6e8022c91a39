//! Tests of the log as a whole: what comes back after it was written, closed, killed, torn or damaged.

mod support;
mod usage;
