//! Members of a sorted set between two ranks.

use super::sorted::Scored;
use super::table::Table;
use crate::keyspace::ranked::RankedRange;

/// Members of a sorted set between two ranks, with their scores, from both ends.
#[derive(Clone, Debug)]
pub struct ZSetRange<'a>(pub(super) FormRange<'a>);

#[derive(Clone, Debug)]
pub(super) enum FormRange<'a> {
    Sorted(std::slice::Iter<'a, Scored>),
    Table(&'a Table, RankedRange<'a>),
}

impl<'a> Iterator for ZSetRange<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            FormRange::Sorted(sorted) => sorted.next().map(Scored::as_pair),
            FormRange::Table(table, items) => {
                items.next().map(|item| (table.member(item), item.score))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            FormRange::Sorted(sorted) => sorted.size_hint(),
            FormRange::Table(_, items) => items.size_hint(),
        }
    }
}

impl DoubleEndedIterator for ZSetRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            FormRange::Sorted(sorted) => sorted.next_back().map(Scored::as_pair),
            FormRange::Table(table, items) => {
                items.next_back().map(|item| (table.member(item), item.score))
            }
        }
    }
}

impl ExactSizeIterator for ZSetRange<'_> {}
