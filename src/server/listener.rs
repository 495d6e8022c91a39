//! Lets clients in: one listener per door, address and runtime.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::node::Node;
use crate::resp::{ErrorReply, Protocol, Reply, encode};
use crate::session::{self, Door};

/// Pause after the system refused a connection (no file descriptors, no memory): retrying at once would only
/// spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens a listening socket that shares its port with those of the other runtimes.
pub(super) fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Accepts clients until the node stops. Each is served by a task of this runtime.
pub(super) async fn accept(listener: TcpListener, door: Door, node: Arc<Node>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = node.stopped() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, door, &node),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, door: Door, node: &Arc<Node>) {
    let node = Arc::clone(node);
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let max = node.config().options().maxclients as usize;
    let Some(guard) = node.clients().enter(peer, local, node.clock().now(), max) else {
        tokio::spawn(turn_away(stream));
        return;
    };
    tokio::spawn(async move {
        let client = Arc::clone(&guard.client);
        // Ends with the runtime when the node stops; watching for that would cost every command a poll.
        if let Err(error) = session::serve(stream, peer, door, node, client).await {
            tracing::debug!(%peer, %error, "a client's connection broke");
        }
        drop(guard);
    });
}

async fn turn_away(mut stream: TcpStream) {
    let mut out = Vec::new();
    encode(&Reply::Error(ErrorReply::MAX_CLIENTS), Protocol::Resp2, &mut out);
    if let Err(error) = stream.write_all(&out).await {
        tracing::debug!(%error, "a client turned away did not wait for the reason");
    }
}
