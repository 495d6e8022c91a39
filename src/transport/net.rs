//! What carries bytes between nodes: the machine's TCP, or a network that somebody else makes, as a simulation does in memory.
//!
//! Which one is chosen where a node starts, and goes along in its [`Door`](super::Door). TCP is a variant here and not one
//! more [`Network`]: a read or a write of a socket costs one branch, always taken the same way, and no call through a table.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::limits::UNSENT_BYTES_MAX;
use crate::stdx::socket::limit_unsent;

/// The network a node finds its peers on.
#[derive(Clone, Debug, Default)]
pub enum Net {
    /// The machine's.
    #[default]
    Tcp,
    /// Another one.
    Other(Arc<dyn Network>),
}

/// A network other than the machine's, as one node sees it.
///
/// Its connections behave like those of TCP: bytes arrive in order or not at all, and who writes faster than the other side
/// reads has to wait.
pub trait Network: fmt::Debug + Send + Sync {
    /// What `address` (`host:port`) stands for now; nothing when nobody knows.
    fn resolve(&self, address: &str) -> Vec<SocketAddr>;

    /// Connects to whoever listens on `to`. Dropping the future gives it up.
    fn connect(&self, to: SocketAddr) -> Connecting;

    /// Listens on `address` (`host:port`, port 0 for any).
    ///
    /// # Errors
    /// As those of a socket: the address is taken, or none of this node's.
    fn bind(&self, address: &str) -> io::Result<Box<dyn Accept>>;
}

/// A connection of a [`Network`], once it is there.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Duplex>> + Send>>;

/// The listening end of a [`Network`]. Dropped, it listens no more.
pub trait Accept: Send {
    /// The next connection, and where it comes from. Loses none when it is not asked again.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Duplex, SocketAddr)>>;

    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;
}

/// A connection of a [`Network`]: two directions that know nothing of each other, so that none waits for the other, not even
/// for a lock. Dropped, it is closed.
pub struct Duplex {
    /// What the other side sends.
    pub source: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is sent.
    pub sink: Box<dyn AsyncWrite + Send + Unpin>,
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

impl Net {
    pub(super) async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp => Ok(lookup_host(address).await?.collect()),
            Self::Other(network) => Ok(network.resolve(address)),
        }
    }

    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        match self {
            Self::Tcp => TcpStream::connect(to).await.map(Stream::Tcp),
            Self::Other(network) => network.connect(to).await.map(Stream::Other),
        }
    }

    pub(super) async fn bind(&self, address: &str) -> io::Result<Listener> {
        match self {
            Self::Tcp => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Other(network) => network.bind(address).map(Listener::Other),
        }
    }
}

/// Where peers knock.
pub(super) enum Listener {
    Tcp(TcpListener),
    Other(Box<dyn Accept>),
}

impl Listener {
    /// The next connection, and where it comes from. Dropping the future loses none.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), peer))
            }
            Self::Other(listener) => {
                let accepted = poll_fn(|context| listener.poll_accept(context)).await;
                accepted.map(|(duplex, peer)| (Stream::Other(duplex), peer))
            }
        }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Other(listener) => Ok(listener.local_addr()),
        }
    }
}

/// A connection. Whole while hands are shaken, then split for as long as it lives.
pub(super) enum Stream {
    Tcp(TcpStream),
    Other(Duplex),
}

impl Stream {
    /// Sends what is written at once, however short it is, and takes little that it cannot send yet: what is short passes
    /// what is long only before the kernel has that. A [`Network`] does so anyway.
    pub(super) fn hurry(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                limit_unsent(stream, UNSENT_BYTES_MAX)
            }
            Self::Other(_) => Ok(()),
        }
    }

    /// Its two directions, for two halves of one task.
    pub(super) fn split(&mut self) -> (Source<'_>, Sink<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (source, sink) = stream.split();
                (Source::Tcp(source), Sink::Tcp(sink))
            }
            Self::Other(Duplex { source, sink }) => (Source::Other(source), Sink::Other(sink)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (mut source, _) = self.get_mut().split();
        Pin::new(&mut source).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (_, mut sink) = self.get_mut().split();
        Pin::new(&mut sink).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (_, mut sink) = self.get_mut().split();
        Pin::new(&mut sink).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (_, mut sink) = self.get_mut().split();
        Pin::new(&mut sink).poll_shutdown(context)
    }
}

/// The direction from the peer.
pub(super) enum Source<'a> {
    Tcp(ReadHalf<'a>),
    Other(&'a mut (dyn AsyncRead + Send + Unpin)),
}

impl AsyncRead for Source<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(source) => Pin::new(source).poll_read(context, buffer),
            Self::Other(source) => Pin::new(source).poll_read(context, buffer),
        }
    }
}

/// The direction to the peer.
pub(super) enum Sink<'a> {
    Tcp(WriteHalf<'a>),
    Other(&'a mut (dyn AsyncWrite + Send + Unpin)),
}

impl AsyncWrite for Sink<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(sink) => Pin::new(sink).poll_write(context, bytes),
            Self::Other(sink) => Pin::new(sink).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(sink) => Pin::new(sink).poll_flush(context),
            Self::Other(sink) => Pin::new(sink).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(sink) => Pin::new(sink).poll_shutdown(context),
            Self::Other(sink) => Pin::new(sink).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    /// A heartbeat waited behind as much of a value as the kernel had taken, megabytes.
    #[tokio::test]
    async fn a_connection_is_told_how_little_waits_in_the_kernel() {
        let mut listener = Net::Tcp.bind("127.0.0.1:0").await.unwrap();
        let near = Net::Tcp.connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        for stream in [near, far] {
            stream.hurry().unwrap();
            let Stream::Tcp(stream) = stream else { panic!("another network") };
            assert!(stream.nodelay().unwrap());
            assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
        }
    }
}
