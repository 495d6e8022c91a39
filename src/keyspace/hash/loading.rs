//! A hash on its way from a snapshot.

use super::packed::{BEYOND_LIMITS, PACKED_BYTES_MAX, PACKED_FIELDS_MAX};
use super::table::Pair;
use super::{FORM_PACKED, FORM_TABLE, Form, Hash};
use crate::keyspace::Bin;
use crate::keyspace::dense::{Dense, MemberKey};
use crate::keyspace::error::DecodeError;
use crate::keyspace::words::{Words, into_bin};

/// A hash that is read from a snapshot.
#[derive(Debug)]
pub(in crate::keyspace) struct HashLoading {
    hash: Hash,
    left: usize,
    /// Of the next pair, when only that has come.
    field: Option<Bin>,
}

impl HashLoading {
    /// One of `count` fields in `form`.
    ///
    /// # Errors
    /// [`DecodeError::UnknownFormat`], and [`DecodeError::Invalid`] for a packed hash beyond its limits.
    pub(in crate::keyspace) fn new(
        form: u8,
        count: usize,
        key: MemberKey,
    ) -> Result<Self, DecodeError> {
        let hash = match form {
            FORM_PACKED if count > PACKED_FIELDS_MAX => return Err(BEYOND_LIMITS),
            FORM_PACKED => Hash::new(key),
            FORM_TABLE => Hash(Form::Table(Dense::with_capacity(key, 0)), key),
            other => return Err(DecodeError::UnknownFormat(other)),
        };
        Ok(Self { hash, left: count, field: None })
    }

    /// Reads fields.
    ///
    /// # Errors
    /// [`DecodeError::Duplicate`] for a field that occurs twice, and whatever else is wrong with the bytes;
    /// [`DecodeError::Truncated`] until all have come.
    pub(in crate::keyspace) fn load(
        &mut self,
        words: &mut Words<'_, '_>,
    ) -> Result<(), DecodeError> {
        while self.left > 0 {
            let field = match self.field.take() {
                Some(field) => field,
                None => into_bin(words.bytes()?),
            };
            let value = match words.bytes() {
                Ok(value) => value,
                Err(error) => {
                    self.field = Some(field);
                    return Err(error);
                }
            };
            let is_new = match &mut self.hash.0 {
                Form::Packed(_) if field.len().max(value.len()) > PACKED_BYTES_MAX => {
                    return Err(BEYOND_LIMITS);
                }
                Form::Packed(_) => self.hash.insert(&field, &value),
                Form::Table(table) => {
                    table.make_room(self.left);
                    table.insert(Pair { field, value: into_bin(value) })
                }
            };
            if !is_new {
                return Err(DecodeError::Duplicate("field"));
            }
            self.left -= 1;
        }
        Ok(())
    }

    /// The hash, when all has come.
    pub(in crate::keyspace) fn finish(self) -> Hash {
        self.hash
    }
}
