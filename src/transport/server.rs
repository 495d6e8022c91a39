//! The answering side: accepts the connections of all peers and hands their requests to one handler.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::body::Body;
use super::decode::{Decoder, Frame};
use super::error::{BindError, TransportError};
use super::handshake::{self, Met, refusal_of};
use super::identity::{Door, Sender, Side, Verdict};
use super::limits::{ACCEPT_PAUSE, CHECKS_PER_IDLE_TIMEOUT, LOG_INTERVAL, Limits, PROGRESS_BYTES};
use super::link::{self, Ended, Pulse, Receiver, Warden, Watch};
use super::message::{Handler, Kind, Message};
use super::net::{Listener, Stream};
use super::outgoing::Outgoing;
use super::stats::{Counters, TransportStats};
use super::wire::{FrameType, Header, WireError};
use crate::ids::{GroupId, NodeId};
use crate::stdx::log_limit::LogLimit;

/// Listens for peers. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct PeerServer {
    address: SocketAddr,
    control: watch::Sender<bool>,
    /// Its sender lives in the accepting task.
    task: watch::Receiver<()>,
    shared: Arc<Shared>,
}

impl PeerServer {
    /// Listens on `address` (`host:port`, port 0 for any), with the default [`Limits`].
    ///
    /// Connections live on the runtime that calls this.
    ///
    /// # Errors
    /// [`BindError`] when the system refuses the address.
    pub async fn bind(
        address: &str,
        door: Door,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, BindError> {
        Self::bind_with_limits(address, door, Limits::default(), handler).await
    }

    /// As [`bind`](Self::bind), with `limits`.
    ///
    /// # Errors
    /// [`BindError`] when the system refuses the address.
    pub async fn bind_with_limits(
        address: &str,
        door: Door,
        limits: Limits,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address: address.to_owned(), source };
        let listener = door.net.bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (control, orders) = watch::channel(false);
        let (task_end, task) = watch::channel(());
        let shared = Arc::new(Shared::new(door, limits, handler));
        tokio::spawn(accept_peers(listener, Arc::clone(&shared), orders, task_end));
        Ok(Self { address, control, task, shared })
    }

    /// Where the server listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening and cuts every connection; requests still held can be answered, to nobody.
    ///
    /// Does not wait; see [`closed`](Self::closed).
    pub fn close(&self) {
        self.control.send_replace(true);
    }

    /// Judges all connected peers anew and cuts those no longer welcome.
    pub fn recheck(&self) {
        self.shared.rechecks.send_replace(());
    }

    /// Waits until a closed server's listener and connections are gone.
    pub async fn closed(&self) {
        let mut task = self.task.clone();
        // The task never sends: its end shows as an error.
        while task.changed().await.is_ok() {}
    }

    /// Counts since the start.
    pub fn stats(&self) -> TransportStats {
        self.shared.counters.snapshot()
    }
}

/// The way back to the caller of one request. Dropped unused, it tells the caller that there will be no answer.
#[derive(Debug)]
#[must_use = "dropping a responder refuses the request"]
pub struct Responder {
    /// `None` once answered.
    connection: Option<Arc<Connection>>,
    kind: Kind,
    group: GroupId,
    request: u64,
}

impl Responder {
    /// Answers with `body`; a long one is not copied. Lost without a word when the connection is gone.
    pub fn send(mut self, body: impl Into<Body>) {
        let body = body.into();
        self.answer(FrameType::Answer, |outgoing, header| outgoing.push(header, body));
    }

    /// Answers with something short that `encode` appends straight to the outgoing buffer.
    ///
    /// The buffer already holds other frames and the connection waits while `encode` runs: it must only append, be
    /// quick, and not use another responder.
    ///
    /// # Panics
    /// When `encode` removes bytes it did not append.
    pub fn send_with(mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.answer(FrameType::Answer, |outgoing, header| outgoing.push_with(header, encode));
    }

    /// Tells the caller that this node has nobody to handle the request, and why; it must not have been acted on.
    ///
    /// The caller gets [`TransportError::NotHere`] with `reason`, and does well to wait before it asks again.
    pub fn unavailable(mut self, reason: u8) {
        self.answer(FrameType::Unavailable, |outgoing, header| {
            outgoing.push_with(header, |buffer| buffer.push(reason))
        });
    }

    fn answer(
        &mut self,
        frame_type: FrameType,
        push: impl FnOnce(&mut Outgoing, &Header) -> Result<Option<Waker>, TransportError>,
    ) {
        let Some(connection) = self.connection.take() else { return };
        let header =
            Header { frame_type, kind: self.kind, group: self.group, request: self.request };
        connection.requests_open.fetch_sub(1, Ordering::Relaxed);
        connection.push(&header, push);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.shared.counters.not_handled.add(1);
            self.answer(FrameType::NotHandled, |outgoing, header| {
                outgoing.push_with(header, |_| ())
            });
        }
    }
}

