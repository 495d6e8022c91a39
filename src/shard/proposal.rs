//! What a shard's log holds: the bytes of a proposal, hand-coded, versioned, with argv kept as argv.
//!
//! ```text
//! proposal   version u8 = 3 | kind u8 | now u64 (Unix ms) | seed u64 | body        little endian
//! kind 1     packets: count u32, then each packet:
//!            incarnation u128 | session number u64, random u64 | sequence u64 | floor u64 | commands u32 |
//!            length u32 | commands
//! command    flags u8 (bit 0: the client speaks RESP3; bit 1: a submission begins) | db u8 | argc varint |
//!            argc × (length varint | bytes)
//! kind 2     purge: keys u32, then each key: db u8 | length varint | bytes
//! kind 3     close: directories u32, then each: incarnation u128 | number u64 of the last session that has ended
//! ```
//! Kinds and layouts are append-only: a log written by one version is read by the next. Commands carry their
//! words, not numbers, so new commands never change the format. What a replica does not know stops it ([`UnknownProposal`]);
//! so what is new here is proposed only once the cluster's level says that every member knows it.

use std::hash::{Hash, Hasher};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use crate::ids::{DbIndex, Incarnation, Session};
use crate::resp::Protocol;
use crate::stdx::clock::UnixMillis;
use crate::stdx::codec::{self, CodecError};

const VERSION: u8 = 3;
const KIND_PACKETS: u8 = 1;
const KIND_PURGE: u8 = 2;
const KIND_CLOSE: u8 = 3;
const PREFIX_BYTES: usize = 1 + 1 + 8 + 8;

/// Bytes of a packet's header inside an entry and on the wire.
pub(super) const PACKET_HEADER_BYTES: usize = 16 + 16 + 8 + 8 + 4 + 4;

/// Room to leave in front of a packet's commands so that an entry of this one packet needs no copy.
pub(super) const HEADROOM: usize = PREFIX_BYTES + 4 + PACKET_HEADER_BYTES;

/// Flags of a command.
const FLAG_RESP3: u8 = 1;
const FLAG_BEGINS: u8 = 2;

/// Characters of an unknown command's name that are told.
const NAME_CHARS_MAX: usize = 64;

/// Highest number of words a command may have; matches the front door's limit.
const ARGC_MAX: usize = 1024 * 1024;

/// The leader's time and randomness inside an entry: all that replicas may know of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The leader's clock when it proposed.
    pub now: UnixMillis,
    /// Random bits.
    pub seed: u64,
}

/// Who sent a packet, and which of its packets this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketId {
    /// The front end: the directory of its node. Not the node: that may come back without its memory.
    pub incarnation: Incarnation,
    /// Which start of it: sequences begin anew with each.
    pub session: Session,
    /// Number of the packet within the session.
    pub sequence: u64,
}

impl Hash for PacketId {
    /// One word of it: a session is random, and tells its packets from those of others as well as all of its words do.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.session.random ^ self.sequence);
    }
}

/// A packet: commands of one front end for one shard, applied once as a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its name.
    pub id: PacketId,
    /// The front end has forgotten every packet below this sequence: their replies may be dropped, and
    /// a late copy of one must not be applied.
    pub floor: u64,
    /// How many commands it holds.
    pub commands: u32,
    /// The commands' bytes.
    pub body: Bytes,
}

impl Packet {
    /// Looks whether it is whole and names no command but those that are `known`. Much cheaper than running it: done
    /// before, so that what cannot be run has changed nothing.
    pub(super) fn check(&self, is_known: impl Fn(&[u8]) -> bool) -> Result<(), UnknownProposal> {
        let mut commands = Commands::new(&self.body);
        let mut count = 0_u32;
        while !commands.rest.is_empty() {
            let (name, begins) = commands.step_over()?;
            if count == 0 && !begins {
                return Err(MalformedProposal("submission").into());
            }
            if !is_known(name) {
                return Err(UnknownProposal::command(name));
            }
            count += 1;
        }
        if count == self.commands { Ok(()) } else { Err(MalformedProposal("commands").into()) }
    }
}

/// A decoded proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// Packets of commands.
    Packets(Vec<Packet>),
    /// Keys past their deadline, to be removed.
    Purge(Vec<(DbIndex, Bytes)>),
    /// Directories whose sessions up to a number have ended for good.
    Close(Vec<(Incarnation, u64)>),
}

