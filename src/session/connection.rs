//! One client's socket: read what is there, do all of it, write all replies at once.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::batch::{Batch, Progress};
use super::dispatch::{Line, OnlyKey, Scene, dispatch, look_ahead};
use super::limits::{
    AUTH_TIMEOUT, BATCH_COMMANDS_MAX, BATCH_QUEUED_BYTES_MAX, BATCH_READY_BYTES_MAX,
    BYTES_KEPT_MAX, INPUT_GROWTH, READ_BYTES, RUNS_AT_ONCE_MAX, WRITE_TIMEOUT,
};
use super::socket::Socket;
use super::state::{ClientState, Verdict};
use crate::keyspace::KEYS_AHEAD_MAX;
use crate::node::{Client, Node};
use crate::resp::{self, ErrorReply, RequestDecoder};
use crate::stdx::rope::Rope;

/// Serves one client until it leaves or is made to.
///
/// # Errors
/// When the socket breaks, or the client does not read its replies in time.
pub async fn serve<S: Socket>(socket: S, node: Arc<Node>, client: Arc<Client>) -> io::Result<()> {
    let state = ClientState::new(node, client);
    Connection::new(socket, state).run().await
}

struct Connection<S> {
    socket: S,
    state: ClientState,
    input: BytesMut,
    /// The most bytes that there were in it since it was made.
    input_bytes_max: usize,
    output: Rope,
    batch: Batch,
    decoder: RequestDecoder,
}

/// Why no more requests were taken from the input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// No complete request is left in it.
    Incomplete,
    /// The batch is full, or the client is leaving.
    More,
    /// What is left is not RESP; the client has been told.
    Garbage,
}

/// The words of a request, the command's name first.
type Argv<'a> = SmallVec<[&'a [u8]; 8]>;

/// A request, and where in the input it ends.
struct Request<'a> {
    argv: Argv<'a>,
    /// What is known of its key.
    key: OnlyKey<'a>,
    end: usize,
}

/// Requests that are taken together.
type Requests<'a> = SmallVec<[Request<'a>; KEYS_AHEAD_MAX]>;

/// What follows the requests that were decoded.
enum Next {
    /// More of them, perhaps.
    Requests,
    /// One in plain text, from here on: its words are the decoder's own and stay there only until it goes on.
    Inline(usize),
    /// The beginning of one.
    Incomplete,
}

/// Whether the batch may take another request.
fn has_room(state: &ClientState, batch: &Batch) -> bool {
    batch.len() < BATCH_COMMANDS_MAX
        && batch.ready.len() < BATCH_READY_BYTES_MAX
        && batch.queued_bytes() < BATCH_QUEUED_BYTES_MAX
        && state.verdict == Verdict::Stay
}

/// Takes one request.
fn take(
    state: &mut ClientState,
    batch: &mut Batch,
    decoder: &mut RequestDecoder,
    scene: &Scene,
    line: &Line<'_>,
) {
    let authenticated = state.authenticated;
    dispatch(state, batch, scene, line);
    if state.authenticated != authenticated {
        decoder.set_limits(limits(state));
    }
}

