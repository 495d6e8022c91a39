//! Canonical bytes for the digest of a value: every part says how long it is before it speaks.
//!
//! Without the lengths, `["ab"]` and `["a", "b"]` would feed the same bytes. Numbers are little-endian.

use xxhash_rust::xxh3::Xxh3;

/// Feeds how many parts follow.
pub(super) fn feed_count(hasher: &mut Xxh3, count: usize) {
    feed_u64(hasher, count as u64);
}

/// Feeds a number.
pub(super) fn feed_u64(hasher: &mut Xxh3, number: u64) {
    hasher.update(&number.to_le_bytes());
}

/// Feeds a byte string.
pub(super) fn feed_bytes(hasher: &mut Xxh3, bytes: &[u8]) {
    feed_count(hasher, bytes.len());
    hasher.update(bytes);
}
