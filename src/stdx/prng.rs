//! Seeded pseudo-randomness: the same seed gives the same numbers on every machine, for ever.
//!
//! Not for secrets. Pure rooms take their seed from the log entry, tests from a constant that they print.

/// `SplitMix64`: 64 bits of state, every 64-bit number once per period.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

/// The odd number nearest to 2^64 divided by the golden ratio.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    /// The generator of `seed`; every seed is as good as another.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    ///
    /// The high half of a 128-bit product (Lemire 2019) without its rejection step: some results are favoured by at
    /// most `bound` in 2^64, and one number is drawn per call whatever the bound.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let product = self.next_u64() as u128 * bound as u128;
        (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference implementation.
    #[test]
    fn numbers_are_those_of_the_reference() {
        let mut prng = SplitMix64::new(1_234_567);
        let numbers: Vec<_> = (0..5).map(|_| prng.next_u64()).collect();
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
        assert_eq!(SplitMix64::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn bounded_numbers_stay_below_and_reach_everything() {
        let mut prng = SplitMix64::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            let number = prng.below(10);
            counts[usize::try_from(number).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "seed 7: {counts:?}");
        assert_eq!(prng.below(0), 0);
        assert_eq!(prng.below(1), 0);
        assert!(prng.below(u64::MAX) < u64::MAX);
    }
}
