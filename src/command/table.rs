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

static TABLE: [Option<Row>; SLOTS] = build();

/// A command and what tells it apart at a glance: most names are at most eight letters, and then one
/// comparison of words is all.
#[derive(Clone, Copy, Debug)]
struct Row {
    word: u64,
    length: usize,
    command: &'static DataCommand,
}

/// The data command called `name`, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static DataCommand> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let word = folded(name);
    let mut slot = slot_of(word, name);
    while let Some(row) = TABLE[slot] {
        if row.word == word
            && row.length == name.len()
            && (name.len() <= WORD_BYTES && is_all_letters(word, name.len())
                || row.command.spec.name.as_bytes().eq_ignore_ascii_case(name))
        {
            return Some(row.command);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// Every data command, group by group.
pub fn all() -> impl Iterator<Item = &'static DataCommand> {
    GROUPS.iter().flat_map(|group| group.iter().copied())
}

/// Bytes that are compared at once.
const WORD_BYTES: usize = 8;

/// The first eight bytes of `name`, letters of either case made equal by setting bit `0x20`; other bytes that it
/// makes equal are told apart by a comparison of the whole.
const fn folded(name: &[u8]) -> u64 {
    const CASE: u64 = 0x2020_2020_2020_2020;
    if let Some(head) = name.first_chunk::<WORD_BYTES>() {
        return u64::from_le_bytes(*head) | CASE;
    }
    let mut word = 0;
    let mut index = 0;
    while index < name.len() {
        word |= (name[index] as u64) << (8 * index);
        index += 1;
    }
    word | CASE
}

/// Whether the first `length` bytes of a folded word are letters, which folding confuses with nothing else.
const fn is_all_letters(word: u64, length: usize) -> bool {
    // Per byte, without carries between them: bit 7 is set when it is at least 'a', at most 'z', and ASCII.
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let low_bits = word & !HIGH;
    let at_least_a = low_bits + ONES * (0x80 - b'a' as u64);
    let above_z = low_bits + ONES * (0x7f - b'z' as u64);
    let letters = at_least_a & !above_z & !word & HIGH;
    let wanted = if length >= WORD_BYTES { HIGH } else { HIGH & ((1 << (8 * length)) - 1) };
    letters & wanted == wanted
}

/// Where the search for a name starts.
const fn slot_of(word: u64, name: &[u8]) -> usize {
    let mut hash = word ^ name.len() as u64;
    if name.len() > WORD_BYTES {
        // Long names differ at their ends: two overlapping words see all of the first sixteen bytes.
        hash ^= folded(name.split_at(name.len() - WORD_BYTES).1).rotate_left(17);
    }
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 48) as usize % SLOTS
}

#[expect(clippy::large_stack_arrays, reason = "built while compiling; no stack is involved")]
const fn build() -> [Option<Row>; SLOTS] {
    let mut table: [Option<Row>; SLOTS] = [None; SLOTS];
    let mut count = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            let command = GROUPS[group][row];
            let name = command.spec.name.as_bytes();
            assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "a name of a fitting length");
            let word = folded(name);
            let mut slot = slot_of(word, name);
            while let Some(other) = table[slot] {
                let other = other.command.spec.name.as_bytes();
                assert!(!same(other, name), "two commands have one name");
                slot = (slot + 1) % SLOTS;
            }
            table[slot] = Some(Row { word, length: name.len(), command });
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
        for name in [
            &b""[..],
            b"ge",
            b"gett",
            b"g\x45t\0",
            b"\x07\x05\x14",
            b"ge\xf4",
            b"g`t",
            b"g{t",
            &[b'a'; 1000],
        ] {
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
