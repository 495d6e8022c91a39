//! What std lacks: clocks that tests can move, seeded randomness, entropy, a keyed hash, disks, limits of the process, sockets,
//! work that blocks, Redis' number and glob texts, the words of a line, those of our bytes,
//! bytes that are lent instead of copied.
//!
//! Knows neither Redis nor Raft.

pub mod clock;
pub mod codec;
pub mod descriptors;
pub mod disk;
pub mod entropy;
pub mod fs;
pub mod glob;
#[cfg(test)]
pub(crate) mod golden;
pub mod hash_key;
pub mod latest;
pub mod log_limit;
pub mod long_double;
pub mod memory;
pub mod memory_disk;
pub mod natural;
pub mod num;
pub mod planted;
pub mod prng;
pub mod rope;
#[cfg(test)]
pub(crate) mod script;
pub mod size;
pub mod socket;
pub mod turns;
pub mod words;
pub mod workers;
