//! Tests of the log as a whole: what comes back after it was written, closed, killed, torn or damaged.

mod beside;
mod callers;
mod faults;
mod golden;
mod lives;
mod model;
mod power;
mod simulated;
mod support;
mod usage;
