//! What travels, as the rooms above see it.

use std::fmt;

use bytes::Bytes;

use super::Responder;
use super::identity::Sender;
use crate::ids::GroupId;

/// What a message is about: one of [`kinds`](super::kinds). This room only carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub(super) u8);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// A request from another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The node that asks, as it said in its hello. What a stranger may ask is for the handler to decide.
    pub from: Sender,
    /// The Raft group meant.
    pub group: GroupId,
    /// What it is about.
    pub kind: Kind,
    /// The content. Owns its memory: keeping it keeps nothing else alive.
    pub body: Bytes,
}

/// Receives the requests of all peers.
pub trait Handler: Send + Sync + 'static {
    /// Takes one request; called on the connection's task, in the order of arrival per connection.
    ///
    /// Must return at once: the connection reads nothing while it runs. The answer may be given inside, or later
    /// from any thread through `responder`; a dropped responder tells the caller that there will be no answer.
    fn handle(&self, message: Message, responder: Responder);
}
