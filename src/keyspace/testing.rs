//! What the tests of this room share.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

use super::dense::MemberKey;
use super::{Bin, Keyspace};
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

/// `cases` cases from a fixed seed: a test that fails, fails again.
pub(super) fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0x6b76_6f72_756d),
        failure_persistence: None,
        cases,
        ..ProptestConfig::default()
    }
}
