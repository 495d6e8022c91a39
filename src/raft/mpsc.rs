//! The queue through which openraft's tasks send each other work: bounded, of many senders and one receiver.
//!
//! The contract is that of tokio's `sync::mpsc`. What differs is the price of one message: tokio's passes a semaphore, a list
//! of blocks and a budget, and wakes a receiver that is already at work. A lone write sends four messages through three queues,
//! and looks into each of them many times. Here a send is one short lock, a look into an empty queue one load, and only
//! who really waits is woken.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::mpsc::SendError;
use openraft::async_runtime::{TryRecvError, mpsc};
use parking_lot::Mutex;

/// How many messages a receiver takes one after another before it lets other tasks of its thread run.
const TAKEN_AT_ONCE_MAX: u32 = 64;

/// An empty queue keeps room for this many messages, and gives back more.
const KEPT_ROOM_MAX: usize = 256;

/// Makes queues.
#[derive(Debug)]
pub(super) struct Mpsc;

struct Queue<T> {
    messages: VecDeque<T>,
    /// The receiver's task, as of its last wait.
    receiver: Option<Waker>,
    /// Who waits for room, in the order in which they came. Only the first may put, so that nobody is overtaken: what
    /// `pledge` decides one after another reaches the core in that order.
    line: VecDeque<(Ticket, Waker)>,
    /// The next one's.
    ticket: Ticket,
    /// The receiver is gone.
    is_closed: bool,
}

/// A place in the line.
type Ticket = u64;

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// How many messages there are. Changes under the lock.
    length: AtomicUsize,
    /// Messages.
    capacity: usize,
    senders: AtomicUsize,
    /// Whether the receiver waits, and must be woken. Set under the lock.
    is_waiting: AtomicBool,
}

impl<T> Queue<T> {
    /// Who may put next, if anybody waits.
    fn first_in_line(&self) -> Option<Waker> {
        self.line.front().map(|(_, waker)| waker.clone())
    }
}

impl<T> Shared<T> {
    fn has_room(&self, queue: &Queue<T>) -> bool {
        queue.messages.len() < self.capacity
    }

    fn wake_receiver(&self, queue: &Queue<T>) {
        if self.is_waiting.swap(false, Ordering::Relaxed)
            && let Some(waker) = &queue.receiver
        {
            waker.wake_by_ref();
        }
    }

    /// The first message, and who may put another in its place.
    fn take(&self, queue: &mut Queue<T>) -> Option<(T, Option<Waker>)> {
        let message = queue.messages.pop_front()?;
        self.length.store(queue.messages.len(), Ordering::Release);
        if queue.messages.is_empty() && queue.messages.capacity() > KEPT_ROOM_MAX {
            queue.messages = VecDeque::new();
        }
        Some((message, queue.first_in_line()))
    }

    fn is_abandoned(&self) -> bool {
        self.senders.load(Ordering::Acquire) == 0
    }
}

/// A message on its way into the queue.
struct Sending<'a, T> {
    shared: &'a Shared<T>,
    /// Until it is there.
    message: Option<T>,
    /// While it waits for room.
    ticket: Option<Ticket>,
}

// The message is moved as a whole, and never pinned.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut queue = this.shared.queue.lock();
        if queue.is_closed {
            this.ticket = None;
            drop(queue);
            return Poll::Ready(this.message.take().map_or(Ok(()), |it| Err(SendError(it))));
        }
        let is_first = queue.line.front().map(|(ticket, _)| *ticket) == this.ticket;
        if is_first && this.shared.has_room(&queue) {
            let left = this.ticket.take().and_then(|_| queue.line.pop_front());
            queue.messages.extend(this.message.take());
            this.shared.length.store(queue.messages.len(), Ordering::Release);
            this.shared.wake_receiver(&queue);
            let next = this.shared.has_room(&queue).then(|| queue.first_in_line()).flatten();
            drop(queue);
            drop(left);
            if let Some(next) = next {
                next.wake();
            }
            return Poll::Ready(Ok(()));
        }
        let before = match this.ticket {
            None => {
                let ticket = queue.ticket;
                queue.ticket += 1;
                queue.line.push_back((ticket, context.waker().clone()));
                this.ticket = Some(ticket);
                None
            }
            Some(mine) => queue
                .line
                .iter_mut()
                .find(|(ticket, waker)| *ticket == mine && !waker.will_wake(context.waker()))
                .map(|(_, waker)| std::mem::replace(waker, context.waker().clone())),
        };
        drop(queue);
        drop(before);
        Poll::Pending
    }
}

