//! A sorted set on its way from a snapshot.

use super::sorted::{BEYOND_LIMITS, SORTED_MEMBERS_MAX, Scored, load_sorted};
use super::table::Table;
use super::{FORM_SORTED, FORM_TABLE, Form, ZSet};
use crate::keyspace::Bin;
use crate::keyspace::dense::{Dense, MemberKey};
use crate::keyspace::error::DecodeError;
use crate::keyspace::words::{Words, into_bin};
use crate::stdx::codec;

/// A sorted set that is read from a snapshot. The order of a table is made when all its members have come.
#[derive(Debug)]
pub(in crate::keyspace) struct ZSetLoading {
    members: MembersLoading,
    key: MemberKey,
    left: usize,
    /// The next member, when its score has not come.
    member: Option<Bin>,
}

#[derive(Debug)]
enum MembersLoading {
    Sorted(Vec<Scored>),
    Table(Dense<Scored>),
}

impl ZSetLoading {
    /// One of `count` members in `form`.
    ///
    /// # Errors
    /// [`DecodeError::UnknownFormat`], and [`DecodeError::Invalid`] for a small set beyond its limits.
    pub(in crate::keyspace) fn new(
        form: u8,
        count: usize,
        key: MemberKey,
    ) -> Result<Self, DecodeError> {
        let members = match form {
            FORM_SORTED if count > SORTED_MEMBERS_MAX => return Err(BEYOND_LIMITS),
            FORM_SORTED => MembersLoading::Sorted(Vec::new()),
            FORM_TABLE => MembersLoading::Table(Dense::with_capacity(key, 0)),
            other => return Err(DecodeError::UnknownFormat(other)),
        };
        Ok(Self { members, key, left: count, member: None })
    }

    /// Reads members.
    ///
    /// # Errors
    /// [`DecodeError::Duplicate`] for a member that occurs twice, [`DecodeError::Invalid`] for a score that is not a number
    /// and for a small set out of order or beyond its limits, and whatever else is wrong with the bytes;
    /// [`DecodeError::Truncated`] until all have come.
    pub(in crate::keyspace) fn load(
        &mut self,
        words: &mut Words<'_, '_>,
    ) -> Result<(), DecodeError> {
        while self.left > 0 {
            let member = match self.member.take() {
                Some(member) => member,
                None => into_bin(words.bytes()?),
            };
            let score = match words.small(codec::take_f64) {
                Ok(score) if score.is_nan() => {
                    return Err(DecodeError::Invalid("a score is not a number"));
                }
                Ok(score) => score,
                Err(error) => {
                    self.member = Some(member);
                    return Err(error);
                }
            };
            let scored = Scored { score, member };
            match &mut self.members {
                MembersLoading::Sorted(sorted) => load_sorted(sorted, scored)?,
                MembersLoading::Table(table) => {
                    table.make_room(self.left);
                    if !table.insert(scored) {
                        return Err(DecodeError::Duplicate("member"));
                    }
                }
            }
            self.left -= 1;
        }
        Ok(())
    }

    /// The set, when all has come.
    pub(in crate::keyspace) fn finish(self) -> ZSet {
        let form = match self.members {
            MembersLoading::Sorted(sorted) => Form::Sorted(sorted),
            MembersLoading::Table(members) => Form::Table(Box::new(Table::of_members(members))),
        };
        ZSet(form, self.key)
    }
}
