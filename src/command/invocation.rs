//! A command that is about to run: what it means, its words, and what is known of its key.

use super::apply::DataCommand;
use crate::keyspace::{Key, Keyspace};

/// A data command with its words.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// What it means.
    pub command: &'static DataCommand,
    /// Its name and arguments.
    pub argv: &'a [&'a [u8]],
    /// Its first key, if its slot and hash were found out on the way here: whoever looks at the key need not again.
    pub key: Option<Key<'a>>,
}

impl<'a> Invocation<'a> {
    /// Of whose keys nothing is known.
    pub const fn new(command: &'static DataCommand, argv: &'a [&'a [u8]]) -> Self {
        Self { command, argv, key: None }
    }

    /// Whose first key is found out now, where a fixed word is one: several will look at it in `keyspace`.
    #[inline]
    #[must_use]
    pub fn located(
        command: &'static DataCommand,
        argv: &'a [&'a [u8]],
        keyspace: &Keyspace,
    ) -> Self {
        let position = command.spec.first_key_position();
        let key = position.and_then(|position| argv.get(position)).map(|key| keyspace.key(key));
        Self { command, argv, key }
    }

    /// Its first key, be it known or not; `None` where no fixed word is one.
    #[inline]
    pub fn first_key(&self, keyspace: &Keyspace) -> Option<Key<'a>> {
        self.key.or_else(|| Self::located(self.command, self.argv, keyspace).key)
    }
}
