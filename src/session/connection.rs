//! One client's socket: read what is there, do all of it, write all replies at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::batch::Batch;
use super::dispatch::{Scene, dispatch};
use super::limits::{
    BATCH_COMMANDS_MAX, BATCH_QUEUED_BYTES_MAX, BATCH_READY_BYTES_MAX, OUT_BYTES_KEPT_MAX,
    READ_BYTES, WRITE_TIMEOUT,
};
use super::state::{Fate, Session};
use crate::node::{Client, Node};
use crate::resp::{self, ErrorReply, RequestDecoder};

/// Serves one client until it leaves or is made to.
///
/// # Errors
/// When the socket breaks, or the client does not read its replies in time.
pub async fn serve(stream: TcpStream, node: Arc<Node>, client: Arc<Client>) -> io::Result<()> {
    let session = Session::new(node, client);
    Connection::new(stream, session).run().await
}

struct Connection {
    stream: TcpStream,
    session: Session,
    input: BytesMut,
    output: Vec<u8>,
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

impl Connection {
    fn new(stream: TcpStream, session: Session) -> Self {
        let decoder = RequestDecoder::new(limits(&session));
        Self {
            stream,
            session,
            input: BytesMut::new(),
            output: Vec::new(),
            batch: Batch::default(),
            decoder,
        }
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            let rest = self.take_requests();
            self.batch.finish(&mut self.session, &mut self.output).await;
            self.flush().await?;
            if rest == Rest::Garbage || self.session.fate == Fate::Close {
                return self.stream.shutdown().await;
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
        self.session.follow_topology();
        let scene = Scene::of(&self.session);
        self.session.client.touch(scene.clock);
        let mut consumed = 0;
        let mut outcome = Rest::More;
        while self.batch.len() < BATCH_COMMANDS_MAX
            && self.batch.ready.len() < BATCH_READY_BYTES_MAX
            && self.batch.queued_bytes() < BATCH_QUEUED_BYTES_MAX
            && self.session.fate == Fate::Stay
        {
            let rest = &self.input[consumed..];
            match self.decoder.decode(rest) {
                Ok(Some(decoded)) => {
                    consumed += decoded.consumed;
                    if decoded.arguments == 0 {
                        continue;
                    }
                    let authenticated = self.session.authenticated;
                    {
                        let argv: SmallVec<[&[u8]; 8]> = self.decoder.argv(rest).collect();
                        dispatch(&mut self.session, &mut self.batch, &scene, &argv);
                    }
                    if self.session.authenticated != authenticated {
                        self.decoder.set_limits(limits(&self.session));
                    }
                }
                Ok(None) => {
                    outcome = Rest::Incomplete;
                    break;
                }
                Err(error) => {
                    let error = resp::Reply::Error(ErrorReply::protocol_error(error));
                    resp::encode(&error, self.session.protocol, &mut self.batch.ready);
                    outcome = Rest::Garbage;
                    break;
                }
            }
        }
        self.input.advance(consumed);
        outcome
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        // Mostly the socket takes all at once; a timer is armed only for one that does not.
        let written = match self.stream.try_write(&self.output) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < self.output.len() {
            let rest = self.stream.write_all(&self.output[written..]);
            tokio::time::timeout(WRITE_TIMEOUT, rest).await??;
        }
        self.output.clear();
        self.output.shrink_to(OUT_BYTES_KEPT_MAX);
        Ok(())
    }

    /// Reads what the socket has; 0 when the client has left.
    async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(READ_BYTES.max(self.decoder.needed().min(READ_BYTES * 64)));
        match self.session.node.idle_timeout() {
            Duration::ZERO => self.stream.read_buf(&mut self.input).await,
            idle => match tokio::time::timeout(idle, self.stream.read_buf(&mut self.input)).await {
                Ok(read) => read,
                Err(_) => Ok(0),
            },
        }
    }
}

fn limits(session: &Session) -> resp::Limits {
    let limits = if session.authenticated {
        resp::Limits::AUTHENTICATED
    } else {
        resp::Limits::UNAUTHENTICATED
    };
    resp::Limits { bulk_bytes_max: session.bulk_bytes_max, ..limits }
}
