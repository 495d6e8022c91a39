//! Elements of a list between two indexes.

use super::List;
use crate::keyspace::packed;

/// Elements of a list between two indexes, from head to tail.
#[derive(Clone, Debug)]
pub struct ListRange<'a> {
    pub(super) list: &'a List,
    pub(super) next_chunk: usize,
    pub(super) chunk: packed::Iter<'a>,
    pub(super) remaining: usize,
}

impl<'a> Iterator for ListRange<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.remaining = self.remaining.checked_sub(1)?;
        loop {
            if let Some(element) = self.chunk.next() {
                return Some(element);
            }
            self.chunk = self.list.chunks.get(self.next_chunk)?.iter();
            self.next_chunk += 1;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for ListRange<'_> {}
