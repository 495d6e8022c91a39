//! Adapters that make openraft run over `wal` and `transport`, for any state machine.
//!
//! The rooms above see [`Group`] and [`StateMachine`]; openraft's traits end here. Reading order: the
//! machine's contract, the group, then the three adapters (log, snapshot, network).
//!
//! Source: Ongaro, "Consensus: Bridging Theory and Practice" (the Raft thesis).

mod limits;

mod acknowledgements;
mod codec;
mod group;
mod log_store;
mod network;
mod snapshot;
mod state_machine;
mod type_config;

pub use group::{
    Group, GroupOptions, GroupStatus, Leadership, ProposalFate, ReadRefused, StartError, Stopped,
    Timing,
};
pub use network::kind;
pub use snapshot::SnapshotStore;
pub use state_machine::{EntryPosition, SnapshotProgress, StateMachine};