/// What the connections of one server share.
struct Shared {
    door: Door,
    limits: Limits,
    handler: Arc<dyn Handler>,
    rechecks: watch::Sender<()>,
    /// Connections whose handshake is over.
    connections_open: AtomicUsize,
    /// How many from each address are shaking hands.
    handshakes: Mutex<BTreeMap<IpAddr, usize>>,
    counters: Counters,
    complaints: LogLimit,
    refusals: LogLimit,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("door", &self.door)
            .field("limits", &self.limits)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(door: Door, limits: Limits, handler: Arc<dyn Handler>) -> Self {
        Self {
            door,
            limits,
            handler,
            rechecks: watch::Sender::new(()),
            connections_open: AtomicUsize::new(0),
            handshakes: Mutex::default(),
            counters: Counters::default(),
            complaints: LogLimit::every(LOG_INTERVAL),
            refusals: LogLimit::every(LOG_INTERVAL),
        }
    }

    fn complain(&self, peer: SocketAddr, from: Option<NodeId>, ended: &Ended) {
        if matches!(ended, Ended::Renamed) {
            return tracing::debug!(%peer, "a peer's connection is made anew");
        }
        let is_refusal = matches!(ended, Ended::Refused(_));
        if is_refusal {
            self.counters.refusals.add(1);
        }
        // A refusal is seldom and matters: the noise of lost connections must not hide it.
        let complaints = if is_refusal { &self.refusals } else { &self.complaints };
        if let Some(suppressed) = complaints.permit() {
            let cause = ended.source().map(tracing::field::display);
            let from = from.map(tracing::field::display);
            tracing::warn!(%peer, from, suppressed, cause, "connection from a peer: {ended}");
        }
    }
}

/// The answering half of one connection.
#[derive(Debug)]
struct Connection {
    met: Met,
    is_stranger: AtomicBool,
    outgoing: Mutex<Outgoing>,
    /// Requests the handler holds.
    requests_open: AtomicUsize,
    congested: Notify,
    shared: Arc<Shared>,
}

impl Connection {
    fn new(met: Met, shared: Arc<Shared>) -> Self {
        let limits = &shared.limits;
        let mut outgoing = Outgoing::new(limits.answers_bytes_max, limits.frame_bytes_max);
        outgoing.open();
        Self {
            is_stranger: AtomicBool::new(met.is_stranger),
            met,
            outgoing: Mutex::new(outgoing),
            requests_open: AtomicUsize::new(0),
            congested: Notify::new(),
            shared,
        }
    }

    /// Whether the peer is welcome, and as whom.
    fn judge(&self) -> Result<(), Ended> {
        let verdict = self.shared.door.judge(&self.met.who, &self.met.meant, Side::Listening);
        // Before the end: what has arrived of whoever is refused may still be read, and must not pass for a member's.
        self.is_stranger.store(verdict != Verdict::Member, Ordering::Relaxed);
        refusal_of(verdict).map_or(Ok(()), |refusal| Err(Ended::Refused(refusal)))
    }

    fn pong(&self) {
        self.push(&Header::control(FrameType::Pong), |outgoing, header| {
            outgoing.push_with(header, |_| ())
        });
    }

