//! Commands of a packet that are about to run: read from its bytes together, so that their keys can be fetched together.
//!
//! A command's words lie with those of its neighbours in one place that is used again for the next window. Each command
//! as a value of its own, words and all, was copied on every step of its way: from the bytes into it, into the window, out
//! of that and to what runs it.

use smallvec::SmallVec;

use super::proposal::{Commands, Head};
use crate::command::{self, DataCommand, Invocation};
use crate::keyspace::{At, KEYS_AHEAD_MAX, Key, Keyspace};
use crate::resp::Protocol;
use crate::stdx::clock::UnixMillis;

/// Words of a window of short commands.
const WORDS_INLINE: usize = 4 * KEYS_AHEAD_MAX;

/// Some commands of a packet, in their order.
#[derive(Default)]
pub(super) struct Window<'a> {
    /// The words of all.
    words: SmallVec<[&'a [u8]; WORDS_INLINE]>,
    commands: SmallVec<[Known<'a>; KEYS_AHEAD_MAX]>,
}

/// A command whose words are elsewhere.
#[derive(Clone, Copy)]
struct Known<'a> {
    found: &'static DataCommand,
    head: Head,
    /// Its first key, found out once for whoever weighs it, fetches it and runs the command.
    key: Option<Key<'a>>,
    /// Where its words end, which begin where those before it end.
    end: usize,
}

/// A command that is about to run.
#[derive(Clone, Copy)]
pub(super) struct Ready<'w> {
    /// What it means, and its words.
    pub invocation: Invocation<'w>,
    head: Head,
}

impl Ready<'_> {
    /// Whether it is the first of its submission.
    pub(super) fn begins(&self) -> bool {
        self.head.begins
    }

    /// How its reply is to be encoded.
    pub(super) fn protocol(&self) -> Protocol {
        self.head.protocol
    }

    /// Where it looks, at `now`.
    pub(super) fn at(&self, now: UnixMillis) -> At {
        At::new(self.head.db, now)
    }
}

impl<'a> Window<'a> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.commands.clear();
    }

    /// Takes the next one of `commands`, which were checked and are to run on `keyspace`; `None` behind the last.
    pub(super) fn take(
        &mut self,
        commands: &mut Commands<'a>,
        keyspace: &Keyspace,
    ) -> Option<Ready<'_>> {
        let start = self.words.len();
        let head = commands.next_into(&mut self.words)?;
        let head = head.expect("Packet::check has walked the same bytes");
        let argv = &self.words[start..];
        let found = command::lookup(argv[0]).expect("Packet::check has looked it up");
        let position = found.spec.first_key_position();
        let key = position.and_then(|position| argv.get(position).copied());
        let key = key.map(|key| keyspace.key(key));
        self.commands.push(Known { found, head, key, end: self.words.len() });
        Some(Ready { invocation: Invocation { command: found, argv, key }, head })
    }

    /// Gives the last one back: it is not to run now.
    pub(super) fn give_back(&mut self) {
        self.commands.pop();
        self.words.truncate(self.commands.last().map_or(0, |before| before.end));
    }

    /// Lets their keys be fetched together, before each would wait for its own.
    pub(super) fn look_ahead(&self, keyspace: &Keyspace) {
        if self.len() > 1 {
            let keys = self.commands.iter().filter_map(|known| Some((known.head.db, known.key?)));
            keyspace.look_ahead(keys);
        }
    }

    /// The commands, to be run.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ready<'_>> {
        let mut start = 0;
        self.commands.iter().map(move |known| {
            let argv = &self.words[start..known.end];
            start = known.end;
            let invocation = Invocation { command: known.found, argv, key: known.key };
            Ready { invocation, head: known.head }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DbIndex;
    use crate::shard::proposal::put_command;
    use crate::stdx::hash_key::HashKey;

    fn keyspace() -> Keyspace {
        Keyspace::new(0..=16_383, HashKey::new([1, 2]))
    }

    fn body_of(lines: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            put_command(Protocol::Resp3, DbIndex(u8::try_from(number).unwrap()), &argv, &mut body);
        }
        body
    }

    fn lines(window: &Window<'_>) -> Vec<String> {
        let words = |ready: Ready<'_>| ready.invocation.argv.join(&b' ');
        window.iter().map(|ready| String::from_utf8(words(ready)).unwrap()).collect()
    }

    #[test]
    fn each_command_has_its_own_words() {
        let body = body_of(&["SET a 1", "MGET a b c", "FLUSHALL", "GET"]);
        let mut commands = Commands::new(&body);
        let mut window = Window::default();
        let keyspace = keyspace();
        let first = window.take(&mut commands, &keyspace).unwrap().invocation;
        assert_eq!((first.argv.len(), first.command.spec.name), (3, "set"));
        for _ in 0..3 {
            assert!(window.take(&mut commands, &keyspace).is_some());
        }
        assert!(window.take(&mut commands, &keyspace).is_none());
        assert_eq!(lines(&window), ["SET a 1", "MGET a b c", "FLUSHALL", "GET"]);
        let dbs: Vec<_> = window.iter().map(|ready| ready.at(UnixMillis(5)).db().0).collect();
        assert_eq!(dbs, [0, 1, 2, 3]);
        let keys: Vec<_> = window.iter().map(|ready| ready.invocation.key).collect();
        let first = Some(keyspace.key(b"a"));
        assert_eq!(keys, [first, first, None, None], "the first one, where it is there");
        assert!(window.iter().all(|ready| ready.protocol() == Protocol::Resp3));
    }

    #[test]
    fn what_is_given_back_leaves_nothing_of_it() {
        let body = body_of(&["SET a 1", "DEL b c"]);
        let mut commands = Commands::new(&body);
        let mut window = Window::default();
        let keyspace = keyspace();
        while window.take(&mut commands, &keyspace).is_some() {}
        window.give_back();
        assert_eq!(lines(&window), ["SET a 1"]);
        window.give_back();
        assert_eq!((window.len(), window.words.len()), (0, 0));
        let mut again = Commands::new(&body);
        window.take(&mut again, &keyspace);
        window.clear();
        window.take(&mut again, &keyspace);
        assert_eq!(lines(&window), ["DEL b c"]);
    }
}
