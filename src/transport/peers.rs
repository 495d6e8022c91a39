//! Who the peers are: node to connection, shared by everyone who sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::client::PeerClient;
use crate::ids::NodeId;

/// The connections of this node to its peers. Clones share one table.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    table: Arc<RwLock<BTreeMap<NodeId, PeerClient>>>,
}

impl Peers {
    /// A table without peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection to `node`, when it is a peer.
    pub fn get(&self, node: NodeId) -> Option<PeerClient> {
        self.table.read().get(&node).cloned()
    }

    /// Adds or replaces a peer.
    pub fn insert(&self, client: PeerClient) {
        if let Some(previous) = self.table.write().insert(client.remote(), client) {
            previous.close();
        }
    }

    /// All peers, by id.
    pub fn all(&self) -> Vec<PeerClient> {
        self.table.read().values().cloned().collect()
    }
}
