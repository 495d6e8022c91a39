//! Sets: distinct byte strings.

/// A Redis set.
#[derive(Debug, Default)]
pub struct Set {
    elements: Vec<Vec<u8>>,
}

impl Set {
    /// An empty set.
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
