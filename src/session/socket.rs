//! What a client's connection asks of its socket: the machine's TCP stream, or one in memory.
//!
//! Dispatch is static: the connection over TCP is the code that it would be without this seam.

use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::stdx::socket;

/// Where a client's requests come from and its replies go.
pub trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Writes what of `bytes` it takes at once; how many bytes that were.
    ///
    /// # Errors
    /// `WouldBlock` when that is nothing; any other when it is broken.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// As [`Self::try_write`], of several runs of bytes, one behind the other.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    fn try_write_vectored(&self, runs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write(runs.first().map_or(&[], |run| run))
    }

    /// Resolves when it takes more or is broken, perhaps not before a good part of its buffer is free. It may be wrong:
    /// [`Self::try_write`] says.
    ///
    /// # Errors
    /// When it cannot be waited for.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Writes what of `bytes` there is any room for, also where it does not call itself writable yet.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }
}

impl Socket for TcpStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }

    fn try_write_vectored(&self, runs: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::try_write_vectored(self, runs)
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        Self::writable(self)
    }

    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send_now(self, bytes)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::session::memory_socket::MemorySocket;

    /// More than the buffers of both ends hold.
    const BYTES: usize = 16 * 1024 * 1024;

    /// Whichever way bytes are taken, they arrive once and in order; a full socket says so, and wakes who waits for room.
    async fn keeps_its_promises(socket: impl Socket, mut client: impl AsyncRead + Unpin) {
        let bytes: Vec<u8> = (0..251).cycle().take(BYTES).collect();
        let mut arrived = vec![0; BYTES];
        socket.writable().await.unwrap();
        let mut sent = 0;
        let full = loop {
            match socket.try_write(&bytes[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) => break error,
            }
            assert!(sent < BYTES, "it never is full");
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let read = client.read_exact(&mut arrived[..sent]);
        let (writable, read) = tokio::join!(socket.writable(), read);
        writable.unwrap();
        read.unwrap();
        let taken = socket.send_now(&bytes[sent..]).unwrap();
        assert!(taken > 0, "all was read");
        client.read_exact(&mut arrived[sent..sent + taken]).await.unwrap();
        sent += taken;
        socket.writable().await.unwrap();
        let runs = [&bytes[sent..sent + 30], &bytes[sent + 30..sent + 60]].map(IoSlice::new);
        let taken = socket.try_write_vectored(&runs).unwrap();
        assert!((1..=60).contains(&taken), "{taken} of two runs");
        client.read_exact(&mut arrived[sent..sent + taken]).await.unwrap();
        sent += taken;
        assert!(arrived[..sent] == bytes[..sent], "what arrived is not what was taken");
        drop(socket);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "more arrives than was taken");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tcp_keeps_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keeps_its_promises(listener.accept().await.unwrap().0, client).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn memory_keeps_them() {
        let (socket, client) = MemorySocket::pair(100);
        keeps_its_promises(socket, client).await;
    }
}
