//! Redis' serialization protocol, RESP2 and RESP3: bytes to requests, replies to bytes.
//!
//! Pure: no clock, no I/O. A reply is built as [`Reply`], a refusal as [`ErrorReply`]; [`encode`](fn@encode) writes
//! either in the protocol a client chose.
//!
//! Invariant: no bytes a peer can send panic, and none makes a decoder look at a byte more than a bounded number of
//! times.

pub mod encode;
pub mod error;
pub mod reply;

pub use encode::{Protocol, encode};
pub use error::ErrorReply;
pub use reply::Reply;
