//! What clients meet while the node may not serve yet: doors that answer, and say what is waited for.
//!
//! Clients get `-LOADING` and the reason to whatever they ask, as from a Redis that loads its data, and are let in on
//! the same connection once the node is ready. So nobody hangs, and a client library's own waiting works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::node::Progress;
use crate::resp::{ErrorReply, Limits, Protocol, Reply, RequestDecoder, encode};

/// Clients that may wait at one door at once; more are turned away.
const WAITING_MAX: usize = 1024;

/// How long a client may be silent before it is let go, and how long it may take to read an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes read from a client at a time.
const READ_BYTES: usize = 16 * 1024;

/// Answers clients at `listener` until the node may serve; returns those who are still there. `is_open` says whether
/// anybody may be told what is waited for, or only those who know a password, who cannot be told from others yet.
pub(super) async fn hold(
    listener: &TcpListener,
    progress: &Arc<Progress>,
    is_open: bool,
) -> Vec<(TcpStream, SocketAddr)> {
    let mut waiting = JoinSet::new();
    let mut still_there = Vec::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = progress.finished() => break,
            Some(gone) = waiting.join_next(), if !waiting.is_empty() => {
                // Whoever stays, stays until the node is ready; the others have left.
                still_there.extend(gone.ok().flatten());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if waiting.len() < WAITING_MAX => {
                waiting.spawn(keep_company(stream, peer, Arc::clone(progress), is_open));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while let Some(ended) = waiting.join_next().await {
        still_there.extend(ended.ok().flatten());
    }
    still_there
}

/// Answers one client until the node is ready, or the client leaves (`None`).
async fn keep_company(
    mut stream: TcpStream,
    peer: SocketAddr,
    progress: Arc<Progress>,
    is_open: bool,
) -> Option<(TcpStream, SocketAddr)> {
    let mut decoder = RequestDecoder::new(Limits::UNAUTHENTICATED);
    let mut input = BytesMut::new();
    loop {
        // Only between two requests: what has arrived of one cannot be handed on.
        if input.is_empty() && progress.waits_for().is_none() {
            return Some((stream, peer));
        }
        input.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            () = progress.finished(), if input.is_empty() => return Some((stream, peer)),
            read = timeout(PATIENCE, stream.read_buf(&mut input)) => read.ok()?.ok()?,
        };
        if read == 0 {
            return None;
        }
        let (out, is_garbage) = answers(&mut decoder, &mut input, &progress, is_open);
        timeout(PATIENCE, stream.write_all(&out)).await.ok()?.ok()?;
        if is_garbage {
            return None;
        }
    }
}

/// The answers to all complete requests of `input`, and whether what follows is none.
fn answers(
    decoder: &mut RequestDecoder,
    input: &mut BytesMut,
    progress: &Progress,
    is_open: bool,
) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let reason = progress.waits_for().filter(|_| is_open);
    let error = reason.map_or(ErrorReply::LOADING, |reason| ErrorReply::loading(&reason));
    loop {
        match decoder.decode(input) {
            Ok(Some(request)) => {
                if request.arguments > 0 {
                    encode(&Reply::Error(error.clone()), Protocol::Resp2, &mut out);
                }
                input.advance(request.consumed);
            }
            Ok(None) => return (out, false),
            Err(error) => {
                encode(&Reply::Error(ErrorReply::protocol_error(error)), Protocol::Resp2, &mut out);
                return (out, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
        stream.write_all(request).await.unwrap();
        let mut reply = vec![0; 256];
        let read = stream.read(&mut reply).await.unwrap();
        String::from_utf8(reply[..read].to_vec()).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn clients_are_told_what_is_waited_for_and_let_in_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let progress = Arc::new(Progress::new());
        let held = {
            let progress = Arc::clone(&progress);
            tokio::spawn(async move { hold(&listener, &progress, true).await })
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        let reply = ask(&mut stream, b"*1\r\n$4\r\nPING\r\nGET k\r\n").await;
        assert_eq!(reply, "-LOADING starting\r\n-LOADING starting\r\n");
        let mut other = TcpStream::connect(address).await.unwrap();
        let reply = ask(&mut other, b"*1\r\n$999999999999\r\n").await;
        assert!(reply.starts_with("-ERR Protocol error"), "{reply}");
        progress.finish();
        let still_there = held.await.unwrap();
        assert_eq!(still_there.len(), 1);
        assert_eq!(still_there[0].1, stream.local_addr().unwrap());
    }

    #[test]
    fn whoever_might_not_know_the_password_learns_no_names() {
        let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
        let mut input = BytesMut::from("PING\r\n");
        let (out, _) = answers(&mut decoder, &mut input, &Progress::new(), false);
        assert_eq!(out, b"-LOADING Redis is loading the dataset in memory\r\n");
    }
}