    /// Queues a frame. A queue without room means a peer that does not read: its connection is cut.
    fn push(
        &self,
        header: &Header,
        push: impl FnOnce(&mut Outgoing, &Header) -> Result<Option<Waker>, TransportError>,
    ) {
        let mut outgoing = self.outgoing.lock();
        let mut pushed = push(&mut outgoing, header);
        if matches!(pushed, Err(TransportError::TooLarge)) {
            tracing::error!(kind = %header.kind, group = %header.group, "answer too large to be sent");
            let refused = Header { frame_type: FrameType::NotHandled, ..*header };
            pushed = outgoing.push_with(&refused, |_| ());
        }
        let writer = match pushed {
            Ok(writer) => writer,
            Err(TransportError::NotConnected) => None,
            Err(_) => {
                // The writer may be stuck in a write; this ends the connection around it.
                self.congested.notify_one();
                outgoing.close()
            }
        };
        drop(outgoing);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// The server's task: accepts until told to stop, then cuts what is open.
async fn accept_peers(
    mut listener: Listener,
    shared: Arc<Shared>,
    mut orders: watch::Receiver<bool>,
    _task_end: watch::Sender<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // An error means that the server was dropped, which closes it too.
            _ = orders.changed() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the task of a peer's connection failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(shaking) = Shaking::begin(&shared, peer.ip()) {
                        connections.spawn(serve(stream, peer, shaking));
                    } else {
                        drop(stream);
                        shared.complain(peer, None, &Ended::TooMany);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// A connection that is shaking hands, counted until it is dropped.
struct Shaking {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Shaking {
    /// `None` when too many are, in all or from this address.
    fn begin(shared: &Arc<Shared>, address: IpAddr) -> Option<Self> {
        let Limits { handshakes_max, handshakes_per_address_max, .. } = shared.limits;
        let mut handshakes = shared.handshakes.lock();
        let all: usize = handshakes.values().sum();
        let here = handshakes.get(&address).copied().unwrap_or(0);
        if all >= handshakes_max || here >= handshakes_per_address_max {
            return None;
        }
        handshakes.insert(address, here + 1);
        drop(handshakes);
        Some(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut handshakes = self.shared.handshakes.lock();
        if let Some(here) = handshakes.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                handshakes.remove(&self.address);
            }
        }
    }
}

/// A connection that may carry frames, counted until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn begin(shared: &Arc<Shared>) -> Result<Self, Ended> {
        // Counted first, so that two at once cannot both take the last place.
        let others = shared.connections_open.fetch_add(1, Ordering::Relaxed);
        let open = Self(Arc::clone(shared));
        if others < shared.limits.connections_max { Ok(open) } else { Err(Ended::TooMany) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection from beginning to end.
async fn serve(mut stream: Stream, peer: SocketAddr, shaking: Shaking) {
    let shared = Arc::clone(&shaking.shared);
    let greeted = greet(&mut stream, &shared).await;
    drop(shaking);
    let (met, _counted) = match greeted.and_then(|met| Ok((met, Open::begin(&shared)?))) {
        Ok(greeted) => greeted,
        Err(ended) => return shared.complain(peer, None, &ended),
    };
    let from = met.who.node;
    shared.counters.connections.add(1);
    tracing::debug!(%peer, %from, "peer connected to this node");
    let connection = Arc::new(Connection::new(met, Arc::clone(&shared)));
    let _open = CloseOnDrop(&connection);
    let ended = serve_requests(&connection, &mut stream).await;
    if matches!(ended, Ended::Eof) {
        tracing::debug!(%peer, %from, "peer closed its connection");
    } else {
        shared.complain(peer, Some(from), &ended);
    }
}

/// Shakes hands; returns the caller when it is one to talk to.
async fn greet(stream: &mut Stream, shared: &Shared) -> Result<Met, Ended> {
    stream.hurry().map_err(Ended::Socket)?;
    handshake::answer(stream, &shared.door, shared.limits.handshake_timeout).await
}

async fn serve_requests(connection: &Arc<Connection>, stream: &mut Stream) -> Ended {
    let (source, sink) = stream.split();
    let Shared { limits, counters, rechecks, .. } = &*connection.shared;
    let pulse = Arc::new(Pulse::default());
    let decoder = Decoder::new(limits.frame_bytes_max);
    let mut requests = Requests { connection, bytes_unconfirmed: 0 };
    let rechecks = rechecks.subscribe();
    // What changed since the handshake was told to nobody.
    if let Err(ended) = connection.judge() {
        return ended;
    }
    let mut warden = Warden::begin(watch(Arc::clone(connection), rechecks, Arc::clone(&pulse)));
    // The reader goes before the writer: answers given inside the handler are written in the same turn.
    let ended = tokio::select! {
        biased;
        ended = warden.end() => ended,
        ended = link::read_frames(source, decoder, counters, &pulse, &mut requests) => ended,
        ended = link::write_bursts(sink, counters, |context, burst| {
            connection.outgoing.lock().poll_take(context, burst)
        }) => ended,
    };
    warden.stop().await;
    ended
}

/// Ends when the connection must, for a reason that does not come over it.
async fn watch(
    connection: Arc<Connection>,
    rechecks: watch::Receiver<()>,
    pulse: Arc<Pulse>,
) -> Ended {
    tokio::select! {
        biased;
        ended = recheck(&connection, rechecks) => ended,
        () = connection.shared.door.local.differs_from(&connection.met.said) => Ended::Renamed,
        () = connection.congested.notified() => Ended::Congested,
        ended = watch_over(&connection.shared.limits, &pulse) => ended,
    }
}

/// Ends when the peer is no longer welcome.
async fn recheck(connection: &Connection, mut rechecks: watch::Receiver<()>) -> Ended {
    while rechecks.changed().await.is_ok() {
        if let Err(ended) = connection.judge() {
            return ended;
        }
    }
    Ended::Eof
}

/// Ends when the peer has been silent for the silence timeout.
async fn watch_over(limits: &Limits, pulse: &Pulse) -> Ended {
    let mut watch = Watch::new(pulse);
    let mut checks = interval(limits.silence_timeout / CHECKS_PER_IDLE_TIMEOUT);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    checks.tick().await;
    loop {
        checks.tick().await;
        if watch.silent_checks() >= CHECKS_PER_IDLE_TIMEOUT {
            return Ended::Silent(limits.silence_timeout);
        }
    }
}

/// Lets responders that outlive their connection find its queue closed.
struct CloseOnDrop<'a>(&'a Connection);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        drop(self.0.outgoing.lock().close());
    }
}

/// Brings requests to the handler.
struct Requests<'a> {
    connection: &'a Arc<Connection>,
    /// Bytes that have arrived since the peer was last told so.
    bytes_unconfirmed: usize,
}

