//! What std lacks: clocks that tests can move, seeded randomness, durable files, Redis' number and glob texts.
//!
//! Knows neither Redis nor Raft.

pub mod clock;
pub mod glob;
pub mod long_double;
pub mod num;
pub mod prng;
pub mod size;
