//! Adapters that make openraft run over `wal` and `transport`, for any state machine.
//!
//! The rooms above see [`Group`] and [`StateMachine`]; openraft's traits end here. Reading order: the
//! machine's contract, the group, then the three adapters (log, snapshot, network).
//!
//! Source: Ongaro, "Consensus: Bridging Theory and Practice" (the Raft thesis).

mod limits;

mod acknowledgements;
mod codec;
mod core;
mod group;
mod inbound;
mod inbound_snapshots;
mod lease;
mod log_store;
mod network;
mod options;
mod proposal;
mod snapshot;
mod state_machine;
mod timer;
mod type_config;

pub use group::{Group, GroupStatus, Leadership};
pub use lease::ReadRefused;
pub use network::kind;
pub use options::{GroupOptions, StartError, Timing};
pub use proposal::{ProposalFate, Stopped};
pub use snapshot::SnapshotStore;
pub use state_machine::{EntryPosition, SnapshotProgress, StateMachine};
