//! What a client or server has sent and received so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the client or server was created, over all of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Connections that passed the exchange of hellos.
    pub connections: u64,
    /// Connections refused because of the hello, by either side.
    pub refusals: u64,
    /// Connections closed because of bytes that are no frame.
    pub broken_frames: u64,
    /// Frames read whole.
    pub frames_received: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Reads of sockets that returned bytes.
    pub reads: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Writes to sockets.
    pub writes: u64,
    /// Calls answered with "not handled": counted by the server that sent and the client that received it.
    pub not_handled: u64,
}

/// The counters behind [`TransportStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: Counter,
    pub(super) refusals: Counter,
    pub(super) broken_frames: Counter,
    pub(super) frames_received: Counter,
    pub(super) bytes_received: Counter,
    pub(super) reads: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) writes: Counter,
    pub(super) not_handled: Counter,
}

impl Counters {
    pub(super) fn snapshot(&self) -> TransportStats {
        TransportStats {
            connections: self.connections.get(),
            refusals: self.refusals.get(),
            broken_frames: self.broken_frames.get(),
            frames_received: self.frames_received.get(),
            bytes_received: self.bytes_received.get(),
            reads: self.reads.get(),
            bytes_sent: self.bytes_sent.get(),
            writes: self.writes.get(),
            not_handled: self.not_handled.get(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
