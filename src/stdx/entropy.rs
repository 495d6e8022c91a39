//! Random bits that nobody can guess, and of which one part tells nothing of another.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use super::prng::SplitMix64;

/// A source of random bits.
pub struct Entropy {
    next: Box<dyn FnMut() -> u64 + Send>,
}

impl Entropy {
    /// The machine's: std keys its hash maps with 128 bits from the operating system, and what its hash makes of numbers
    /// in a row tells nobody the key.
    pub fn system() -> Self {
        let keyed = RandomState::new();
        let mut drawn = 0_u64;
        let next = move || {
            drawn += 1;
            keyed.hash_one(drawn)
        };
        Self { next: Box::new(next) }
    }

    /// The same numbers for the same seed: for tests, for whoever sees one can tell the next.
    pub fn seeded(seed: u64) -> Self {
        let mut prng = SplitMix64::new(seed);
        Self { next: Box::new(move || prng.next_u64()) }
    }

    /// 64 bits, never given before.
    pub fn draw(&mut self) -> u64 {
        (self.next)()
    }

    /// 256 bits.
    pub fn draw_bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.draw().to_le_bytes());
        }
        bytes
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sources_of_the_machine_have_nothing_in_common() {
        let draw = || {
            let mut entropy = Entropy::system();
            (entropy.draw(), entropy.draw(), entropy.draw_bytes())
        };
        let (one, other) = (draw(), draw());
        assert_ne!(one.0, one.1);
        assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2);
    }

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let draw = |seed| Entropy::seeded(seed).draw_bytes();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