/// Bytes that no version of this program wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed proposal: {0}")]
pub struct MalformedProposal(pub &'static str);

impl From<CodecError> for MalformedProposal {
    fn from(error: CodecError) -> Self {
        Self(error.what())
    }
}

/// A proposal that this program cannot apply. It must be refused before the log, and stops the replica behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownProposal {
    /// Its layout is another.
    #[error("version {0} of proposals is not known here (known: {VERSION})")]
    Version(u8),
    /// It is something else than what this version proposes.
    #[error("proposals of kind {0} are not known here")]
    Kind(u8),
    /// It holds a command that is not in the catalogue.
    #[error("the command '{0}' is not known here")]
    Command(String),
    /// It is none of any version.
    #[error(transparent)]
    Malformed(#[from] MalformedProposal),
}

impl From<CodecError> for UnknownProposal {
    fn from(error: CodecError) -> Self {
        Self::Malformed(error.into())
    }
}

impl UnknownProposal {
    pub(super) fn command(name: &[u8]) -> Self {
        Self::Command(name.escape_ascii().take(NAME_CHARS_MAX).map(char::from).collect())
    }
}

/// One command of a packet.
#[derive(Debug)]
pub struct Command<'a> {
    /// Whether it is the first of its submission: the commands from there to the next such one are of one connection.
    pub begins: bool,
    /// How its reply is to be encoded.
    pub protocol: Protocol,
    /// The client's database.
    pub db: DbIndex,
    /// The command and its arguments.
    pub argv: SmallVec<[&'a [u8]; 8]>,
}

/// Appends a command's bytes to those of a submission.
pub fn put_command(protocol: Protocol, db: DbIndex, argv: &[&[u8]], out: &mut Vec<u8>) {
    // Once for all, so that no word below has to ask whether there is room.
    out.reserve(2 + 5 + argv.iter().map(|word| 5 + word.len()).sum::<usize>());
    out.push(match protocol {
        Protocol::Resp2 => 0,
        Protocol::Resp3 => FLAG_RESP3,
    });
    out.push(db.0);
    codec::put_length(out, argv.len());
    for word in argv {
        codec::put_bytes(out, word);
    }
}

/// Walks the commands of a packet's body.
#[derive(Debug)]
pub struct Commands<'a> {
    rest: &'a [u8],
}

impl<'a> Commands<'a> {
    /// The commands in `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The bytes of those not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self) -> Result<Command<'a>, MalformedProposal> {
        let Head { begins, protocol, db, argc } = take_head(&mut self.rest)?;
        let argv = take_words(&mut self.rest, argc)?;
        Ok(Command { begins, protocol, db, argv })
    }

    /// As [`Iterator::next`], with the words put behind those in `words`, of which an error may leave some there.
    pub(super) fn next_into<A>(
        &mut self,
        words: &mut SmallVec<A>,
    ) -> Option<Result<Head, MalformedProposal>>
    where
        A: smallvec::Array<Item = &'a [u8]>,
    {
        if self.rest.is_empty() {
            return None;
        }
        let head = take_head(&mut self.rest).and_then(|head| {
            // Each takes a byte at least, and what is announced need not be there.
            words.reserve(head.argc.min(self.rest.len()));
            for _ in 0..head.argc {
                words.push(codec::take_bytes(&mut self.rest)?);
            }
            Ok(head)
        });
        if head.is_err() {
            self.rest = &[];
        }
        Some(head)
    }

    /// Steps over a command; its name, and whether a submission begins with it. Fails where [`Self::take`] does.
    fn step_over(&mut self) -> Result<(&'a [u8], bool), MalformedProposal> {
        let Head { begins, argc, .. } = take_head(&mut self.rest)?;
        let name = codec::take_bytes(&mut self.rest)?;
        for _ in 1..argc {
            codec::take_bytes(&mut self.rest)?;
        }
        Ok((name, begins))
    }
}

/// What stands before a command's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// As [`Command::begins`].
    pub begins: bool,
    /// As [`Command::protocol`].
    pub protocol: Protocol,
    /// As [`Command::db`].
    pub db: DbIndex,
    /// How many words there are: at least one.
    argc: usize,
}

