//! Redis' serialization protocol, RESP2 and RESP3: bytes to requests, replies to bytes.
//!
//! Pure: no clock, no I/O. A reply is built as [`Reply`], a refusal as [`ErrorReply`]; [`encode`](fn@encode) writes
//! either in the protocol a client chose. Requests are found in a buffer by [`RequestDecoder`], whole replies by
//! [`frame`].
//!
//! Invariant: no bytes a peer can send panic, and decoding a request costs time linear in its bytes, however they
//! arrive.

pub mod decode;
pub mod encode;
pub mod error;
pub mod frame;
pub mod limits;
pub mod reply;

#[cfg(test)]
pub(crate) mod testing;

pub use decode::{Decoded, ProtocolError, RequestDecoder};
pub use encode::{Protocol, TooLong, encode, encode_within};
pub use error::ErrorReply;
pub use limits::Limits;
pub use reply::Reply;
