//! The bytes between two nodes: one hello each way, then frames. Little endian throughout.
//!
//! Frame (header of 22 bytes, then the body):
//!
//! | offset | bytes | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 4 | length | bytes after this field: 18 + body |
//! | 4 | 4 | crc32 | of bytes 0..4 and 8..end (IEEE polynomial) |
//! | 8 | 1 | version, type | high half: format version 1; low half: 0 request, 1 answer, 2 not handled, 3 ping, 4 pong |
//! | 9 | 1 | kind | the rooms above give it a meaning; an answer repeats the request's |
//! | 10 | 4 | group | the Raft group meant; an answer repeats the request's |
//! | 14 | 8 | request | chosen by the caller; an answer repeats it; 0 in pings and pongs |
//! | 22 | … | body | opaque here |
//!
//! Hello (36 bytes; the caller's comes first, the server's answers it):
//!
//! | offset | bytes | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | `KVPR` |
//! | 4 | 2 | version | of the protocol: 1 |
//! | 6 | 2 | status | 0 in the caller's hello and when accepted, else why not: see [`Refusal`] |
//! | 8 | 8 | from | the node that speaks |
//! | 16 | 8 | to | the node it means to speak to |
//! | 24 | 8 | cluster | the cluster's hash; 0 in a refusal, which must not teach it to a stranger |
//! | 32 | 4 | crc32 | of bytes 0..32 |
//!
//! A changed layout gets a new version number; the golden vectors below pin this one.

use crc32fast::Hasher;

use super::message::Kind;
use crate::ids::{GroupId, NodeId};

/// Bytes of a frame before its body.
pub(super) const HEADER_BYTES: usize = 22;

/// Bytes of the length field itself.
const LENGTH_BYTES: usize = 4;

/// Where the bytes that the checksum covers go on after the checksum.
const CHECKED_FROM: usize = 8;

/// Version of the frame layout, in the high half of byte 8.
const FRAME_VERSION: u8 = 1;

/// Bytes of a hello.
pub(super) const HELLO_BYTES: usize = 36;

/// Version of the protocol, exchanged in the hello.
pub(super) const PROTOCOL_VERSION: u16 = 1;

/// First bytes of a hello.
const MAGIC: [u8; 4] = *b"KVPR";

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameType {
    /// A call.
    Request,
    /// The answer to a call.
    Answer,
    /// The peer will not answer a call.
    NotHandled,
    /// Asks for a pong.
    Ping,
    /// Says that the peer is alive.
    Pong,
}

impl FrameType {
    const fn code(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Answer => 1,
            Self::NotHandled => 2,
            Self::Ping => 3,
            Self::Pong => 4,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Request),
            1 => Some(Self::Answer),
            2 => Some(Self::NotHandled),
            3 => Some(Self::Ping),
            4 => Some(Self::Pong),
            _ => None,
        }
    }
}

/// The envelope of a frame, without its length and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) frame_type: FrameType,
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) request: u64,
}

impl Header {
    /// The envelope of a ping or pong.
    pub(super) const fn control(frame_type: FrameType) -> Self {
        Self { frame_type, kind: Kind(0), group: GroupId(0), request: 0 }
    }

    /// The header bytes of a frame whose body has `body_bytes` bytes and the checksum state `body`.
    ///
    /// `None` when the length does not fit its field.
    fn encode(&self, body_bytes: usize, body: &Hasher) -> Option<[u8; HEADER_BYTES]> {
        let length = u32::try_from(body_bytes.checked_add(HEADER_BYTES - LENGTH_BYTES)?).ok()?;
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
        bytes[8] = (FRAME_VERSION << 4) | self.frame_type.code();
        bytes[9] = self.kind.0;
        bytes[10..14].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[14..22].copy_from_slice(&self.request.to_le_bytes());
        let mut checksum = header_checksum(&bytes);
        checksum.combine(body);
        bytes[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
        Some(bytes)
    }
}

/// Makes room for a header at the end of `buffer` and returns where it starts.
pub(super) fn begin_frame(buffer: &mut Vec<u8>) -> usize {
    let start = buffer.len();
    buffer.resize(start + HEADER_BYTES, 0);
    start
}

/// Fills in the header of the frame that starts at `start` and whose body is the rest of `buffer`.
///
/// Returns false, with the frame unfinished, when the length does not fit its field.
pub(super) fn finish_frame(buffer: &mut [u8], start: usize, header: &Header) -> bool {
    let body_start = start + HEADER_BYTES;
    let body = checksum_of(&buffer[body_start..]);
    let Some(bytes) = header.encode(buffer.len() - body_start, &body) else { return false };
    buffer[start..body_start].copy_from_slice(&bytes);
    true
}

/// Appends the header of a frame whose body is queued elsewhere. False when the length does not fit.
pub(super) fn append_header(
    buffer: &mut Vec<u8>,
    header: &Header,
    body_bytes: usize,
    body: &Hasher,
) -> bool {
    let Some(bytes) = header.encode(body_bytes, body) else { return false };
    buffer.extend_from_slice(&bytes);
    true
}

/// The checksum state after `bytes`.
pub(super) fn checksum_of(bytes: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher
}

fn header_checksum(header: &[u8; HEADER_BYTES]) -> Hasher {
    let mut hasher = checksum_of(&header[..LENGTH_BYTES]);
    hasher.update(&header[CHECKED_FROM..]);
    hasher
}

/// A header as it arrived: plausible, but believed only once the checksum over the body has matched.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) header: Header,
    /// Bytes of the body.
    pub(super) body_bytes: usize,
    /// Checksum state before the body.
    pub(super) checksum: Hasher,
    /// What the checksum must be after the body.
    pub(super) expected: u32,
}

