//! Streams: an append-only log of entries, each a list of fields and values under a growing id.

/// A Redis stream.
#[derive(Debug, Default)]
pub struct Stream {
    elements: std::collections::BTreeMap<(u64, u64), Vec<u8>>,
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
