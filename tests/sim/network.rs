//! The network: bytes that arrive in order, a whole number of milliseconds later, or not at all.
//!
//! Between any two hosts lies a link each way, which may be slow or cut. A cut link keeps what was sent, as TCP sends it again;
//! a machine without power answers nothing, and one that was started anew answers with a reset whatever belongs to its earlier life.
//! What is sent in one slice of time arrives in a later one, so hosts may run one after the other within a slice.
//!
//! All of it lies under one lock, which nobody holds while they wake or drop what is not plain data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use kvorum::session::Socket;
use kvorum::transport::{Accept, Connecting, Duplex, Network as PeerNetwork};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::host::Vitals;
use crate::trace;

/// A host by its number: nodes first, then the clients' one.
pub(crate) type HostId = usize;

/// Bytes that a connection holds in one direction, on the way and unread.
const WINDOW_BYTES: usize = 256 << 10;

/// Connections that a listener has not accepted yet.
const BACKLOG: usize = 128;

/// How soon a call is tried again that nobody answered, in milliseconds.
const REDIAL_MS: u64 = 200;

/// The address of a host.
pub(crate) fn address(host: HostId) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(host + 1).expect("few hosts"))
}

/// The network. A clone is another handle of the same one.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Wires>>);

struct Wires {
    now: u64,
    dice: Dice,
    /// By where from and where to.
    links: Vec<Vec<Link>>,
    has_power: Vec<bool>,
    /// An odd one is the way back of the even one before it.
    pipes: BTreeMap<u64, Pipe>,
    pipes_made: u64,
    calls: Vec<Call>,
    answers: Vec<Answer>,
    listeners: BTreeMap<SocketAddr, Ear>,
    /// Where clients may knock.
    doors: BTreeSet<SocketAddr>,
}

/// How one host reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The least time that bytes take, in milliseconds, and by how much they may take longer.
    pub(crate) delay_ms: (u64, u64),
    pub(crate) is_cut: bool,
}

impl Link {
    /// One as it should be.
    pub(crate) const GOOD: Self = Self { delay_ms: (1, 1), is_cut: false };
}

/// One direction of a connection.
struct Pipe {
    from: HostId,
    to: HostId,
    segments: VecDeque<Segment>,
    last_due: u64,
    /// Bytes of `segments` and `ready`.
    held: usize,
    ready: BytesMut,
    reader: Reader,
    writer: Writer,
    /// Neither side uses it any more.
    is_broken: bool,
    reading: Option<Waker>,
    writing: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Open,
    /// Everything has arrived.
    Ended,
    /// It was closed: what arrives is answered with a reset.
    Closed,
    /// Its machine has lost its power: what arrives is not answered before the next life.
    Vanished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Open,
    Closed,
}

struct Segment {
    due: u64,
    /// Nothing, for the end.
    bytes: Option<Bytes>,
}

/// Somebody who wants a connection.
struct Call {
    due: u64,
    from: HostId,
    vitals: Arc<Vitals>,
    near: SocketAddr,
    to: SocketAddr,
    done: oneshot::Sender<io::Result<Duplex>>,
}

/// What it is told.
struct Answer {
    due: u64,
    link: (HostId, HostId),
    outcome: Result<(u64, Arc<Vitals>), io::ErrorKind>,
    done: oneshot::Sender<io::Result<Duplex>>,
}

/// Where somebody listens.
struct Ear {
    vitals: Arc<Vitals>,
    backlog: VecDeque<(u64, SocketAddr)>,
    accepting: Option<Waker>,
}

