//! The calling side: one connection to one peer, kept up by a task of its own.
//!
//! One lock holds the outgoing queue and the table of calls together, so a call is registered and queued in one step and
//! a lost connection ends exactly the calls that were made on it.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::body::Body;
use super::calls::Calls;
use super::decode::{Decoder, Frame};
use super::error::TransportError;
use super::handshake::{self, Met, refusal_of};
use super::identity::{Door, Meant, PeerIdentity, Side};
use super::limits::{
    ADDRESSES_MAX, CHECKS_PER_IDLE_TIMEOUT, LOG_INTERVAL, Limits, SWEEP_GRANULARITY,
};
use super::link::{self, Ended, Pulse, Receiver, Warden, Watch};
use super::message::Kind;
use super::net::{Net, Stream};
use super::outgoing::Outgoing;
use super::stats::{Counters, TransportStats};
use super::wire::{FrameType, Header, Refusal, WireError};
use crate::ids::{GroupId, Incarnation, NodeId};
use crate::stdx::log_limit::LogLimit;

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// This node.
    pub door: Door,
    /// Who must answer.
    pub meant: Meant,
    /// Where: `host:port` each, tried in turn; names are resolved anew at every attempt.
    pub addresses: Vec<String>,
}

/// Calls one peer over one multiplexed connection. A clone is another handle of the same connection.
///
/// The connection closes when [`close`](Self::close) is called or the last handle is dropped.
#[derive(Clone, Debug)]
pub struct PeerClient {
    shared: Arc<Shared>,
    /// Held by the handles alone, not by the task: its drop means that nobody can call any more.
    _handles: Arc<CloseOnDrop>,
}

impl PeerClient {
    /// Starts connecting, with the default [`Limits`].
    ///
    /// # Panics
    /// Outside a tokio runtime: the connection lives on the runtime that calls this.
    pub fn new(options: PeerOptions) -> Self {
        Self::with_limits(options, Limits::default())
    }

    /// Starts connecting.
    ///
    /// # Panics
    /// Outside a tokio runtime: the connection lives on the runtime that calls this.
    pub fn with_limits(options: PeerOptions, limits: Limits) -> Self {
        let PeerOptions { door, meant, addresses } = options;
        let remote = meant.node;
        let (control, orders) = watch::channel(Control { addresses, meant, is_closed: false });
        let (task_end, task) = watch::channel(());
        let shared = Arc::new(Shared {
            door,
            remote,
            limits,
            state: Mutex::new(State {
                outgoing: Outgoing::new(limits.outgoing_bytes_max, limits.frame_bytes_max),
                calls: Calls::new(limits.calls_max),
                sweeper_wakes_at: None,
            }),
            sweep: Notify::new(),
            connected: watch::Sender::new(false),
            met: Mutex::new(None),
            refusal: watch::Sender::new(None),
            rechecks: Notify::new(),
            control,
            task,
            counters: Counters::default(),
            complaints: LogLimit::every(LOG_INTERVAL),
        });
        tokio::spawn(keep_connected(Arc::clone(&shared), orders, task_end));
        Self { _handles: Arc::new(CloseOnDrop(Arc::clone(&shared))), shared }
    }

