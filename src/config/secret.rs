//! A text that must not be printed by accident.

use std::fmt;

/// A password or shared secret; empty means none is required. `Debug` shows only whether there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether a secret is required.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The secret itself, for whoever proves to know it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the secret. Takes a time that depends on the guess alone, so it tells no prefix.
    ///
    /// Source: Redis `time_independent_strcmp`.
    pub fn matches(&self, guess: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let mut difference = secret.len() ^ guess.len();
        for (index, byte) in guess.iter().enumerate() {
            // An empty secret compares with zeros: its length alone makes any guess but the empty one wrong.
            let expected = if secret.is_empty() { 0 } else { secret[index % secret.len()] };
            difference |= usize::from(byte ^ expected);
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Secret(set)" } else { "Secret(none)" })
    }
}