impl<T> Drop for Sending<'_, T> {
    /// Who gives up leaves the line, and the next one does not wait for it.
    fn drop(&mut self) {
        let Some(mine) = self.ticket else { return };
        let mut queue = self.shared.queue.lock();
        let place = queue.line.iter().position(|(ticket, _)| *ticket == mine);
        let left = place.and_then(|place| queue.line.remove(place));
        let next = (place == Some(0) && self.shared.has_room(&queue))
            .then(|| queue.first_in_line())
            .flatten();
        drop(queue);
        drop(left);
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// The end that sends.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// A sender for which the queue does not stay open.
pub(super) struct WeakSender<T>(Arc<Shared<T>>);

/// The end that receives.
pub(super) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Messages taken since the last wait.
    taken: u32,
}

impl mpsc::Mpsc for Mpsc {
    type Sender<T: Send> = Sender<T>;
    type Receiver<T: Send> = Receiver<T>;
    type WeakSender<T: Send> = WeakSender<T>;

    fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                messages: VecDeque::new(),
                receiver: None,
                line: VecDeque::new(),
                ticket: 0,
                is_closed: false,
            }),
            length: AtomicUsize::new(0),
            capacity: capacity.max(1),
            senders: AtomicUsize::new(1),
            is_waiting: AtomicBool::new(false),
        });
        (Sender(Arc::clone(&shared)), Receiver { shared, taken: 0 })
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
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let queue = self.0.queue.lock();
            self.0.wake_receiver(&queue);
        }
    }
}

impl<T: Send> mpsc::MpscSender<Mpsc, T> for Sender<T> {
    fn send(&self, message: T) -> impl Future<Output = Result<(), SendError<T>>> + Send {
        Sending { shared: &self.0, message: Some(message), ticket: None }
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Arc::clone(&self.0))
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send> mpsc::MpscWeakSender<Mpsc, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        let add = |senders: usize| (senders > 0).then_some(senders + 1);
        // What is gone once does not come back.
        let added = self.0.senders.try_update(Ordering::AcqRel, Ordering::Acquire, add);
        added.is_ok().then(|| Sender(Arc::clone(&self.0)))
    }
}

impl<T> Receiver<T> {
    fn poll_recv(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        if self.taken >= TAKEN_AT_ONCE_MAX {
            self.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut queue = self.shared.queue.lock();
        // Before the last look: what the last sender sent came before it went.
        let is_abandoned = self.shared.is_abandoned();
        if let Some((message, next)) = self.shared.take(&mut queue) {
            drop(queue);
            if let Some(next) = next {
                next.wake();
            }
            self.taken += 1;
            return Poll::Ready(Some(message));
        }
        self.taken = 0;
        if is_abandoned {
            return Poll::Ready(None);
        }
        let is_known = queue.receiver.as_ref().is_some_and(|it| it.will_wake(context.waker()));
        let before = (!is_known).then(|| queue.receiver.replace(context.waker().clone()));
        self.shared.is_waiting.store(true, Ordering::Relaxed);
        drop(queue);
        drop(before);
        Poll::Pending
    }
}

/// A wait for a message: while it lasts, senders wake its task.
struct Wait<'a, T>(&'a mut Receiver<T>);

impl<T> Future for Wait<'_, T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().0.poll_recv(context)
    }
}

impl<T> Drop for Wait<'_, T> {
    fn drop(&mut self) {
        // A sender that has seen it still wakes the task, once and for nothing.
        self.0.shared.is_waiting.store(false, Ordering::Relaxed);
    }
}

