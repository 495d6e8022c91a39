//! The fields of a hash, one after the other.

use super::packed::Pairs;
use super::table::Pair;

/// The fields of a hash with their values.
#[derive(Clone, Debug)]
pub struct HashIter<'a>(pub(super) FormIter<'a>);

#[derive(Clone, Debug)]
pub(super) enum FormIter<'a> {
    Packed(Pairs<'a>),
    Table(std::slice::Iter<'a, Pair>),
}

impl<'a> Iterator for HashIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            FormIter::Packed(pairs) => pairs.next(),
            FormIter::Table(entries) => entries.next().map(Pair::as_slices),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            FormIter::Packed(pairs) => pairs.len(),
            FormIter::Table(entries) => entries.len(),
        };
        (len, Some(len))
    }
}

impl ExactSizeIterator for HashIter<'_> {}
