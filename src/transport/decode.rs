//! Bytes of a socket → frames.
//!
//! Invariant: a body never shares memory with the socket buffer, and nothing is allocated because of a length that was
//! merely announced: memory grows with the bytes that have arrived.

use std::io;

use bytes::{BufMut, Bytes};
use crc32fast::Hasher;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::limits::{
    LARGE_BODY_GROWTH, LARGE_BODY_START_BYTES, READ_BUFFER_BYTES, SMALL_BODY_BYTES_MAX,
};
use super::wire::{FrameType, HEADER_BYTES, Header, Incoming, PART_PREFIX_BYTES, WireError};
use crate::stdx::codec::take_array;

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
    /// What has arrived of a message that comes in parts.
    parts: Option<Parts>,
    frame_bytes_max: usize,
}

/// A frame whose body has an allocation of its own, or becomes the end of what came of it in parts.
#[derive(Debug)]
struct LargeFrame {
    header: Header,
    body: Vec<u8>,
    /// How long the body is when this frame has arrived.
    end: usize,
    /// How long it is when all has that belongs to it.
    whole_bytes: usize,
    checksum: Hasher,
    expected: u32,
}

/// The beginning of a message.
#[derive(Debug)]
struct Parts {
    header: Header,
    body: Vec<u8>,
    whole_bytes: usize,
}

impl Decoder {
    /// A decoder that refuses messages longer than `frame_bytes_max`, header included.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(READ_BUFFER_BYTES),
            consumed: 0,
            large: None,
            parts: None,
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
        loop {
            if let Some(large) = self.large.take() {
                if large.body.len() < large.end {
                    self.large = Some(large);
                    return Ok(None);
                }
                if let Some(frame) = self.finish(large)? {
                    return Ok(Some(frame));
                }
            }
            let unread = &self.buffer[self.consumed..];
            let Some((header, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let mut incoming = Incoming::parse(header, self.frame_bytes_max)?;
            let is_part = incoming.header.frame_type == FrameType::Part;
            let is_end = self.parts.as_ref().is_some_and(|it| it.header.is_of(&incoming.header));
            if is_part && rest.len() < PART_PREFIX_BYTES.min(incoming.body_bytes) {
                return Ok(None);
            }
            if is_part || is_end || incoming.body_bytes > SMALL_BODY_BYTES_MAX {
                self.begin(incoming)?;
                continue;
            }
            let Some(body) = rest.get(..incoming.body_bytes) else { return Ok(None) };
            incoming.checksum.update(body);
            Incoming::verify(incoming.expected, incoming.checksum)?;
            let body = Bytes::copy_from_slice(body);
            self.consumed += HEADER_BYTES + body.len();
            return Ok(Some(Frame { header: incoming.header, body }));
        }
    }

    /// Begins a frame whose body is not copied out of the buffer, but for what has arrived of it.
    fn begin(&mut self, incoming: Incoming) -> Result<(), WireError> {
        let Incoming { header, mut body_bytes, mut checksum, expected } = incoming;
        let mut rest = &self.buffer[self.consumed + HEADER_BYTES..];
        let unread_bytes = rest.len();
        let is_part = header.frame_type == FrameType::Part;
        let mut announced = None;
        if is_part {
            let prefix: [u8; PART_PREFIX_BYTES] =
                take_array(&mut rest).map_err(|_| WireError::Part)?;
            body_bytes = body_bytes.checked_sub(PART_PREFIX_BYTES).ok_or(WireError::Part)?;
            checksum.update(&prefix);
            announced = usize::try_from(u32::from_le_bytes(prefix)).ok();
        }
        let of_it = self.parts.take_if(|parts| is_part || parts.header.is_of(&header));
        let (body, whole_bytes) = match of_it {
            Some(parts) if parts.header.is_of(&header) => (parts.body, parts.whole_bytes),
            // Another begins before this one has ended.
            Some(_) => return Err(WireError::Part),
            None => (Vec::new(), announced.unwrap_or(body_bytes)),
        };
        let end = body.len() + body_bytes;
        let fits = if is_part { end <= whole_bytes } else { end == whole_bytes };
        if !fits
            || announced.is_some_and(|bytes| bytes != whole_bytes)
            || whole_bytes.saturating_add(HEADER_BYTES) > self.frame_bytes_max
        {
            return Err(WireError::Part);
        }
        let mut large = LargeFrame { header, body, end, whole_bytes, checksum, expected };
        let arrived = &rest[..rest.len().min(body_bytes)];
        large.take(arrived);
        self.consumed += HEADER_BYTES + (unread_bytes - rest.len()) + arrived.len();
        self.large = Some(large);
        Ok(())
    }

    /// Ends a frame; `None` when it was a part.
    fn finish(&mut self, large: LargeFrame) -> Result<Option<Frame>, WireError> {
        let LargeFrame { header, body, whole_bytes, checksum, expected, .. } = large;
        Incoming::verify(expected, checksum)?;
        if header.frame_type == FrameType::Part {
            self.parts = Some(Parts { header, body, whole_bytes });
            return Ok(None);
        }
        Ok(Some(Frame { header, body: Bytes::from(body) }))
    }
}

impl LargeFrame {
    /// Makes room for more: [`LARGE_BODY_GROWTH`] times what the peer has really sent, but for the start.
    fn reserve(&mut self, at_least: usize) {
        let length = self.body.len();
        if self.body.capacity() - length < at_least {
            let more = (length + at_least).saturating_mul(LARGE_BODY_GROWTH);
            let more = more.max(LARGE_BODY_START_BYTES).min(self.whole_bytes);
            self.body.reserve_exact(more - length);
        }
    }

