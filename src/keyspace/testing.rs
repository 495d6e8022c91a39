//! What the tests of this room share.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

use super::dense::MemberKey;
use super::error::DecodeError;
use super::loader::Loading;
use super::parts::{Cursor, Spelling, Window};
use super::value::Stored;
use super::words::{Begun, Words};
use super::{Bin, Entry, Keyspace, Value};
use crate::ids::DbIndex;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;

/// The key of keyspaces.
pub(super) const HASH_KEY: HashKey = HashKey::new([1, 2]);

/// The key of collections without a keyspace.
pub(super) const KEY: MemberKey = MemberKey::new(3);

/// Names that all have one `xxh3_64`, and one slot: the first eight bytes are those of its secret, so that what stands
/// beside them is multiplied by zero.
pub(super) fn colliding(number: u64) -> Vec<u8> {
    let secret = 0xbe4b_a423_396c_feb8_u64;
    [&secret.to_le_bytes()[..], &number.to_le_bytes(), b"{a}0123456789abc"].concat()
}

/// What is due in a keyspace of which no look is under way.
pub(super) fn all_due(keyspace: &mut Keyspace, now: UnixMillis) -> Vec<(DbIndex, Bin)> {
    let mut keys = Vec::new();
    loop {
        let due = keyspace.due_keys(now, usize::MAX);
        keys.extend(due.keys);
        if due.is_all {
            return keys;
        }
    }
}

/// `value` without a key, whatever its form.
pub(super) fn digest_of(value: &Value) -> u64 {
    Entry::new(b"", value.clone(), None).digest(DbIndex(0))
}

/// The bytes of `value` in a snapshot, without its type.
pub(super) fn spelled(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.put_head(Spelling::Snapshot, &mut bytes);
    let mut window = Window::new(&mut bytes, usize::MAX);
    assert!(value.put_elements(&mut Cursor::default(), &mut window));
    bytes
}

/// The value of the type of `code` that `bytes` spell.
pub(super) fn load<T: Stored + Clone>(code: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    load_pieces(code, &mut std::iter::once(bytes))
}

/// What the snapshot of `value` gives back, in pieces of one byte too.
pub(super) fn restored<T: Stored + Clone + Into<Value>>(value: &T) -> T {
    let value = value.clone().into();
    let (code, bytes) = (value.type_code(Spelling::Snapshot), spelled(&value));
    let slowly = load_pieces::<T>(code, &mut bytes.chunks(1)).unwrap();
    assert_eq!(spelled(&slowly.into()), bytes);
    load(code, &bytes).unwrap()
}

fn load_pieces<T: Stored + Clone>(
    code: u8,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> Result<T, DecodeError> {
    let (mut begun, mut loading) = (Begun::default(), None);
    for piece in pieces {
        let mut words = Words::new(piece, &mut begun);
        let mut read = || {
            let head = match &mut loading {
                Some(head) => head,
                None => loading.insert(words.small(|bytes| Loading::take(code, KEY, bytes))?),
            };
            head.load(&mut words)
        };
        match read() {
            Ok(()) if !words.is_empty() => return Err(DecodeError::TrailingBytes),
            Ok(()) | Err(DecodeError::Truncated) => {}
            Err(error) => return Err(error),
        }
    }
    let is_whole = begun.is_empty();
    let Some(mut loading) = loading.filter(|_| is_whole) else {
        return Err(DecodeError::Truncated);
    };
    loading.load(&mut Words::new(&[], &mut begun))?;
    Ok(T::of(&loading.finish()?).expect("the code is that of the type").clone())
}

/// `cases` cases from a fixed seed: a test that fails, fails again.
pub(super) fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0x6b76_6f72_756d),
        failure_persistence: None,
        cases,
        ..ProptestConfig::default()
    }
}
