//! The bytes between two nodes: one hello each way, then frames. Little endian throughout.
//!
//! Frame (header of 22 bytes, then the body):
//!
//! | offset | bytes | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 4 | length | bytes after this field: 18 + body |
//! | 4 | 4 | crc32 | of bytes 0..4 and 8..end (IEEE polynomial) |
//! | 8 | 1 | version, type | high half: format version 1; low half: 0 request, 1 answer, 2 not handled, 3 ping, 4 pong, 5 unavailable, 6 part |
//! | 9 | 1 | kind | the rooms above give it a meaning; an answer repeats the request's |
//! | 10 | 4 | group | the Raft group meant; an answer repeats the request's |
//! | 14 | 8 | request | chosen by the caller; an answer repeats it; 0 in pings and pongs |
//! | 22 | … | body | opaque here |
//!
//! A long body may come in several frames, between which are others: parts, each with the length of the whole (4 bytes)
//! before its bytes, and at last the frame itself, with the same kind, group and request and the rest of the body. One
//! body at a time comes so.
//!
//! Hello (the caller's comes first, the server's answers it; what follows them is in `handshake.rs`):
//!
//! | offset | bytes | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | `KVPR` |
//! | 4 | 2 | version | of the protocol: 5 |
//! | 6 | 2 | length | of the whole hello |
//! | 8 | 32 | nonce | drawn anew for every hello |
//! | 40 | 8 | cluster | the one the speaker belongs to; 0 for none |
//! | 48 | 16 | incarnation | its directory |
//! | 64 | 16 | session | its start: number, random bits |
//! | 80 | 8 | meant: node | whom the caller means; 0 in an answer |
//! | 88 | 16 | meant: incarnation | 0 for whoever has the name |
//! | 104 | … | name | the speaker's, UTF-8, at most 255 bytes |
//! | end − 4 | 4 | crc32 | of all before it |
//!
//! A changed layout gets a new version number, and a new type of frame one of the protocol, for whoever does not know it is not to
//! meet it; the golden vectors below pin these.

use bytes::Bytes;
use crc32fast::Hasher;

use super::identity::{Meant, PROOF_BYTES, PeerIdentity};
use super::message::Kind;
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId, Session};
use crate::stdx::codec::{put_u32, put_u64, put_u128, take_array};

/// Bytes of a frame before its body.
pub(super) const HEADER_BYTES: usize = 22;

/// Bytes of the length field itself.
const LENGTH_BYTES: usize = 4;

/// Where the bytes that the checksum covers go on after the checksum.
const CHECKED_FROM: usize = 8;

/// No frame is longer, header included: its length would not fit the field.
pub(super) const FRAME_BYTES_LIMIT: usize = u32::MAX as usize;

/// Bytes of a part before those of the body.
pub(super) const PART_PREFIX_BYTES: usize = 4;

/// Version of the frame layout, in the high half of byte 8.
const FRAME_VERSION: u8 = 1;

/// Bytes of a hello that say what it is and how long.
pub(super) const HELLO_PREFIX_BYTES: usize = 8;

/// Bytes of a hello before the name.
const HELLO_FIXED_BYTES: usize = 104;

/// Longest name of a node, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 4;

/// Bytes of the longest hello.
pub(super) const HELLO_BYTES_MAX: usize = HELLO_FIXED_BYTES + NAME_BYTES_MAX + CHECKSUM_BYTES;

/// Version of the protocol, exchanged in the hello.
pub(super) const PROTOCOL_VERSION: u16 = 5;

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
    /// The peer has nobody here to handle a call; the body is one byte, the reason.
    Unavailable,
    /// A part of the body of a frame that follows.
    Part,
}

impl FrameType {
    const fn code(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Answer => 1,
            Self::NotHandled => 2,
            Self::Ping => 3,
            Self::Pong => 4,
            Self::Unavailable => 5,
            Self::Part => 6,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Request),
            1 => Some(Self::Answer),
            2 => Some(Self::NotHandled),
            3 => Some(Self::Ping),
            4 => Some(Self::Pong),
            5 => Some(Self::Unavailable),
            6 => Some(Self::Part),
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