impl<S: Socket> Connection<S> {
    fn new(socket: S, state: ClientState) -> Self {
        let decoder = RequestDecoder::new(limits(&state));
        Self {
            socket,
            state,
            input: BytesMut::new(),
            input_bytes_max: 0,
            output: Rope::new(),
            batch: Batch::default(),
            decoder,
        }
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            let rest = self.take_requests();
            if let Verdict::Pause(wait) = self.state.verdict {
                // Guesses come one after another, not as many as fit into a read.
                tokio::time::sleep(wait).await;
                self.state.verdict = Verdict::Stay;
                // Many guesses fit into one read: they must not last longer than its time.
                if patience(&self.state) == Some(Duration::ZERO) {
                    return Ok(());
                }
            }
            loop {
                let progress = self.batch.finish(&mut self.state, &mut self.output).await;
                self.flush().await?;
                if progress == Progress::Done {
                    break;
                }
            }
            if rest == Rest::Garbage || self.state.verdict == Verdict::Close {
                return self.socket.shutdown().await;
            }
            if rest == Rest::Incomplete && self.fill().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Takes complete requests from the input into the batch, within the batch's limits.
    fn take_requests(&mut self) -> Rest {
        if self.input.is_empty() {
            return Rest::Incomplete;
        }
        self.state.follow_topology();
        let scene = Scene::of(&self.state);
        self.state.client.touch(scene.clock);
        let mut consumed = 0;
        let mut rest = Rest::More;
        while rest == Rest::More && has_room(&self.state, &self.batch) {
            (consumed, rest) = self.take_some(&scene, consumed);
        }
        self.input.advance(consumed);
        rest
    }

    /// Takes the next request of the input from `from` on, or a few; returns where the next begins.
    fn take_some(&mut self, scene: &Scene, from: usize) -> (usize, Rest) {
        self.batch.bytes_ahead = self.input.len() - from;
        // Whoever is not authenticated yet has other limits after the next request than before it.
        if self.state.authenticated && self.state.node.looks_ahead() {
            self.take_together(scene, from)
        } else {
            self.take_one(scene, from)
        }
    }

    fn take_one(&mut self, scene: &Scene, from: usize) -> (usize, Rest) {
        let Self { state, batch, decoder, input, .. } = self;
        let bytes = &input[from..];
        let decoded = match decoder.decode(bytes) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return (from, Rest::Incomplete),
            Err(error) => return self.refuse(error, from),
        };
        let end = from + decoded.consumed;
        if decoded.arguments > 0 {
            let Some(ranges) = decoder.ranges() else { return self.take_inline(scene, from, end) };
            let argv: Argv<'_> = ranges.iter().map(|range| &bytes[range.clone()]).collect();
            take(state, batch, decoder, scene, &Line::from(&argv[..]));
        }
        (end, Rest::More)
    }

    /// A few at once, so that the keys that reads among them want are fetched together.
    fn take_together(&mut self, scene: &Scene, from: usize) -> (usize, Rest) {
        // In a block that ends, for to drop them by name is to move them before, all their room.
        let (end, outcome) = {
            let Self { state, batch, decoder, input, .. } = self;
            let mut requests = Requests::new();
            let mut end = from;
            let outcome = loop {
                if requests.len() == KEYS_AHEAD_MAX {
                    break Ok(Next::Requests);
                }
                let bytes = &input[end..];
                match decoder.decode(bytes) {
                    Ok(Some(decoded)) => {
                        let begin = end;
                        end += decoded.consumed;
                        if decoded.arguments == 0 {
                            continue;
                        }
                        let Some(ranges) = decoder.ranges() else { break Ok(Next::Inline(begin)) };
                        let argv = ranges.iter().map(|range| &bytes[range.clone()]).collect();
                        requests.push(Request { argv, key: OnlyKey::Unknown, end });
                    }
                    Ok(None) => break Ok(Next::Incomplete),
                    Err(error) => break Err(error),
                }
            };
            if requests.len() > 1 {
                let asked =
                    requests.iter_mut().map(|request| (&request.argv[..], &mut request.key));
                look_ahead(state, batch, scene, asked);
            }
            for request in &requests {
                let line = Line { argv: &request.argv, key: request.key };
                take(state, batch, decoder, scene, &line);
                if !has_room(state, batch) {
                    // The rest is decoded again, when there is room for it.
                    decoder.restart();
                    return (request.end, Rest::More);
                }
            }
            (end, outcome)
        };
        match outcome {
            Ok(Next::Requests) => (end, Rest::More),
            Ok(Next::Incomplete) => (end, Rest::Incomplete),
            Ok(Next::Inline(begin)) => self.take_inline(scene, begin, end),
            Err(error) => self.refuse(error, end),
        }
    }

    /// Takes the request in plain text at `begin` that was just decoded and ends at `end`.
    fn take_inline(&mut self, scene: &Scene, begin: usize, end: usize) -> (usize, Rest) {
        let Self { state, batch, decoder, input, .. } = self;
        let words: SmallVec<[Vec<u8>; 8]> =
            decoder.argv(&input[begin..]).map(<[u8]>::to_vec).collect();
        let argv: Argv<'_> = words.iter().map(Vec::as_slice).collect();
        take(state, batch, decoder, scene, &Line::from(&argv[..]));
        (end, Rest::More)
    }

