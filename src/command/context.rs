//! All that a command may know beside its arguments and the keyspace: where, when, and which dice.

use std::cell::RefCell;

use crate::ids::DbIndex;
use crate::keyspace::At;
use crate::stdx::clock::UnixMillis;
use crate::stdx::prng::SplitMix64;

/// The database, the replicated time and the replicated randomness of one command.
///
/// Two contexts made from the same values give the same answers for ever: replicas agree.
#[derive(Debug)]
pub struct Context {
    /// The database chosen by the client and the leader's time, from the log entry.
    pub at: At,
    /// Random bits from the log entry, distinct for each command in it.
    pub seed: u64,
    dice: RefCell<SplitMix64>,
}

impl Context {
    /// The context of one command at `at` with the random bits `seed`.
    pub const fn new(at: At, seed: u64) -> Self {
        Self { at, seed, dice: RefCell::new(SplitMix64::new(seed)) }
    }

    /// The replicated time.
    pub const fn now(&self) -> UnixMillis {
        self.at.now()
    }

    /// The client's database.
    pub const fn db(&self) -> DbIndex {
        self.at.db()
    }

    /// 64 random bits, others at each call.
    pub fn random(&self) -> u64 {
        self.dice.borrow_mut().next_u64()
    }

    /// A random number in `0..bound`; 0 when `bound` is 0.
    #[expect(clippy::missing_panics_doc, reason = "the expectation holds for every bound")]
    pub fn random_below(&self, bound: usize) -> usize {
        let below = self.dice.borrow_mut().below(bound as u64);
        usize::try_from(below).expect("a number below a usize is a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(seed: u64) -> Context {
        Context::new(At::new(DbIndex(0), UnixMillis(1)), seed)
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (left, right) = (context(7), context(7));
        let of = |context: &Context| (0..8).map(|_| context.random()).collect::<Vec<_>>();
        assert_eq!(of(&left), of(&right));
        assert_ne!(of(&context(8)), of(&context(9)));
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