    /// Sends `body`, of which nothing is copied if it is long, and resolves to the peer's answer.
    ///
    /// The call is queued before this returns, so calls to one group are sent in the order in which they are made, polled or
    /// not; heartbeats and votes pass those that are long.
    /// Dropping the future does not take the call back. The timeout counts from now, to about 20 ms.
    ///
    /// # Errors
    /// The future resolves to a [`TransportError`]; without a connection it does so at once.
    pub fn call(
        &self,
        group: GroupId,
        kind: Kind,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> Call {
        let body = body.into();
        self.shared.call(timeout, |outgoing, request| {
            outgoing.push(&request_header(group, kind, request), body)
        })
    }

    /// As [`call`](Self::call), with a short body that `encode` appends straight to the outgoing buffer.
    ///
    /// The buffer already holds other frames, and everyone who calls this peer waits while `encode` runs: it must only
    /// append, be quick, and not call this client.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Panics
    /// When `encode` removes bytes it did not append.
    pub fn call_with(
        &self,
        group: GroupId,
        kind: Kind,
        timeout: Duration,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Call {
        self.shared.call(timeout, |outgoing, request| {
            outgoing.push_with(&request_header(group, kind, request), encode)
        })
    }

    /// The node called.
    pub fn remote(&self) -> NodeId {
        self.shared.remote
    }

    /// Whether a call made now would be sent.
    pub fn is_connected(&self) -> bool {
        *self.shared.connected.borrow()
    }

    /// Follows [`is_connected`](Self::is_connected): to learn at once that a connection broke or came up.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    /// Why the peer last refused this node; `None` once it has accepted it.
    pub fn refusal(&self) -> Option<Refusal> {
        *self.shared.refusal.borrow()
    }

    /// Follows [`refusal`](Self::refusal).
    pub fn refusals(&self) -> watch::Receiver<Option<Refusal>> {
        self.shared.refusal.subscribe()
    }

    /// Who answers, while connected.
    pub fn connected_identity(&self) -> Option<PeerIdentity> {
        self.shared.met.lock().as_ref().map(|connected| connected.met.who.clone())
    }

    /// The peer lives at `addresses` now. A connection to an address that is not among them is dropped.
    pub fn set_addresses(&self, addresses: Vec<String>) {
        self.shared.control.send_if_modified(|control| {
            let met = self.shared.met.lock();
            let is_kept =
                met.as_ref().is_some_and(|connected| addresses.contains(&connected.address));
            let is_news = control.addresses != addresses && !is_kept;
            control.addresses = addresses;
            is_news
        });
    }

    /// The peer's directory is `incarnation`; a connection to another one is dropped.
    pub fn set_meant(&self, incarnation: Incarnation) {
        self.shared.control.send_if_modified(|control| {
            let meant = Meant { incarnation, ..control.meant };
            let met = self.shared.met.lock();
            let is_kept = met.as_ref().is_some_and(|connected| connected.met.who.is_meant(&meant));
            let is_news = control.meant != meant && !is_kept;
            control.meant = meant;
            is_news
        });
    }

    /// Judges the connected peer anew and ends the connection when it is no longer welcome.
    pub fn recheck(&self) {
        self.shared.rechecks.notify_one();
    }

    /// Ends the connection for good: open calls end as `Disconnected`, later ones as `NotConnected`.
    ///
    /// Does not wait; see [`closed`](Self::closed).
    pub fn close(&self) {
        self.shared.close();
    }

    /// Waits until a closed client's task has ended.
    pub async fn closed(&self) {
        let mut task = self.shared.task.clone();
        // The task never sends: its end shows as an error.
        while task.changed().await.is_ok() {}
    }

    /// Counts since the start.
    pub fn stats(&self) -> TransportStats {
        self.shared.counters.snapshot()
    }

    /// Calls that wait for their answer.
    pub fn open_calls(&self) -> usize {
        self.shared.state.lock().calls.len()
    }
}

/// The answer to a call, once it is there.
#[derive(Debug)]
#[must_use = "the call is sent, but its outcome is only in here"]
pub struct Call(CallState);

#[derive(Debug)]
enum CallState {
    Refused(TransportError),
    Waiting(oneshot::Receiver<Result<Bytes, TransportError>>),
}

impl Future for Call {
    type Output = Result<Bytes, TransportError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            CallState::Refused(error) => Poll::Ready(Err(*error)),
            CallState::Waiting(answer) => {
                let answer = ready!(Pin::new(answer).poll(context));
                Poll::Ready(answer.unwrap_or(Err(TransportError::Disconnected)))
            }
        }
    }
}

const fn request_header(group: GroupId, kind: Kind, request: u64) -> Header {
    Header { frame_type: FrameType::Request, kind, group, request }
}

/// What the handles and the task share.
#[derive(Debug)]
struct Shared {
    door: Door,
    remote: NodeId,
    limits: Limits,
    state: Mutex<State>,
    /// Wakes the sweeper for a call with a deadline before its next look.
    sweep: Notify,
    connected: watch::Sender<bool>,
    /// Who answers, while connected.
    met: Mutex<Option<ConnectedTo>>,
    refusal: watch::Sender<Option<Refusal>>,
    /// Asks the connection's warden to judge the peer anew.
    rechecks: Notify,
    control: watch::Sender<Control>,
    /// Its sender lives in the task.
    task: watch::Receiver<()>,
    counters: Counters,
    complaints: LogLimit,
}

