//! How a call can end without an answer, and what that says about the peer.

use std::io;

/// Why a call has no answer. [`outcome`](Self::outcome) says whether the peer may have acted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TransportError {
    /// There is no connection at the moment. The call was never sent.
    #[error("not connected to the peer")]
    NotConnected,
    /// The outgoing queue or the table of open calls is full. The call was never sent.
    #[error("too much is queued for the peer")]
    Busy,
    /// The frame would be longer than `Limits::frame_bytes_max`. The call was never sent.
    #[error("message too large to be sent")]
    TooLarge,
    /// The connection broke while the call was open: the peer may or may not have acted on it.
    #[error("connection lost before the answer came")]
    Disconnected,
    /// No answer within the timeout: the peer may or may not have acted on it, or may still.
    #[error("no answer in time")]
    TimedOut,
    /// The peer said that it will not answer: its handler dropped the request. It may have begun to act on it.
    #[error("the peer did not handle the message")]
    NotHandled,
    /// The peer has no such replica, for the reason given, and did not act on the call. Asking again at once is no use.
    #[error("nobody at the peer can handle the message (reason {0})")]
    NotHere(u8),
}

/// What an error says about the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The peer did not get the call, or said that it had nobody for it; it may be repeated freely.
    NeverSent,
    /// The peer may have acted on the call.
    Unknown,
}

impl TransportError {
    /// Whether the peer may have seen the call.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::NotConnected | Self::Busy | Self::TooLarge | Self::NotHere(_) => {
                Outcome::NeverSent
            }
            Self::Disconnected | Self::TimedOut | Self::NotHandled => Outcome::Unknown,
        }
    }

    /// True when the call may have reached the peer, so that repeating it may act twice.
    pub const fn was_sent(self) -> bool {
        matches!(self.outcome(), Outcome::Unknown)
    }
}

/// The server could not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for peers on {address}")]
pub struct BindError {
    /// The address as it was given.
    pub address: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}