fn take_head(rest: &mut &[u8]) -> Result<Head, MalformedProposal> {
    let [flags, db] = codec::take_array(rest)?;
    if flags & !(FLAG_RESP3 | FLAG_BEGINS) != 0 {
        return Err(MalformedProposal("flags"));
    }
    let protocol = if flags & FLAG_RESP3 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
    if db >= DbIndex::COUNT {
        return Err(MalformedProposal("database"));
    }
    let argc = codec::take_count(rest)?;
    if argc == 0 || argc > ARGC_MAX {
        return Err(MalformedProposal("argc"));
    }
    Ok(Head { begins: flags & FLAG_BEGINS != 0, protocol, db: DbIndex(db), argc })
}

fn take_words<'a>(
    rest: &mut &'a [u8],
    count: usize,
) -> Result<SmallVec<[&'a [u8]; 8]>, MalformedProposal> {
    if count <= 8 {
        // The common case, without asking at each word whether it still fits.
        let mut words: [&[u8]; 8] = [&[]; 8];
        let mut length = 0;
        for word in words.iter_mut().take(count) {
            *word = codec::take_bytes(rest)?;
            length += 1;
        }
        return Ok(SmallVec::from_buf_and_len(words, length));
    }
    (0..count).map(|_| Ok(codec::take_bytes(rest)?)).collect()
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, MalformedProposal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Writes a packet's header.
pub(super) fn put_packet_header(packet: &Packet, out: &mut [u8; PACKET_HEADER_BYTES]) {
    let length = u32::try_from(packet.body.len()).expect("packets are far below 4 GiB, see limits");
    out[..16].copy_from_slice(&packet.id.incarnation.0.to_le_bytes());
    out[16..24].copy_from_slice(&packet.id.session.number.to_le_bytes());
    out[24..32].copy_from_slice(&packet.id.session.random.to_le_bytes());
    out[32..40].copy_from_slice(&packet.id.sequence.to_le_bytes());
    out[40..48].copy_from_slice(&packet.floor.to_le_bytes());
    out[48..52].copy_from_slice(&packet.commands.to_le_bytes());
    out[52..].copy_from_slice(&length.to_le_bytes());
}

/// Reads a packet from the front of `bytes`; its body shares their memory.
pub(super) fn take_packet(bytes: &mut Bytes) -> Result<Packet, MalformedProposal> {
    // All of it at once, so that no field has to ask whether it is there.
    let header: [u8; PACKET_HEADER_BYTES] = codec::take_array(&mut &bytes[..])?;
    bytes.advance(PACKET_HEADER_BYTES);
    let fields = &mut &header[..];
    let incarnation = Incarnation(codec::take_u128(fields)?);
    let session = Session { number: codec::take_u64(fields)?, random: codec::take_u64(fields)? };
    let id = PacketId { incarnation, session, sequence: codec::take_u64(fields)? };
    let floor = codec::take_u64(fields)?;
    let commands = codec::take_u32(fields)?;
    let length = codec::take_length_u32(fields)?;
    if bytes.len() < length {
        return Err(MalformedProposal("packet cut short"));
    }
    Ok(Packet { id, floor, commands, body: bytes.split_to(length) })
}

fn put_prefix(kind: u8, stamp: Stamp, count: usize, out: &mut [u8; PREFIX_BYTES + 4]) {
    let count = u32::try_from(count).expect("an entry holds few packets or keys, see limits");
    out[0] = VERSION;
    out[1] = kind;
    out[2..10].copy_from_slice(&stamp.now.0.to_le_bytes());
    out[10..PREFIX_BYTES].copy_from_slice(&stamp.seed.to_le_bytes());
    out[PREFIX_BYTES..].copy_from_slice(&count.to_le_bytes());
}

/// The bytes of an entry of `packets`.
pub(super) fn encode_packets(stamp: Stamp, packets: &[Packet]) -> Bytes {
    let bodies: usize = packets.iter().map(|packet| packet.body.len()).sum();
    let mut out =
        Vec::with_capacity(PREFIX_BYTES + 4 + packets.len() * PACKET_HEADER_BYTES + bodies);
    let mut prefix = [0; PREFIX_BYTES + 4];
    put_prefix(KIND_PACKETS, stamp, packets.len(), &mut prefix);
    out.extend_from_slice(&prefix);
    for packet in packets {
        let mut header = [0; PACKET_HEADER_BYTES];
        put_packet_header(packet, &mut header);
        out.extend_from_slice(&header);
        out.extend_from_slice(&packet.body);
    }
    out.into()
}

/// The bytes of a purge of `keys`.
pub(super) fn encode_purge<K: AsRef<[u8]>>(stamp: Stamp, keys: &[(DbIndex, K)]) -> Bytes {
    let mut prefix = [0; PREFIX_BYTES + 4];
    put_prefix(KIND_PURGE, stamp, keys.len(), &mut prefix);
    let mut out = prefix.to_vec();
    for (db, key) in keys {
        out.push(db.0);
        codec::put_bytes(&mut out, key.as_ref());
    }
    out.into()
}

/// The bytes of a close of `sessions`.
pub(super) fn encode_close(stamp: Stamp, sessions: &[(Incarnation, u64)]) -> Bytes {
    let mut prefix = [0; PREFIX_BYTES + 4];
    put_prefix(KIND_CLOSE, stamp, sessions.len(), &mut prefix);
    let mut out = prefix.to_vec();
    for (incarnation, upto) in sessions {
        codec::put_u128(&mut out, incarnation.0);
        codec::put_u64(&mut out, *upto);
    }
    out.into()
}

/// The proposal in `bytes`; packets share their memory.
///
/// # Errors
/// When `bytes` are not what this version encodes. What is in the packets is not looked at.
pub fn decode(mut bytes: Bytes) -> Result<(Stamp, Proposal), UnknownProposal> {
    // First: another version may be shorter.
    let version = codec::take_u8(&mut &bytes[..])?;
    if version != VERSION {
        return Err(UnknownProposal::Version(version));
    }
    let prefix: [u8; PREFIX_BYTES + 4] = codec::take_array(&mut &bytes[..])?;
    bytes.advance(prefix.len());
    let fields = &mut &prefix[1..];
    let kind = codec::take_u8(fields)?;
    let stamp = Stamp { now: UnixMillis(codec::take_u64(fields)?), seed: codec::take_u64(fields)? };
    let count = codec::take_u32(fields)?;
    let proposal = match kind {
        KIND_PACKETS => Proposal::Packets(
            (0..count).map(|_| take_packet(&mut bytes)).collect::<Result<_, _>>()?,
        ),
        KIND_PURGE => {
            Proposal::Purge((0..count).map(|_| take_key(&mut bytes)).collect::<Result<_, _>>()?)
        }
        KIND_CLOSE => {
            let mut rest = &bytes[..];
            let mut take =
                || Ok((Incarnation(codec::take_u128(&mut rest)?), codec::take_u64(&mut rest)?));
            let sessions = (0..count).map(|_| take()).collect::<Result<_, CodecError>>()?;
            let taken = bytes.len() - rest.len();
            bytes.advance(taken);
            Proposal::Close(sessions)
        }
        kind => return Err(UnknownProposal::Kind(kind)),
    };
    if !bytes.is_empty() {
        return Err(MalformedProposal("trailing bytes").into());
    }
    Ok((stamp, proposal))
}

fn take_key(bytes: &mut Bytes) -> Result<(DbIndex, Bytes), MalformedProposal> {
    let mut rest = &bytes[..];
    let db = codec::take_u8(&mut rest)?;
    if db >= DbIndex::COUNT {
        return Err(MalformedProposal("database"));
    }
    let key = bytes.slice_ref(codec::take_bytes(&mut rest)?);
    let taken = bytes.len() - rest.len();
    bytes.advance(taken);
    Ok((DbIndex(db), key))
}

/// Commands waiting to become a packet. Its memory is used again for the next one.
#[derive(Debug)]
pub(super) struct PacketBuffer {
    /// The submissions that were copied, behind room for the packet's head.
    bytes: Vec<u8>,
    lent: Vec<Lent>,
    lent_bytes: usize,
    pub(super) commands: u32,
}

/// A submission that stays where it was encoded until the packet is framed.
#[derive(Debug)]
struct Lent {
    /// Where among the others it belongs.
    place: usize,
    commands: Bytes,
}

impl PacketBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEADROOM], lent: Vec::new(), lent_bytes: 0, commands: 0 }
    }

    /// Bytes of commands it holds.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - HEADROOM + self.lent_bytes
    }

    /// Adds a submission: `count` commands, which begin with the first byte.
    pub(super) fn push(&mut self, commands: &[u8], count: u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(commands);
        mark_beginning(&mut self.bytes[start..]);
        self.commands += count;
    }

    /// The same, and copies it only once: into the frame.
    pub(super) fn push_lent(&mut self, commands: Bytes, count: u32) {
        self.lent_bytes += commands.len();
        self.lent.push(Lent { place: self.bytes.len(), commands });
        self.commands += count;
    }

    /// Takes back the first submissions: `bytes` of commands, `count` in number.
    pub(super) fn cut(&mut self, bytes: usize, count: u32) {
        // Where those to stay begin: `copied` are gone from before them, and some that were lent.
        let (mut copied, mut left, mut gone) = (0, bytes, 0);
        for Lent { place, commands } in &self.lent {
            let before = (place - HEADROOM - copied).min(left);
            (copied, left) = (copied + before, left - before);
            if left < commands.len().max(1) {
                break;
            }
            left -= commands.len();
            self.lent_bytes -= commands.len();
            gone += 1;
        }
        copied += left;
        self.bytes.drain(HEADROOM..HEADROOM + copied);
        self.lent.drain(..gone);
        self.lent.iter_mut().for_each(|lent| lent.place -= copied);
        self.commands -= count;
    }

    /// Its commands behind [`HEADROOM`], copied to memory of just their size: the log's tail keeps that
    /// for long, and a buffer's spare room would be pinned with it.
    pub(super) fn frame(&self) -> Framed {
        let mut bytes = Vec::with_capacity(self.bytes.len() + self.lent_bytes);
        let mut copied = 0;
        for Lent { place, commands } in &self.lent {
            bytes.extend_from_slice(&self.bytes[copied..*place]);
            copied = *place;
            let start = bytes.len();
            bytes.extend_from_slice(commands);
            mark_beginning(&mut bytes[start..]);
        }
        bytes.extend_from_slice(&self.bytes[copied..]);
        Framed { bytes: bytes.into(), commands: self.commands }
    }

    /// Empties it for the next packet, giving back memory that one huge packet made it grow to.
    pub(super) fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 1024 * 1024;
        self.bytes.truncate(HEADROOM);
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes.shrink_to(HEADROOM);
        }
        self.lent.clear();
        self.lent_bytes = 0;
        self.commands = 0;
    }
}