#[derive(Debug)]
struct State {
    outgoing: Outgoing,
    calls: Calls,
    /// When the sweeper looks at deadlines next; `None` while it is running or there is no connection.
    sweeper_wakes_at: Option<Instant>,
}

/// Orders to the task.
#[derive(Clone, Debug)]
struct Control {
    addresses: Vec<String>,
    meant: Meant,
    is_closed: bool,
}

/// Who answered where.
#[derive(Clone, Debug)]
struct ConnectedTo {
    /// As it was given.
    address: String,
    met: Met,
}

#[derive(Debug)]
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// Registers a call and queues its frame by `push`.
    fn call(
        &self,
        timeout: Duration,
        push: impl FnOnce(&mut Outgoing, u64) -> Result<Option<Waker>, TransportError>,
    ) -> Call {
        let now = Instant::now();
        let mut state = self.state.lock();
        let queued = state.call(now, timeout, push);
        let must_sweep_earlier = state.must_sweep_earlier();
        drop(state);
        let (answer, writer) = match queued {
            Ok(queued) => queued,
            Err(error) => return Call(CallState::Refused(error)),
        };
        if must_sweep_earlier {
            self.sweep.notify_one();
        }
        if let Some(writer) = writer {
            writer.wake();
        }
        Call(CallState::Waiting(answer))
    }

    fn answer(&self, request: u64, answer: Result<Bytes, TransportError>) {
        let caller = self.state.lock().calls.remove(request);
        // No caller: it has timed out. A send that fails: the caller has dropped its future.
        if let Some(caller) = caller {
            drop(caller.send(answer));
        }
    }

    /// Whether the peer is welcome.
    fn judge(&self, met: &Met) -> Result<(), Ended> {
        let verdict = self.door.judge(&met.who, &met.meant, Side::Dialling);
        refusal_of(verdict).map_or(Ok(()), |refusal| Err(Ended::Refused(refusal)))
    }

    fn connect(&self, connected: ConnectedTo) {
        *self.met.lock() = Some(connected);
        let mut state = self.state.lock();
        state.outgoing.open();
        drop(state);
        self.refusal.send_replace(None);
        self.counters.connections.add(1);
        self.connected.send_replace(true);
    }

    /// Ends every call of the connection. Harmless without one.
    fn disconnect(&self) {
        *self.met.lock() = None;
        let mut state = self.state.lock();
        let writer = state.outgoing.close();
        let callers = state.calls.remove_all();
        state.sweeper_wakes_at = None;
        drop(state);
        drop(writer);
        self.connected.send_if_modified(|connected| std::mem::replace(connected, false));
        for caller in callers {
            drop(caller.send(Err(TransportError::Disconnected)));
        }
    }

    /// Ends the calls whose time is over and returns when to look again, `latest` at the latest.
    fn sweep(&self, latest: Instant) -> Instant {
        let now = Instant::now();
        let mut state = self.state.lock();
        let callers = state.calls.remove_expired(now);
        let next = state
            .calls
            .earliest_deadline()
            .map_or(latest, |earliest| earliest.max(now + SWEEP_GRANULARITY).min(latest));
        state.sweeper_wakes_at = Some(next);
        drop(state);
        for caller in callers {
            drop(caller.send(Err(TransportError::TimedOut)));
        }
        next
    }

    fn close(&self) {
        self.control.send_if_modified(|control| !std::mem::replace(&mut control.is_closed, true));
    }

    fn ping(&self) {
        let ping = Header::control(FrameType::Ping);
        let writer = self.state.lock().outgoing.push_with(&ping, |_| ());
        // A full queue needs no ping: its bytes are a sign of life themselves.
        if let Ok(Some(writer)) = writer {
            writer.wake();
        }
    }

    fn complain(&self, addresses: &[String], ended: &Ended) {
        if let Ended::Refused(refusal) = ended {
            self.refusal.send_replace(Some(*refusal));
            self.counters.refusals.add(1);
        }
        if matches!(ended, Ended::Renamed) {
            return tracing::debug!(peer = %self.remote, "the connection to a peer is made anew");
        }
        if let Some(suppressed) = self.complaints.permit() {
            let cause = ended.source().map(tracing::field::display);
            tracing::warn!(peer = %self.remote, ?addresses, suppressed, cause, "peer connection: {ended}");
        }
    }
}

type Answer = oneshot::Receiver<Result<Bytes, TransportError>>;

