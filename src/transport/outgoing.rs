//! The queue of bytes waiting for a socket: everybody appends frames, the writer takes what is short all at once, and of
//! what is long a part.
//!
//! Short frames share two buffers that are swapped back and forth, so one costs no allocation. Long messages wait apart, one
//! behind the other; with every burst leaves a part of the first. So what is short waits for no more than that, be a long one of
//! hundreds of MiB on its way, and what is long has half of the connection at least. But calls to one group leave in the order
//! in which they were made: what is short waits too behind a long one of its own group, unless it may overtake
//! ([`Header::order`]).
//!
//! Not a lock itself: its owner wraps it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::body::Body;
use super::error::TransportError;
use super::limits::{LONG_BYTES_MIN, OUTGOING_KEPT_BYTES_MAX, PART_BYTES};
use super::wire::{self, HEADER_BYTES, Header, PART_PREFIX_BYTES};
use crate::ids::GroupId;

/// What is written next: whole frames, and then one with a part of a long body.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// Whole frames; [`Self::seal`] appends the last one's header.
    pub(super) frames: Vec<u8>,
    /// The body of the last one.
    pub(super) part: Vec<Bytes>,
    part_bytes: usize,
    unsealed: Option<Unsealed>,
}

/// A frame without its header, whose checksum takes as long as its body is long.
#[derive(Debug)]
struct Unsealed {
    header: Header,
    /// Of how many bytes its body is a part; `None` when no more follow.
    whole_bytes: Option<usize>,
}

impl Burst {
    fn len(&self) -> usize {
        let header_bytes =
            if self.unsealed.is_some() { HEADER_BYTES + PART_PREFIX_BYTES } else { 0 };
        self.frames.len() + header_bytes + self.part_bytes
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.frames.shrink_to(OUTGOING_KEPT_BYTES_MAX);
        self.part.clear();
        self.part_bytes = 0;
        self.unsealed = None;
    }

    /// Completes it: to be called before it is written, where nobody waits.
    pub(super) fn seal(&mut self) {
        if let Some(Unsealed { header, whole_bytes }) = self.unsealed.take() {
            wire::append_header(&mut self.frames, &header, whole_bytes, &self.part);
        }
    }
}

/// A long message, or one that waits behind one.
#[derive(Debug)]
struct Long {
    header: Header,
    whole_bytes: usize,
    /// What was not taken yet.
    rest: Body,
}

