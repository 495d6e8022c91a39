//! The queue of bytes waiting for a socket: everybody appends frames, the writer takes all of them at once.
//!
//! Two buffers are swapped back and forth, so a frame costs no allocation. Not a lock itself: its owner wraps it.

use std::mem;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use crc32fast::Hasher;

use super::error::TransportError;
use super::limits::{OUTGOING_KEPT_BYTES_MAX, QUEUED_WHOLE_BYTES_MIN};
use super::wire::{self, HEADER_BYTES, Header};

/// Bytes to be written in this order: those of `bytes` up to a body's position, then that body, and so on.
#[derive(Debug, Default)]
pub(super) struct Burst {
    pub(super) bytes: Vec<u8>,
    /// Long bodies, each with the position in `bytes` before which it belongs.
    pub(super) bodies: Vec<(usize, Bytes)>,
    bodies_bytes: usize,
}

impl Burst {
    fn len(&self) -> usize {
        self.bytes.len() + self.bodies_bytes
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(OUTGOING_KEPT_BYTES_MAX);
        self.bodies.clear();
        self.bodies_bytes = 0;
    }
}

/// A body on its way into the queue; its checksum is computed before any lock is taken.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Bytes,
    checksum: Option<Hasher>,
}

impl Body {
    pub(super) fn new(bytes: Bytes) -> Self {
        let checksum = (bytes.len() >= QUEUED_WHOLE_BYTES_MIN).then(|| wire::checksum_of(&bytes));
        Self { bytes, checksum }
    }
}

/// The outgoing side of one connection.
#[derive(Debug)]
pub(super) struct Outgoing {
    is_open: bool,
    waiting: Burst,
    /// Bytes the writer has taken and not yet handed to the system.
    writing_bytes: usize,
    bytes_max: usize,
    frame_bytes_max: usize,
    writer: Option<Waker>,
}

impl Outgoing {
    /// A closed queue; see [`open`](Self::open).
    pub(super) fn new(bytes_max: usize, frame_bytes_max: usize) -> Self {
        Self {
            is_open: false,
            waiting: Burst::default(),
            writing_bytes: 0,
            bytes_max,
            frame_bytes_max,
            writer: None,
        }
    }

    /// Starts to accept frames, for a new connection.
    pub(super) fn open(&mut self) {
        self.close();
        self.is_open = true;
    }

    /// Forgets everything queued and accepts nothing more. Returns the writer to be woken, if it waits.
    pub(super) fn close(&mut self) -> Option<Waker> {
        self.is_open = false;
        self.waiting.clear();
        self.writing_bytes = 0;
        self.writer.take()
    }

    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Queues a frame whose body `encode` appends. Returns the writer to be woken, after the lock is released.
    ///
    /// # Errors
    /// `NotConnected`, `Busy` or `TooLarge`; the queue is then as before.
    ///
    /// # Panics
    /// When `encode` removes bytes it did not append.
    pub(super) fn push_with(
        &mut self,
        header: &Header,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Option<Waker>, TransportError> {
        if !self.is_open {
            return Err(TransportError::NotConnected);
        }
        let queued_bytes = self.queued_bytes();
        if queued_bytes >= self.bytes_max {
            return Err(TransportError::Busy);
        }
        let start = wire::begin_frame(&mut self.waiting.bytes);
        encode(&mut self.waiting.bytes);
        assert!(self.waiting.bytes.len() >= start + HEADER_BYTES, "encoders only append");
        let frame_bytes = self.waiting.bytes.len() - start;
        let admitted = self.admit(queued_bytes, frame_bytes).and_then(|()| {
            let fits = wire::finish_frame(&mut self.waiting.bytes, start, header);
            if fits { Ok(()) } else { Err(TransportError::TooLarge) }
        });
        if let Err(error) = admitted {
            self.waiting.bytes.truncate(start);
            return Err(error);
        }
        Ok(self.writer.take())
    }

    /// Queues a frame with `body`; a long one is not copied. Returns the writer to be woken.
    ///
    /// # Errors
    /// As [`push_with`](Self::push_with).
    pub(super) fn push(
        &mut self,
        header: &Header,
        body: Body,
    ) -> Result<Option<Waker>, TransportError> {
        let Body { bytes, checksum: Some(checksum) } = body else {
            return self.push_with(header, |buffer| buffer.extend_from_slice(&body.bytes));
        };
        if !self.is_open {
            return Err(TransportError::NotConnected);
        }
        self.admit(self.queued_bytes(), bytes.len().saturating_add(HEADER_BYTES))?;
        if !wire::append_header(&mut self.waiting.bytes, header, bytes.len(), &checksum) {
            return Err(TransportError::TooLarge);
        }
        self.waiting.bodies_bytes += bytes.len();
        self.waiting.bodies.push((self.waiting.bytes.len(), bytes));
        Ok(self.writer.take())
    }

    /// Hands everything queued to the writer, by swapping with `burst`, which it has written.
    ///
    /// Ready(false) when the queue was closed.
    pub(super) fn poll_take(&mut self, context: &Context<'_>, burst: &mut Burst) -> Poll<bool> {
        if !self.is_open {
            return Poll::Ready(false);
        }
        burst.clear();
        mem::swap(&mut self.waiting, burst);
        self.writing_bytes = burst.len();
        if self.writing_bytes == 0 {
            self.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// Bytes waiting or being written.
    fn queued_bytes(&self) -> usize {
        self.waiting.len() + self.writing_bytes
    }

    /// A frame that finds the queue empty may be longer than the queue's limit: else it could never be sent.
    fn admit(&self, queued_bytes: usize, frame_bytes: usize) -> Result<(), TransportError> {
        if frame_bytes > self.frame_bytes_max {
            return Err(TransportError::TooLarge);
        }
        if queued_bytes > 0 && queued_bytes.saturating_add(frame_bytes) > self.bytes_max {
            return Err(TransportError::Busy);
        }
        Ok(())
    }
}
