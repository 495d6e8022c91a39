//! Commands of a packet that are about to run: read from its bytes together, so that their keys can be fetched together.
//!
//! A command's words lie with those of its neighbours in one place that is used again for the next window. Each command
//! as a value of its own, words and all, was copied on every step of its way: from the bytes into it, into the window, out
//! of that and to what runs it.

use smallvec::SmallVec;

use super::proposal::{Commands, Head};
use crate::command::{self, DataCommand};
use crate::ids::DbIndex;
use crate::keyspace::{At, KEYS_AHEAD_MAX, Keyspace};
use crate::resp::Protocol;
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;

/// Words of a window of short commands.
const WORDS_INLINE: usize = 4 * KEYS_AHEAD_MAX;

/// Some commands of a packet, in their order.
#[derive(Default)]
pub(super) struct Window<'a> {
    /// The words of all.
    words: SmallVec<[&'a [u8]; WORDS_INLINE]>,
    commands: SmallVec<[Known; KEYS_AHEAD_MAX]>,
}

/// A command whose words are elsewhere.
#[derive(Clone, Copy)]
struct Known {
    found: &'static DataCommand,
    head: Head,
    /// Of its only key, where it has one alone.
    slot: Option<Slot>,
    /// Where its words end, which begin where those before it end.
    end: usize,
}

/// A command that is about to run.
#[derive(Clone, Copy)]
pub(super) struct Ready<'w, 'a> {
    /// What it means.
    pub found: &'static DataCommand,
    /// Its name and arguments.
    pub argv: &'w [&'a [u8]],
    head: Head,
    slot: Option<Slot>,
}

impl<'a> Ready<'_, 'a> {
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
        At::new(self.head.db, now).within(self.slot)
    }

    fn first_key(&self) -> Option<(DbIndex, Slot, &'a [u8])> {
        let key = *self.argv.get(self.found.spec.first_key_position()?)?;
        Some((self.head.db, self.slot.unwrap_or_else(|| Slot::of(key)), key))
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

    /// Takes the next one of `commands`, which were checked; `None` behind the last.
    pub(super) fn take(&mut self, commands: &mut Commands<'a>) -> Option<Ready<'_, 'a>> {
        let start = self.words.len();
        let head = commands.next_into(&mut self.words)?;
        let head = head.expect("Packet::check has walked the same bytes");
        let argv = &self.words[start..];
        let found = command::lookup(argv[0]).expect("Packet::check has looked it up");
        let only = found.spec.only_key_position();
        let slot = only.and_then(|position| argv.get(position)).map(|key| Slot::of(key));
        self.commands.push(Known { found, head, slot, end: self.words.len() });
        Some(Ready { found, argv, head, slot })
    }

    /// Gives the last one back: it is not to run now.
    pub(super) fn give_back(&mut self) {
        self.commands.pop();
        self.words.truncate(self.commands.last().map_or(0, |before| before.end));
    }

    /// Lets their keys be fetched together, before each would wait for its own.
    pub(super) fn look_ahead(&self, keyspace: &Keyspace) {
        if self.len() > 1 {
            keyspace.look_ahead(self.iter().filter_map(|ready| ready.first_key()));
        }
    }

    /// The commands, to be run.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ready<'_, 'a>> {
        let mut start = 0;
        self.commands.iter().map(move |known| {
            let argv = &self.words[start..known.end];
            start = known.end;
            Ready { found: known.found, argv, head: known.head, slot: known.slot }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::proposal::put_command;

    fn body_of(lines: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            put_command(Protocol::Resp3, DbIndex(u8::try_from(number).unwrap()), &argv, &mut body);
        }
        body
    }

    fn lines(window: &Window<'_>) -> Vec<String> {
        let words = |ready: Ready<'_, '_>| ready.argv.join(&b' ');
        window.iter().map(|ready| String::from_utf8(words(ready)).unwrap()).collect()
    }

    #[test]
    fn each_command_has_its_own_words() {
        let body = body_of(&["SET a 1", "MGET a b c", "FLUSHALL", "GET"]);
        let mut commands = Commands::new(&body);
        let mut window = Window::default();
        let first = window.take(&mut commands).unwrap();
        assert_eq!((first.argv.len(), first.found.spec.name), (3, "set"));
        for _ in 0..3 {
            assert!(window.take(&mut commands).is_some());
        }
        assert!(window.take(&mut commands).is_none());
        assert_eq!(lines(&window), ["SET a 1", "MGET a b c", "FLUSHALL", "GET"]);
        let now = UnixMillis(5);
        let slots: Vec<_> = window.iter().map(|ready| ready.at(now).slot()).collect();
        assert_eq!(slots, [Some(Slot::of(b"a")), None, None, None], "of an only key that is there");
        let dbs: Vec<_> = window.iter().map(|ready| ready.at(now).db().0).collect();
        assert_eq!(dbs, [0, 1, 2, 3]);
        let keys: Vec<_> = window.iter().map(|ready| ready.first_key()).collect();
        assert_eq!(keys[1], Some((DbIndex(1), Slot::of(b"a"), &b"a"[..])));
        assert_eq!((keys[2], keys[3]), (None, None));
        assert!(window.iter().all(|ready| ready.protocol() == Protocol::Resp3));
    }

    #[test]
    fn what_is_given_back_leaves_nothing_of_it() {
        let body = body_of(&["SET a 1", "DEL b c"]);
        let mut commands = Commands::new(&body);
        let mut window = Window::default();
        while window.take(&mut commands).is_some() {}
        window.give_back();
        assert_eq!(lines(&window), ["SET a 1"]);
        window.give_back();
        assert_eq!((window.len(), window.words.len()), (0, 0));
        let mut again = Commands::new(&body);
        window.take(&mut again);
        window.clear();
        window.take(&mut again);
        assert_eq!(lines(&window), ["DEL b c"]);
    }
}