    /// Says what is wrong with the bytes at `end`.
    fn refuse(&mut self, error: resp::ProtocolError, end: usize) -> (usize, Rest) {
        let error = resp::Reply::Error(ErrorReply::protocol_error(error));
        resp::encode(&error, self.state.protocol, &mut self.batch.ready);
        (end, Rest::Garbage)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        // Mostly the socket takes all at once; a timer is armed only for one that does not.
        let written = match try_write(&self.socket, &self.output, 0) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < self.output.len() {
            let rest = write_patiently(&self.socket, &self.output, written, WRITE_TIMEOUT);
            if self.state.must_authenticate() {
                // Reading slowly gains a stranger no time either.
                let left = time_left(&self.state);
                timeout(left, rest).await.map_err(io::Error::from).flatten()?;
            } else {
                rest.await?;
            }
        }
        self.output.clear();
        self.output.shrink_to(BYTES_KEPT_MAX);
        Ok(())
    }

    /// Reads what the socket has; 0 when the client has left.
    async fn fill(&mut self) -> io::Result<usize> {
        // Its capacity says nothing: what was consumed is still held.
        if self.input.is_empty() && std::mem::take(&mut self.input_bytes_max) > BYTES_KEPT_MAX {
            self.input = BytesMut::new();
        }
        // What has not arrived takes addresses alone, and what has is copied each time that there is no room for more.
        let more_max = (READ_BYTES * 64).max(self.input.len() * (INPUT_GROWTH - 1));
        self.input.reserve(READ_BYTES.max(self.decoder.needed().min(more_max)));
        let read = self.read().await?;
        self.input_bytes_max = self.input_bytes_max.max(self.input.len());
        Ok(read)
    }

    async fn read(&mut self) -> io::Result<usize> {
        let read = self.socket.read_buf(&mut self.input);
        match patience(&self.state) {
            None => read.await,
            // What has arrived is not even looked at: a stranger that never stops speaking gains no time.
            Some(Duration::ZERO) => Ok(0),
            Some(patience) => match timeout(patience, read).await {
                Ok(read) => read,
                Err(_) => Ok(0),
            },
        }
    }
}

/// How long the client may stay if it sends nothing; `None` for ever.
#[inline]
fn patience(state: &ClientState) -> Option<Duration> {
    let idle = state.node.idle_timeout();
    if !state.must_authenticate() {
        return idle;
    }
    let left = time_left(state);
    Some(idle.map_or(left, |idle| idle.min(left)))
}

/// How long a client that has not authenticated may stay.
fn time_left(state: &ClientState) -> Duration {
    let since = state.node.clock().monotonic().since(state.stranger_since);
    AUTH_TIMEOUT.saturating_sub(Duration::from_micros(since))
}

/// Writes what of `output` from `written` on the socket takes at once: also where much of it is lent, by one call.
#[inline]
fn try_write(socket: &impl Socket, output: &Rope, written: usize) -> io::Result<usize> {
    if let Some(together) = output.as_slice() {
        return socket.try_write(&together[written..]);
    }
    let runs = output.runs_from(written).take(RUNS_AT_ONCE_MAX).map(IoSlice::new);
    socket.try_write_vectored(&runs.collect::<SmallVec<[_; RUNS_AT_ONCE_MAX]>>())
}