/// A client that has come to a node's door.
pub(crate) struct Visitor {
    pub(crate) host: HostId,
    pipe: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Network {
    /// One of `hosts` hosts with good links.
    pub(crate) fn new(hosts: usize, dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Wires {
            now: 0,
            dice,
            links: vec![vec![Link::GOOD; hosts]; hosts],
            has_power: vec![true; hosts],
            pipes: BTreeMap::new(),
            pipes_made: 0,
            calls: Vec::new(),
            answers: Vec::new(),
            listeners: BTreeMap::new(),
            doors: BTreeSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.0.lock()
    }

    /// The network as a process of `host` sees it.
    pub(crate) fn port(&self, host: HostId, vitals: &Arc<Vitals>) -> Port {
        Port { network: self.clone(), host, vitals: Arc::clone(vitals) }
    }

    /// Changes the link from one host to another.
    pub(crate) fn set_link(&self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        change(&mut self.lock().links[from][to]);
    }

    /// Clients may come to `door`, or may not.
    pub(crate) fn set_door(&self, door: SocketAddr, is_open: bool) {
        let mut wires = self.lock();
        if is_open {
            wires.doors.insert(door)
        } else {
            wires.doors.remove(&door)
        };
    }

    /// Time is `now` milliseconds: what is due arrives. Returns who has come to doors.
    pub(crate) fn deliver(&self, now: u64) -> Vec<Visitor> {
        let mut wakers = Vec::new();
        let mut wires = self.lock();
        wires.now = now;
        let came = wires.take_calls(&mut wakers);
        wires.take_segments(&mut wakers);
        let answers = wires.due_answers();
        drop(wires);
        for waker in wakers {
            waker.wake();
        }
        for Answer { outcome, done, .. } in answers {
            let outcome = match outcome {
                Ok((pipe, vitals)) => Ok(self.stream(pipe, vitals).into_duplex()),
                Err(kind) => Err(kind.into()),
            };
            // Whoever gave it up closes it by that.
            drop(done.send(outcome));
        }
        came
    }

    /// The node's end of a visitor's connection.
    pub(crate) fn welcome(&self, visitor: &Visitor, vitals: &Arc<Vitals>) -> Stream {
        self.stream(visitor.pipe, Arc::clone(vitals))
    }

    /// The end of the connection whose outgoing direction is `pipe`.
    fn stream(&self, pipe: u64, vitals: Arc<Vitals>) -> Stream {
        Stream {
            source: Source { network: self.clone(), pipe: pipe ^ 1, vitals: Arc::clone(&vitals) },
            sink: Sink { network: self.clone(), pipe, vitals },
        }
    }

    /// A process of `host` has died and its machine goes on: the kernel closes what it had open.
    pub(crate) fn close_all(&self, host: HostId) {
        let mut wires = self.lock();
        wires.forget_process(host);
        let mut wakers = Vec::new();
        let own: Vec<u64> = wires.pipes_of(host);
        for id in own {
            if wires.pipes[&id].from == host {
                wires.end(id);
            } else {
                wires.close_reader(id, &mut wakers);
            }
        }
        drop(wires);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// `host` has lost its power, or has it again.
    pub(crate) fn set_power(&self, host: HostId, has_power: bool) {
        let mut wires = self.lock();
        wires.has_power[host] = has_power;
        if has_power {
            return;
        }
        wires.forget_process(host);
        for id in wires.pipes_of(host) {
            let pipe = wires.pipes.get_mut(&id).expect("just listed");
            if pipe.from == host {
                pipe.writer = Writer::Closed;
            } else {
                pipe.reader = Reader::Vanished;
            }
        }
    }

    /// Breaks every connection between two hosts, as a middlebox does that has forgotten them.
    pub(crate) fn reset(&self, one: HostId, other: HostId) {
        let mut wires = self.lock();
        let mut wakers = Vec::new();
        for id in wires.pipes_of(one) {
            let pipe = &wires.pipes[&id];
            if pipe.from == other || pipe.to == other {
                wires.break_off(id, &mut wakers);
            }
        }
        drop(wires);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wires {
    /// When what is sent now arrives.
    fn due(&mut self, from: HostId, to: HostId) -> u64 {
        let (least, spread) = self.links[from][to].delay_ms;
        self.now + least + self.dice.below(spread + 1)
    }

    fn pipes_of(&self, host: HostId) -> Vec<u64> {
        let own = self.pipes.iter().filter(|(_, pipe)| pipe.from == host || pipe.to == host);
        own.map(|(id, _)| *id).collect()
    }

    fn forget_process(&mut self, host: HostId) {
        let own = address(host);
        self.listeners.retain(|at, _| at.ip() != own);
        self.doors.retain(|at| at.ip() != own);
        self.calls.retain(|call| call.from != host);
        self.answers.retain(|answer| answer.link.1 != host);
    }

    /// Connections that arrive where they are wanted; those that came to doors.
    fn take_calls(&mut self, wakers: &mut Vec<Waker>) -> Vec<Visitor> {
        let mut came = Vec::new();
        for mut call in std::mem::take(&mut self.calls) {
            let to = host_of(call.to);
            if call.done.is_closed() {
                continue;
            }
            if call.due > self.now {
                self.calls.push(call);
                continue;
            }
            if self.links[call.from][to].is_cut || !self.has_power[to] {
                call.due = self.now + REDIAL_MS;
                self.calls.push(call);
                continue;
            }
            let ear = self.listeners.get(&call.to);
            let has_room = ear.is_some_and(|ear| ear.backlog.len() < BACKLOG);
            let due = self.due(to, call.from);
            let link = (to, call.from);
            let outcome = if !has_room && !self.doors.contains(&call.to) {
                Err(io::ErrorKind::ConnectionRefused)
            } else {
                let pipe = self.connect(call.from, to);
                trace::note("connected", format_args!("{} to {} as {pipe}", call.near, call.to));
                if let Some(ear) = self.listeners.get_mut(&call.to) {
                    ear.backlog.push_back((pipe + 1, call.near));
                    wakers.extend(ear.accepting.take());
                } else {
                    let (peer, local) = (call.near, call.to);
                    came.push(Visitor { host: to, pipe: pipe + 1, peer, local });
                }
                Ok((pipe, call.vitals))
            };
            self.answers.push(Answer { due, link, outcome, done: call.done });
        }
        came
    }

    /// A new connection; returns the direction away from who called.
    fn connect(&mut self, from: HostId, to: HostId) -> u64 {
        let number = self.pipes_made;
        self.pipes_made += 2;
        self.pipes.insert(number, Pipe::new(from, to));
        self.pipes.insert(number + 1, Pipe::new(to, from));
        number
    }

    fn due_answers(&mut self) -> Vec<Answer> {
        let (now, links) = (self.now, &self.links);
        let is_due = |answer: &mut Answer| {
            let (from, to) = answer.link;
            answer.due <= now && !links[from][to].is_cut
        };
        self.answers.extract_if(.., is_due).collect()
    }

    fn take_segments(&mut self, wakers: &mut Vec<Waker>) {
        let now = self.now;
        let is_due = |pipe: &Pipe| pipe.segments.front().is_some_and(|segment| segment.due <= now);
        let due = self.pipes.iter().filter(|(_, pipe)| is_due(pipe));
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            let pipe = &self.pipes[&id];
            let (from, to) = (pipe.from, pipe.to);
            if self.links[from][to].is_cut || !self.has_power[to] {
                continue;
            }
            if matches!(pipe.reader, Reader::Closed | Reader::Vanished) {
                let is_last = pipe.segments.len() == 1 && pipe.segments[0].bytes.is_none();
                if is_last && pipe.reader == Reader::Closed {
                    self.pipes.get_mut(&id).expect("just seen").segments.clear();
                } else {
                    self.break_off(id, wakers);
                }
                self.sweep(id);
                continue;
            }
            let pipe = self.pipes.get_mut(&id).expect("just seen");
            while pipe.segments.front().is_some_and(|segment| segment.due <= now) {
                match pipe.segments.pop_front().expect("just seen").bytes {
                    Some(bytes) => pipe.ready.extend_from_slice(&bytes),
                    None => pipe.reader = Reader::Ended,
                }
            }
            wakers.extend(pipe.reading.take());
        }
    }

    /// Both directions are over at once.
    fn break_off(&mut self, id: u64, wakers: &mut Vec<Waker>) {
        trace::note("broken", format_args!("{}", id & !1));
        for id in [id, id ^ 1] {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            pipe.is_broken = true;
            pipe.segments.clear();
            wakers.extend(pipe.reading.take());
            wakers.extend(pipe.writing.take());
        }
    }

    /// The writer of `id` is done.
    fn end(&mut self, id: u64) {
        let Some(pipe) = self.pipes.get(&id).filter(|pipe| pipe.writer == Writer::Open) else {
            return;
        };
        let (from, to, last_due) = (pipe.from, pipe.to, pipe.last_due);
        let due = self.due(from, to).max(last_due);
        let pipe = self.pipes.get_mut(&id).expect("just seen");
        pipe.writer = Writer::Closed;
        if !pipe.is_broken {
            pipe.last_due = due;
            pipe.segments.push_back(Segment { due, bytes: None });
        }
        self.sweep(id);
    }

    /// The reader of `id` is done.
    fn close_reader(&mut self, id: u64, wakers: &mut Vec<Waker>) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.reader == Reader::Vanished {
            return;
        }
        let had_unread = !pipe.ready.is_empty();
        pipe.reader = Reader::Closed;
        pipe.held -= pipe.ready.len();
        pipe.ready.clear();
        if had_unread {
            // A kernel resets what is closed unread.
            self.break_off(id, wakers);
        }
        self.sweep(id);
    }

    /// Forgets a direction that nobody uses any more.
    fn sweep(&mut self, id: u64) {
        let is_over = |pipe: &Pipe| {
            let is_read = matches!(pipe.reader, Reader::Closed | Reader::Vanished);
            pipe.writer == Writer::Closed && is_read && pipe.segments.is_empty()
        };
        if self.pipes.get(&id).is_some_and(is_over) {
            self.pipes.remove(&id);
        }
    }

    fn write(&mut self, id: u64, bytes: &[u8], waker: Option<&Waker>) -> Poll<io::Result<usize>> {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.writer == Writer::Closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.len().min(WINDOW_BYTES.saturating_sub(pipe.held));
        if taken == 0 && pipe.held >= WINDOW_BYTES {
            if let Some(waker) = waker {
                pipe.writing = Some(waker.clone());
            }
            return Poll::Pending;
        }
        if taken == 0 {
            return Poll::Ready(Ok(0));
        }
        let (from, to, last_due) = (pipe.from, pipe.to, pipe.last_due);
        let due = self.due(from, to).max(last_due);
        let pipe = self.pipes.get_mut(&id).expect("just seen");
        pipe.held += taken;
        pipe.last_due = due;
        pipe.segments
            .push_back(Segment { due, bytes: Some(Bytes::copy_from_slice(&bytes[..taken])) });
        trace::note_bytes("sent", format_args!("{id} due {due}"), &bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Reads into `buffer`; wakes whoever waits for room.
    fn read(
        &mut self,
        id: u64,
        buffer: &mut ReadBuf<'_>,
        waker: &Waker,
    ) -> (Poll<io::Result<()>>, Option<Waker>) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return (Poll::Ready(Ok(())), None) };
        if !pipe.ready.is_empty() {
            let taken = pipe.ready.len().min(buffer.remaining());
            buffer.put_slice(&pipe.ready[..taken]);
            pipe.ready.advance(taken);
            pipe.held -= taken;
            return (Poll::Ready(Ok(())), pipe.writing.take());
        }
        if pipe.is_broken {
            return (Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())), None);
        }
        if pipe.reader == Reader::Ended {
            return (Poll::Ready(Ok(())), None);
        }
        pipe.reading = Some(waker.clone());
        (Poll::Pending, None)
    }
}

impl Pipe {
    fn new(from: HostId, to: HostId) -> Self {
        Self {
            from,
            to,
            segments: VecDeque::new(),
            last_due: 0,
            held: 0,
            ready: BytesMut::new(),
            reader: Reader::Open,
            writer: Writer::Open,
            is_broken: false,
            reading: None,
            writing: None,
        }
    }
}

fn host_of(address: SocketAddr) -> HostId {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => unreachable!("hosts have addresses of version 4"),
    }
}

