//! A list on its way from a snapshot.

use super::List;
use crate::keyspace::error::DecodeError;
use crate::keyspace::words::Words;

/// A list that is read from a snapshot.
#[derive(Debug)]
pub(in crate::keyspace) struct ListLoading {
    list: List,
    left: usize,
}

impl ListLoading {
    /// One of `count` elements.
    pub(in crate::keyspace) fn new(count: usize) -> Self {
        Self { list: List::new(), left: count }
    }

    /// Reads elements.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes; [`DecodeError::Truncated`] until all have come.
    pub(in crate::keyspace) fn load(
        &mut self,
        words: &mut Words<'_, '_>,
    ) -> Result<(), DecodeError> {
        while self.left > 0 {
            self.list.push_back(&words.bytes()?);
            self.left -= 1;
        }
        Ok(())
    }

    /// The list, when all has come.
    pub(in crate::keyspace) fn finish(self) -> List {
        self.list
    }
}
