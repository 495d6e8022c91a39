//! A Raft group that serves a keyspace: the one room where the data wing and the consensus wing meet.
//!
//! Reading order: a [`Shard`] takes commands; its `front` gathers them into packets; the proposer makes log
//! entries of packets (`proposal` has the bytes); the `machine` applies entries on every replica; `session`
//! makes a packet sent twice apply once (`session_snapshot` has its bytes); `reply` carries the answers back.
//!
//! **Invariant:** nothing outside the log changes the keyspace. Expired keys are hidden by comparing clocks and
//! removed by a purge entry.

mod limits;

#[expect(clippy::module_inception, reason = "the room is named after its main type")]
mod shard;

mod front;
mod machine;
mod proposal;
mod reply;
mod session;
mod session_snapshot;
mod time;
mod wire;

pub use front::Lane;
pub use limits::REPLY_BYTES_MAX;
pub use machine::{HashRefused, StateHash};
pub use proposal::{
    Command, Commands, MalformedProposal, Proposal, Stamp, UnknownProposal, decode, put_command,
};
pub use reply::{Replies, ReplyCell};
pub use session::SessionsSize;
pub use shard::{ReadConsistency, Shard, ShardOptions};
pub use wire::kind;
