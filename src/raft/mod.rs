//! Adapters that make openraft run over `wal` and `transport`, for any state machine.
//!
//! The rooms above see [`Group`] and [`StateMachine`]; openraft's traits end here. Reading order: the
//! machine's contract, the group, then the three adapters (log, snapshot, network).
//!
//! **What the lease rests on**, the lesson of this room: not on what openraft believes, but on who said what, when. A leader
//! answers reads alone while a majority has itself answered messages that were *sent* less than a read lease ago; each of
//! them refuses votes for a longer lease from when it *received* that message, also after a restart. So
//! - only the answer to a message proves that message (`acknowledgements`), and it is counted by a clock that does not stop
//!   in a suspend; received is enough, for the promise is about votes and not about the disk, which may be slow;
//! - every vote passes one gate, `pledge`, where the promise is kept: the vote of this replica for itself, of a leader that
//!   counts itself in its own quorum, of a follower; openraft's own lease, which is as long as a vote may take, guards nothing;
//! - whoever lets the lease be broken on purpose, by handing over, gives it up first (`transfer`);
//! - who was voted out has none, and who has lost what it acknowledged has no say (`Shared::has_a_say`).
//!
//! Source: Ongaro, "Consensus: Bridging Theory and Practice" (the Raft thesis).

mod limits;

mod acknowledgements;
mod campaign;
mod census;
mod codec;
mod core;
mod group;
mod holdback;
mod inbound;
mod inbound_snapshots;
mod lease;
mod linger;
mod log_store;
mod membership;
mod mpsc;
mod network;
mod options;
mod pledge;
mod proposal;
mod retention;
mod reversion;
mod runtime;
mod short;
mod snapshot;
mod snapshots;
mod state_machine;
mod status;
mod timekeeper;
mod timer;
mod transfer;
mod type_config;
mod watch;
mod workers;

#[cfg(test)]
mod tests;

pub use group::Group;
pub use lease::ReadRefused;
pub use membership::Settled;
pub use options::{GroupOptions, Sizes, StartError, Timing};
pub use proposal::{ProposalFate, Stopped};
pub use snapshot::SnapshotStore;
pub use state_machine::{
    Applied, EntryPosition, Origin, Restored, SnapshotProgress, SnapshotTicket, StateMachine,
    UnknownEntry,
};
pub use status::{GroupStatus, Leadership};
pub use timekeeper::{Estimate, Timekeeper, Timeless, Word};
pub use transfer::{TransferOutcome, TransferRefusal};
pub use workers::{BlockingPool, Gone, aside, on};
