//! What the tests of this room share.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// `cases` cases from a fixed seed: a test that fails, fails again.
pub(super) fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0x6b76_6f72_756d),
        failure_persistence: None,
        cases,
        ..ProptestConfig::default()
    }
}
