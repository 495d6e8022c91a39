//! A set on its way from a snapshot.

use super::integers::{self, INTEGERS_MAX};
use super::packed::{BEYOND_LIMITS, PACKED_BYTES_MAX, PACKED_MEMBERS_MAX};
use super::{FORM_INTEGERS, FORM_PACKED, FORM_TABLE, Form, Set};
use crate::keyspace::dense::{Dense, MemberKey};
use crate::keyspace::error::DecodeError;
use crate::keyspace::packed::Packed;
use crate::keyspace::words::{Words, into_bin};

/// A set that is read from a snapshot.
#[derive(Debug)]
pub(in crate::keyspace) struct SetLoading {
    set: Set,
    left: usize,
}

impl SetLoading {
    /// One of `count` members in `form`.
    ///
    /// # Errors
    /// [`DecodeError::UnknownFormat`], and [`DecodeError::Invalid`] for a form beyond its limits.
    pub(in crate::keyspace) fn new(
        form: u8,
        count: usize,
        key: MemberKey,
    ) -> Result<Self, DecodeError> {
        let form = match form {
            FORM_INTEGERS if count > INTEGERS_MAX => {
                return Err(DecodeError::Invalid("a set of integers is beyond its limit"));
            }
            FORM_INTEGERS => Form::Integers(Vec::new()),
            FORM_PACKED if count > PACKED_MEMBERS_MAX => return Err(BEYOND_LIMITS),
            FORM_PACKED => Form::Packed(Packed::new()),
            FORM_TABLE => Form::Table(Dense::with_capacity(key, 0)),
            other => return Err(DecodeError::UnknownFormat(other)),
        };
        Ok(Self { set: Set(form, key), left: count })
    }

    /// Reads members.
    ///
    /// # Errors
    /// [`DecodeError::Duplicate`] for a member that occurs twice, and whatever else is wrong with the bytes;
    /// [`DecodeError::Truncated`] until all have come.
    pub(in crate::keyspace) fn load(
        &mut self,
        words: &mut Words<'_, '_>,
    ) -> Result<(), DecodeError> {
        while self.left > 0 {
            let is_new = match &mut self.set.0 {
                Form::Integers(numbers) => {
                    let last = numbers.last().copied();
                    let number = words.small(|bytes| integers::take(bytes, last))?;
                    numbers.push(number);
                    true
                }
                Form::Packed(_) => {
                    let member = words.bytes()?;
                    if member.len() > PACKED_BYTES_MAX {
                        return Err(BEYOND_LIMITS);
                    }
                    self.set.insert(&member)
                }
                Form::Table(table) => {
                    let member = words.bytes()?;
                    table.make_room(self.left);
                    table.insert(into_bin(member))
                }
            };
            if !is_new {
                return Err(DecodeError::Duplicate("member"));
            }
            self.left -= 1;
        }
        Ok(())
    }

    /// The set, when all has come.
    pub(in crate::keyspace) fn finish(self) -> Set {
        self.set
    }
}
