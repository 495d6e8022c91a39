//! Name → data command: the group tables as one, built while compiling.

use super::apply::DataCommand;
use super::{generic, hash, list, server, set, sorted_set, stream, string};

/// The tables of the groups.
const GROUPS: &[&[&DataCommand]] = &[
    string::COMMANDS,
    list::COMMANDS,
    set::COMMANDS,
    hash::COMMANDS,
    sorted_set::COMMANDS,
    stream::COMMANDS,
    generic::COMMANDS,
    server::COMMANDS,
];

/// Slots of the hash table; a power of two with room for four times the commands there are, so that a miss
/// ends soon.
const SLOTS: usize = 1024;

/// Longest name of a command, in bytes. A longer one cannot be found.
const NAME_BYTES_MAX: usize = 32;

static TABLE: [Option<&DataCommand>; SLOTS] = build();

/// The data command called `name`, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static DataCommand> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut slot = slot_of(name);
    while let Some(command) = TABLE[slot] {
        if command.spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// Every data command, group by group.
pub fn all() -> impl Iterator<Item = &'static DataCommand> {
    GROUPS.iter().flat_map(|group| group.iter().copied())
}

/// Where the search for `name` starts. Folding with `0x20` makes letters of either case equal; what else it
/// makes equal is told apart by the comparison. Eight bytes a step: most names are one.
const fn slot_of(name: &[u8]) -> usize {
    let mut hash = name.len() as u64;
    let mut rest = name;
    loop {
        let mut word = 0;
        if let Some((head, tail)) = rest.split_first_chunk::<8>() {
            word = u64::from_le_bytes(*head);
            rest = tail;
        } else {
            let mut index = 0;
            while index < rest.len() {
                word |= (rest[index] as u64) << (8 * index);
                index += 1;
            }
            rest = &[];
        }
        hash = (hash ^ (word | 0x2020_2020_2020_2020)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        if rest.is_empty() {
            return (hash >> 40) as usize % SLOTS;
        }
    }
}

const fn build() -> [Option<&'static DataCommand>; SLOTS] {
    let mut table: [Option<&'static DataCommand>; SLOTS] = [None; SLOTS];
    let mut count = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            let command = GROUPS[group][row];
            let name = command.spec.name.as_bytes();
            assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "a name of a fitting length");
            let mut slot = slot_of(name);
            while let Some(other) = table[slot] {
                assert!(!same(other.spec.name.as_bytes(), name), "two commands have one name");
                slot = (slot + 1) % SLOTS;
            }
            table[slot] = Some(command);
            count += 1;
            row += 1;
        }
        group += 1;
    }
    assert!(count * 4 <= SLOTS, "the table is too small");
    table
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    left.eq_ignore_ascii_case(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case() {
        for command in all() {
            let name = command.spec.name;
            for name in [name.to_lowercase(), name.to_uppercase()] {
                let found = lookup(name.as_bytes()).map(|found| found.spec.name);
                assert_eq!(found, Some(command.spec.name), "{name}");
            }
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in [&b""[..], b"ge", b"gett", b"g\x45t\0", b"\x07\x05\x14", &[b'a'; 1000]] {
            assert!(lookup(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn names_are_lower_case_and_declared_as_they_run() {
        for command in all() {
            let spec = command.spec;
            assert_eq!(spec.name, spec.name.to_lowercase());
            assert_eq!(command.is_write(), spec.is_write(), "{}", spec.name);
            assert!(!(spec.is_write() && spec.is_read_only()), "{}", spec.name);
        }
    }

    #[test]
    fn the_table_has_short_chains() {
        let longest = TABLE
            .split(Option::is_none)
            .map(<[_]>::len)
            .max()
            .expect("the table has at least one run");
        assert!(longest <= 8, "{longest}");
    }
}
