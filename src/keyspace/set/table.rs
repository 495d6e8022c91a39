//! A larger set: a dense table of its members.

use std::borrow::Cow;

use crate::keyspace::Bin;
use crate::keyspace::dense::{Dense, Keyed, MemberKey};

impl Keyed for Bin {
    fn key(&self) -> &[u8] {
        self
    }
}

/// The table of `members`, in their order, with room for one more.
pub(super) fn of_members<'a>(
    members: impl ExactSizeIterator<Item = Cow<'a, [u8]>>,
    key: MemberKey,
) -> Dense<Bin> {
    let mut table = Dense::with_capacity(key, members.len() + 1);
    for member in members {
        table.insert_with(&member, || Bin::from_slice(&member));
    }
    table
}
