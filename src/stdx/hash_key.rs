//! The keyed hash of tables whose keys strangers choose.
//!
//! Whoever knows how a table places its keys can send such as all land in one place, and then each look at one walks
//! over all: with a hash that has no secret, 60,000 members took minutes. So there is a secret, and the hash must not
//! give it away. `SipHash` 1-3 is a pseudo-random function, made for this: what it said of many keys tells nothing
//! about the next one. That is needed, for cursors of SCAN show clients most bits of it. (Rejected: xxh3 with a secret.
//! It is half as long, but of up to eight bytes a permutation that anybody can run backwards, so two cursors tell
//! the secret; and with a seed alone, every seed has the same collisions wherever a product is zero.)
//!
//! Written out here, because std's takes no key and the `siphasher` crate takes half as many instructions again, whose
//! state is made for input that comes in parts: this is in the way of every command.
//!
//! Source: Aumasson, Bernstein, "`SipHash`: a fast short-input PRF" (2012); 1-3 is what std and Python use.

use std::fmt;

/// The secret of a hash: 128 bits that nobody can guess.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u64; 2]);

impl HashKey {
    /// The key made of `words`, which must be random where strangers choose what is hashed.
    pub const fn new(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// What it is made of: for who keeps it, and nobody else.
    pub const fn words(self) -> [u64; 2] {
        self.0
    }

    /// The hash of `bytes`, the same on every machine.
    #[inline]
    pub fn hash(self, bytes: &[u8]) -> u64 {
        let [first, second] = self.0;
        let mut state = State([
            first ^ 0x736f_6d65_7073_6575,
            second ^ 0x646f_7261_6e64_6f6d,
            first ^ 0x6c79_6765_6e65_7261,
            second ^ 0x7465_6462_7974_6573,
        ]);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state.compress(u64::from_le_bytes(*word));
        }
        // The last word is the rest below the lowest byte of the length.
        let rest = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        state.compress((bytes.len() as u64) << 56 | rest);
        state.finish()
    }
}

/// Four words, as the paper calls them v0 to v3.
struct State([u64; 4]);

impl State {
    #[inline]
    fn compress(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }

    #[inline]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }
}

impl fmt::Debug for HashKey {
    /// Without the secret: it must not get into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    /// std's `DefaultHasher::new` is `SipHash` 1-3 with a key of zeros.
    #[test]
    fn it_is_siphash_1_3() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).collect();
            let mut std = std::hash::DefaultHasher::new();
            std.write(&bytes);
            assert_eq!(HashKey::new([0; 2]).hash(&bytes), std.finish(), "{length} bytes");
        }
    }

    #[test]
    fn each_half_of_the_key_counts_and_is_not_shown() {
        let keys = [[7, 1], [7, 2], [8, 1]].map(HashKey::new);
        let hashes: std::collections::BTreeSet<u64> =
            keys.iter().map(|key| key.hash(b"key")).collect();
        assert_eq!(hashes.len(), 3);
        assert_eq!(format!("{:?}", keys[0]), "HashKey(…)");
    }
}
