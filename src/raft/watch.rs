//! The watch channel that openraft publishes its state through: a value, how often it was sent, and who waits for more.
//!
//! The contract is that of tokio's `sync::watch`. What differs is the price of sending where nobody waits: openraft sends
//! seven values in every turn of its loop, three turns for one write, and hardly anybody waits for any of them. tokio locks
//! and walks eight lists each time; here a send then ends with one look at a counter.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::watch;
use openraft::async_runtime::watch::{RecvError, SendError};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use smallvec::SmallVec;

/// Makes watch channels.
#[derive(Debug)]
pub(super) struct Watch;

struct Shared<T> {
    value: RwLock<T>,
    /// How often a value was sent; changes under the lock of the value.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    waiters: Mutex<Waiters>,
    /// How many wait. A sender counts up `version` and then looks here; who waits counts itself here and then looks at
    /// `version`. Both in one order for all threads (`SeqCst`), so at least one of them sees the other.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Waiters {
    /// The number of the next one.
    next: u64,
    wakers: SmallVec<[(u64, Waker); 2]>,
}

impl<T> Shared<T> {
    fn wake_all(&self) {
        let wakers = {
            let mut waiters = self.waiters.lock();
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut waiters.wakers)
        };
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// A value was put in its place, whose lock `_guard` holds.
    fn sent<G>(&self, guard: G) {
        self.version.fetch_add(1, Ordering::SeqCst);
        drop(guard);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }
}

/// The end that sends.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// An end that sees what was sent last.
pub(super) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version it has seen.
    seen: u64,
}

impl watch::Watch for Watch {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
            waiters: Mutex::default(),
            waiting: AtomicUsize::new(0),
        });
        (Sender(Arc::clone(&shared)), Receiver { shared, seen: 0 })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.wake_all();
        }
    }
}

impl<T: Send + Sync> watch::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Relaxed) == 0 {
            return Err(SendError(value));
        }
        let mut place = self.0.value.write();
        let before = std::mem::replace(&mut *place, value);
        self.0.sent(place);
        drop(before);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let mut place = self.0.value.write();
        let is_modified = modify(&mut place);
        if is_modified {
            self.0.sent(place);
        }
        is_modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        let seen = self.0.version.load(Ordering::SeqCst);
        Receiver { shared: Arc::clone(&self.0), seen }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Send + Sync> watch::WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Changed { receiver: self, number: None }.await
    }

    // Not again while the first look lasts: a sender may wait between the two.
    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Ordering::SeqCst);
        value
    }
}

impl<T> Receiver<T> {
    /// Whether there is news, or never will be; takes them for seen.
    fn look(&mut self) -> Option<Result<(), RecvError>> {
        // In this order: the last sender may send and go between the two.
        let is_closed = self.shared.senders.load(Ordering::SeqCst) == 0;
        let version = self.shared.version.load(Ordering::SeqCst);
        if version != self.seen {
            self.seen = version;
            return Some(Ok(()));
        }
        is_closed.then_some(Err(RecvError(())))
    }
}

/// Waits for news, or for the last sender to go.
struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    /// Under which it waits, once it does.
    number: Option<u64>,
}

impl<T> Changed<'_, T> {
    fn wait(&mut self, waker: &Waker) {
        let shared = &self.receiver.shared;
        let mut waiters = shared.waiters.lock();
        let number = *self.number.get_or_insert(waiters.next);
        waiters.next = waiters.next.max(number + 1);
        let before = match waiters.wakers.iter_mut().find(|(it, _)| *it == number) {
            Some((_, known)) if known.will_wake(waker) => None,
            Some((_, known)) => Some(std::mem::replace(known, waker.clone())),
            None => {
                waiters.wakers.push((number, waker.clone()));
                None
            }
        };
        shared.waiting.store(waiters.wakers.len(), Ordering::SeqCst);
        // Whoever's it is goes after the lock: it may end what waits here too.
        drop(waiters);
        drop(before);
    }
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.receiver.look() {
            return Poll::Ready(outcome);
        }
        self.wait(context.waker());
        self.receiver.look().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        let shared = &self.receiver.shared;
        // Who was woken is counted no more, and was taken off the list with all others.
        if let Some(number) = self.number
            && shared.waiting.load(Ordering::SeqCst) > 0
        {
            let mut waiters = shared.waiters.lock();
            let place = waiters.wakers.iter().position(|(it, _)| *it == number);
            let own = place.map(|place| waiters.wakers.swap_remove(place));
            shared.waiting.store(waiters.wakers.len(), Ordering::SeqCst);
            drop(waiters);
            drop(own);
        }
    }
}
