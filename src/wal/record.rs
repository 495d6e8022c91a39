//! The bytes of the log: format version 2. All numbers are little-endian.
//!
//! A **record** is 8-byte aligned. The checksum covers everything behind it, padding included, and
//! starts from the segment's salt, so that bytes a recycled file still holds from its former life
//! never pass for records.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | CRC-32 (IEEE) of bytes 4…end, started from the segment's salt |
//! | 4 | 4 | payload length `n`, at most `RECORD_BYTES_MAX` |
//! | 8 | 1 | kind |
//! | 9 | 3 | zero |
//! | 12 | 4 | group |
//! | 16 | 8 | index |
//! | 24 | n | payload |
//! | 24+n | 0…7 | zeros up to a multiple of 8 |
//!
//! | kind | name | index | payload |
//! | --- | --- | --- | --- |
//! | 1 | entry | of the entry | opaque |
//! | 2 | truncate | first index dropped | none |
//! | 3 | purge | last index dropped | opaque marker |
//! | 4 | vote | 0 | opaque |
//! | 5 | none | | was never written; not to be used again |
//! | 6 | sync mark | offset `o` | log's nonce (8), segment `s` (8): all before (s, o) was synced |
//! | 7 | clean stop | as 6 | as 6; the log was closed in order here |
//! | 8 | born | raft id | none; the group lives here from now on, with nothing |
//! | 9 | ended | raft id | none; everything of the group before this is void |
//! | 10 | open | number of the start | random bits of the start (8), boot id (16), sync policy (1): `opening.rs` |
//! | 11 | short | 0 | none; the end of the group's entries may be missing |
//! | 12 | whole | 0 | none; that is mended |
//!
//! Sync marks, clean stops and openings are the whole log's; their group is 0. All other records belong to a group that a
//! *born* before them has made.
//!
//! A **segment** file begins with a header; its records follow at byte 32.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | `kvorumWL` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32 of bytes 0…12 and 16…32, started from the segment's salt |
//! | 16 | 8 | the segment's sequence number |
//! | 24 | 8 | where the segment before it ended, in bytes |
//!
//! The **format** file of the log's directory holds what every segment shares.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | `kvorumWF` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC-32 of bytes 0…12 and 16…40 |
//! | 16 | 8 | nonce: random, so that no client can write a value that looks like a sync mark |
//! | 24 | 16 | incarnation of the data directory the log belongs to |
//!
//! The salt of a segment is the CRC-32 of nonce (8 bytes) and sequence number (8 bytes).

use crc32fast::Hasher;

use crate::ids::{GroupId, Incarnation};

use super::limits::RECORD_BYTES_MAX;

/// The version of everything described above.
pub(super) const FORMAT_VERSION: u32 = 2;

/// Bytes of a record before its payload.
pub(super) const RECORD_HEAD_BYTES: usize = 24;

/// Bytes of a segment before its first record.
pub(super) const SEGMENT_HEAD_BYTES: usize = 32;

/// Bytes of the format file.
pub(super) const FORMAT_BYTES: usize = 40;

/// Bytes of the shortest format file of any version.
const FORMAT_BYTES_LEAST: usize = 24;

/// Records begin at multiples of this many bytes.
pub(super) const ALIGNMENT: usize = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"kvorumWL";
const FORMAT_MAGIC: &[u8; 8] = b"kvorumWF";
const MARK_PAYLOAD_BYTES: usize = 16;

/// Bytes of a sync mark or clean-stop record.
pub(super) const MARK_BYTES: usize = RECORD_HEAD_BYTES + MARK_PAYLOAD_BYTES;

/// A place in the log: ordered by segment, then by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Sequence number of the segment.
    pub(super) segment: u64,
    /// Byte in its file.
    pub(super) offset: u64,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Entry,
    Truncate,
    Purge,
    Vote,
    SyncMark,
    CleanStop,
    Born,
    Ended,
    Open,
    Short,
    Whole,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Truncate => 2,
            Self::Purge => 3,
            Self::Vote => 4,
            Self::SyncMark => 6,
            Self::CleanStop => 7,
            Self::Born => 8,
            Self::Ended => 9,
            Self::Open => 10,
            Self::Short => 11,
            Self::Whole => 12,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Entry,
            2 => Self::Truncate,
            3 => Self::Purge,
            4 => Self::Vote,
            6 => Self::SyncMark,
            7 => Self::CleanStop,
            8 => Self::Born,
            9 => Self::Ended,
            10 => Self::Open,
            11 => Self::Short,
            12 => Self::Whole,
            _ => return None,
        })
    }
}

/// The start value of a segment's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(u32);

