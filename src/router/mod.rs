//! From a request to the shards that answer it, and from their answers to one reply.
//!
//! Reading order: `route` finds the shards of a command's keys; `plan` cuts a command over several shards into
//! one for each; `merge` joins their replies as the command's spec says.
//!
//! **Invariant:** holds no state: everything is a function of the command, its spec and the topology.

mod merge;
mod plan;
mod route;

pub use merge::{Merge, continue_scan, merge};
pub use plan::{Piece, Plan, cut, everywhere};
pub use route::{Route, route};