impl Incoming {
    /// Reads a header and refuses lengths above `frame_bytes_max`.
    ///
    /// # Errors
    /// [`WireError`]: the stream is broken and its connection must be closed; nothing after it can be read.
    pub(super) fn parse(
        bytes: &[u8; HEADER_BYTES],
        frame_bytes_max: usize,
    ) -> Result<Self, WireError> {
        let mut fields = Fields(bytes);
        let length = fields.u32();
        let expected = fields.u32();
        let [version_and_type, kind] = fields.take();
        if version_and_type >> 4 != FRAME_VERSION {
            return Err(WireError::Version { found: version_and_type >> 4 });
        }
        let frame_type = FrameType::of_code(version_and_type & 0x0f)
            .ok_or(WireError::Type { found: version_and_type & 0x0f })?;
        let body_bytes = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_sub(HEADER_BYTES - LENGTH_BYTES))
            .filter(|body| body.checked_add(HEADER_BYTES).is_some_and(|all| all <= frame_bytes_max))
            .ok_or(WireError::Length { found: length })?;
        let header = Header {
            frame_type,
            kind: Kind(kind),
            group: GroupId(fields.u32()),
            request: fields.u64(),
        };
        Ok(Self { header, body_bytes, checksum: header_checksum(bytes), expected })
    }

    /// Whether `checksum`, this header's state continued over the whole body, is the one that was sent.
    pub(super) fn verify(expected: u32, checksum: Hasher) -> Result<(), WireError> {
        if checksum.finalize() == expected { Ok(()) } else { Err(WireError::Checksum) }
    }
}

/// Bytes that are no frame. Nothing after them can be trusted, so the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// The frame layout is of another version.
    #[error("frame of version {found}, expected {FRAME_VERSION}")]
    Version { found: u8 },
    /// The frame type is unknown, or not one that this side may receive.
    #[error("unexpected frame type {found}")]
    Type { found: u8 },
    /// The length is too small for a header or above the limit.
    #[error("impossible frame length {found}")]
    Length { found: u32 },
    /// The bytes changed on the way.
    #[error("checksum mismatch")]
    Checksum,
}

impl WireError {
    /// A valid frame of a type that only the other side may send.
    pub(super) const fn wrong_side(frame_type: FrameType) -> Self {
        Self::Type { found: frame_type.code() }
    }
}

/// Why a server refuses a connection; its number is the hello's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The two nodes speak different versions of the protocol (status 1).
    #[error("protocol version differs")]
    Version,
    /// The two nodes belong to different clusters or hold different secrets (status 2).
    #[error("cluster id or secret differs")]
    Cluster,
    /// The address belongs to another node than the caller means (status 3).
    #[error("the address belongs to another node")]
    Node,
}

impl Refusal {
    const fn status(refusal: Option<Self>) -> u16 {
        match refusal {
            None => 0,
            Some(Self::Version) => 1,
            Some(Self::Cluster) => 2,
            Some(Self::Node) => 3,
        }
    }
}

/// The first message of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) refusal: Option<Refusal>,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) cluster: u64,
}

/// Bytes that are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    /// Something else than a kvorum node speaks.
    #[error("not a kvorum peer")]
    Magic,
    /// The bytes changed on the way.
    #[error("checksum mismatch in the hello")]
    Checksum,
    /// A refusal this version does not know.
    #[error("refused with unknown status {0}")]
    Status(u16),
}

