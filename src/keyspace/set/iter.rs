//! The members of a set, one after the other.

use std::borrow::Cow;

use super::integers::text;
use crate::keyspace::Bin;
use crate::keyspace::packed;

/// The members of a set.
#[derive(Clone, Debug)]
pub struct SetIter<'a>(pub(super) FormIter<'a>);

#[derive(Clone, Debug)]
pub(super) enum FormIter<'a> {
    Integers(std::slice::Iter<'a, i64>),
    Packed(packed::Iter<'a>),
    Table(std::slice::Iter<'a, Bin>),
}

impl<'a> Iterator for SetIter<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            FormIter::Integers(numbers) => numbers.next().map(|&number| text(number)),
            FormIter::Packed(run) => run.next().map(Cow::Borrowed),
            FormIter::Table(members) => members.next().map(|member| Cow::Borrowed(&**member)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            FormIter::Integers(numbers) => numbers.len(),
            FormIter::Packed(run) => run.len(),
            FormIter::Table(members) => members.len(),
        };
        (len, Some(len))
    }
}

impl ExactSizeIterator for SetIter<'_> {}
