//! Reading a keyspace from the stream that [`snapshot`](super::snapshot) describes, however it was cut.
//!
//! Values are built as their elements come, so that memory is what has come of them and a piece; and each byte is
//! looked at once. A count promises nothing: nothing is reserved beyond as many again as there are.

use crate::ids::DbIndex;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;
use crate::stdx::codec;

use super::dense::MemberKey;
use super::error::DecodeError;
use super::hash::HashLoading;
use super::list::ListLoading;
use super::set::SetLoading;
use super::snapshot::{FORMAT, RECORD_END};
use super::stream::StreamLoading;
use super::string::StrForm;
use super::value::type_code;
use super::words::{Begun, Words, into_bin};
use super::zset::ZSetLoading;
use super::{Bin, Entry, Keyspace, Str, Value};

/// Takes a stream of records in pieces.
#[derive(Debug, Default)]
pub struct Loader {
    /// The word in which the last piece ended.
    begun: Begun,
    record: Option<OpenRecord>,
    entry: Option<OpenEntry>,
}

/// A record whose end has not come yet.
#[derive(Clone, Copy, Debug)]
struct OpenRecord {
    db: DbIndex,
    slot: Slot,
    is_empty: bool,
}

/// An entry of which a part has come.
#[derive(Debug)]
enum OpenEntry {
    /// Its type.
    Typed(u8),
    /// Its type and key.
    Keyed(u8, Bin),
    /// All but a part of its value.
    Headed { key: Bin, expire_at: Option<UnixMillis>, value: Loading },
}

/// What has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Entry,
    RecordEnd,
}

