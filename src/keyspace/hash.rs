//! Hashes: fields with values.

/// A Redis hash.
#[derive(Debug, Default)]
pub struct Hash {
    elements: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