impl Hello {
    /// The hello's bytes.
    pub(super) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        bytes[6..8].copy_from_slice(&Refusal::status(self.refusal).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.from.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.to.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.cluster.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..32]);
        bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`HelloError`]: the other side is not a peer one could talk to.
    pub(super) fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, HelloError> {
        if bytes[0..4] != MAGIC {
            return Err(HelloError::Magic);
        }
        let mut fields = Fields(&bytes[4..]);
        let version = u16::from_le_bytes(fields.take());
        let status = u16::from_le_bytes(fields.take());
        let (from, to, cluster) = (NodeId(fields.u64()), NodeId(fields.u64()), fields.u64());
        if fields.u32() != crc32fast::hash(&bytes[..32]) {
            return Err(HelloError::Checksum);
        }
        let refusal = match status {
            0 => None,
            1 => Some(Refusal::Version),
            2 => Some(Refusal::Cluster),
            3 => Some(Refusal::Node),
            _ => return Err(HelloError::Status(status)),
        };
        Ok(Self { version, refusal, from, to, cluster })
    }
}

/// Reads fixed-size fields one after the other; the callers hold arrays long enough for all of them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) =
            self.0.split_first_chunk::<N>().expect("the array holds every field of its layout");
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        frame_type: FrameType::Request,
        kind: Kind(7),
        group: GroupId(0x0102_0304),
        request: 0x1112_1314_1516_1718,
    };

    fn frame(header: &Header, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"earlier".to_vec();
        let start = begin_frame(&mut bytes);
        bytes.extend_from_slice(body);
        assert!(finish_frame(&mut bytes, start, header));
        bytes.split_off(start)
    }

    fn parse(bytes: &[u8], max: usize) -> Result<Header, WireError> {
        let header: &[u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
        let mut incoming = Incoming::parse(header, max)?;
        incoming.checksum.update(&bytes[HEADER_BYTES..]);
        Incoming::verify(incoming.expected, incoming.checksum)?;
        Ok(incoming.header)
    }

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn golden_frame() {
        let bytes = frame(&HEADER, b"kvorum");
        assert_eq!(
            hex(&bytes),
            "1800000048a6c8671007040302011817161514131211\
             6b766f72756d"
        );
        assert_eq!(parse(&bytes, 1024), Ok(HEADER));
    }

    #[test]
    fn golden_hello() {
        let hello = Hello {
            version: 1,
            refusal: Some(Refusal::Node),
            from: NodeId(1),
            to: NodeId(2),
            cluster: 0xa1a2_a3a4_a5a6_a7a8,
        };
        assert_eq!(
            hex(&hello.encode()),
            "4b5650520100030001000000000000000200000000000000a8a7a6a5a4a3a2a1145d9f82"
        );
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn a_header_apart_from_its_body_is_the_same_frame() {
        let mut apart = Vec::new();
        assert!(append_header(&mut apart, &HEADER, 6, &checksum_of(b"kvorum")));
        apart.extend_from_slice(b"kvorum");
        assert_eq!(apart, frame(&HEADER, b"kvorum"));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let good = frame(&HEADER, b"kvorum");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, usize::MAX).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_hello_is_noticed() {
        let hello = Hello { version: 1, refusal: None, from: NodeId(1), to: NodeId(2), cluster: 3 };
        let good = hello.encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        let cases: &[(u32, usize, bool)] = &[
            (0, 1024, false),
            (17, 1024, false),
            (18, 1024, true),
            (1020, 1024, true),
            (1021, 1024, false),
            (u32::MAX, 1024, false),
        ];
        for &(length, max, is_accepted) in cases {
            let mut bytes: [u8; HEADER_BYTES] = frame(&HEADER, b"").try_into().unwrap();
            bytes[0..4].copy_from_slice(&length.to_le_bytes());
            let parsed = Incoming::parse(&bytes, max);
            assert_eq!(parsed.is_ok(), is_accepted, "length {length}: {parsed:?}");
        }
    }

    #[test]
    fn unknown_versions_and_types_are_refused() {
        for code in 0..=u8::MAX {
            let mut bytes: [u8; HEADER_BYTES] = frame(&HEADER, b"").try_into().unwrap();
            bytes[8] = code;
            let is_known = (0x10..=0x14).contains(&code);
            assert_eq!(Incoming::parse(&bytes, 1024).is_ok(), is_known, "byte {code:#04x}");
        }
    }
}