    fn take(&mut self, arrived: &[u8]) {
        self.reserve(arrived.len());
        self.body.extend_from_slice(arrived);
        self.checksum.update(arrived);
    }

    async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let before = self.body.len();
        self.reserve(1);
        let read = source.read_buf(&mut (&mut self.body).limit(self.end - before)).await?;
        self.checksum.update(&self.body[before..]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Kind;
    use super::super::testing::Random;
    use super::super::wire::{append_header, begin_frame, finish_frame};
    use super::*;
    use crate::ids::GroupId;

    fn encode(request: u64, body: &[u8]) -> Vec<u8> {
        let header =
            Header { frame_type: FrameType::Answer, kind: Kind(1), group: GroupId(2), request };
        let mut bytes = Vec::new();
        let start = begin_frame(&mut bytes);
        bytes.extend_from_slice(body);
        finish_frame(&mut bytes, start, &header);
        bytes
    }

    /// A part of a body of `whole_bytes`, or, without them, what is left of it.
    fn encode_part(request: u64, whole_bytes: Option<usize>, piece: &[u8]) -> Vec<u8> {
        let header =
            Header { frame_type: FrameType::Answer, kind: Kind(1), group: GroupId(2), request };
        let mut bytes = Vec::new();
        append_header(&mut bytes, &header, whole_bytes, &[Bytes::copy_from_slice(piece)]);
        bytes.extend_from_slice(piece);
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
        assert_eq!((large.end, large.body.len()), (1_000_000 - 18, 10));
        assert!(large.body.capacity() <= LARGE_BODY_START_BYTES);
    }

    #[tokio::test]
    async fn a_flipped_bit_in_a_long_body_is_noticed() {
        let mut frame = encode(1, &vec![0; 100_000]);
        frame[50_000] ^= 1;
        assert_eq!(decode(&frame, 4096).await, Err(WireError::Checksum));
    }

    #[tokio::test]
    async fn a_body_in_parts_lets_others_pass() {
        let body = Random(5).bytes(700_000);
        let pieces: Vec<&[u8]> = body.chunks(90_001).collect();
        let mut stream = Vec::new();
        for (number, piece) in (0u64..).zip(&pieces) {
            let whole = (piece.len() == 90_001).then_some(body.len());
            stream.extend(encode_part(77, whole, piece));
            stream.extend(encode(number, b"short"));
            stream.extend(encode(number, &body[..=SMALL_BODY_BYTES_MAX]));
        }
        for piece in [1, 25, 4096, 40_000, stream.len()] {
            let frames = decode(&stream, piece).await.unwrap();
            assert_eq!(frames.len(), 1 + 2 * pieces.len(), "pieces of {piece}");
            let (at, whole) =
                frames.iter().enumerate().find(|(_, it)| it.header.request == 77).unwrap();
            assert_eq!((at, &whole.body[..]), (2 * pieces.len() - 2, &body[..]));
        }
    }

    #[tokio::test]
    async fn parts_that_do_not_fit_are_refused() {
        let part = |request, whole| encode_part(request, Some(whole), &[7; 10]);
        let end = |request, bytes| encode_part(request, None, &vec![7; bytes]);
        let cases = [
            ("another message", [part(1, 30), part(2, 30)].concat()),
            ("another whole", [part(1, 30), part(1, 40)].concat()),
            ("more than the whole", [part(1, 30), part(1, 30), part(1, 30), part(1, 30)].concat()),
            ("an end too long", [part(1, 30), end(1, 21)].concat()),
            ("an end too short", [part(1, 30), end(1, 19)].concat()),
            ("above the limit", part(1, 1 << 20)),
            ("no length", {
                let header = Header {
                    frame_type: FrameType::Part,
                    kind: Kind(1),
                    group: GroupId(2),
                    request: 1,
                };
                let mut bytes = Vec::new();
                let start = begin_frame(&mut bytes);
                bytes.extend_from_slice(b"abc");
                finish_frame(&mut bytes, start, &header);
                bytes
            }),
        ];
        for (what, stream) in cases {
            for piece in [1, 4096] {
                assert_eq!(decode(&stream, piece).await, Err(WireError::Part), "{what}");
            }
        }
        assert_eq!(decode(&[part(1, 30), end(1, 20)].concat(), 4096).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_announced_whole_alone_allocates_almost_nothing() {
        let mut decoder = Decoder::new(1 << 30);
        let stream = encode_part(1, Some(1 << 29), &[7; 10]);
        decoder.fill(&mut &stream[..]).await.unwrap();
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.parts.unwrap().body.capacity() <= LARGE_BODY_START_BYTES);
    }

    #[tokio::test]
    async fn garbage_never_panics() {
        for seed in 0..500 {
            let mut random = Random(seed);
            let mut stream = encode(1, b"x");
            for _ in 0..4 {
                let size = random.below(200);
                let bytes = random.bytes(size);
                let whole = (seed % 2 == 0).then(|| size + random.below(300));
                let mut frame = match seed % 3 {
                    0 => encode(2, &bytes),
                    _ => encode_part(2, whole, &bytes),
                };
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