impl Loader {
    /// Adds the keys of the next `piece` to `keyspace`, which was empty before the first.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes, keys of other slots and keys that are there already included. The
    /// keyspace then holds a part of them and is good for nothing but to be dropped.
    pub fn load(&mut self, keyspace: &mut Keyspace, piece: &[u8]) -> Result<(), DecodeError> {
        let Self { begun, record, entry } = self;
        let mut words = Words::new(piece, begun);
        loop {
            let read = match record {
                None if words.is_empty() => return Ok(()),
                None => read_head(keyspace, &mut words).map(|head| *record = Some(head)),
                Some(open) => match read_entry(keyspace, *open, entry, &mut words) {
                    Ok(Read::Entry) => {
                        open.is_empty = false;
                        Ok(())
                    }
                    Ok(Read::RecordEnd) => {
                        *record = None;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            match read {
                Ok(()) => {}
                Err(DecodeError::Truncated) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// That was all.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when a record was not.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.record.is_some() || !self.begun.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(())
    }
}

fn read_head(keyspace: &Keyspace, words: &mut Words<'_, '_>) -> Result<OpenRecord, DecodeError> {
    let head = words.small(take_head)?;
    if !keyspace.contains(head.slot) {
        return Err(DecodeError::Invalid("a slot of another shard"));
    }
    Ok(head)
}

fn take_head(bytes: &mut &[u8]) -> Result<OpenRecord, DecodeError> {
    let format = codec::take_u8(bytes)?;
    if format != FORMAT {
        return Err(DecodeError::UnknownFormat(format));
    }
    let db = DbIndex(codec::take_u8(bytes)?);
    if db.0 >= DbIndex::COUNT {
        return Err(DecodeError::Invalid("a database beyond the last"));
    }
    let slot = u16::try_from(codec::take_varint(bytes)?).ok().and_then(Slot::new);
    let slot = slot.ok_or(DecodeError::Invalid("a slot beyond the last"))?;
    Ok(OpenRecord { db, slot, is_empty: true })
}

/// Reads on in an entry of `record`, or its end. What has come of the entry is in `open`.
fn read_entry(
    keyspace: &mut Keyspace,
    record: OpenRecord,
    open: &mut Option<OpenEntry>,
    words: &mut Words<'_, '_>,
) -> Result<Read, DecodeError> {
    loop {
        match open {
            None => match words.small(codec::take_u8)? {
                RECORD_END if record.is_empty => {
                    return Err(DecodeError::Invalid("a record without entries"));
                }
                RECORD_END => return Ok(Read::RecordEnd),
                code => *open = Some(OpenEntry::Typed(code)),
            },
            Some(OpenEntry::Typed(code)) => {
                let key = into_bin(words.bytes()?);
                if Slot::of(&key) != record.slot {
                    return Err(DecodeError::Invalid("a key of another slot"));
                }
                *open = Some(OpenEntry::Keyed(*code, key));
            }
            Some(OpenEntry::Keyed(code, key)) => {
                let member_key = keyspace.member_key;
                let (deadline, value) = words.small(|bytes| {
                    let deadline = codec::take_varint(bytes)?;
                    Ok::<_, DecodeError>((deadline, Loading::take(*code, member_key, bytes)?))
                })?;
                let expire_at = (deadline != 0).then_some(UnixMillis(deadline));
                *open = Some(OpenEntry::Headed { key: std::mem::take(key), expire_at, value });
            }
            Some(OpenEntry::Headed { key, expire_at, value }) => {
                value.load(words)?;
                let (key, expire_at) = (std::mem::take(key), *expire_at);
                let value = std::mem::replace(value, Loading::Text(StrForm::Text)).finish()?;
                *open = None;
                if value.is_empty_collection() {
                    return Err(DecodeError::Invalid("an empty collection"));
                }
                keyspace
                    .load_entry((record.db, record.slot), Entry::with_key(key, value, expire_at))?;
                return Ok(Read::Entry);
            }
        }
    }
}

/// What a key holds, as far as it has come.
#[derive(Debug)]
pub(super) enum Loading {
    /// A string whose bytes are to come.
    Text(StrForm),
    Str(Str),
    List(ListLoading),
    Hash(HashLoading),
    Set(SetLoading),
    ZSet(ZSetLoading),
    Stream(Box<StreamLoading>),
}

impl Loading {
    /// Takes what comes before the elements.
    ///
    /// # Errors
    /// [`DecodeError::UnknownType`], and whatever else is wrong with the bytes.
    pub(super) fn take(code: u8, key: MemberKey, bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let form_and_count = |bytes: &mut &[u8]| {
            Ok::<_, DecodeError>((codec::take_u8(bytes)?, codec::take_count(bytes)?))
        };
        Ok(match code {
            type_code::TEXT => Self::Text(StrForm::Text),
            type_code::EDITED => Self::Text(StrForm::Edited),
            type_code::INTEGER => Self::Str(Str::from_i64(codec::take_signed(bytes)?)),
            type_code::LIST => Self::List(ListLoading::new(codec::take_count(bytes)?)),
            type_code::HASH => {
                let (form, count) = form_and_count(bytes)?;
                Self::Hash(HashLoading::new(form, count, key)?)
            }
            type_code::SET => {
                let (form, count) = form_and_count(bytes)?;
                Self::Set(SetLoading::new(form, count, key)?)
            }
            type_code::ZSET => {
                let (form, count) = form_and_count(bytes)?;
                Self::ZSet(ZSetLoading::new(form, count, key)?)
            }
            type_code::STREAM => Self::Stream(Box::new(StreamLoading::take(bytes)?)),
            unknown => return Err(DecodeError::UnknownType(unknown)),
        })
    }

    /// Reads elements.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes; [`DecodeError::Truncated`] until all have come.
    pub(super) fn load(&mut self, words: &mut Words<'_, '_>) -> Result<(), DecodeError> {
        match self {
            Self::Text(form) => *self = Self::Str(Str::restore(*form, words.bytes()?)?),
            Self::Str(_) => {}
            Self::List(list) => list.load(words)?,
            Self::Hash(hash) => hash.load(words)?,
            Self::Set(set) => set.load(words)?,
            Self::ZSet(zset) => zset.load(words)?,
            Self::Stream(stream) => stream.load(words)?,
        }
        Ok(())
    }

    /// The value, when all has come.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when it has not.
    pub(super) fn finish(self) -> Result<Value, DecodeError> {
        Ok(match self {
            Self::Text(_) => return Err(DecodeError::Truncated),
            Self::Str(string) => string.into(),
            Self::List(list) => list.finish().into(),
            Self::Hash(hash) => hash.finish().into(),
            Self::Set(set) => set.finish().into(),
            Self::ZSet(zset) => zset.finish().into(),
            Self::Stream(stream) => stream.finish().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Stream;
    use crate::keyspace::testing::{HASH_KEY, load};

    /// Memory follows what comes, and what is announced need not come.
    #[test]
    fn counts_reserve_nothing() {
        for code in [type_code::LIST, type_code::HASH, type_code::SET, type_code::ZSET] {
            let mut bytes = vec![2; usize::from(code != type_code::LIST)];
            if matches!(code, type_code::HASH | type_code::ZSET) {
                bytes[0] = 1;
            }
            codec::put_varint(&mut bytes, u64::MAX >> 1);
            for number in 0..3000_u32 {
                codec::put_bytes(&mut bytes, &number.to_le_bytes());
                if code == type_code::HASH {
                    codec::put_bytes(&mut bytes, b"v");
                } else if code == type_code::ZSET {
                    codec::put_f64(&mut bytes, 1.0);
                }
            }
            let (mut begun, mut words_left) = (Begun::default(), &bytes[..]);
            let mut loading =
                Loading::take(code, MemberKey::of(HASH_KEY), &mut words_left).unwrap();
            let mut words = Words::new(words_left, &mut begun);
            assert_eq!(loading.load(&mut words), Err(DecodeError::Truncated));
            assert!(words.is_empty(), "all members were taken");
            if let Loading::Set(set) = loading {
                assert_eq!(set.finish().len(), 3000);
            }
        }
        let mut stream = vec![2, 9, 0, 0, 0, 5];
        codec::put_varint(&mut stream, u64::MAX);
        assert_eq!(load::<Stream>(type_code::STREAM, &stream).err(), Some(DecodeError::Truncated));
        stream.extend([1, 0, 2]);
        codec::put_varint(&mut stream, u64::MAX);
        stream.extend([1, 0]);
        assert_eq!(load::<Stream>(type_code::STREAM, &stream).err(), Some(DecodeError::Truncated));
    }
}
