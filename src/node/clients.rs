//! Who is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::guesses::Guesses;
use crate::stdx::clock::MonotonicMicros;

/// The port a client came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Never redirects: what another node leads is forwarded.
    Plain,
    /// For clients that compute slots: what another node leads answers MOVED.
    Cluster,
}

impl Door {
    /// What HELLO and INFO call it: `standalone` or `cluster`.
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Plain => "standalone",
            Self::Cluster => "cluster",
        }
    }
}

/// How a client came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
    /// The door it came in by.
    pub door: Door,
    /// When it came.
    pub since: MonotonicMicros,
    /// Whether it has to authenticate.
    pub is_stranger: bool,
}

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
    /// How it came.
    pub arrival: Arrival,
    state: Mutex<ClientState>,
    /// When requests of it were last taken, on the monotonic clock, in microseconds.
    last_seen: AtomicU64,
    task: Mutex<Task>,
}

/// The task that serves a client.
#[derive(Debug, Default)]
enum Task {
    /// Not told yet.
    #[default]
    Unknown,
    /// Running, or done.
    Known(AbortHandle),
    /// Told to end.
    Ended,
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

    /// Notes that requests of it are taken at `now`. Once per socket read: it costs one store.
    pub fn touch(&self, now: MonotonicMicros) {
        self.last_seen.store(now.0, Ordering::Relaxed);
    }

    /// When requests of it were last taken.
    pub fn last_seen(&self) -> MonotonicMicros {
        MonotonicMicros(self.last_seen.load(Ordering::Relaxed))
    }

    /// Tells which task serves it: the one that [`Self::close`] ends.
    pub fn served_by(&self, handle: AbortHandle) {
        let mut task = self.task.lock();
        match *task {
            Task::Ended => handle.abort(),
            Task::Unknown | Task::Known(_) => *task = Task::Known(handle),
        }
    }

    /// Closes its connection at once, replies under way or not.
    pub fn close(&self) {
        if let Task::Known(handle) = std::mem::replace(&mut *self.task.lock(), Task::Ended) {
            handle.abort();
        }
    }
}

#[derive(Debug, Default)]
struct Connected {
    /// Everyone, by id.
    all: BTreeMap<u64, Arc<Client>>,
    /// Those of them that have yet to authenticate.
    strangers: BTreeSet<u64>,
}

/// The clients of this node.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<Connected>,
    guesses: Guesses,
    next: AtomicU64,
    total: AtomicU64,
    rejected: AtomicU64,
}

impl Clients {
    /// Lets a client in, unless there are `max` already. In a full house the oldest that has not authenticated gives way to
    /// another, or whoever came first could keep everybody out without knowing the password. It is counted until the guard is dropped.
    pub fn enter(self: &Arc<Self>, arrival: Arrival, max: usize) -> Option<ClientGuard> {
        let mut connected = self.connected.lock();
        let mut dismissed = None;
        if connected.all.len() >= max {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            if !arrival.is_stranger {
                // No password is asked: those who came while one was are as good as others.
                return None;
            }
            let oldest = connected.strangers.pop_first()?;
            dismissed = connected.all.remove(&oldest);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            id,
            arrival,
            state: Mutex::new(ClientState { protocol: 2, ..ClientState::default() }),
            last_seen: AtomicU64::new(arrival.since.0),
            task: Mutex::default(),
        });
        connected.all.insert(id, Arc::clone(&client));
        if arrival.is_stranger {
            connected.strangers.insert(id);
        }
        drop(connected);
        if let Some(dismissed) = dismissed {
            dismissed.close();
        }
        Some(ClientGuard { clients: Arc::clone(self), client })
    }

    /// Counts one that was turned away before it could come in.
    pub fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the client `id` has to authenticate again.
    pub fn note_stranger(&self, id: u64) {
        let mut connected = self.connected.lock();
        // Whoever was dismissed meanwhile is nobody any more.
        if connected.all.contains_key(&id) {
            connected.strangers.insert(id);
        }
    }

    /// Notes that the client `id` has authenticated.
    pub fn note_known(&self, id: u64) {
        self.connected.lock().strangers.remove(&id);
    }

    /// From where wrong passwords came lately.
    pub const fn guesses(&self) -> &Guesses {
        &self.guesses
    }

    /// Everyone connected, by id.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().all.values().cloned().collect()
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.connected.lock().all.len()
    }

    /// How many came in since the start or [`Self::reset_totals`].
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many were turned away, or dismissed for another, since then.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Counts those that came in and those turned away from 0 again.
    pub fn reset_totals(&self) {
        self.total.store(0, Ordering::Relaxed);
        self.rejected.store(0, Ordering::Relaxed);
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
        let mut connected = self.clients.connected.lock();
        connected.all.remove(&self.client.id);
        connected.strangers.remove(&self.client.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival() -> Arrival {
        let address = SocketAddr::from(([127, 0, 0, 1], 6379));
        Arrival {
            peer: address,
            local: address,
            door: Door::Plain,
            since: MonotonicMicros(7),
            is_stranger: false,
        }
    }

    #[test]
    fn clients_are_counted_while_their_guard_lives() {
        let clients = Arc::new(Clients::default());
        let first = clients.enter(arrival(), 1).unwrap();
        assert!(clients.enter(arrival(), 1).is_none());
        assert_eq!((clients.count(), clients.total(), clients.rejected()), (1, 1, 1));
        assert_eq!(first.client.last_seen(), MonotonicMicros(7));
        drop(first);
        assert_eq!((clients.count(), clients.total()), (0, 1));
        let second = clients.enter(arrival(), 1).unwrap();
        assert_eq!(second.client.id, 2, "numbers are never used again");
        clients.reset_totals();
        assert_eq!((clients.total(), clients.rejected()), (0, 0));
    }

    /// Faults, row D5.
    #[tokio::test(flavor = "current_thread")]
    async fn in_a_full_house_the_oldest_stranger_gives_way() {
        let clients = Arc::new(Clients::default());
        let stranger = Arrival { is_stranger: true, ..arrival() };
        let mut guards: Vec<_> = (0..3).map(|_| clients.enter(stranger, 3).unwrap()).collect();
        let task = tokio::spawn(std::future::pending::<()>());
        guards[1].client.served_by(task.abort_handle());
        clients.note_known(1);
        assert!(clients.enter(arrival(), 3).is_none(), "only where a password is asked");
        guards.push(clients.enter(stranger, 3).unwrap());
        assert!(task.await.unwrap_err().is_cancelled(), "the second was the oldest stranger");
        let ids = || clients.all().iter().map(|client| client.id).collect::<Vec<_>>();
        assert_eq!((ids(), clients.rejected()), (vec![1, 3, 4], 2));
        clients.note_stranger(2);
        clients.note_known(3);
        clients.note_known(4);
        assert!(clients.enter(stranger, 3).is_none(), "all that are there are known");
        drop(guards.remove(1));
        assert_eq!(ids(), [1, 3, 4], "who was dismissed leaves no gap");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn closing_ends_the_task_whichever_comes_first() {
        let clients = Arc::new(Clients::default());
        for is_closed_first in [false, true] {
            let guard = clients.enter(arrival(), 1).unwrap();
            let task = tokio::spawn(std::future::pending::<()>());
            if is_closed_first {
                guard.client.close();
            }
            guard.client.served_by(task.abort_handle());
            guard.client.close();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }
}