/// The network as one process sees it.
#[derive(Clone)]
pub(crate) struct Port {
    network: Network,
    host: HostId,
    vitals: Arc<Vitals>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Port {
    /// Connects to `to`, for a client.
    pub(crate) fn dial(&self, to: SocketAddr) -> Connecting {
        PeerNetwork::connect(self, to)
    }
}

impl PeerNetwork for Port {
    fn resolve(&self, address: &str) -> Vec<SocketAddr> {
        address.parse().into_iter().collect()
    }

    fn connect(&self, to: SocketAddr) -> Connecting {
        let (done, outcome) = oneshot::channel();
        let mut wires = self.network.lock();
        let due = wires.due(self.host, host_of(to));
        // Which port that is matters to nobody.
        let near = SocketAddr::from((address(self.host), 40_000));
        let vitals = Arc::clone(&self.vitals);
        wires.calls.push(Call { due, from: self.host, vitals, near, to, done });
        drop(wires);
        Box::pin(async move { outcome.await.unwrap_or(Err(io::ErrorKind::TimedOut.into())) })
    }

    fn bind(&self, address: &str) -> io::Result<Box<dyn Accept>> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let ear =
            Ear { vitals: Arc::clone(&self.vitals), backlog: VecDeque::new(), accepting: None };
        let mut wires = self.network.lock();
        if wires.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        wires.listeners.insert(address, ear);
        Ok(Box::new(Listener { port: self.clone(), address }))
    }
}

