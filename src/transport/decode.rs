//! Bytes of a socket → frames.
//!
//! Invariant: a body never shares memory with the socket buffer, and nothing is allocated because of a length that was
//! merely announced: memory grows with the bytes that have arrived.

use std::io;

use bytes::{BufMut, Bytes};
use crc32fast::Hasher;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::limits::{LARGE_BODY_START_BYTES, READ_BUFFER_BYTES, SMALL_BODY_BYTES_MAX};
use super::wire::{HEADER_BYTES, Header, Incoming, WireError};

/// A whole frame whose checksum matched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) body: Bytes,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(super) struct Decoder {
    /// What was read and not yet understood starts at `consumed`.
    buffer: Vec<u8>,
    consumed: usize,
    /// A long frame of which the body is still arriving; the buffer is empty meanwhile.
    large: Option<LargeFrame>,
    frame_bytes_max: usize,
}

/// A frame whose body has an allocation of its own.
#[derive(Debug)]
struct LargeFrame {
    header: Header,
    body: Vec<u8>,
    body_bytes: usize,
    checksum: Hasher,
    expected: u32,
}

impl Decoder {
    /// A decoder that refuses frames longer than `frame_bytes_max`, header included.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(READ_BUFFER_BYTES),
            consumed: 0,
            large: None,
            frame_bytes_max,
        }
    }

    /// Reads once from `source`; 0 means that the other side has closed.
    ///
    /// Call [`next`](Self::next) until it returns `None` before reading again.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) async fn fill(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<usize> {
        if let Some(large) = &mut self.large {
            return large.fill(source).await;
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        source.read_buf(&mut self.buffer).await
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`]: close the connection.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        if self.large.is_some() {
            return self.finish_large();
        }
        let unread = &self.buffer[self.consumed..];
        let Some((header, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let mut incoming = Incoming::parse(header, self.frame_bytes_max)?;
        if incoming.body_bytes > SMALL_BODY_BYTES_MAX {
            let arrived = rest.len().min(incoming.body_bytes);
            self.large = Some(LargeFrame::start(incoming, &rest[..arrived]));
            self.consumed += HEADER_BYTES + arrived;
            return self.finish_large();
        }
        let Some(body) = rest.get(..incoming.body_bytes) else { return Ok(None) };
        incoming.checksum.update(body);
        Incoming::verify(incoming.expected, incoming.checksum)?;
        let body = Bytes::copy_from_slice(body);
        self.consumed += HEADER_BYTES + body.len();
        Ok(Some(Frame { header: incoming.header, body }))
    }

    fn finish_large(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(large) = self.large.take_if(|large| large.body.len() == large.body_bytes) else {
            return Ok(None);
        };
        Incoming::verify(large.expected, large.checksum)?;
        Ok(Some(Frame { header: large.header, body: Bytes::from(large.body) }))
    }
}

impl LargeFrame {
    fn start(incoming: Incoming, arrived: &[u8]) -> Self {
        let Incoming { header, body_bytes, mut checksum, expected } = incoming;
        let capacity = body_bytes.min(arrived.len().max(LARGE_BODY_START_BYTES));
        let mut body = Vec::with_capacity(capacity);
        body.extend_from_slice(arrived);
        checksum.update(arrived);
        Self { header, body, body_bytes, checksum, expected }
    }

    async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let before = self.body.len();
        let missing = self.body_bytes - before;
        if before == self.body.capacity() {
            // Doubling: what is allocated is at most twice what the peer has really sent.
            self.body.reserve_exact(missing.min(before));
        }
        let read = source.read_buf(&mut (&mut self.body).limit(missing)).await?;
        self.checksum.update(&self.body[before..]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Kind;
    use super::super::testing::Random;
    use super::super::wire::{FrameType, begin_frame, finish_frame};
    use super::*;
    use crate::ids::GroupId;

    fn encode(request: u64, body: &[u8]) -> Vec<u8> {
        let header =
            Header { frame_type: FrameType::Answer, kind: Kind(1), group: GroupId(2), request };
        let mut bytes = Vec::new();
        let start = begin_frame(&mut bytes);
        bytes.extend_from_slice(body);
        assert!(finish_frame(&mut bytes, start, &header));
        bytes
    }

    /// Feeds `stream` in pieces of at most `piece` bytes.
    async fn decode(stream: &[u8], piece: usize) -> Result<Vec<Frame>, WireError> {
        let mut decoder = Decoder::new(1 << 20);
        let mut frames = Vec::new();
        for mut piece in stream.chunks(piece) {
            while !piece.is_empty() {
                decoder.fill(&mut piece).await.unwrap();
                while let Some(frame) = decoder.next()? {
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn frames_survive_any_cutting_of_the_stream() {
        let sizes =
            [0, 1, 21, 1000, SMALL_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX + 1, 300_000, 0, 700_000];
        let mut random = Random(7);
        let bodies: Vec<Vec<u8>> = sizes.iter().map(|&size| random.bytes(size)).collect();
        let stream: Vec<u8> =
            (0u64..).zip(&bodies).flat_map(|(id, body)| encode(id, body)).collect();
        for piece in [1, 7, 22, 4096, 40_000, stream.len()] {
            let frames = decode(&stream, piece).await.unwrap();
            assert_eq!(frames.len(), bodies.len(), "pieces of {piece}");
            for (frame, (id, body)) in frames.iter().zip((0u64..).zip(&bodies)) {
                assert_eq!((frame.header.request, &frame.body[..]), (id, &body[..]));
            }
        }
    }

    #[tokio::test]
    async fn an_announced_length_alone_allocates_almost_nothing() {
        let mut frame = encode(1, &vec![0; 40_000]);
        frame.truncate(HEADER_BYTES + 10);
        frame[0..4].copy_from_slice(&1_000_000u32.to_le_bytes());
        let mut decoder = Decoder::new(1 << 20);
        decoder.fill(&mut &frame[..]).await.unwrap();
        assert_eq!(decoder.next(), Ok(None));
        let large = decoder.large.as_ref().unwrap();
        assert_eq!((large.body_bytes, large.body.len()), (1_000_000 - 18, 10));
        assert!(large.body.capacity() <= LARGE_BODY_START_BYTES);
    }

    #[tokio::test]
    async fn a_flipped_bit_in_a_long_body_is_noticed() {
        let mut frame = encode(1, &vec![0; 100_000]);
        frame[50_000] ^= 1;
        assert_eq!(decode(&frame, 4096).await, Err(WireError::Checksum));
    }

    #[tokio::test]
    async fn garbage_never_panics() {
        for seed in 0..500 {
            let mut random = Random(seed);
            let mut stream = encode(1, b"x");
            for _ in 0..4 {
                let size = random.below(200);
                let mut frame = encode(2, &random.bytes(size));
                for _ in 0..random.below(3) {
                    let at = random.below(frame.len());
                    frame[at] = frame[at].wrapping_add(1);
                }
                stream.extend_from_slice(&frame);
            }
            let size = random.below(100);
            stream.extend_from_slice(&random.bytes(size));
            // Whatever follows, the undamaged first frame comes out, or the stream is refused as a whole.
            if let Ok(frames) = decode(&stream, 1 + random.below(64)).await {
                assert_eq!(frames[0].body, &b"x"[..], "seed {seed}");
            }
        }
    }
}
