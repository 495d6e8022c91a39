//! Who the peers are: node to connection, shared by everyone who sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::client::PeerClient;
use crate::ids::NodeId;

/// The connections of this node to its peers. Clones share one table.
#[derive(Clone, Debug)]
pub struct Peers {
    table: Arc<RwLock<BTreeMap<NodeId, PeerClient>>>,
    /// Counts the changes of the table.
    version: Arc<watch::Sender<u64>>,
}

impl Default for Peers {
    fn default() -> Self {
        Self { table: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }
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
        self.version.send_modify(|version| *version += 1);
    }

    /// Removes a peer and ends its connection; false when it was none.
    pub fn remove(&self, node: NodeId) -> bool {
        let Some(previous) = self.table.write().remove(&node) else { return false };
        previous.close();
        self.version.send_modify(|version| *version += 1);
        true
    }

    /// Changes with every [`insert`](Self::insert) and [`remove`](Self::remove).
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Judges all connected peers anew and ends the connections to those no longer welcome.
    pub fn recheck(&self) {
        for client in self.all() {
            client.recheck();
        }
    }

    /// All peers, by id.
    pub fn all(&self) -> Vec<PeerClient> {
        self.table.read().values().cloned().collect()
    }
}
