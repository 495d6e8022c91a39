//! Lists: a sequence of byte strings, cheap at both ends.

/// A Redis list.
#[derive(Debug, Default)]
pub struct List {
    elements: std::collections::VecDeque<Vec<u8>>,
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
