//! A small hash: one packed run of `field, value, field, value …`.

use crate::keyspace::error::DecodeError;
use crate::keyspace::packed::{self, Packed};

/// The most fields of a packed hash.
pub(super) const PACKED_FIELDS_MAX: usize = 128;
/// The longest field or value of a packed hash, in bytes.
pub(super) const PACKED_BYTES_MAX: usize = 64;

pub(super) const BEYOND_LIMITS: DecodeError =
    DecodeError::Invalid("a packed hash is beyond its limits");

/// The fields of a run with their values.
#[derive(Clone, Debug)]
pub(super) struct Pairs<'a>(packed::Iter<'a>);

impl<'a> Pairs<'a> {
    pub(super) fn of(run: &'a Packed) -> Self {
        Self(run.iter())
    }

    /// Those from the one at `index` on, which may be the end.
    pub(super) fn from(run: &'a Packed, index: usize) -> Self {
        Self(run.iter_from(2 * index))
    }

    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.0.len() / 2
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().zip(self.0.next())
    }
}

/// Sets `field` to `value` and says whether the field is new; `None`, and nothing is done, where that is for a table.
pub(super) fn insert(run: &mut Packed, field: &[u8], value: &[u8]) -> Option<bool> {
    let found = position(run, field);
    let is_small = field.len() <= PACKED_BYTES_MAX && value.len() <= PACKED_BYTES_MAX;
    match found {
        Some(index) if is_small => {
            run.replace(2 * index + 1, value);
            Some(false)
        }
        None if is_small && run.len() / 2 < PACKED_FIELDS_MAX => {
            run.push_back(field);
            run.push_back(value);
            Some(true)
        }
        Some(_) | None => None,
    }
}

/// Removes `field`, whose place the last one takes; whether it was there.
pub(super) fn remove(run: &mut Packed, field: &[u8]) -> bool {
    match position(run, field) {
        Some(index) => {
            run.swap_remove(2 * index, 2);
            true
        }
        None => false,
    }
}

fn position(run: &Packed, field: &[u8]) -> Option<usize> {
    Pairs::of(run).position(|(other, _)| other == field)
}
