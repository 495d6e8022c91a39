//! A socket in memory, for tests.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::socket::Socket;

/// The node's end of a connection in memory. Writable is whatever has any room.
#[derive(Debug)]
pub(crate) struct MemorySocket {
    stream: Mutex<DuplexStream>,
}

impl MemorySocket {
    /// Both ends of a connection that holds `bytes_max` each way, the client's last.
    pub(crate) fn pair(bytes_max: usize) -> (Self, DuplexStream) {
        let (here, there) = tokio::io::duplex(bytes_max);
        (Self { stream: Mutex::new(here) }, there)
    }

    fn poll(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.lock().unwrap()).poll_write(context, bytes)
    }
}

impl Socket for MemorySocket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.poll(&mut Context::from_waker(Waker::noop()), bytes) {
            Poll::Ready(taken) => taken,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        // Even nothing is taken only when there is room.
        poll_fn(|context| self.poll(context, &[])).await.map(drop)
    }
}

impl AsyncRead for MemorySocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut().unwrap()).poll_read(context, buffer)
    }
}

impl AsyncWrite for MemorySocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut().unwrap()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut().unwrap()).poll_shutdown(context)
    }
}
