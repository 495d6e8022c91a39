//! Tokens: the points of virtual nodes and of shards on the ring.
//!
//! Invariant: the hashed bytes never change, or every key of every cluster would change its home.
//! Golden vectors in `tests/golden/ring/tokens.txt` hold them.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::ShardId;

/// A point on the ring of 2^64 points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// The token of virtual node number `replica` of the node called `name`.
    ///
    /// `xxh3_64("kvorum/ring/node/1" 00 name 00 replica)`, `replica` as four bytes little-endian.
    pub fn of_virtual_node(name: &str, replica: u32) -> Self {
        let mut bytes = Vec::with_capacity(24 + name.len());
        bytes.extend_from_slice(b"kvorum/ring/node/1\0");
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&replica.to_le_bytes());
        Self(xxh3_64(&bytes))
    }

    /// The token of `shard`.
    ///
    /// `xxh3_64("kvorum/ring/shard/1" 00 shard)`, the number as four bytes little-endian.
    pub fn of_shard(shard: ShardId) -> Self {
        let mut bytes = *b"kvorum/ring/shard/1\0####";
        bytes[20..].copy_from_slice(&shard.0.to_le_bytes());
        Self(xxh3_64(&bytes))
    }

    /// How far `other` is when walking clockwise, that is upward and around through 0.
    pub const fn clockwise_to(self, other: Self) -> u64 {
        other.0.wrapping_sub(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::ring::testing::golden;

    #[test]
    fn tokens_are_golden() {
        let mut text = String::new();
        for name in ["n1", "n2", "a", "node-with-a-long-name.example.org", "ü"] {
            for replica in [0, 1, 127, 12_799, u32::MAX] {
                let token = Token::of_virtual_node(name, replica);
                writeln!(text, "node {name} {replica} {:016x}", token.0).unwrap();
            }
        }
        for shard in [0, 1, 2, 15, 1023, u32::MAX] {
            writeln!(text, "shard {shard} {:016x}", Token::of_shard(ShardId(shard)).0).unwrap();
        }
        golden!("tokens.txt", text);
    }

    #[test]
    fn names_and_numbers_do_not_run_together() {
        assert_ne!(Token::of_virtual_node("n1", 1), Token::of_virtual_node("n", 0x3101));
        assert_ne!(Token::of_virtual_node("n1", 0), Token::of_virtual_node("n1\0", 0));
    }

    #[test]
    fn the_walk_wraps_around_zero() {
        assert_eq!(Token(u64::MAX).clockwise_to(Token(1)), 2);
        assert_eq!(Token(5).clockwise_to(Token(5)), 0);
        assert_eq!(Token(5).clockwise_to(Token(4)), u64::MAX);
    }
}