/// The outgoing side of one connection.
#[derive(Debug)]
pub(super) struct Outgoing {
    is_open: bool,
    /// Short frames.
    short: Vec<u8>,
    long: VecDeque<Long>,
    /// Bytes of all in `long`.
    long_bytes: usize,
    /// How many in `long` keep the order of each group.
    ordered: BTreeMap<GroupId, usize>,
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
            short: Vec::new(),
            long: VecDeque::new(),
            long_bytes: 0,
            ordered: BTreeMap::new(),
            writing_bytes: 0,
            bytes_max,
            frame_bytes_max: frame_bytes_max.min(wire::FRAME_BYTES_LIMIT),
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
        self.short = Vec::new();
        self.long = VecDeque::new();
        self.long_bytes = 0;
        self.ordered.clear();
        self.writing_bytes = 0;
        self.writer.take()
    }

    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Queues a frame whose body, which is to be short, `encode` appends. Returns the writer to be woken, after the lock is released.
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
        let queued_bytes = if header.is_urgent() { self.short.len() } else { self.queued_bytes() };
        if queued_bytes >= self.bytes_max {
            return Err(TransportError::Busy);
        }
        let start = wire::begin_frame(&mut self.short);
        encode(&mut self.short);
        assert!(self.short.len() >= start + HEADER_BYTES, "encoders only append");
        let frame_bytes = self.short.len() - start;
        if let Err(error) = self.admit(queued_bytes, frame_bytes) {
            self.short.truncate(start);
            return Err(error);
        }
        if frame_bytes >= HEADER_BYTES + LONG_BYTES_MIN || self.must_follow(header) {
            let body = self.short[start + HEADER_BYTES..].to_vec();
            self.short.truncate(start);
            self.push_long(header, body.into());
        } else {
            wire::finish_frame(&mut self.short, start, header);
        }
        Ok(self.writer.take())
    }

    /// Queues a frame with `body`, of which nothing is copied if it is long. Returns the writer to be woken.
    ///
    /// # Errors
    /// As [`push_with`](Self::push_with).
    pub(super) fn push(
        &mut self,
        header: &Header,
        body: Body,
    ) -> Result<Option<Waker>, TransportError> {
        if body.len() < LONG_BYTES_MIN {
            return self.push_with(header, |buffer| body.copy_to(buffer));
        }
        if !self.is_open {
            return Err(TransportError::NotConnected);
        }
        self.admit(self.queued_bytes(), body.len().saturating_add(HEADER_BYTES))?;
        self.push_long(header, body);
        Ok(self.writer.take())
    }

    fn push_long(&mut self, header: &Header, rest: Body) {
        let whole_bytes = rest.len();
        self.long_bytes += HEADER_BYTES + whole_bytes;
        if let Some(group) = header.order() {
            *self.ordered.entry(group).or_default() += 1;
        }
        self.long.push_back(Long { header: *header, whole_bytes, rest });
    }

    /// Whether a short frame would overtake a long one whose order it must keep.
    fn must_follow(&self, header: &Header) -> bool {
        !self.ordered.is_empty()
            && header.order().is_some_and(|group| self.ordered.contains_key(&group))
    }

    /// Hands all that is short and a part of what is long to the writer, in place of what `burst` held, which it has
    /// written. The writer is to seal it.
    ///
    /// Ready(false) when the queue was closed.
    pub(super) fn poll_take(&mut self, context: &Context<'_>, burst: &mut Burst) -> Poll<bool> {
        if !self.is_open {
            return Poll::Ready(false);
        }
        burst.clear();
        mem::swap(&mut self.short, &mut burst.frames);
        self.take_part(burst);
        self.writing_bytes = burst.len();
        if self.writing_bytes == 0 {
            self.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// What waits behind a long message, though it is short, leaves as if it had not; then a part of the next that is long.
    fn take_part(&mut self, burst: &mut Burst) {
        let bytes_max = PART_BYTES.max(burst.frames.len());
        while let Some(Long { header, whole_bytes, rest }) = self.long.front_mut() {
            let (header, is_short) = (*header, *whole_bytes < LONG_BYTES_MIN);
            if is_short {
                if burst.frames.len() > bytes_max {
                    return;
                }
                let start = wire::begin_frame(&mut burst.frames);
                rest.copy_to(&mut burst.frames);
                wire::finish_frame(&mut burst.frames, start, &header);
                self.long_bytes -= rest.len();
            } else {
                burst.part_bytes = rest.take(bytes_max, &mut burst.part);
                self.long_bytes -= burst.part_bytes;
                let whole_bytes = (!rest.is_empty()).then_some(*whole_bytes);
                burst.unsealed = Some(Unsealed { header, whole_bytes });
                if whole_bytes.is_some() {
                    return;
                }
            }
            self.pop_long(&header);
            if !is_short {
                return;
            }
        }
    }

    fn pop_long(&mut self, header: &Header) {
        self.long.pop_front();
        self.long_bytes -= HEADER_BYTES;
        if let Some(group) = header.order()
            && let Some(count) = self.ordered.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                self.ordered.remove(&group);
            }
        }
    }

    /// Bytes waiting or being written.
    const fn queued_bytes(&self) -> usize {
        self.short.len() + self.long_bytes + self.writing_bytes
    }

    /// A frame that finds the queue empty may be longer than the queue's limit: else it could never be sent.
    const fn admit(&self, queued_bytes: usize, frame_bytes: usize) -> Result<(), TransportError> {
        if frame_bytes > self.frame_bytes_max {
            return Err(TransportError::TooLarge);
        }
        if queued_bytes > 0 && queued_bytes.saturating_add(frame_bytes) > self.bytes_max {
            return Err(TransportError::Busy);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::super::message::Kind;
    use super::super::wire::FrameType;
    use super::*;

    const GROUP: GroupId = GroupId(5);

    fn header(kind: Kind, group: GroupId) -> Header {
        Header { frame_type: FrameType::Request, kind, group, request: 1 }
    }

    fn entries() -> Header {
        header(kinds::raft::APPEND_ENTRIES, GROUP)
    }

    fn open(bytes_max: usize) -> Outgoing {
        let mut outgoing = Outgoing::new(bytes_max, 1 << 30);
        outgoing.open();
        outgoing
    }

    /// Takes a burst; `None` when there is nothing.
    fn take(outgoing: &mut Outgoing) -> Option<Burst> {
        let mut burst = Burst::default();
        let context = Context::from_waker(Waker::noop());
        let taken = outgoing.poll_take(&context, &mut burst);
        burst.seal();
        assert_ne!(taken, Poll::Ready(false), "it is open");
        taken.is_ready().then_some(burst)
    }

    /// A follower that catches up kept the connection busy with what is short; nothing long got through in its time.
    #[test]
    fn what_is_long_has_half_of_the_connection() {
        let mut outgoing = open(1 << 30);
        let other = header(kinds::raft::APPEND_ENTRIES, GroupId(6));
        outgoing.push(&other, Body::from(vec![1; 16 << 20])).unwrap();
        let (mut short, mut long) = (0, 0);
        while outgoing.long_bytes > 0 {
            for _ in 0..100 {
                outgoing
                    .push_with(&entries(), |out| out.resize(out.len() + LONG_BYTES_MIN - 1, 2))
                    .unwrap();
            }
            let burst = take(&mut outgoing).unwrap();
            short += burst.frames.len();
            long += burst.part_bytes;
        }
        assert_eq!(long, 16 << 20);
        assert!(short < 2 * long, "{short} bytes of short ones beside {long}");
    }

    #[test]
    fn what_is_encoded_in_place_and_long_waits_apart_too() {
        let mut outgoing = open(1 << 30);
        outgoing.push_with(&entries(), |out| out.resize(out.len() + LONG_BYTES_MIN, 2)).unwrap();
        outgoing.push_with(&header(kinds::raft::VOTE, GROUP), |out| out.push(3)).unwrap();
        let burst = take(&mut outgoing).unwrap();
        assert_eq!(burst.frames.len(), 2 * HEADER_BYTES + 1);
        assert_eq!(burst.frames[HEADER_BYTES], 3, "the vote goes first");
        assert_eq!(burst.part_bytes, LONG_BYTES_MIN);
        assert!(take(&mut outgoing).is_none());
    }

    /// With 512 MiB on its way a leader could not beat its heart: the queue was full.
    #[test]
    fn what_elections_hang_on_is_not_refused_for_what_is_long() {
        let mut outgoing = open(1000);
        outgoing.push(&entries(), Body::from(vec![1; 1 << 20])).unwrap();
        let refused = outgoing.push_with(&entries(), |_| ());
        assert!(matches!(refused, Err(TransportError::Busy)));
        for urgent in [
            header(kinds::raft::HEARTBEAT, GROUP),
            header(kinds::raft::VOTE, GROUP),
            header(kinds::raft::PRE_VOTE, GROUP),
            Header::control(FrameType::Ping),
            Header::control(FrameType::Pong),
        ] {
            assert!(outgoing.push_with(&urgent, |_| ()).is_ok(), "{urgent:?}");
        }
        let heartbeat = header(kinds::raft::HEARTBEAT, GROUP);
        let fit = (0..1000).take_while(|_| outgoing.push_with(&heartbeat, |_| ()).is_ok()).count();
        assert!(fit < 1000, "what waits is bounded");
    }

    /// Each was a burst of its own.
    #[test]
    fn what_waited_behind_a_long_one_leaves_together() {
        let mut outgoing = open(1 << 30);
        outgoing.push(&entries(), Body::from(vec![1; LONG_BYTES_MIN])).unwrap();
        for number in 0..100 {
            outgoing.push_with(&entries(), |out| out.push(number)).unwrap();
        }
        let first = take(&mut outgoing).unwrap();
        assert_eq!((first.part_bytes, first.frames.len()), (LONG_BYTES_MIN, HEADER_BYTES));
        let second = take(&mut outgoing).unwrap();
        assert_eq!(second.frames.len(), 100 * (HEADER_BYTES + 1));
        assert!(take(&mut outgoing).is_none());
        assert_eq!((outgoing.long_bytes, outgoing.ordered.len()), (0, 0));
    }
}
