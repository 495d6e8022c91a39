//! Sorted sets: distinct byte strings in the order of their scores.

/// A Redis sorted set.
#[derive(Debug, Default)]
pub struct ZSet {
    elements: Vec<(f64, Vec<u8>)>,
}

impl ZSet {
    /// An empty sorted set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