impl<T: Send> mpsc::MpscReceiver<T> for Receiver<T> {
    fn recv(&mut self) -> impl Future<Output = Option<T>> + Send {
        Wait(self)
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        // Before the look at the messages: what the last sender sent came before it went.
        let is_abandoned = self.shared.is_abandoned();
        if self.shared.length.load(Ordering::Acquire) == 0 {
            return Err(if is_abandoned {
                TryRecvError::Disconnected
            } else {
                TryRecvError::Empty
            });
        }
        let mut queue = self.shared.queue.lock();
        let Some((message, next)) = self.shared.take(&mut queue) else {
            return Err(TryRecvError::Empty);
        };
        drop(queue);
        if let Some(next) = next {
            next.wake();
        }
        Ok(message)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (messages, line, receiver) = {
            let mut queue = self.shared.queue.lock();
            queue.is_closed = true;
            self.shared.length.store(0, Ordering::Release);
            let messages = std::mem::take(&mut queue.messages);
            (messages, std::mem::take(&mut queue.line), queue.receiver.take())
        };
        for (_, waker) in line {
            waker.wake();
        }
        drop((messages, receiver));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use futures::FutureExt;
    use openraft::async_runtime::mpsc::{Mpsc as _, MpscReceiver, MpscSender, MpscWeakSender};
    use tokio::task::yield_now;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<F: Future>(future: &mut std::pin::Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(woken));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn send<T: Send>(sender: &Sender<T>, message: T) -> Option<Result<(), SendError<T>>> {
        sender.send(message).now_or_never()
    }

    /// Through a queue that is nearly always full, from threads of their own.
    #[test]
    fn every_message_comes_once_and_in_its_senders_order() {
        const SENDERS: usize = 4;
        const EACH: usize = 20_000;
        let block_on = |future| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on::<std::pin::Pin<Box<dyn Future<Output = ()>>>>(future);
        };
        let (sender, mut receiver) = Mpsc::channel::<(usize, usize)>(3);
        std::thread::scope(|scope| {
            for number in 0..SENDERS {
                let sender = sender.clone();
                scope.spawn(move || {
                    block_on(Box::pin(async move {
                        for turn in 0..EACH {
                            sender.send((number, turn)).await.unwrap();
                        }
                    }));
                });
            }
            drop(sender);
            block_on(Box::pin(async move {
                let mut next = [0; SENDERS];
                while let Some((number, turn)) = receiver.recv().await {
                    assert_eq!(turn, next[number]);
                    next[number] += 1;
                    // Both ways of receiving.
                    while let Ok((number, turn)) = receiver.try_recv() {
                        assert_eq!(turn, next[number]);
                        next[number] += 1;
                    }
                }
                assert_eq!(next, [EACH; SENDERS]);
                assert!(matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)));
            }));
        });
    }

    #[test]
    fn only_who_waits_is_woken() {
        let (sender, mut receiver) = Mpsc::channel(9);
        let woken = Arc::new(Woken::default());
        {
            let mut wait = std::pin::pin!(receiver.recv());
            assert!(poll(&mut wait, &woken).is_pending());
            assert!(matches!(send(&sender, 1), Some(Ok(()))));
            assert!(matches!(send(&sender, 2), Some(Ok(()))));
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert_eq!(poll(&mut wait, &woken), Poll::Ready(Some(1)));
        }
        assert!(matches!(send(&sender, 3), Some(Ok(()))));
        assert_eq!((receiver.try_recv().ok(), receiver.try_recv().ok()), (Some(2), Some(3)));
        // A wait that was given up leaves nobody to wake.
        {
            let mut wait = std::pin::pin!(receiver.recv());
            assert!(poll(&mut wait, &woken).is_pending());
        }
        assert!(matches!(send(&sender, 4), Some(Ok(()))));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(receiver.recv().now_or_never(), Some(Some(4)));
    }

    #[test]
    fn who_waits_for_room_is_woken_by_it_even_if_another_gave_up() {
        let (sender, mut receiver) = Mpsc::channel(1);
        assert!(matches!(send(&sender, 1), Some(Ok(()))));
        let (gone, stays) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let mut first = Box::pin(sender.send(2));
        assert!(poll(&mut first.as_mut(), &gone).is_pending());
        let mut wait = std::pin::pin!(sender.send(3));
        assert!(poll(&mut wait, &stays).is_pending());
        assert!(poll(&mut wait, &stays).is_pending());
        assert_eq!(receiver.shared.queue.lock().line.len(), 2);
        assert_eq!(receiver.try_recv().ok(), Some(1));
        assert_eq!((gone.0.load(Ordering::Relaxed), stays.0.load(Ordering::Relaxed)), (1, 0));
        drop(first);
        assert_eq!(stays.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(&mut wait, &stays), Poll::Ready(Ok(()))));
        assert_eq!(receiver.try_recv().ok(), Some(3));
        assert!(receiver.shared.queue.lock().line.is_empty());
    }

    /// As tokio's does not promise: whoever was told to wait comes before whoever asks later, whatever room there is then.
    #[test]
    fn nobody_is_overtaken() {
        let (sender, mut receiver) = Mpsc::channel(2);
        assert!(matches!((send(&sender, 1), send(&sender, 2)), (Some(Ok(())), Some(Ok(())))));
        let woken = [(); 3].map(|()| Arc::new(Woken::default()));
        let mut waits: Vec<_> = (3..6).map(|number| Box::pin(sender.send(number))).collect();
        for (wait, woken) in waits.iter_mut().zip(&woken) {
            assert!(poll(&mut wait.as_mut(), woken).is_pending());
        }
        assert_eq!((receiver.try_recv().ok(), receiver.try_recv().ok()), (Some(1), Some(2)));
        // There is room, but others are first.
        assert!(poll(&mut waits[2].as_mut(), &woken[2]).is_pending());
        assert!(poll(&mut waits[1].as_mut(), &woken[1]).is_pending());
        assert!(send(&sender, 9).is_none());
        let counts = || [0, 1, 2].map(|at: usize| woken[at].0.load(Ordering::Relaxed));
        assert_eq!(counts(), [2, 0, 0]);
        assert!(matches!(poll(&mut waits[0].as_mut(), &woken[0]), Poll::Ready(Ok(()))));
        // Who has put hands on the room that is left.
        assert_eq!(counts(), [2, 1, 0]);
        assert!(matches!(poll(&mut waits[1].as_mut(), &woken[1]), Poll::Ready(Ok(()))));
        assert_eq!(counts(), [2, 1, 0]);
        assert!(poll(&mut waits[2].as_mut(), &woken[2]).is_pending());
        assert_eq!(receiver.try_recv().ok(), Some(3));
        assert!(matches!(poll(&mut waits[2].as_mut(), &woken[2]), Poll::Ready(Ok(()))));
        assert_eq!((receiver.try_recv().ok(), receiver.try_recv().ok()), (Some(4), Some(5)));
    }

    #[test]
    fn an_end_that_goes_is_noticed_by_the_other() {
        let (sender, mut receiver) = Mpsc::channel::<u8>(1);
        let weak = sender.downgrade();
        let woken = Arc::new(Woken::default());
        {
            let mut wait = std::pin::pin!(receiver.recv());
            assert!(poll(&mut wait, &woken).is_pending());
            drop(sender.clone());
            assert_eq!(woken.0.load(Ordering::Relaxed), 0);
            drop(sender);
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert_eq!(poll(&mut wait, &woken), Poll::Ready(None));
        }
        assert!(weak.upgrade().is_none());
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)));

        let (sender, receiver) = Mpsc::channel(1);
        let message = Arc::new(());
        assert!(matches!(send(&sender, Arc::clone(&message)), Some(Ok(()))));
        let woken = Arc::new(Woken::default());
        let mut wait = std::pin::pin!(sender.send(Arc::clone(&message)));
        assert!(poll(&mut wait, &woken).is_pending());
        drop(receiver);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(&mut wait, &woken), Poll::Ready(Err(SendError(_)))));
        assert!(matches!(send(&sender, Arc::clone(&message)), Some(Err(SendError(_)))));
        // What nobody will take is dropped with the receiver.
        assert_eq!(Arc::strong_count(&message), 1);
    }

    /// A full queue does not keep its reader's thread to itself.
    #[tokio::test]
    async fn a_receiver_lets_others_run() {
        let (sender, mut receiver) = Mpsc::channel(1 << 20);
        for number in 0..=TAKEN_AT_ONCE_MAX {
            assert!(matches!(send(&sender, number), Some(Ok(()))));
        }
        let others = Arc::new(AtomicU32::new(0));
        let turns = Arc::clone(&others);
        let other = tokio::spawn(async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        for number in 0..TAKEN_AT_ONCE_MAX {
            assert_eq!(receiver.recv().await, Some(number));
        }
        assert_eq!(others.load(Ordering::Relaxed), 0);
        assert_eq!(receiver.recv().await, Some(TAKEN_AT_ONCE_MAX));
        assert_eq!(others.load(Ordering::Relaxed), 1);
        other.abort();
    }

    #[test]
    fn an_empty_queue_gives_its_room_back() {
        let (sender, mut receiver) = Mpsc::channel(1 << 20);
        for number in 0..=KEPT_ROOM_MAX {
            assert!(matches!(send(&sender, number), Some(Ok(()))));
        }
        for number in 0..=KEPT_ROOM_MAX {
            assert_eq!(receiver.try_recv().ok(), Some(number));
        }
        assert!(receiver.shared.queue.lock().messages.capacity() <= KEPT_ROOM_MAX);
    }
}
