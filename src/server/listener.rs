//! Lets clients in: one listener per door, address and runtime.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::protection;
use crate::node::{Arrival, Node};
use crate::resp::{ErrorReply, Protocol, Reply, encode};
use crate::session::{self, Door, Socket};
use crate::stdx::log_limit::LogLimit;

/// Pause after the system refused a connection (no file descriptors, no memory): retrying at once would only
/// spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// That it did is logged at most once in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a port is one socket's, or shared by one socket of each runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The port is this socket's alone: a port that anybody listens on already is an error.
    Alone,
    /// The kernel spreads connections over the runtimes' sockets.
    AmongRuntimes,
}

/// Opens a listening socket on the current runtime.
pub(super) fn bind(address: SocketAddr, backlog: u32, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(sharing == Sharing::AmongRuntimes)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Accepts clients until the node stops. Each is served by a task of this runtime.
pub(super) async fn accept(listener: TcpListener, door: Door, node: Arc<Node>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = node.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, door, &node),
            Err(error) => pause(&error).await,
        }
    }
}

/// Pauses after the system refused a connection at any door, and says so now and then.
pub(super) async fn pause(error: &io::Error) {
    static COMPLAINTS: LogLimit = LogLimit::every(COMPLAINT_INTERVAL);
    if let Some(suppressed) = COMPLAINTS.permit() {
        tracing::warn!(%error, suppressed, "cannot accept a connection");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Lets one client in that came by TCP.
pub(super) fn admit(stream: TcpStream, peer: SocketAddr, door: Door, node: &Arc<Node>) {
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if let Err(error) = keep_alive(&stream, node.config().options().tcp_keepalive) {
        tracing::debug!(%error, "cannot set TCP keepalive");
    }
    let_in(stream, Ends { peer, local }, door, node);
}

/// The addresses of a connection's two ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Where the client is.
    pub peer: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
}

/// Lets one client in, whatever its socket: it is served by a task of this runtime, or turned away and told why.
pub fn let_in<S: Socket + 'static>(socket: S, ends: Ends, door: Door, node: &Arc<Node>) {
    let Ends { peer, local } = ends;
    let node = Arc::clone(node);
    let options = node.config().options();
    if protection::refuses(&options, peer.ip()) {
        node.clients().count_rejected();
        tokio::spawn(turn_away(socket, ErrorReply::PROTECTED_MODE));
        return;
    }
    let arrival = Arrival {
        peer,
        local,
        door,
        since: node.clock().monotonic(),
        is_stranger: options.requirepass.is_set(),
    };
    let Some(guard) = node.clients().enter(arrival, options.maxclients as usize) else {
        tokio::spawn(turn_away(socket, ErrorReply::MAX_CLIENTS));
        return;
    };
    let client = Arc::clone(&guard.client);
    let serving = tokio::spawn(async move {
        let client = Arc::clone(&guard.client);
        // Ends with the runtime when the node stops; watching for that would cost every command a poll.
        if let Err(error) = session::serve(socket, node, client).await {
            tracing::debug!(%peer, %error, "a client's connection broke");
        }
        drop(guard);
    });
    client.served_by(serving.abort_handle());
}

/// Lets the kernel find out after `idle` of silence that the client's machine is gone: it asks three times.
fn keep_alive(stream: &TcpStream, idle: Option<Duration>) -> io::Result<()> {
    const PROBES: u32 = 3;
    let Some(idle) = idle else { return Ok(()) };
    sockopt::set_socket_keepalive(stream, true)?;
    // The kernel takes less than nine hours, in whole seconds.
    let idle = idle.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, (idle / PROBES).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// Tells a client why it is not let in. That waits for nobody: a fresh connection takes as much at once.
pub(super) async fn turn_away(mut socket: impl Socket, why: ErrorReply) {
    let mut out = Vec::new();
    encode(&Reply::Error(why), Protocol::Resp2, &mut out);
    if let Err(error) = socket.write_all(&out).await {
        tracing::debug!(%error, "a client turned away did not wait for the reason");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::node::testing::TestNode;
    use crate::session::memory_socket::MemorySocket;

    /// What a client is told that comes from `peer` and says PING.
    async fn greet(node: &Arc<Node>, peer: [u8; 4]) -> String {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1, Sharing::Alone).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        admit(stream, SocketAddr::from((peer, 40_000)), Door::Plain, node);
        // Whoever is turned away may have no door to speak at any more.
        let _written = client.write_all(b"PING\r\nQUIT\r\n").await;
        let mut reply = Vec::new();
        let _read = client.read_to_end(&mut reply).await;
        String::from_utf8(reply).unwrap()
    }

    /// Faults, row D4.
    #[tokio::test(flavor = "current_thread")]
    async fn without_a_password_other_machines_are_denied() {
        let test = TestNode::start(&["--bind", "0.0.0.0"]).await;
        let node = &test.started.node;
        assert_eq!(greet(node, [127, 0, 0, 1]).await, "+PONG\r\n+OK\r\n");
        let denied = greet(node, [192, 0, 2, 1]).await;
        assert!(denied.starts_with("-DENIED ") && denied.ends_with("\r\n"), "{denied}");
        assert_eq!((node.clients().count(), node.clients().rejected()), (1, 1));
        node.set_config(&[(b"protected-mode", b"no")]).unwrap();
        assert_eq!(greet(node, [192, 0, 2, 1]).await, "+PONG\r\n+OK\r\n");
        node.set_config(&[(b"protected-mode", b"yes"), (b"requirepass", b"pw")]).unwrap();
        assert!(greet(node, [192, 0, 2, 1]).await.starts_with("-NOAUTH "));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_let_in_has_a_place_until_it_leaves() {
        // One is the test node's own.
        let test = TestNode::start(&["--maxclients", "2"]).await;
        let node = &test.started.node;
        let let_in = || {
            let (socket, client) = MemorySocket::pair(1024);
            let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
            let local = SocketAddr::from(([127, 0, 0, 1], 6379));
            super::let_in(socket, Ends { peer, local }, Door::Plain, node);
            client
        };
        for _ in 0..2 {
            let mut first = let_in();
            first.write_all(b"PING\r\n").await.unwrap();
            let mut pong = [0; 7];
            first.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong, *b"+PONG\r\n");
            let mut reply = String::new();
            let_in().read_to_string(&mut reply).await.unwrap();
            assert_eq!(reply, "-ERR max number of clients reached\r\n");
            first.write_all(b"QUIT\r\n").await.unwrap();
            assert_eq!(first.read_to_string(&mut reply).await.unwrap(), "+OK\r\n".len());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_kernel_takes_any_keepalive_that_the_configuration_does() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1, Sharing::Alone).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&stream, None).unwrap();
        assert!(!sockopt::socket_keepalive(&stream).unwrap());
        for seconds in [1, 300, 2_147_483_647] {
            keep_alive(&stream, Some(Duration::from_secs(seconds))).unwrap();
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            let idle = sockopt::tcp_keepidle(&stream).unwrap();
            assert_eq!(idle.as_secs(), seconds.min(32_767));
        }
    }
}
