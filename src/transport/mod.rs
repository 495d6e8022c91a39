//! Node-to-node messages over TCP, or another network: frames, one multiplexed connection per peer and direction.
//!
//! Knows envelopes, not meaning: a [`Kind`] and a group are numbers it carries. A [`PeerClient`] calls one peer, a
//! [`PeerServer`] receives the calls of all peers; answers travel back on the connection of their call.
//!
//! Invariants:
//! - Calls of one client that reach the peer reach it in the order in which they were made, as far as they are of one group
//!   and do not pass others by their kind. Answers have no order.
//! - What is short passes what is long, but for that order: it waits for one part of that. Long messages follow one another.
//! - Every call ends: with an answer, or with a [`TransportError`] that says whether the peer may have acted on it.
//! - A connection on which nothing arrives is given up within its idle timeout, so a half-open one cannot wedge a caller.
//! - Frames are exchanged only after both sides have proved to hold the cluster's secret, and both keepers agree.
//! - Bytes from a peer never panic, and never make this node allocate more than in proportion to what has arrived.
//!
//! Nothing is retried here except connecting: whether a call may be repeated is for the rooms above to know.

mod body;
mod client;
mod error;
mod identity;
pub mod kinds;
mod limits;
mod message;
mod net;
mod peers;
mod server;
mod stats;
mod wire;

mod backoff;
mod calls;
mod decode;
mod handshake;
mod link;
mod outgoing;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use body::Body;
pub use client::{Call, PeerClient, PeerOptions};
pub use error::{BindError, Outcome, TransportError};
pub use identity::{
    Credentials, Door, Doorkeeper, LocalIdentity, Meant, PeerIdentity, SameCluster, Sender, Side,
    Verdict,
};
pub use limits::{FRAME_BYTES_MAX, LONG_BYTES_MIN, Limits};
pub use message::{Handler, Kind, Message};
pub use net::{Accept, Connecting, Duplex, Net, Network};
pub use peers::Peers;
pub use server::{PeerServer, Responder};
pub use stats::TransportStats;
pub use wire::Refusal;