    /// The group in which it must not overtake, nor be overtaken by, what was sent before; `None` for what may. Answers find
    /// their calls by number.
    pub(super) fn order(&self) -> Option<GroupId> {
        let keeps = self.frame_type == FrameType::Request && !self.kind.may_overtake();
        keeps.then_some(self.group)
    }

    /// Whether it is not to be refused because of what is long and waits: a sign of life, or what elections hang on.
    pub(super) fn is_urgent(&self) -> bool {
        match self.frame_type {
            FrameType::Ping | FrameType::Pong => true,
            FrameType::Request => self.kind.is_urgent(),
            FrameType::Answer
            | FrameType::NotHandled
            | FrameType::Unavailable
            | FrameType::Part => false,
        }
    }

    /// Whether both are of one message.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (self.kind, self.group, self.request) == (other.kind, other.group, other.request)
    }

    /// The header bytes of a frame whose body has `body_bytes` bytes, and which `add_body` adds to a checksum.
    ///
    /// # Panics
    /// Beyond [`FRAME_BYTES_LIMIT`].
    fn encode(&self, body_bytes: usize, add_body: impl FnOnce(&mut Hasher)) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&length_field(HEADER_BYTES - LENGTH_BYTES + body_bytes));
        bytes[8] = (FRAME_VERSION << 4) | self.frame_type.code();
        bytes[9] = self.kind.0;
        bytes[10..14].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[14..22].copy_from_slice(&self.request.to_le_bytes());
        let mut checksum = header_checksum(&bytes);
        add_body(&mut checksum);
        bytes[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
        bytes
    }
}

fn length_field(bytes: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(bytes).expect("frames are held below FRAME_BYTES_LIMIT").to_le_bytes()
}

/// Makes room for a header at the end of `buffer` and returns where it starts.
pub(super) fn begin_frame(buffer: &mut Vec<u8>) -> usize {
    let start = buffer.len();
    buffer.resize(start + HEADER_BYTES, 0);
    start
}

/// Fills in the header of the frame that starts at `start` and whose body is the rest of `buffer`.
///
/// # Panics
/// Beyond [`FRAME_BYTES_LIMIT`].
pub(super) fn finish_frame(buffer: &mut [u8], start: usize, header: &Header) {
    let (head, body) = buffer[start..].split_at_mut(HEADER_BYTES);
    // Not a checksum of its own for the body, to be combined with the header's: that costs what 500 bytes do.
    head.copy_from_slice(&header.encode(body.len(), |checksum| checksum.update(body)));
}

/// Appends all of a frame but the bytes of its body, which are those of `body`. They are a part of `whole_bytes`, or all that
/// is left of its message.
///
/// # Panics
/// Beyond [`FRAME_BYTES_LIMIT`].
pub(super) fn append_header(
    buffer: &mut Vec<u8>,
    header: &Header,
    whole_bytes: Option<usize>,
    body: &[Bytes],
) {
    let prefix = whole_bytes.map(length_field);
    let prefix = prefix.as_ref().map_or(&[][..], |bytes| bytes);
    let frame_type = if whole_bytes.is_some() { FrameType::Part } else { header.frame_type };
    let body_bytes = prefix.len() + body.iter().map(Bytes::len).sum::<usize>();
    let bytes = Header { frame_type, ..*header }.encode(body_bytes, |checksum| {
        checksum.update(prefix);
        for piece in body {
            checksum.update(piece);
        }
    });
    buffer.extend_from_slice(&bytes);
    buffer.extend_from_slice(prefix);
}

fn header_checksum(header: &[u8; HEADER_BYTES]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&header[..LENGTH_BYTES]);
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
    /// A part of another message than the one that is arriving, or more or less than its whole.
    #[error("a part that does not fit")]
    Part,
}

impl WireError {
    /// A valid frame of a type that only the other side may send.
    pub(super) const fn wrong_side(frame_type: FrameType) -> Self {
        Self::Type { found: frame_type.code() }
    }
}

