//! A larger hash: a dense table from field to value.

use super::packed::Pairs;
use crate::keyspace::Bin;
use crate::keyspace::dense::{Dense, Keyed, MemberKey};
use crate::keyspace::packed::Packed;

/// A field with its value.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) field: Bin,
    pub(super) value: Bin,
}

impl Keyed for Pair {
    fn key(&self) -> &[u8] {
        &self.field
    }
}

impl Pair {
    fn new(field: &[u8], value: &[u8]) -> Self {
        Self { field: field.into(), value: value.into() }
    }

    pub(super) fn as_slices(&self) -> (&[u8], &[u8]) {
        (&self.field, &self.value)
    }
}

/// The table of what is in `run`, in its order, with room for one more.
pub(super) fn of_run(run: &Packed, key: MemberKey) -> Dense<Pair> {
    let mut table = Dense::with_capacity(key, run.len() / 2 + 1);
    for (field, value) in Pairs::of(run) {
        table.insert_with(field, || Pair::new(field, value));
    }
    table
}

/// Sets `field` to `value`; whether the field is new.
pub(super) fn insert(table: &mut Dense<Pair>, field: &[u8], value: &[u8]) -> bool {
    let (position, is_new) = table.insert_with(field, || Pair::new(field, value));
    if !is_new && let Some(pair) = table.get_mut(position) {
        // A new buffer of the right size: the old one may be much longer.
        pair.value = value.into();
    }
    is_new
}

/// Removes `field`, whose place the last one takes; whether it was there.
pub(super) fn remove(table: &mut Dense<Pair>, field: &[u8]) -> bool {
    match table.position(field) {
        Some(position) => {
            drop(table.swap_remove(position));
            true
        }
        None => false,
    }
}
