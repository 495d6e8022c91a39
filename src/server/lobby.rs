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
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{listener, protection};
use crate::config::Options;
use crate::node::Progress;
use crate::resp::{ErrorReply, Limits, Protocol, Reply, RequestDecoder, encode};
use crate::session;

/// Clients that may wait at one time, at all doors together, if `maxclients` allows as many; more are turned away.
const WAITING_MAX: usize = 4096;

/// How long a client may be silent before it is let go, and how long it may take to read an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the door waits, once the node is ready, for those in the middle of a request; then they are cut.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes read from a client at a time.
const READ_BYTES: usize = 16 * 1024;

/// What all doors have in common while clients wait.
#[derive(Debug)]
pub(super) struct Lobby {
    progress: Arc<Progress>,
    /// Whether anybody may be told what is waited for, or only those who know a password, who cannot be told from others
    /// yet.
    is_open: bool,
    options: Arc<Options>,
    /// One for each client that waits: they take descriptors like any other.
    places: Semaphore,
}

impl Lobby {
    /// The lobby of a node that says in `progress` what it waits for.
    pub(super) fn new(options: Arc<Options>, progress: Arc<Progress>) -> Self {
        let is_open = !options.requirepass.is_set();
        let places = usize::try_from(options.maxclients).unwrap_or(usize::MAX).min(WAITING_MAX);
        Self { progress, is_open, options, places: Semaphore::new(places) }
    }

    /// Answers clients at `listener` until the node may serve; returns those who are still there.
    pub(super) async fn hold(
        self: &Arc<Self>,
        listener: &TcpListener,
    ) -> Vec<(TcpStream, SocketAddr)> {
        let mut waiting = JoinSet::new();
        let mut still_there = Vec::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.progress.finished() => break,
                Some(gone) = waiting.join_next(), if !waiting.is_empty() => {
                    // Whoever stays, stays until the node is ready; the others have left.
                    still_there.extend(gone.ok().flatten());
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => drop(waiting.spawn(Arc::clone(self).receive(stream, peer))),
                Err(error) => listener::pause(&error).await,
            }
        }
        // Who is in the middle of a request keeps nobody else waiting: the node serves.
        let rest = async {
            while let Some(ended) = waiting.join_next().await {
                still_there.extend(ended.ok().flatten());
            }
        };
        drop(timeout(FAREWELL, rest).await);
        still_there
    }

    /// Answers one client, if there is a place for it, until the node is ready; `None` once the client has left.
    async fn receive(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<(TcpStream, SocketAddr)> {
        if protection::refuses(&self.options, peer.ip()) {
            listener::turn_away(stream, ErrorReply::PROTECTED_MODE).await;
            return None;
        }
        let _place = self.places.try_acquire().ok()?;
        let stream = keep_company(stream, &self.progress, self.is_open).await?;
        Some((stream, peer))
    }
}

/// Answers one client until the node is ready, or the client leaves (`None`).
async fn keep_company(
    mut stream: TcpStream,
    progress: &Progress,
    is_open: bool,
) -> Option<TcpStream> {
    let mut decoder = RequestDecoder::new(Limits::UNAUTHENTICATED);
    let mut input = BytesMut::new();
    loop {
        // Only between two requests: what has arrived of one cannot be handed on.
        if input.is_empty() && progress.waits_for().is_none() {
            return Some(stream);
        }
        input.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            () = progress.finished(), if input.is_empty() => return Some(stream),
            read = timeout(PATIENCE, stream.read_buf(&mut input)) => read.ok()?.ok()?,
        };
        if read == 0 {
            return None;
        }
        let (out, end) = answers(&mut decoder, &mut input, progress, is_open);
        timeout(PATIENCE, stream.write_all(&out)).await.ok()?.ok()?;
        match end {
            End::Incomplete => {}
            End::Garbage => return None,
            End::Web => {
                session::report_web(stream.peer_addr().ok()?);
                return None;
            }
        }
    }
}

/// What follows the complete requests of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The beginning of another, or nothing.
    Incomplete,
    /// What is no request; the client has been told.
    Garbage,
    /// What a browser says: its body must not be let in afterwards.
    Web,
}

/// The answers to all complete requests of `input`, and what follows them.
fn answers(
    decoder: &mut RequestDecoder,
    input: &mut BytesMut,
    progress: &Progress,
    is_open: bool,
) -> (Vec<u8>, End) {
    let mut out = Vec::new();
    let reason = progress.waits_for().filter(|_| is_open);
    let error = reason.map_or(ErrorReply::LOADING, |reason| ErrorReply::loading(&reason));
    loop {
        match decoder.decode(input) {
            Ok(Some(request)) => {
                if request.arguments > 0 {
                    if decoder.argv(input).next().is_some_and(session::is_of_the_web) {
                        return (out, End::Web);
                    }
                    encode(&Reply::Error(error.clone()), Protocol::Resp2, &mut out);
                }
                input.advance(request.consumed);
            }
            Ok(None) => return (out, End::Incomplete),
            Err(error) => {
                encode(&Reply::Error(ErrorReply::protocol_error(error)), Protocol::Resp2, &mut out);
                return (out, End::Garbage);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::testing::options;

    fn lobby(flags: &[&str], progress: &Arc<Progress>) -> Arc<Lobby> {
        Arc::new(Lobby::new(options(flags), Arc::clone(progress)))
    }

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
            let lobby = lobby(&["--maxclients", "2"], &progress);
            tokio::spawn(async move { lobby.hold(&listener).await })
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        let reply = ask(&mut stream, b"*1\r\n$4\r\nPING\r\nGET k\r\n").await;
        assert_eq!(reply, "-LOADING starting\r\n-LOADING starting\r\n");
        let mut other = TcpStream::connect(address).await.unwrap();
        let reply = ask(&mut other, b"*1\r\n$999999999999\r\n").await;
        assert!(reply.starts_with("-ERR Protocol error"), "{reply}");
        let mut third = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut third, b"PING\r\n").await, "-LOADING starting\r\n");
        let mut fourth = TcpStream::connect(address).await.unwrap();
        assert_eq!(fourth.read(&mut [0]).await.unwrap(), 0, "there is no place for it");
        progress.finish();
        let still_there = held.await.unwrap();
        let peers: BTreeSet<SocketAddr> = still_there.iter().map(|(_, peer)| *peer).collect();
        assert_eq!(peers, [&stream, &third].map(|it| it.local_addr().unwrap()).into());
    }

    #[test]
    fn a_browser_is_not_let_in_afterwards() {
        for text in ["POST / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
            let mut input = BytesMut::from(text);
            let (out, end) = answers(&mut decoder, &mut input, &Progress::new(), true);
            assert_eq!((out.is_empty(), end), (text.starts_with("POST"), End::Web));
        }
    }

    #[test]
    fn whoever_might_not_know_the_password_learns_no_names() {
        let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
        let mut input = BytesMut::from("PING\r\n");
        let (out, _) = answers(&mut decoder, &mut input, &Progress::new(), false);
        assert_eq!(out, b"-LOADING Redis is loading the dataset in memory\r\n");
    }
}
