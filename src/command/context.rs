//! All that a command may know beside its arguments and the keyspace: where, when, and which dice.

use std::cell::Cell;

use crate::ids::DbIndex;
use crate::keyspace::At;
use crate::stdx::clock::UnixMillis;

/// The database, the replicated time and the replicated randomness of one command.
///
/// Two contexts made from the same values give the same answers for ever: replicas agree.
#[derive(Debug)]
pub struct Context {
    /// The database chosen by the client and the leader's time, from the log entry.
    pub at: At,
    /// Random bits from the log entry, distinct for each command in it.
    pub seed: u64,
    state: Cell<u64>,
}

impl Context {
    /// The context of one command at `at` with the random bits `seed`.
    pub const fn new(at: At, seed: u64) -> Self {
        Self { at, seed, state: Cell::new(seed) }
    }

    /// The replicated time.
    pub const fn now(&self) -> UnixMillis {
        self.at.now
    }

    /// The client's database.
    pub const fn db(&self) -> DbIndex {
        self.at.db
    }

    /// 64 random bits, others at each call (`SplitMix64`).
    pub fn random(&self) -> u64 {
        self.state.set(self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut bits = self.state.get();
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A random number in `0..bound`; 0 when `bound` is 0.
    ///
    /// The bias of the multiplication is below `bound` / 2^64, nothing any client can see.
    pub fn random_below(&self, bound: usize) -> usize {
        let product = u128::from(self.random()) * (bound as u128);
        usize::try_from(product >> 64).expect("a product of a usize and a fraction is a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(seed: u64) -> Context {
        Context::new(At { db: DbIndex(0), now: UnixMillis(1) }, seed)
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (left, right) = (context(7), context(7));
        let of = |context: &Context| (0..8).map(|_| context.random()).collect::<Vec<_>>();
        assert_eq!(of(&left), of(&right));
        assert_ne!(of(&context(8)), of(&context(9)));
    }

    /// The first outputs of the published reference implementation for seed 1234567.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let context = context(1_234_567);
        assert_eq!(context.random(), 6_457_827_717_110_365_317);
        assert_eq!(context.random(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let context = context(1);
        assert_eq!(context.random_below(0), 0);
        assert_eq!(context.random_below(1), 0);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[context.random_below(7)] += 1;
        }
        assert!(seen.iter().all(|&times| (800..1200).contains(&times)), "{seen:?}");
    }
}
