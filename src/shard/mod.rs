//! A Raft group that serves a keyspace: the one room where the data wing and the consensus wing meet.
//!
//! Reading order: a [`Shard`] takes commands; its `front` gathers them into packets (`outbox`; those of other nodes
//! come to the `inbox`); `seat` knows whether this node leads. There the `proposer` makes log entries of packets
//! (`proposal` has the bytes, `admission` says which); elsewhere they go to the leader by `forward`, and `reads` by a
//! way of their own. The `machine` has the `state` on every replica and says who may touch it; `run` applies entries to it,
//! a `window` of commands at a time; `session` makes a packet sent twice apply once (`session_snapshot` has its bytes);
//! `reply` carries the answers back; `upkeep` does what is due.
//!
//! **Invariant:** nothing outside the log changes the keyspace. Expired keys are hidden by comparing clocks and
//! removed by a purge entry.

mod limits;

#[expect(clippy::module_inception, reason = "the room is named after its main type")]
mod shard;

mod admission;
mod forward;
mod front;
mod inbox;
mod machine;
mod outbox;
mod proposal;
mod proposer;
mod reads;
mod reply;
mod run;
mod seat;
mod session;
mod session_snapshot;
mod state;
mod time;
mod upkeep;
mod window;
mod wire;

#[cfg(test)]
mod busy_tests;
#[cfg(test)]
mod packets_tests;
#[cfg(test)]
mod tests;

pub use limits::REPLY_BYTES_MAX;
pub use machine::{HashRefused, StateHash};
pub use outbox::{Encoded, Lane};
pub use proposal::{
    Command, Commands, MalformedProposal, Proposal, Stamp, UnknownProposal, decode, put_command,
};
pub use reply::{Replies, ReplyCell};
pub use session::SessionsSize;
pub use shard::{ReadConsistency, Shard, ShardOptions, Sizes};
pub use state::{Gauges, KeyCounts};
