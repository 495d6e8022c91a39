//! Who is connected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::stdx::clock::UnixMillis;

/// What CLIENT LIST shows of a client that may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientState {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO lib-name.
    pub library: Vec<u8>,
    /// CLIENT SETINFO lib-ver.
    pub library_version: Vec<u8>,
    /// SELECT.
    pub db: u8,
    /// 2 or 3.
    pub protocol: u8,
    /// The command run last that was not a data command, as `name|subcommand`.
    pub last_command: &'static str,
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// Its number; never used again.
    pub id: u64,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The door it came in by.
    pub local: SocketAddr,
    /// When it came.
    pub since: UnixMillis,
    state: Mutex<ClientState>,
}

impl Client {
    /// What may change of it, as it is now.
    pub fn state(&self) -> ClientState {
        self.state.lock().clone()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut ClientState)) {
        change(&mut self.state.lock());
    }
}

/// The clients of this node.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    next: AtomicU64,
    total: AtomicU64,
}

impl Clients {
    /// Lets a client in, unless there are `max` already. It is counted until the guard is dropped.
    pub fn enter(
        self: &Arc<Self>,
        peer: SocketAddr,
        local: SocketAddr,
        since: UnixMillis,
        max: usize,
    ) -> Option<ClientGuard> {
        let mut connected = self.connected.lock();
        if connected.len() >= max {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        let state = Mutex::new(ClientState { protocol: 2, ..ClientState::default() });
        let client = Arc::new(Client { id, peer, local, since, state });
        connected.insert(id, Arc::clone(&client));
        Some(ClientGuard { clients: Arc::clone(self), client })
    }

    /// Everyone connected, by id.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.connected.lock().len()
    }

    /// How many ever were.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// A client's presence.
#[derive(Debug)]
pub struct ClientGuard {
    clients: Arc<Clients>,
    /// The client.
    pub client: Arc<Client>,
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.clients.connected.lock().remove(&self.client.id);
    }
}