impl Receiver for Requests<'_> {
    fn frame(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame.header.frame_type {
            FrameType::Request => self.request(frame),
            FrameType::Ping => self.connection.pong(),
            FrameType::Answer
            | FrameType::NotHandled
            | FrameType::Unavailable
            | FrameType::Pong
            | FrameType::Part => {
                return Err(Ended::Frame(WireError::wrong_side(frame.header.frame_type)));
            }
        }
        Ok(())
    }

    fn progress(&mut self, bytes: usize) {
        self.bytes_unconfirmed += bytes;
        if self.bytes_unconfirmed >= PROGRESS_BYTES {
            self.bytes_unconfirmed = 0;
            self.connection.pong();
        }
    }
}

impl Requests<'_> {
    fn request(&self, frame: Frame) {
        let Frame { header: Header { kind, group, request, .. }, body } = frame;
        let connection = self.connection;
        let open = connection.requests_open.fetch_add(1, Ordering::Relaxed);
        let responder =
            Responder { connection: Some(Arc::clone(connection)), kind, group, request };
        if open >= connection.shared.limits.requests_max {
            return drop(responder);
        }
        let is_stranger = connection.is_stranger.load(Ordering::Relaxed);
        let from = Sender { is_stranger, ..connection.met.sender() };
        let message = Message { from, group, kind, body };
        connection.shared.handler.handle(message, responder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, Incarnation, Session};
    use crate::transport::identity::{Credentials, Doorkeeper, Meant, PeerIdentity};
    use crate::transport::wire::Refusal;

    /// Judges everybody alike, as it is told.
    struct Moody(Mutex<Verdict>);

    impl Doorkeeper for Moody {
        fn judge(&self, _who: &PeerIdentity, _meant: Option<&Meant>, _side: Side) -> Verdict {
            *self.0.lock()
        }
    }

    struct Nobody;

    impl Handler for Nobody {
        fn handle(&self, _message: Message, _responder: Responder) {}
    }

    /// Between the verdict and the end of the connection its reader may take what has arrived: a member's word that is none
    /// any more, or, where a refusal counted as "no stranger", a stranger's word as a member's.
    #[test]
    fn whoever_is_refused_is_heard_as_no_member() {
        let identity = |name| {
            let session = Session { number: 1, random: 5 };
            PeerIdentity::new(ClusterId(77), name, Incarnation::NONE, session)
        };
        for is_stranger in [false, true] {
            let keeper = Arc::new(Moody(Mutex::new(Verdict::Refuse(Refusal::Gone))));
            let door = Door {
                keeper: Arc::clone(&keeper) as Arc<dyn Doorkeeper>,
                ..Door::new(identity("n2"), Credentials::new(b"of the test", [7; 32]))
            };
            let meant = Meant { node: NodeId::of_name("n2"), incarnation: Incarnation::NONE };
            let met = Met { said: identity("n2"), who: identity("n1"), meant, is_stranger };
            let shared = Shared::new(door, Limits::default(), Arc::new(Nobody));
            let connection = Connection::new(met, Arc::new(shared));
            let is_heard_as_stranger = || connection.is_stranger.load(Ordering::Relaxed);
            assert_eq!(is_heard_as_stranger(), is_stranger);
            assert!(matches!(connection.judge(), Err(Ended::Refused(Refusal::Gone))));
            assert!(is_heard_as_stranger());
            for verdict in [Verdict::Member, Verdict::Stranger] {
                *keeper.0.lock() = verdict;
                assert!(connection.judge().is_ok());
                assert_eq!(is_heard_as_stranger(), verdict == Verdict::Stranger);
            }
        }
    }
}