/// Says that a submission begins with `commands`.
fn mark_beginning(commands: &mut [u8]) {
    if let Some(flags) = commands.first_mut() {
        *flags |= FLAG_BEGINS;
    }
}

/// A packet's commands behind their headroom.
#[derive(Clone, Debug)]
pub(super) struct Framed {
    bytes: Bytes,
    pub(super) commands: u32,
}

impl Framed {
    /// Bytes of the commands.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - HEADROOM
    }

    /// The same without its first submissions: `bytes` of commands, `count` in number.
    pub(super) fn without(&self, bytes: usize, count: u32) -> Self {
        let mut rest = vec![0; HEADROOM];
        rest.extend_from_slice(&self.bytes[HEADROOM + bytes..]);
        Self { bytes: rest.into(), commands: self.commands - count }
    }

    /// The commands alone.
    pub(super) fn body(&self) -> Bytes {
        self.bytes.slice(HEADROOM..)
    }

    /// The packet called `id`.
    pub(super) fn packet(&self, id: PacketId, floor: u64) -> Packet {
        Packet { id, floor, commands: self.commands, body: self.bytes.slice(HEADROOM..) }
    }

    /// An entry of this one packet. Fills the headroom in place when nobody else holds the bytes (the first
    /// try of a packet, the common case), and copies otherwise.
    pub(super) fn into_proposal(self, id: PacketId, floor: u64, stamp: Stamp) -> (Self, Bytes) {
        let packet = self.packet(id, floor);
        let mut prefix = [0; PREFIX_BYTES + 4];
        let mut header = [0; PACKET_HEADER_BYTES];
        put_prefix(KIND_PACKETS, stamp, 1, &mut prefix);
        put_packet_header(&packet, &mut header);
        drop(packet);
        let commands = self.commands;
        match self.bytes.try_into_mut() {
            Ok(mut bytes) => {
                bytes[..prefix.len()].copy_from_slice(&prefix);
                bytes[prefix.len()..HEADROOM].copy_from_slice(&header);
                let bytes = bytes.freeze();
                (Self { bytes: bytes.clone(), commands }, bytes)
            }
            Err(bytes) => {
                let mut copy = Vec::with_capacity(bytes.len());
                copy.extend_from_slice(&prefix);
                copy.extend_from_slice(&header);
                copy.extend_from_slice(&bytes[HEADROOM..]);
                (Self { bytes, commands }, copy.into())
            }
        }
    }
}