struct Listener {
    port: Port,
    address: SocketAddr,
}

impl Accept for Listener {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Duplex, SocketAddr)>> {
        let mut wires = self.port.network.lock();
        let Some(ear) = wires.listeners.get_mut(&self.address) else { return Poll::Pending };
        let Some((pipe, peer)) = ear.backlog.pop_front() else {
            ear.accepting = Some(context.waker().clone());
            return Poll::Pending;
        };
        drop(wires);
        let stream = self.port.network.stream(pipe, Arc::clone(&self.port.vitals));
        Poll::Ready(Ok((stream.into_duplex(), peer)))
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut wires = self.port.network.lock();
        let is_own = |ear: &mut Ear| Arc::ptr_eq(&ear.vitals, &self.port.vitals);
        if wires.listeners.get_mut(&self.address).is_some_and(is_own) {
            wires.listeners.remove(&self.address);
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    source: Source,
    sink: Sink,
}

impl Stream {
    /// As peers take it.
    fn into_duplex(self) -> Duplex {
        Duplex { source: Box::new(self.source), sink: Box::new(self.sink) }
    }
}

/// The direction that an end reads.
struct Source {
    network: Network,
    pipe: u64,
    vitals: Arc<Vitals>,
}

/// The direction that it writes.
struct Sink {
    network: Network,
    pipe: u64,
    vitals: Arc<Vitals>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.pipe).finish()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.pipe).finish()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.vitals.is_dead() {
            // The kernel closes it, or nobody.
            return;
        }
        let mut wakers = Vec::new();
        self.network.lock().close_reader(self.pipe, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.end();
    }
}

impl Sink {
    fn end(&self) {
        if !self.vitals.is_dead() {
            self.network.lock().end(self.pipe);
        }
    }

    fn write(&self, bytes: &[u8], waker: Option<&Waker>) -> Poll<io::Result<usize>> {
        if self.vitals.act().is_err() {
            // Nobody hears the dead.
            return Poll::Ready(Ok(bytes.len()));
        }
        self.network.lock().write(self.pipe, bytes, waker)
    }
}

impl AsyncRead for Source {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (outcome, waker) = self.network.lock().read(self.pipe, buffer, context.waker());
        if let Some(waker) = waker {
            waker.wake();
        }
        outcome
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(bytes, Some(context.waker()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.source).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.sink).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sink).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sink).poll_shutdown(context)
    }
}

impl Socket for Stream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.sink.write(bytes, None) {
            Poll::Ready(taken) => taken,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        // Even nothing is taken only when there is room.
        poll_fn(|context| self.sink.write(&[], Some(context.waker()))).await.map(drop)
    }
}
