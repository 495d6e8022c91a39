//! The two halves of a live connection, the same for client and server: bytes in → frames, queue → bytes out.
//!
//! Both halves run in one task: what the reader's frames put into the queue is written in the same turn, and dropping
//! that one task ends everything. What may end the connection for other reasons, and seldom does, is asked by a task beside it
//! (`Warden`): in the task of the halves it would be asked at every message.

use std::future::{Future, pending};
use std::io;
use std::iter;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinHandle, unconstrained};

use super::decode::{Decoder, Frame};
use super::limits::READS_PER_TURN_MAX;
use super::outgoing::Burst;
use super::stats::Counters;
use super::wire::{HelloError, Refusal, WireError};

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("no hello in time")]
    HelloTimeout,
    #[error("bad hello")]
    Hello(#[source] HelloError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("closed by the peer")]
    Eof,
    #[error("socket failed")]
    Socket(#[source] io::Error),
    #[error("broken frame")]
    Frame(#[source] WireError),
    #[error("nothing received for {0:?}")]
    Silent(Duration),
    #[error("the peer does not read what it is sent")]
    Congested,
    #[error("too many connections")]
    TooMany,
    #[error("this node is another than it said")]
    Renamed,
    #[error("another peer is meant, or this one elsewhere")]
    Recalled,
    #[error("no address of the peer resolves")]
    NoAddress,
}

/// Counts reads, so that a timer can tell silence from life without anybody reading a clock per message.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Notices a pulse that has stopped.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pulse: &'a Pulse,
    last: u64,
    silent_checks: u32,
}

impl<'a> Watch<'a> {
    pub(super) const fn new(pulse: &'a Pulse) -> Self {
        Self { pulse, last: 0, silent_checks: 0 }
    }

    /// To be called at even intervals: how many checks in a row saw nothing arrive.
    ///
    /// Counting checks rather than time means that a machine that was paused does not blame its peers for it.
    pub(super) fn silent_checks(&mut self) -> u32 {
        let now = self.pulse.0.load(Ordering::Relaxed);
        self.silent_checks =
            if now == self.last { self.silent_checks.saturating_add(1) } else { 0 };
        self.last = now;
        self.silent_checks
    }
}

/// The task that watches over a connection, and knows when it is to end. It is to be stopped; dropped instead, it ends in a
/// moment.
#[derive(Debug)]
pub(super) struct Warden(Option<JoinHandle<Ended>>);

impl Warden {
    /// Has `watch` say when and why the connection ends.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn begin(watch: impl Future<Output = Ended> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(watch)))
    }

    /// Waits for the end. To be asked first in each turn: who is no longer welcome is not heard any more.
    pub(super) async fn end(&mut self) -> Ended {
        let Some(task) = &mut self.0 else { return pending().await };
        // What the halves have used up of the turn must not hide it.
        let ended = unconstrained(task).await;
        self.0 = None;
        match ended {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                // As if it had happened here.
                Ok(panic) => resume_unwind(panic),
                // Nobody aborts it but its owner, or a runtime that ends everything.
                Err(_) => pending().await,
            },
        }
    }

    /// Stops it, and waits until it has stopped: the next connection's shall not meet it.
    pub(super) async fn stop(mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            drop(task.await);
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// What a received frame, or the progress of one, means to this side.
pub(super) trait Receiver {
    /// Takes a whole frame.
    fn frame(&mut self, frame: Frame) -> Result<(), Ended>;
    /// `bytes` more have arrived, whole frames or not.
    fn progress(&mut self, bytes: usize);
}

/// Reads frames until the connection ends, and says why it did.
pub(super) async fn read_frames(
    mut source: impl AsyncRead + Unpin,
    mut decoder: Decoder,
    counters: &Counters,
    pulse: &Pulse,
    receiver: &mut impl Receiver,
) -> Ended {
    let mut reads = 0;
    loop {
        let read = match decoder.fill(&mut source).await {
            Ok(0) => return Ended::Eof,
            Ok(read) => read,
            Err(error) => return Ended::Socket(error),
        };
        pulse.beat();
        counters.reads.add(1);
        counters.bytes_received.add(read);
        if let Err(ended) = take_frames(&mut decoder, counters, receiver) {
            return ended;
        }
        receiver.progress(read);
        reads += 1;
        if reads % READS_PER_TURN_MAX == 0 {
            // Input that never pauses must not keep the writer of the same task from its turn.
            tokio::task::yield_now().await;
        }
    }
}

fn take_frames(
    decoder: &mut Decoder,
    counters: &Counters,
    receiver: &mut impl Receiver,
) -> Result<(), Ended> {
    let mut frames = 0;
    let result = loop {
        match decoder.next() {
            Ok(Some(frame)) => {
                frames += 1;
                if let Err(ended) = receiver.frame(frame) {
                    break Err(ended);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(Ended::Frame(error)),
        }
    };
    counters.frames_received.add(frames);
    if let Err(Ended::Frame(_)) = result {
        counters.broken_frames.add(1);
    }
    result
}

/// Writes whatever `poll_take` hands out, what is short of a burst in one write, until the queue is closed (false) or the socket fails.
pub(super) async fn write_bursts(
    mut sink: impl AsyncWrite + Unpin,
    counters: &Counters,
    mut poll_take: impl FnMut(&mut Context<'_>, &mut Burst) -> Poll<bool>,
) -> Ended {
    let mut burst = Burst::default();
    while std::future::poll_fn(|context| poll_take(context, &mut burst)).await {
        burst.seal();
        for bytes in iter::once(&burst.frames[..]).chain(burst.part.iter().map(|part| &part[..])) {
            if let Err(error) = write_all(&mut sink, counters, bytes).await {
                return Ended::Socket(error);
            }
        }
    }
    Ended::Congested
}

async fn write_all(
    sink: &mut (impl AsyncWrite + Unpin),
    counters: &Counters,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = sink.write(bytes).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        counters.writes.add(1);
        counters.bytes_sent.add(written);
        bytes = &bytes[written..];
    }
    Ok(())
}