/// Packets, for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A submission of one command.
    pub(in crate::shard) fn body(argv: &[&[u8]]) -> Vec<u8> {
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), argv, &mut commands);
        let mut buffer = PacketBuffer::new();
        buffer.push(&commands, 1);
        buffer.frame().body().to_vec()
    }

    /// A packet with this body.
    pub(in crate::shard) fn packet_of(body: Vec<u8>, commands: u32) -> Packet {
        let session = Session { number: 1, random: 1 };
        let id = PacketId { incarnation: Incarnation(1), session, sequence: 1 };
        Packet { id, floor: 1, commands, body: body.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> (Bytes, u32) {
        let mut out = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"key", b"value"], &mut out);
        put_command(Protocol::Resp3, DbIndex(3), &[b"GET", &[7; 300]], &mut out);
        out[0] |= FLAG_BEGINS;
        (out.into(), 2)
    }

    fn packet(sequence: u64) -> Packet {
        let (body, commands) = body();
        let id = PacketId {
            incarnation: Incarnation(5),
            session: Session { number: 2, random: 9 },
            sequence,
        };
        Packet { id, floor: 1, commands, body }
    }

    fn stamp() -> Stamp {
        Stamp { now: UnixMillis(1_700_000_000_000), seed: 42 }
    }

    #[test]
    fn commands_round_trip() {
        let (body, _) = body();
        let commands: Vec<_> = Commands::new(&body).map(Result::unwrap).collect();
        assert_eq!(commands.len(), 2);
        assert_eq!(&commands[0].argv[..], [&b"SET"[..], b"key", b"value"]);
        assert_eq!((commands[1].db, commands[1].protocol), (DbIndex(3), Protocol::Resp3));
        assert_eq!(commands[1].argv[1], [7; 300]);
    }

    #[test]
    fn packets_and_purges_round_trip() {
        let entry = encode_packets(stamp(), &[packet(1), packet(9)]);
        assert_eq!(
            decode(entry).unwrap(),
            (stamp(), Proposal::Packets(vec![packet(1), packet(9)]))
        );
        let keys =
            vec![(DbIndex(0), Bytes::from_static(b"a")), (DbIndex(15), Bytes::from(vec![1; 200]))];
        assert_eq!(decode(encode_purge(stamp(), &keys)).unwrap(), (stamp(), Proposal::Purge(keys)));
        let ended = vec![(Incarnation(u128::MAX - 1), 7), (Incarnation(2), u64::MAX)];
        let close = encode_close(stamp(), &ended);
        assert_eq!(decode(close).unwrap(), (stamp(), Proposal::Close(ended)));
    }

    #[test]
    fn an_entry_of_one_packet_is_framed_in_place() {
        let mut buffer = PacketBuffer::new();
        let (body, commands) = body();
        buffer.push(&body, commands);
        let framed = buffer.frame();
        let before = framed.bytes.as_ptr();
        let (framed, entry) = framed.into_proposal(packet(4).id, 1, stamp());
        assert_eq!(entry.as_ptr(), before, "no copy");
        assert_eq!(entry, encode_packets(stamp(), &[packet(4)]));
        let (_, again) = framed.into_proposal(packet(4).id, 3, stamp());
        assert_eq!(
            decode(entry).unwrap().1,
            Proposal::Packets(vec![packet(4)]),
            "shared bytes are not touched"
        );
        assert_eq!(again, encode_packets(stamp(), &[Packet { floor: 3, ..packet(4) }]));
    }

    #[test]
    fn a_packet_knows_where_its_submissions_begin() {
        let mut buffer = PacketBuffer::new();
        let mut lengths = Vec::new();
        for names in [&["GET", "SET"][..], &["DEL"], &["GET", "GET", "GET"]] {
            let mut submission = Vec::new();
            for name in names {
                put_command(Protocol::Resp3, DbIndex(0), &[name.as_bytes(), b"k"], &mut submission);
            }
            lengths.push(submission.len());
            buffer.push(&submission, u32::try_from(names.len()).unwrap());
        }
        let begins = |framed: &Framed| -> Vec<bool> {
            Commands::new(&framed.body()).map(|command| command.unwrap().begins).collect()
        };
        let framed = buffer.frame();
        assert_eq!(begins(&framed), [true, false, true, true, false, false]);
        assert_eq!(begins(&framed.without(lengths[0], 2)), [true, true, false, false]);
        buffer.cut(lengths[0] + lengths[1], 3);
        assert_eq!(begins(&buffer.frame()), [true, false, false]);
        let within = Framed { bytes: framed.bytes, commands: 6 }.without(lengths[0] / 2, 1);
        let packet = within.packet(packet(1).id, 1);
        let error = MalformedProposal("submission").into();
        assert_eq!(packet.check(|_| true), Err(error), "it begins within one");
    }

    /// Copied or lent, in whatever order: the packet is the same, also when its first submissions are taken back.
    #[test]
    fn a_packet_does_not_say_which_submissions_were_lent() {
        let submissions: Vec<Vec<u8>> = (1..=5)
            .map(|length| {
                let mut submission = Vec::new();
                let word = vec![b'x'; length];
                put_command(Protocol::Resp2, DbIndex(0), &[b"ECHO", &word], &mut submission);
                submission
            })
            .collect();
        for lent in 0..1_u32 << submissions.len() {
            for cut in 0..=submissions.len() {
                let (mut mixed, mut copied) = (PacketBuffer::new(), PacketBuffer::new());
                for (number, submission) in submissions.iter().enumerate() {
                    copied.push(submission, 1);
                    if lent >> number & 1 == 1 {
                        mixed.push_lent(submission.clone().into(), 1);
                    } else {
                        mixed.push(submission, 1);
                    }
                }
                let bytes = submissions[..cut].iter().map(Vec::len).sum();
                for buffer in [&mut mixed, &mut copied] {
                    buffer.cut(bytes, u32::try_from(cut).unwrap());
                }
                assert_eq!(mixed.len(), copied.len(), "{lent:b} {cut}");
                let (mixed, copied) = (mixed.frame(), copied.frame());
                assert_eq!(mixed.body(), copied.body(), "{lent:b} {cut}");
                assert_eq!(mixed.commands, copied.commands);
            }
        }
    }

    /// A padded varint is none that any version wrote.
    #[test]
    fn a_command_has_one_spelling() {
        let good = [0, 0, 1, 1, b'x'];
        assert!(Commands::new(&good).next().unwrap().is_ok());
        for bad in [&[0, 0, 0x81, 0, 1, b'x'][..], &[0, 0, 1, 0x81, 0, b'x']] {
            let refused = Err(CodecError::BadVarint.into());
            assert_eq!(Commands::new(bad).step_over(), refused, "{bad:?}");
            let packet = testing::packet_of([&[FLAG_BEGINS][..], &bad[1..]].concat(), 1);
            assert_eq!(packet.check(|_| true), Err(CodecError::BadVarint.into()));
        }
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        for bytes in [
            encode_packets(stamp(), &[packet(1)]),
            encode_purge(stamp(), &[(DbIndex(1), b"key".as_slice())]),
            encode_close(stamp(), &[(Incarnation(1), 2)]),
        ] {
            for length in 0..bytes.len() {
                assert!(decode(bytes.slice(..length)).is_err(), "{length}");
            }
        }
        let (body, _) = body();
        for length in 1..body.len() {
            let walked: Vec<_> = Commands::new(&body[..length]).collect();
            assert!(walked.len() <= 2);
        }
    }

    /// The disk format: this text changes only with the version byte.
    #[test]
    fn golden_bytes_of_a_close() {
        let bytes = encode_close(Stamp { now: UnixMillis(4), seed: 5 }, &[(Incarnation(1), 2)]);
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(
            hex,
            "03030400000000000000050000000000000001000000010000000000000000000000000000000200000000000000"
        );
    }

    /// The disk format: this text changes only with the version byte.
    #[test]
    fn golden_bytes_of_packets() {
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"DEL", b"k"], &mut commands);
        commands[0] |= FLAG_BEGINS;
        let id = PacketId {
            incarnation: Incarnation(1),
            session: Session { number: 2, random: 9 },
            sequence: 3,
        };
        let packet = Packet { id, floor: 3, commands: 1, body: commands.into() };
        let bytes = encode_packets(Stamp { now: UnixMillis(4), seed: 5 }, &[packet]);
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(
            hex,
            "0301040000000000000005000000000000000100000001000000000000000000000000000000020000000000000009\
             00000000000000030000000000000003000000000000000100000009000000020002\
             0344454c016b"
        );
    }
}
