//! What tokio does not ask of a socket.

use std::io;
use std::os::fd::AsFd;

use rustix::net::SendFlags;
use socket2::SockRef;

/// Sends what of `bytes` the kernel takes at once; how many bytes that were.
///
/// The kernel calls a socket writable when a third of its buffer is free. This asks for any room at all.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Has the kernel take no more of a TCP stream while `bytes` of it are not on their way yet.
///
/// Without a limit it takes megabytes from whoever writes faster than the link, and what is written next waits behind them.
///
/// # Errors
/// When the kernel refuses.
pub fn limit_unsent(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What the kernel takes of a stream whose reader is stuck.
    fn taken(unsent_bytes_max: Option<u32>) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_stuck, _) = listener.accept().unwrap();
        SockRef::from(&sender).set_send_buffer_size(4 << 20).unwrap();
        if let Some(bytes) = unsent_bytes_max {
            limit_unsent(&sender, bytes).unwrap();
        }
        sender.set_nonblocking(true).unwrap();
        let bytes = vec![7; 16 * 1024];
        std::iter::from_fn(|| send_now(&sender, &bytes).ok()).sum()
    }

    #[test]
    fn the_kernel_takes_no_more_than_it_is_told_to() {
        let [least, more, all] = [Some(16 << 10), Some(128 << 10), None].map(taken);
        assert!(least < more && more < all, "{least} {more} {all}");
    }

    #[test]
    fn room_is_found_once_the_peer_has_read_something() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let bytes = vec![7; 64 * 1024];
        let mut sent = 0;
        let full = loop {
            match send_now(&sender, &bytes) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        // The kernel's own transport is under way beside this thread: reading goes on until it has made room.
        let mut buffer = vec![0; 64 * 1024];
        while send_now(&sender, &bytes).is_err() {
            assert!(sent > 0, "all was read, and there is no room");
            sent = sent.saturating_sub(peer.read(&mut buffer).unwrap());
        }
    }
}