impl State {
    fn call(
        &mut self,
        now: Instant,
        timeout: Duration,
        push: impl FnOnce(&mut Outgoing, u64) -> Result<Option<Waker>, TransportError>,
    ) -> Result<(Answer, Option<Waker>), TransportError> {
        if !self.outgoing.is_open() {
            return Err(TransportError::NotConnected);
        }
        let (caller, answer) = oneshot::channel();
        let request = self.calls.insert(caller, now, timeout).ok_or(TransportError::Busy)?;
        match push(&mut self.outgoing, request) {
            Ok(writer) => Ok((answer, writer)),
            Err(error) => {
                drop(self.calls.remove(request));
                Err(error)
            }
        }
    }

    /// Whether the sweeper sleeps past a deadline. True once, then the sweeper is on its way.
    fn must_sweep_earlier(&mut self) -> bool {
        let Some(earliest) = self.calls.earliest_deadline() else { return false };
        self.sweeper_wakes_at.take_if(|at| earliest + SWEEP_GRANULARITY < *at).is_some()
    }
}

/// Ends the calls of a connection however its future ends, by return, cancellation or panic.
struct Connected<'a>(&'a Shared);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

/// The client's task: connects, serves the connection, and again, until closed.
async fn keep_connected(
    shared: Arc<Shared>,
    mut orders: watch::Receiver<Control>,
    _task_end: watch::Sender<()>,
) {
    let mut backoff =
        Backoff::new(shared.door.local.get().node.0 ^ shared.remote.0.rotate_left(32));
    loop {
        let Control { addresses, meant, is_closed } = orders.borrow_and_update().clone();
        if is_closed {
            return;
        }
        let delay = backoff.delay();
        let attempt = async {
            sleep(delay).await;
            connect_any(&shared, &addresses, meant).await
        };
        let attempted = tokio::select! {
            biased;
            // An error cannot happen, `shared` holds the sender.
            _ = orders.changed() => Err(Ended::Recalled),
            attempted = attempt => attempted,
        };
        let (lived, ended) = match attempted {
            Ok((stream, connected)) => serve(&shared, stream, connected, orders.clone()).await,
            Err(ended) => (Duration::ZERO, ended),
        };
        let is_recalled = matches!(ended, Ended::Recalled);
        if !is_recalled {
            shared.complain(&addresses, &ended);
            backoff.ended(lived);
        }
        // Also when the connection ended by itself before anybody saw the order.
        if is_recalled || orders.has_changed().unwrap_or(false) {
            backoff.reset();
        }
    }
}

/// One connection from its handshake to its end: how long it was up and why it ended.
async fn serve(
    shared: &Arc<Shared>,
    mut stream: Stream,
    connected: ConnectedTo,
    orders: watch::Receiver<Control>,
) -> (Duration, Ended) {
    let since = Instant::now();
    let (met, address) = (connected.met.clone(), connected.address.clone());
    let _connected = Connected(shared);
    shared.connect(connected);
    tracing::info!(peer = %shared.remote, address, "peer connected");
    let ended = match shared.judge(&met) {
        Ok(()) => exchange(shared, &mut stream, met, orders).await,
        Err(ended) => ended,
    };
    (since.elapsed(), ended)
}

/// Carries messages until the connection ends.
async fn exchange(
    shared: &Arc<Shared>,
    stream: &mut Stream,
    met: Met,
    orders: watch::Receiver<Control>,
) -> Ended {
    let (source, sink) = stream.split();
    let pulse = Arc::new(Pulse::default());
    let decoder = Decoder::new(shared.limits.frame_bytes_max);
    let mut answers = Answers(shared);
    let mut warden = Warden::begin(watch(Arc::clone(shared), met, orders, Arc::clone(&pulse)));
    // The reader goes before the writer: what it completes may queue new calls, which the writer then takes along.
    let ended = tokio::select! {
        biased;
        ended = warden.end() => ended,
        ended = link::read_frames(source, decoder, &shared.counters, &pulse, &mut answers) => ended,
        ended = link::write_bursts(sink, &shared.counters, |context, burst| {
            shared.state.lock().outgoing.poll_take(context, burst)
        }) => ended,
    };
    warden.stop().await;
    ended
}

