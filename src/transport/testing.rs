//! What the tests of this room share.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::net::{Accept, Connecting, Duplex, Net, Network};

/// Seeded pseudo-random numbers (`SplitMix64`); equal seeds give equal tests.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Bytes on the way in one direction of a connection in memory.
const WINDOW_BYTES: usize = 64 * 1024;
/// Connections in memory that nobody has accepted yet.
const BACKLOG: usize = 16;

type Call = (Duplex, SocketAddr);

/// A network within this process. Its ports are below those that the machine gives out.
#[derive(Debug, Default)]
pub(super) struct MemoryNetwork(Mutex<BTreeMap<SocketAddr, mpsc::Sender<Call>>>);

impl Network for MemoryNetwork {
    fn resolve(&self, address: &str) -> Vec<SocketAddr> {
        address.parse().into_iter().collect()
    }

    fn connect(&self, to: SocketAddr) -> Connecting {
        let listener = self.0.lock().get(&to).cloned();
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let (near, far) = tokio::io::duplex(WINDOW_BYTES);
            let call = (connection(far), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            listener.ok_or_else(refused)?.send(call).await.map_err(|_| refused())?;
            Ok(connection(near))
        })
    }

    fn bind(&self, address: &str) -> io::Result<Box<dyn Accept>> {
        let mut address: SocketAddr = address.parse().unwrap();
        let mut listeners = self.0.lock();
        if address.port() == 0 {
            address.set_port(u16::try_from(listeners.len()).unwrap() + 1);
        }
        if listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, calls) = mpsc::channel(BACKLOG);
        listeners.insert(address, sender);
        Ok(Box::new(MemoryListener { address, calls }))
    }
}

fn connection(stream: DuplexStream) -> Duplex {
    let (source, sink) = tokio::io::split(stream);
    Duplex { source: Box::new(source), sink: Box::new(sink) }
}

struct MemoryListener {
    address: SocketAddr,
    calls: mpsc::Receiver<Call>,
}

impl Accept for MemoryListener {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Call>> {
        let call = ready!(self.calls.poll_recv(context));
        Poll::Ready(call.ok_or_else(|| io::ErrorKind::NetworkDown.into()))
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Every network there is; a test that fails shows over which.
pub(super) fn nets() -> impl Iterator<Item = Net> {
    let memory = Net::Other(Arc::new(MemoryNetwork::default()));
    [Net::Tcp, memory].into_iter().inspect(|net| eprintln!("over {net:?}"))
}
