//! What a connection is to kvorum: who speaks, which protocol, which database.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::DbIndex;
pub use crate::node::Door;
use crate::node::{Client, Node};
use crate::resp::Protocol;
use crate::ring::Topology;
use crate::stdx::clock::MonotonicMicros;
use crate::stdx::prng::SplitMix64;

/// What the connection does next; anything but to stay ends the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Goes on.
    Stay,
    /// Waits this long before the replies go out, then goes on: a password was wrong here, or at its address.
    Pause(Duration),
    /// Ends after the replies are out.
    Close,
}

/// One client's state.
#[derive(Debug)]
pub struct ClientState {
    pub(super) node: Arc<Node>,
    /// The client as CLIENT LIST sees it.
    pub(super) client: Arc<Client>,
    pub(super) door: Door,
    pub(super) protocol: Protocol,
    pub(super) db: DbIndex,
    pub(super) authenticated: bool,
    /// When it began not to be.
    pub(super) stranger_since: MonotonicMicros,
    /// READONLY was sent: on the cluster door this node may answer from its replica, however stale.
    pub(super) reads_stale: bool,
    pub(super) verdict: Verdict,
    /// The command just run gets no reply, as SHUTDOWN.
    pub(super) is_silent: bool,
    /// `proto-max-bulk-len` as it was when the client came.
    pub(super) bulk_bytes_max: usize,
    /// The topology as of the current batch.
    pub(super) topology: Arc<Topology>,
    random: SplitMix64,
}

impl ClientState {
    /// A fresh client.
    pub(super) fn new(node: Arc<Node>, client: Arc<Client>) -> Self {
        let authenticated = !client.arrival.is_stranger;
        Self {
            stranger_since: client.arrival.since,
            door: client.arrival.door,
            client,
            protocol: Protocol::Resp2,
            db: DbIndex(0),
            authenticated,
            reads_stale: false,
            verdict: Verdict::Stay,
            is_silent: false,
            bulk_bytes_max: node.config().options().proto_max_bulk_len,
            topology: node.topology(),
            random: SplitMix64::new(node.random()),
            node,
        }
    }

    /// Takes over a newer topology, if there is one.
    pub(super) fn follow_topology(&mut self) {
        if self.node.epoch() != self.topology.epoch() {
            self.topology = self.node.topology();
        }
    }

    /// Who has shown that it knows the password.
    pub(super) fn become_known(&mut self) {
        self.authenticated = true;
        self.node.clients().note_known(self.client.id);
    }

    /// Whether it has to authenticate before anything else is done for it. A password taken back by CONFIG SET is asked
    /// of nobody any more.
    pub(super) fn must_authenticate(&self) -> bool {
        !self.authenticated && self.node.requires_password()
    }

    /// Random bits for choices that need not agree with anybody's.
    pub(super) fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// What RESET leaves: a state as after connecting.
    pub(super) fn reset(&mut self) {
        self.protocol = Protocol::Resp2;
        self.db = DbIndex(0);
        self.authenticated = !self.node.requires_password();
        if !self.authenticated {
            self.stranger_since = self.node.clock().monotonic();
            self.node.clients().note_stranger(self.client.id);
        }
        self.reads_stale = false;
        self.client.update(|state| {
            state.name.clear();
            state.db = 0;
            state.protocol = 2;
        });
    }
}