/// Writes all of `output` but what is `written`, as long as the client reads some of it within `patience` each time: a slow
/// reader is no silent one.
async fn write_patiently(
    socket: &impl Socket,
    output: &Rope,
    mut written: usize,
    patience: Duration,
) -> io::Result<()> {
    while written < output.len() {
        let taken = match timeout(patience, socket.writable()).await {
            Ok(writable) => writable.and_then(|()| try_write(socket, output, written)),
            // Much must be read before the socket is writable again, and that may take longer than this.
            Err(too_long) => socket.send_now(output.run_at(written)).map_err(|_| too_long.into()),
        };
        match taken {
            Ok(taken) => written += taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn limits(state: &ClientState) -> resp::Limits {
    let limits = if state.authenticated {
        resp::Limits::AUTHENTICATED
    } else {
        resp::Limits::UNAUTHENTICATED
    };
    resp::Limits { bulk_bytes_max: state.bulk_bytes_max, ..limits }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rustix::net::sockopt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::node::testing::{TestNode, enter};
    use crate::session::Door;
    use crate::session::memory_socket::MemorySocket;
    use crate::stdx::codec::Sink;

    /// More than the buffers of both ends hold.
    const BYTES: usize = 24 * 1024 * 1024;

    /// As much, some of it lent.
    fn long_output() -> Rope {
        let mut output = Rope::new();
        output.put(b"$25165824\r\n");
        output.put_shared(&Bytes::from(vec![7; BYTES - 13]));
        output.put(b"\r\n");
        output
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, reader)
    }

    /// Faults, row D6: 30 MB at 300 KB/s, cut after a minute.
    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_goes_on_is_not_cut_however_long_it_takes() {
        const PATIENCE: Duration = Duration::from_millis(500);
        let (writer, mut reader) = pair().await;
        let started = tokio::time::Instant::now();
        let writing = tokio::spawn(async move {
            let written = write_patiently(&writer, &long_output(), 0, PATIENCE).await;
            (written, started.elapsed())
        });
        let mut piece = vec![0; 256 * 1024];
        for _ in 0..BYTES / piece.len() {
            reader.read_exact(&mut piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (written, took) = writing.await.unwrap();
        written.unwrap();
        assert!(took > PATIENCE, "longer than a silent client may: {took:?}");
    }

    /// The kernel calls a socket writable when a good part of its buffer is free, which takes this reader longer than its
    /// time, although it reads.
    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_makes_little_room_at_a_time_is_not_cut() {
        const PATIENCE: Duration = Duration::from_secs(1);
        const BUFFER: usize = 192 * 1024;
        let (writer, mut reader) = pair().await;
        sockopt::set_socket_send_buffer_size(&writer, BUFFER).unwrap();
        sockopt::set_socket_recv_buffer_size(&reader, BUFFER / 8).unwrap();
        let output = Rope::from(vec![7; 4 * BUFFER]);
        let length = output.len();
        let writing =
            tokio::spawn(async move { write_patiently(&writer, &output, 0, PATIENCE).await });
        let mut piece = vec![0; 8 * 1024];
        for _ in 0..length / piece.len() {
            reader.read_exact(&mut piece).await.unwrap();
            tokio::time::sleep(PATIENCE / 10).await;
        }
        writing.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_client_that_reads_nothing_more_is_cut() {
        let (writer, mut reader) = pair().await;
        let writing = tokio::spawn(async move {
            write_patiently(&writer, &long_output(), 0, Duration::from_millis(50)).await
        });
        reader.read_exact(&mut [0; 100]).await.unwrap();
        // Soon, too: a long patience would end it as well.
        let written = timeout(Duration::from_secs(20), writing).await.unwrap();
        assert_eq!(written.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// What a client that sends `requests` is told until it is let go, over a socket that holds so many `bytes`.
    async fn replies_to(requests: &str, bytes: usize) -> String {
        let test = TestNode::start(&[]).await;
        let guard = enter(&test.started.node, Door::Plain);
        let (socket, client) = MemorySocket::pair(bytes);
        let node = Arc::clone(&test.started.node);
        let serving = tokio::spawn(serve(socket, node, Arc::clone(&guard.client)));
        let (mut reader, mut writer) = tokio::io::split(client);
        let mut replies = String::new();
        let (written, read) = tokio::join!(
            writer.write_all(requests.as_bytes()),
            reader.read_to_string(&mut replies)
        );
        written.unwrap();
        read.unwrap();
        serving.await.unwrap().unwrap();
        replies
    }

    /// Long values between short replies, of which the socket takes a little at a time.
    #[tokio::test(flavor = "current_thread")]
    async fn what_is_lent_arrives_whole_and_in_order() {
        let value: String = ('a'..='z').cycle().take(100_000).collect();
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n{}", bulk(&value));
        let requests =
            format!("{set}ECHO a\r\nGET k\r\nMGET k x k\r\nGETRANGE k 1 -1\r\nECHO b\r\nQUIT\r\n");
        let replies = replies_to(&requests, 1000).await;
        let [value, rest] = [&value[..], &value[1..]].map(bulk);
        let (a, b) = (bulk("a"), bulk("b"));
        let expected = format!("+OK\r\n{a}{value}*3\r\n{value}$-1\r\n{value}{rest}{b}+OK\r\n");
        assert!(replies == expected);
    }

    /// Neither a request nor a reply fits into the socket: each is read and written in pieces.
    #[tokio::test(flavor = "current_thread")]
    async fn a_client_is_served_over_any_socket() {
        let word = "a".repeat(100);
        let requests = format!("ECHO {word}\r\nSET k {word}\r\nGET k\r\nQUIT\r\n");
        let replies = replies_to(&requests, 16).await;
        assert_eq!(replies, format!("$100\r\n{word}\r\n+OK\r\n$100\r\n{word}\r\n+OK\r\n"));
    }
}