/// Why a connection is refused, by either side; its number is what travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The two nodes speak different versions of the protocol (status 1).
    #[error("protocol version differs")]
    Version,
    /// The two nodes belong to different clusters (status 2).
    #[error("it belongs to another cluster, or to one with other cluster-nodes")]
    OtherCluster,
    /// The address belongs to another node, or to another directory of it, than the caller means (status 3).
    #[error("the address belongs to another node than the one meant")]
    NotMeant,
    /// The node that is refused was replaced and has no part in the cluster any more (status 4).
    #[error("the cluster has replaced this node: empty its directory, or remove it")]
    Gone,
    /// The node that is refused runs from a copy, or from an old backup, of a directory in use (status 5).
    #[error("its directory is a copy, or an old backup, of one that the cluster knows: empty it")]
    Copy,
    /// One of the two could not prove to hold the other's secret (status 6).
    #[error("cluster-secret differs: give every node the same")]
    Secret,
}

impl Refusal {
    pub(super) const fn status(refusal: Option<Self>) -> u16 {
        match refusal {
            None => 0,
            Some(Self::Version) => 1,
            Some(Self::OtherCluster) => 2,
            Some(Self::NotMeant) => 3,
            Some(Self::Gone) => 4,
            Some(Self::Copy) => 5,
            Some(Self::Secret) => 6,
        }
    }

    /// What `status` says.
    ///
    /// # Errors
    /// [`HelloError::Status`] when nobody knows.
    pub(super) const fn of_status(status: u16) -> Result<Option<Self>, HelloError> {
        match status {
            0 => Ok(None),
            1 => Ok(Some(Self::Version)),
            2 => Ok(Some(Self::OtherCluster)),
            3 => Ok(Some(Self::NotMeant)),
            4 => Ok(Some(Self::Gone)),
            5 => Ok(Some(Self::Copy)),
            6 => Ok(Some(Self::Secret)),
            _ => Err(HelloError::Status(status)),
        }
    }
}

/// The first message of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) nonce: [u8; PROOF_BYTES],
    pub(super) identity: PeerIdentity,
    pub(super) meant: Meant,
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
    /// Too short or too long for a hello.
    #[error("impossible length of a hello: {0}")]
    Length(usize),
    /// The name is no text.
    #[error("the hello's name is no UTF-8")]
    Name,
    /// A refusal this version does not know.
    #[error("refused with unknown status {0}")]
    Status(u16),
}

/// How long the hello is that begins with `prefix`; `None` when it is of another version and may have any layout.
///
/// # Errors
/// [`HelloError`]: the other side is not a peer one could talk to.
pub(super) fn hello_length(prefix: [u8; HELLO_PREFIX_BYTES]) -> Result<Option<usize>, HelloError> {
    let mut fields = Fields(&prefix);
    if fields.take() != MAGIC {
        return Err(HelloError::Magic);
    }
    if u16::from_le_bytes(fields.take()) != PROTOCOL_VERSION {
        return Ok(None);
    }
    let length = usize::from(u16::from_le_bytes(fields.take()));
    let lengths = HELLO_FIXED_BYTES + CHECKSUM_BYTES..=HELLO_BYTES_MAX;
    if lengths.contains(&length) { Ok(Some(length)) } else { Err(HelloError::Length(length)) }
}

impl Hello {
    /// The hello's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { nonce, identity, meant } = self;
        let mut name = identity.name.len().min(NAME_BYTES_MAX);
        while !identity.name.is_char_boundary(name) {
            name -= 1;
        }
        let length = u16::try_from(HELLO_FIXED_BYTES + name + CHECKSUM_BYTES);
        let mut bytes = Vec::with_capacity(HELLO_BYTES_MAX);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes.extend_from_slice(&length.unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(nonce);
        put_u64(&mut bytes, identity.cluster.0);
        put_u128(&mut bytes, identity.incarnation.0);
        put_u64(&mut bytes, identity.session.number);
        put_u64(&mut bytes, identity.session.random);
        put_u64(&mut bytes, meant.node.0);
        put_u128(&mut bytes, meant.incarnation.0);
        bytes.extend_from_slice(&identity.name.as_bytes()[..name]);
        let checksum = crc32fast::hash(&bytes);
        put_u32(&mut bytes, checksum);
        bytes
    }

