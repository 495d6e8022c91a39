//! A few words that one thread at a time writes and many read without a lock, all of one writing.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

/// `N` words, read together. A reader writes nothing to memory; it tries again when a writing ends meanwhile.
///
/// Two places are written by turns, so that who reads waits for no writer that was interrupted. Source: Boehm, "Can
/// seqlocks get along with programming language memory models?" (MSPC 2012).
#[derive(Debug)]
pub struct Latest<const N: usize> {
    places: [[AtomicI64; N]; 2],
    /// How often it was written; the last words are in the place of its parity.
    writings: AtomicU64,
    writer: Mutex<()>,
}

impl<const N: usize> Latest<N> {
    /// Holds `words`.
    pub fn new(words: [i64; N]) -> Self {
        Self {
            places: [words.map(AtomicI64::new), words.map(AtomicI64::new)],
            writings: AtomicU64::new(0),
            writer: Mutex::new(()),
        }
    }

    /// The words written last.
    pub fn read(&self) -> [i64; N] {
        loop {
            let writings = self.writings.load(Ordering::Acquire);
            let words = self.place(writings).each_ref().map(|word| word.load(Ordering::Relaxed));
            // Had a word been of a later writing, what follows would see that the one before it is over.
            fence(Ordering::Acquire);
            if self.writings.load(Ordering::Relaxed) == writings {
                return words;
            }
        }
    }

    /// Puts what `change` makes of the words in their place. One at a time.
    pub fn update(&self, change: impl FnOnce([i64; N]) -> [i64; N]) {
        let _writer = self.writer.lock();
        let writings = self.writings.load(Ordering::Relaxed);
        let words = self.place(writings).each_ref().map(|word| word.load(Ordering::Relaxed));
        let words = change(words);
        // The other place may be written only where all see that it is not the last any more.
        fence(Ordering::Release);
        for (place, word) in self.place(writings + 1).iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.writings.store(writings + 1, Ordering::Release);
    }

    fn place(&self, writings: u64) -> &[AtomicI64; N] {
        &self.places[usize::from(writings % 2 == 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn words_of_different_writings_are_never_seen_together() {
        let latest = Latest::new([0, 0, 0]);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let [one, double, negative] = latest.read();
                        assert_eq!([double, negative], [2 * one, -one]);
                        assert!(one >= last);
                        last = one;
                    }
                });
            }
            for _ in 0..200_000 {
                latest.update(|[one, ..]| [one + 1, 2 * (one + 1), -(one + 1)]);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(latest.read(), [200_000, 400_000, -200_000]);
    }
}
