//! A key and what its place follows from.

use crate::slot::Slot;
use crate::stdx::hash_key::HashKey;

/// How many bits of a hash make a position.
pub(super) const POSITION_BITS: u32 = 48;

/// A key with its slot and its hash under the cluster's [`HashKey`].
///
/// To find those out takes as long as all the rest of a small read, so it is done once for a command, where its key is first
/// looked at, and whoever looks at the key after that has this. A keyspace takes keys that were hashed as its own are
/// ([`Keyspace::key`](super::Keyspace::key)) and no others: under another hash nothing is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    bytes: &'a [u8],
    hash: KeyHash,
    slot: Slot,
}

impl<'a> Key<'a> {
    /// The key that `bytes` are, in a keyspace whose keys are hashed under `hash_key`.
    #[inline]
    pub fn new(bytes: &'a [u8], hash_key: HashKey) -> Self {
        Self { bytes, hash: KeyHash::of(bytes, hash_key), slot: Slot::of(bytes) }
    }

    /// The same, where the caller knows its slot.
    #[inline]
    pub fn within(slot: Slot, bytes: &'a [u8], hash_key: HashKey) -> Self {
        debug_assert_eq!(slot, Slot::of(bytes), "a key of another slot");
        Self { bytes, hash: KeyHash::of(bytes, hash_key), slot }
    }

    /// What the client wrote.
    #[inline]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The slot it lies in.
    #[inline]
    pub const fn slot(self) -> Slot {
        self.slot
    }

    pub(super) const fn hash(self) -> KeyHash {
        self.hash
    }
}

/// The hash of a key under the cluster's [`HashKey`]. The same on every node and after every restart: SCAN cursors and what
/// is picked by rank depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    pub(super) fn of(key: &[u8], hash_key: HashKey) -> Self {
        Self(hash_key.hash(key))
    }

    pub(super) fn position(self) -> u64 {
        self.0 & ((1 << POSITION_BITS) - 1)
    }

    /// The eight bits above the position.
    pub(super) fn tag(self) -> u8 {
        (self.0 >> POSITION_BITS).to_le_bytes()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::testing::HASH_KEY;

    #[test]
    fn a_key_is_the_same_whoever_found_out_its_slot() {
        for bytes in [&b""[..], b"a", b"{a}b"] {
            let key = Key::new(bytes, HASH_KEY);
            assert_eq!(key, Key::within(Slot::of(bytes), bytes, HASH_KEY));
            assert_eq!((key.bytes(), key.slot()), (bytes, Slot::of(bytes)));
            assert_ne!(key.hash(), Key::new(bytes, HashKey::new([3, 4])).hash());
        }
    }
}