    /// Reads a hello of this version.
    ///
    /// # Errors
    /// [`HelloError`]: the other side is not a peer one could talk to.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let wrong_length = HelloError::Length(bytes.len());
        let (content, checksum) = bytes.split_last_chunk().ok_or(wrong_length)?;
        let (fixed, name) = content.split_first_chunk::<HELLO_FIXED_BYTES>().ok_or(wrong_length)?;
        let mut fields = Fields(fixed);
        let prefix = fields.take::<HELLO_PREFIX_BYTES>();
        if hello_length(prefix)? != Some(bytes.len()) {
            return Err(wrong_length);
        }
        if u32::from_le_bytes(*checksum) != crc32fast::hash(content) {
            return Err(HelloError::Checksum);
        }
        let nonce = fields.take();
        let cluster = ClusterId(fields.u64());
        let incarnation = Incarnation(fields.u128());
        let session = Session { number: fields.u64(), random: fields.u64() };
        let meant = Meant { node: NodeId(fields.u64()), incarnation: Incarnation(fields.u128()) };
        let name = std::str::from_utf8(name).map_err(|_| HelloError::Name)?;
        let identity = PeerIdentity::new(cluster, name, incarnation, session);
        Ok(Self { nonce, identity, meant })
    }
}

/// Reads fixed-size fields one after the other; the callers hold arrays long enough for all of them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        take_array(&mut self.0).expect("the array holds every field of its layout")
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Random;
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
        finish_frame(&mut bytes, start, header);
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

    fn hello() -> Hello {
        let session = Session { number: 7, random: 0x7172_7374_7576_7778 };
        let cluster = ClusterId(0xa1a2_a3a4_a5a6_a7a8);
        Hello {
            nonce: [0x5a; PROOF_BYTES],
            identity: PeerIdentity::new(cluster, "n1", Incarnation(0x1234), session),
            meant: Meant { node: NodeId(2), incarnation: Incarnation(0x5678) },
        }
    }

    #[test]
    fn golden_hello() {
        assert_eq!(
            hex(&hello().encode()),
            "4b56505205006e005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\
             a8a7a6a5a4a3a2a13412000000000000000000000000000007000000000000007877767574737271\
             0200000000000000785600000000000000000000000000006e31c9a0e027"
        );
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn hostile_hellos_are_refused() {
        let mut random = Random(11);
        for _ in 0..8_000 {
            let mut bytes = hello().encode();
            match random.below(3) {
                0 => bytes.truncate(random.below(bytes.len())),
                1 => {
                    let more = 1 + random.below(400);
                    bytes.extend(random.bytes(more));
                }
                _ => {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 + u8::try_from(random.below(255)).unwrap();
                }
            }
            assert!(Hello::decode(&bytes).is_err(), "{bytes:?}");
        }
        let mut nameless = hello();
        nameless.identity.name = "ü".repeat(200);
        let cut = Hello::decode(&nameless.encode()).unwrap();
        assert_eq!(cut.identity.name, "ü".repeat(127));
    }

    #[test]
    fn a_header_apart_from_its_body_is_the_same_frame() {
        let mut apart = Vec::new();
        append_header(&mut apart, &HEADER, None, &["kvo".into(), "rum".into()]);
        apart.extend_from_slice(b"kvorum");
        assert_eq!(apart, frame(&HEADER, b"kvorum"));
    }

    #[test]
    fn golden_part() {
        let mut bytes = Vec::new();
        append_header(&mut bytes, &HEADER, Some(700_000), &["kvorum".into()]);
        bytes.extend_from_slice(b"kvorum");
        assert_eq!(
            hex(&bytes),
            "1c000000cbf85a0b1607040302011817161514131211\
             60ae0a006b766f72756d"
        );
        let part = Header { frame_type: FrameType::Part, ..HEADER };
        assert_eq!(parse(&bytes, 1024), Ok(part));
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
        let good = hello().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
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
            let is_known = (0x10..=0x16).contains(&code);
            assert_eq!(Incoming::parse(&bytes, 1024).is_ok(), is_known, "byte {code:#04x}");
        }
    }
}