impl Salt {
    /// The salt of segment `sequence` of the log with `nonce`.
    pub(super) fn new(nonce: u64, sequence: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&nonce.to_le_bytes());
        hasher.update(&sequence.to_le_bytes());
        Self(hasher.finalize())
    }
}

/// The fields of a record before its payload, the checksum aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) index: u64,
    pub(super) payload_bytes: usize,
}

impl Head {
    /// Reads the head of a record; `None` when no record can begin so. The checksum is not looked at.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let payload_bytes = usize::try_from(u32_at(bytes, 4)?).ok()?;
        if payload_bytes > RECORD_BYTES_MAX || bytes.get(9..12)? != [0; 3] {
            return None;
        }
        Some(Self {
            kind: Kind::of_code(*bytes.get(8)?)?,
            group: GroupId(u32_at(bytes, 12)?),
            index: u64_at(bytes, 16)?,
            payload_bytes,
        })
    }

    /// The bytes the whole record takes.
    pub(super) const fn record_bytes(&self) -> usize {
        record_bytes(self.payload_bytes)
    }
}

/// The bytes a record with `payload_bytes` takes, padding included.
pub(super) const fn record_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEAD_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Appends a record to `buffer`; its payload is `head` and `body` joined.
///
/// # Panics
/// When the payload is longer than `RECORD_BYTES_MAX`: the log has checked that.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    salt: Salt,
    id: (Kind, GroupId, u64),
    (head, body): (&[u8], &[u8]),
) {
    let payload_bytes = head.len() + body.len();
    let start = buffer.len();
    buffer.reserve(record_bytes(payload_bytes));
    put_head(buffer, id, payload_bytes);
    buffer.extend_from_slice(head);
    buffer.extend_from_slice(body);
    buffer.resize(start + record_bytes(payload_bytes), 0);
    let checksum = checksum(salt, &[&buffer[start + 4..]]);
    buffer[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// As [`encode`], but for the bytes of `body`; where in `buffer` they belong.
///
/// # Panics
/// As there.
pub(super) fn encode_around(
    buffer: &mut Vec<u8>,
    salt: Salt,
    id: (Kind, GroupId, u64),
    (head, body): (&[u8], &[u8]),
) -> usize {
    let payload_bytes = head.len() + body.len();
    let start = buffer.len();
    put_head(buffer, id, payload_bytes);
    buffer.extend_from_slice(head);
    let place = buffer.len();
    buffer.resize(start + record_bytes(payload_bytes) - body.len(), 0);
    let checksum = checksum(salt, &[&buffer[start + 4..place], body, &buffer[place..]]);
    buffer[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    place
}

/// Appends what stands before the payload, with room for the checksum.
fn put_head(
    buffer: &mut Vec<u8>,
    (kind, group, index): (Kind, GroupId, u64),
    payload_bytes: usize,
) {
    assert!(payload_bytes <= RECORD_BYTES_MAX);
    let length = u32::try_from(payload_bytes).expect("RECORD_BYTES_MAX fits 32 bits");
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&[kind.code(), 0, 0, 0]);
    buffer.extend_from_slice(&group.0.to_le_bytes());
    buffer.extend_from_slice(&index.to_le_bytes());
}

/// Whether the checksum of `record` (head, payload and padding) is right.
pub(super) fn is_intact(record: &[u8], salt: Salt) -> bool {
    u32_at(record, 0).is_some_and(|stored| stored == checksum(salt, &[&record[4..]]))
}

/// The payload of a sync mark or clean stop in segment `position.segment`.
pub(super) fn mark_payload(nonce: u64, position: Position) -> [u8; MARK_PAYLOAD_BYTES] {
    let mut payload = [0; MARK_PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&nonce.to_le_bytes());
    payload[8..].copy_from_slice(&position.segment.to_le_bytes());
    payload
}

/// What the first bytes of `bytes` vouch for, when they are a sync mark or clean stop.
pub(super) fn decode_mark(bytes: &[u8], salt: Salt, nonce: u64) -> Option<Position> {
    let record = bytes.get(..MARK_BYTES)?;
    let head = Head::decode(record)?;
    let is_mark = matches!(head.kind, Kind::SyncMark | Kind::CleanStop)
        && head.payload_bytes == MARK_PAYLOAD_BYTES
        && u64_at(record, RECORD_HEAD_BYTES)? == nonce
        && is_intact(record, salt);
    let segment = u64_at(record, RECORD_HEAD_BYTES + 8)?;
    is_mark.then_some(Position { segment, offset: head.index })
}

/// What an intact mark of the log with `nonce` vouches for; `None` for another log's.
pub(super) fn decode_vouched(head: Head, payload: &[u8], nonce: u64) -> Option<Position> {
    let is_ours = payload.len() == MARK_PAYLOAD_BYTES && u64_at(payload, 0)? == nonce;
    is_ours.then_some(Position { segment: u64_at(payload, 8)?, offset: head.index })
}

/// The header of segment `sequence`, whose predecessor ended at `previous_end`.
pub(super) fn encode_segment_head(
    salt: Salt,
    sequence: u64,
    previous_end: u64,
) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    head[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    head[16..24].copy_from_slice(&sequence.to_le_bytes());
    head[24..].copy_from_slice(&previous_end.to_le_bytes());
    let checksum = checksum_around(salt, &head);
    head[12..16].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// What the header of a segment says: `Err` is the version of a format this program does not know,
/// `Ok(None)` no header, else where the segment before ended.
pub(super) fn decode_segment_head(
    bytes: &[u8],
    salt: Salt,
    sequence: u64,
) -> Result<Option<u64>, u32> {
    let Some(head) = bytes.get(..SEGMENT_HEAD_BYTES) else { return Ok(None) };
    let is_head = head.starts_with(SEGMENT_MAGIC)
        && u64_at(head, 16) == Some(sequence)
        && u32_at(head, 12) == Some(checksum_around(salt, head));
    match (is_head, u32_at(head, 8)) {
        (true, Some(FORMAT_VERSION)) => Ok(u64_at(head, 24)),
        (true, Some(version)) => Err(version),
        (false, _) | (true, None) => Ok(None),
    }
}

/// The format file of a log with `nonce` in the directory that is `incarnation`.
pub(super) fn encode_format(nonce: u64, incarnation: Incarnation) -> [u8; FORMAT_BYTES] {
    let mut bytes = [0; FORMAT_BYTES];
    bytes[..8].copy_from_slice(FORMAT_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&nonce.to_le_bytes());
    bytes[24..].copy_from_slice(&incarnation.0.to_le_bytes());
    let checksum = checksum_around(Salt(0), &bytes);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The nonce and the incarnation in a format file: `Err` is a version this program does not know, `Ok(None)` damage.
pub(super) fn decode_format(bytes: &[u8]) -> Result<Option<(u64, Incarnation)>, u32> {
    // The version decides how long the rest is, so it is judged before the length.
    let is_format = bytes.len() >= FORMAT_BYTES_LEAST
        && bytes.starts_with(FORMAT_MAGIC)
        && u32_at(bytes, 12) == Some(checksum_around(Salt(0), bytes));
    match (is_format, u32_at(bytes, 8)) {
        (true, Some(FORMAT_VERSION)) => Ok(u64_at(bytes, 16).zip(incarnation_at(bytes, 24))),
        (true, Some(version)) => Err(version),
        (false, _) | (true, None) => Ok(None),
    }
}

/// The checksum of `parts`, one behind the other.
fn checksum(salt: Salt, parts: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt.0);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// The checksum of a header that keeps it in its own bytes 12…16.
fn checksum_around(salt: Salt, bytes: &[u8]) -> u32 {
    checksum(salt, &[&bytes[..12], &bytes[16..]])
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn incarnation_at(bytes: &[u8], offset: usize) -> Option<Incarnation> {
    let bytes = bytes.get(offset..offset + 16)?;
    Some(Incarnation(u128::from_le_bytes(bytes.try_into().ok()?)))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    const NONCE: u64 = 0x0123_4567_89ab_cdef;
    const INCARNATION: Incarnation = Incarnation(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

    #[test]
    fn the_bytes_are_those_of_format_version_2() {
        let salt = Salt::new(NONCE, 5);
        let mut entry = Vec::new();
        encode(&mut entry, salt, (Kind::Entry, GroupId(2), 7), (b"head", b"body!"));
        let mut mark = Vec::new();
        let position = Position { segment: 5, offset: 96 };
        let payload = mark_payload(NONCE, position);
        encode(&mut mark, salt, (Kind::SyncMark, GroupId::META, 96), (&payload, &[]));
        let golden = [
            (
                hex(&entry),
                "7e03b61f090000000100000002000000070000000000000068656164626f64792100000000000000",
            ),
            (
                hex(&mark),
                "e924fdae1000000006000000000000006000000000000000efcdab89674523010500000000000000",
            ),
            (
                hex(&encode_segment_head(salt, 5, 4096)),
                "6b766f72756d574c02000000c4f9e31f05000000000000000010000000000000",
            ),
            (
                hex(&encode_format(NONCE, INCARNATION)),
                "6b766f72756d5746020000003f27e9c7efcdab8967452301ffeeddccbbaa99887766554433221100",
            ),
        ];
        for (found, expected) in golden {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_whatever_its_length() {
        let salt = Salt::new(NONCE, 1);
        for length in 0..40 {
            let payload = vec![0xa5; length];
            let mut record = Vec::new();
            encode(
                &mut record,
                salt,
                (Kind::Entry, GroupId(9), 3),
                (&payload[..length / 2], &payload[length / 2..]),
            );
            let head = Head::decode(&record).unwrap();
            let expected =
                Head { kind: Kind::Entry, group: GroupId(9), index: 3, payload_bytes: length };
            assert_eq!(head, expected);
            assert_eq!((record.len(), record.len() % ALIGNMENT), (head.record_bytes(), 0));
            assert!(is_intact(&record, salt));
            assert_eq!(&record[RECORD_HEAD_BYTES..][..length], payload);
        }
    }

    #[test]
    fn a_record_around_its_body_is_the_same_record() {
        let (salt, id) = (Salt::new(NONCE, 1), (Kind::Entry, GroupId(9), 3));
        for length in 0..40 {
            let (head, body) = (b"a head", vec![0xa5; length]);
            let (mut whole, mut around) = (b"before".to_vec(), b"before".to_vec());
            encode(&mut whole, salt, id, (head, &body));
            let place = encode_around(&mut around, salt, id, (head, &body));
            around.splice(place..place, body);
            assert_eq!(around, whole, "{length}");
        }
    }

    #[test]
    fn a_record_of_another_segment_or_log_is_not_intact() {
        let mut record = Vec::new();
        encode(&mut record, Salt::new(NONCE, 1), (Kind::Vote, GroupId(9), 0), (b"v", b""));
        assert!(!is_intact(&record, Salt::new(NONCE, 2)));
        assert!(!is_intact(&record, Salt::new(NONCE + 1, 1)));
    }

    #[test]
    fn only_whole_heads_with_known_kinds_and_sane_lengths_are_decoded() {
        let mut record = Vec::new();
        encode(&mut record, Salt(0), (Kind::CleanStop, GroupId(1), 1), (b"", b""));
        assert!(Head::decode(&record).is_some());
        assert!(Head::decode(&record[..23]).is_none());
        for (at, value) in [(8, 0), (8, 13), (9, 1), (11, 1), (7, 0xff)] {
            let mut bad = record.clone();
            bad[at] = value;
            assert_eq!(Head::decode(&bad), None, "byte {at} = {value}");
        }
    }

    #[test]
    fn marks_are_told_from_values_that_look_like_them() {
        let salt = Salt::new(NONCE, 1);
        let position = Position { segment: 1, offset: 64 };
        let encoded = |kind, nonce| {
            let mut record = Vec::new();
            let payload = mark_payload(nonce, position);
            encode(&mut record, salt, (kind, GroupId::META, 64), (&payload, &[]));
            record
        };
        assert_eq!(decode_mark(&encoded(Kind::SyncMark, NONCE), salt, NONCE), Some(position));
        assert_eq!(decode_mark(&encoded(Kind::CleanStop, NONCE), salt, NONCE), Some(position));
        assert_eq!(decode_mark(&encoded(Kind::SyncMark, NONCE + 1), salt, NONCE), None);
        assert_eq!(decode_mark(&encoded(Kind::Entry, NONCE), salt, NONCE), None);
        assert_eq!(decode_mark(&encoded(Kind::SyncMark, NONCE)[..39], salt, NONCE), None);
    }

    #[test]
    fn headers_tell_damage_from_another_version() {
        let salt = Salt::new(NONCE, 5);
        let head = encode_segment_head(salt, 5, 4096);
        assert_eq!(decode_segment_head(&head, salt, 5), Ok(Some(4096)));
        assert_eq!(decode_segment_head(&head, salt, 6), Ok(None));
        assert_eq!(decode_segment_head(&head[..31], salt, 5), Ok(None));
        let mut newer = head;
        newer[8] = 3;
        assert_eq!(decode_segment_head(&newer, salt, 5), Ok(None));
        let checksum = checksum_around(salt, &newer).to_le_bytes();
        newer[12..16].copy_from_slice(&checksum);
        assert_eq!(decode_segment_head(&newer, salt, 5), Err(3));
        assert_eq!(
            decode_format(&encode_format(NONCE, INCARNATION)),
            Ok(Some((NONCE, INCARNATION)))
        );
        assert_eq!(decode_format(&head), Ok(None));
        assert_eq!(decode_format(&[]), Ok(None));
    }
}