/// Ends when the connection must, for a reason that does not come over it.
async fn watch(
    shared: Arc<Shared>,
    met: Met,
    mut orders: watch::Receiver<Control>,
    pulse: Arc<Pulse>,
) -> Ended {
    tokio::select! {
        biased;
        _ = orders.changed() => Ended::Recalled,
        ended = recheck(&shared, &met) => ended,
        () = shared.door.local.differs_from(&met.said) => Ended::Renamed,
        ended = watch_over(&shared, &pulse) => ended,
    }
}

/// Ends when the peer is no longer welcome.
async fn recheck(shared: &Shared, met: &Met) -> Ended {
    loop {
        shared.rechecks.notified().await;
        if let Err(ended) = shared.judge(met) {
            return ended;
        }
    }
}

/// Tries the peer's addresses in turn; the first failure is what is told when none will do, but a refusal goes first.
async fn connect_any(
    shared: &Shared,
    addresses: &[String],
    meant: Meant,
) -> Result<(Stream, ConnectedTo), Ended> {
    let (net, patience) = (&shared.door.net, shared.limits.handshake_timeout);
    let mut failure = None;
    for address in addresses.iter().take(ADDRESSES_MAX) {
        for resolved in resolve(net, address, patience).await {
            let ended = match connect(shared, resolved, meant).await {
                Ok((stream, met)) => {
                    return Ok((stream, ConnectedTo { address: address.clone(), met }));
                }
                Err(ended) => ended,
            };
            if failure.is_none() || matches!(ended, Ended::Refused(_)) {
                failure = Some(ended);
            }
        }
    }
    Err(failure.unwrap_or(Ended::NoAddress))
}

async fn resolve(net: &Net, address: &str, patience: Duration) -> Vec<SocketAddr> {
    let found = timeout(patience, net.resolve(address)).await;
    found.ok().and_then(Result::ok).into_iter().flatten().take(ADDRESSES_MAX).collect()
}

async fn connect(
    shared: &Shared,
    address: SocketAddr,
    meant: Meant,
) -> Result<(Stream, Met), Ended> {
    let patience = shared.limits.handshake_timeout;
    let mut stream = timeout(patience, shared.door.net.connect(address))
        .await
        .map_err(|_| Ended::ConnectTimeout)?
        .map_err(Ended::Connect)?;
    stream.hurry().map_err(Ended::Socket)?;
    let met = handshake::call(&mut stream, &shared.door, meant, patience).await?;
    Ok((stream, met))
}

/// Times out calls, pings the peer, and ends when it has been silent for the idle timeout.
async fn watch_over(shared: &Shared, pulse: &Pulse) -> Ended {
    let idle_timeout = shared.limits.idle_timeout;
    let interval = idle_timeout / CHECKS_PER_IDLE_TIMEOUT;
    let mut watch = Watch::new(pulse);
    let mut next_check = Instant::now() + interval;
    loop {
        let next_sweep = shared.sweep(next_check);
        tokio::select! {
            biased;
            // Calls that are made without a pause hold up no sweep.
            () = sleep_until(next_sweep) => {}
            () = shared.sweep.notified() => {}
        }
        let now = Instant::now();
        if now < next_check {
            continue;
        }
        next_check = now + interval;
        if watch.silent_checks() >= CHECKS_PER_IDLE_TIMEOUT {
            return Ended::Silent(idle_timeout);
        }
        // Also while busy: during a long answer the peer hears nothing else from this node.
        shared.ping();
    }
}

/// Brings answers to their callers.
struct Answers<'a>(&'a Shared);

impl Receiver for Answers<'_> {
    fn frame(&mut self, frame: Frame) -> Result<(), Ended> {
        let request = frame.header.request;
        match frame.header.frame_type {
            FrameType::Answer => self.0.answer(request, Ok(frame.body)),
            FrameType::NotHandled => {
                self.0.counters.not_handled.add(1);
                self.0.answer(request, Err(TransportError::NotHandled));
            }
            FrameType::Unavailable => {
                let reason = frame.body.first().copied().unwrap_or(0);
                self.0.answer(request, Err(TransportError::NotHere(reason)));
            }
            FrameType::Pong => {}
            FrameType::Request | FrameType::Ping | FrameType::Part => {
                return Err(Ended::Frame(WireError::wrong_side(frame.header.frame_type)));
            }
        }
        Ok(())
    }

    fn progress(&mut self, _bytes: usize) {
        // The server learns from the pings that this side lives.
    }
}
