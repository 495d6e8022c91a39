//! What std lacks: clocks that tests can move, seeded randomness, durable files, Redis' number and glob texts.
//!
//! Knows neither Redis nor Raft.

pub mod clock;
pub mod fs;
