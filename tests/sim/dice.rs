//! Chance, one stream for each purpose: what is taken out of a plan moves nothing else.

use kvorum::stdx::prng::SplitMix64;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of chance.
#[derive(Clone, Debug)]
pub(crate) struct Dice(SplitMix64);

impl Dice {
    /// The stream of `seed` for `purpose`.
    pub(crate) fn of(seed: u64, purpose: &str) -> Self {
        Self(SplitMix64::new(xxh3_64_with_seed(purpose.as_bytes(), seed)))
    }

    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// An index below `end`.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("below a usize")
    }

    /// A number in `from..=to`.
    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}
