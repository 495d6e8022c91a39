//! The answering side: accepts the connections of all peers and hands their requests to one handler.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::decode::{Decoder, Frame};
use super::error::{BindError, TransportError};
use super::limits::{ACCEPT_PAUSE, CHECKS_PER_IDLE_TIMEOUT, Limits, PROGRESS_BYTES};
use super::link::{self, Ended, Pulse, Receiver, Watch};
use super::log_limit::LogLimit;
use super::message::{Handler, Kind, Message};
use super::outgoing::{Body, Outgoing};
use super::stats::{Counters, TransportStats};
use super::wire::{FrameType, Header, Hello, PROTOCOL_VERSION, Refusal, WireError};
use crate::ids::{GroupId, NodeId};

/// Who the server is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerServerOptions {
    /// This node; callers that mean another one are refused.
    pub local: NodeId,
    /// A hash of what the cluster's nodes have in common (id, secret); callers must hold the same.
    pub cluster: u64,
}

impl fmt::Debug for PeerServerOptions {
    /// Leaves out the cluster hash, which may be derived from a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerServerOptions").field("local", &self.local).finish_non_exhaustive()
    }
}

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
        options: PeerServerOptions,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, BindError> {
        Self::bind_with_limits(address, options, Limits::default(), handler).await
    }

    /// As [`bind`](Self::bind), with `limits`.
    ///
    /// # Errors
    /// [`BindError`] when the system refuses the address.
    pub async fn bind_with_limits(
        address: &str,
        options: PeerServerOptions,
        limits: Limits,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (control, orders) = watch::channel(false);
        let (task_end, task) = watch::channel(());
        let shared = Arc::new(Shared {
            options,
            limits,
            handler,
            counters: Counters::default(),
            complaints: LogLimit::default(),
        });
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
    pub fn send(mut self, body: impl Into<Bytes>) {
        let body = Body::new(body.into());
        self.answer(FrameType::Answer, |outgoing, header| outgoing.push(header, body));
    }

    /// Answers with what `encode` appends straight to the outgoing buffer.
    ///
    /// The buffer already holds other frames and the connection waits while `encode` runs: it must only append, be
    /// quick, and not use another responder.
    ///
    /// # Panics
    /// When `encode` removes bytes it did not append.
    pub fn send_with(mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.answer(FrameType::Answer, |outgoing, header| outgoing.push_with(header, encode));
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
    options: PeerServerOptions,
    limits: Limits,
    handler: Arc<dyn Handler>,
    counters: Counters,
    complaints: LogLimit,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .field("limits", &self.limits)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn complain(&self, peer: SocketAddr, from: Option<NodeId>, ended: &Ended) {
        if let Ended::Refused(_) = ended {
            self.counters.refusals.add(1);
        }
        if let Some(suppressed) = self.complaints.permit(Instant::now()) {
            let cause = ended.source().map(tracing::field::display);
            let from = from.map(tracing::field::display);
            tracing::warn!(%peer, from, suppressed, cause, "connection from a peer: {ended}");
        }
    }
}

/// The answering half of one connection.
#[derive(Debug)]
struct Connection {
    from: NodeId,
    outgoing: Mutex<Outgoing>,
    /// Requests the handler holds.
    requests_open: AtomicUsize,
    congested: Notify,
    shared: Arc<Shared>,
}

impl Connection {
    fn new(from: NodeId, shared: Arc<Shared>) -> Self {
        let limits = &shared.limits;
        let mut outgoing = Outgoing::new(limits.answers_bytes_max, limits.frame_bytes_max);
        outgoing.open();
        Self {
            from,
            outgoing: Mutex::new(outgoing),
            requests_open: AtomicUsize::new(0),
            congested: Notify::new(),
            shared,
        }
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
    listener: TcpListener,
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
                Ok((stream, peer)) if connections.len() < shared.limits.connections_max => {
                    connections.spawn(serve(stream, peer, Arc::clone(&shared)));
                }
                Ok((stream, peer)) => {
                    drop(stream);
                    shared.complain(peer, None, &Ended::TooMany);
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

/// One connection from beginning to end.
async fn serve(mut stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let from = match greet(&mut stream, &shared).await {
        Ok(from) => from,
        Err(ended) => return shared.complain(peer, None, &ended),
    };
    shared.counters.connections.add(1);
    tracing::debug!(%peer, %from, "peer connected to this node");
    let connection = Arc::new(Connection::new(from, Arc::clone(&shared)));
    let _open = CloseOnDrop(&connection);
    let ended = serve_requests(&connection, &mut stream).await;
    if matches!(ended, Ended::Eof) {
        tracing::debug!(%peer, %from, "peer closed its connection");
    } else {
        shared.complain(peer, Some(from), &ended);
    }
}

/// Exchanges hellos; returns the caller when it is one to talk to.
async fn greet(stream: &mut TcpStream, shared: &Shared) -> Result<NodeId, Ended> {
    stream.set_nodelay(true).map_err(Ended::Socket)?;
    let patience = shared.limits.handshake_timeout;
    let PeerServerOptions { local, cluster } = shared.options;
    let hello = link::receive_hello(stream, patience).await?;
    let refusal = if hello.version != PROTOCOL_VERSION {
        Some(Refusal::Version)
    } else if hello.cluster != cluster {
        Some(Refusal::Cluster)
    } else if hello.to != local {
        Some(Refusal::Node)
    } else {
        None
    };
    let answer = Hello {
        version: PROTOCOL_VERSION,
        refusal,
        from: local,
        to: hello.from,
        // A stranger must not learn from a refusal what would have been accepted.
        cluster: if refusal.is_none() { cluster } else { 0 },
    };
    link::send_hello(stream, &answer, patience).await?;
    match refusal {
        None => Ok(hello.from),
        Some(refusal) => Err(Ended::Refused(refusal)),
    }
}

async fn serve_requests(connection: &Arc<Connection>, stream: &mut TcpStream) -> Ended {
    let (source, sink) = stream.split();
    let Shared { limits, counters, .. } = &*connection.shared;
    let pulse = Pulse::default();
    let decoder = Decoder::new(limits.frame_bytes_max);
    let mut requests = Requests { connection, bytes_unconfirmed: 0 };
    // The reader goes first: answers given inside the handler are written in the same turn.
    tokio::select! {
        biased;
        ended = link::read_frames(source, decoder, counters, &pulse, &mut requests) => ended,
        ended = link::write_batches(sink, counters, |context, batch| {
            connection.outgoing.lock().poll_take(context, batch)
        }) => ended,
        () = connection.congested.notified() => Ended::Congested,
        ended = watch_over(limits, &pulse) => ended,
    }
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
            FrameType::Answer | FrameType::NotHandled | FrameType::Pong => {
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
        let message = Message { from: connection.from, group, kind, body };
        connection.shared.handler.handle(message, responder);
    }
}
