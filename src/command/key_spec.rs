//! Where the keys of a command stand in its argv, and what the command does to them.
//!
//! A key spec finds the first key (at an index, or after a keyword) and from there the others (a range,
//! or a count that argv gives). Everything here takes argv as a client sent it: nothing is trusted and
//! nothing panics. Source: Redis docs, "Command key specifications".

use smallvec::SmallVec;

use super::spec::Spec;

/// One rule that finds keys. Built by [`KeySpec::at`] or [`KeySpec::after_keyword`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// How the first key is found.
    pub begin: BeginSearch,
    /// How the others are found from there.
    pub find: FindKeys,
    /// What the command does to these keys.
    pub flags: &'static [KeyFlag],
    /// A remark that COMMAND shows; empty for none.
    pub notes: &'static str,
}

/// How the first key is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginSearch {
    /// At this index of argv; the command's name is 0.
    Index(u8),
    /// Right after a keyword.
    Keyword {
        /// The keyword, compared without case.
        keyword: &'static str,
        /// Index where the search starts; negative counts from the end and searches backward.
        start_from: i8,
    },
    /// Only the command itself knows, see [`Spec::locate_keys`].
    Unknown,
}

/// How further keys are found, relative to the first position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindKeys {
    /// Keys at regular distances.
    Range {
        /// The last key: relative to the first; negative counts from the end of argv.
        last: i8,
        /// Distance from one key to the next.
        step: u8,
        /// With `last` −1: 2 means only the first half of what remains holds keys, 0 and 1 all of it.
        limit: u8,
    },
    /// argv says how many keys there are.
    KeyNum {
        /// Where the count stands.
        count_at: u8,
        /// Where the first key stands.
        first: u8,
        /// Distance from one key to the next.
        step: u8,
    },
    /// Only the command itself knows.
    Unknown,
}

/// What a command does to a key. The first four exclude one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyFlag {
    /// Reads and writes it.
    Rw,
    /// Reads it.
    Ro,
    /// Overwrites it without looking.
    Ow,
    /// Removes it.
    Rm,
    /// Tells the client what is in it.
    Access,
    /// Changes what is in it.
    Update,
    /// Adds to it without changing what is there.
    Insert,
    /// Deletes something of it or it.
    Delete,
    /// Is routed like a key but is none, e.g. a channel of sharded Pub/Sub.
    NotKey,
    /// The spec may miss some keys.
    Incomplete,
    /// Depends on the other arguments.
    VariableFlags,
}

impl KeyFlag {
    /// The name COMMAND shows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rw => "RW",
            Self::Ro => "RO",
            Self::Ow => "OW",
            Self::Rm => "RM",
            Self::Access => "access",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::NotKey => "not_key",
            Self::Incomplete => "incomplete",
            Self::VariableFlags => "variable_flags",
        }
    }
}

/// Indexes into argv where keys stand, in the order of the specs.
pub type KeyPositions = SmallVec<[usize; 4]>;

/// Why the keys of an argv could not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPositionError {
    /// A count is no number or says more keys than there are arguments.
    #[error("Invalid arguments specified for command")]
    InvalidArguments,
}

impl KeySpec {
    /// One key at index `position` of argv.
    pub const fn at(position: u8) -> Self {
        Self {
            begin: BeginSearch::Index(position),
            find: FindKeys::Range { last: 0, step: 1, limit: 0 },
            flags: &[],
            notes: "",
        }
    }

    /// One key after `keyword`, searched from index `start_from` (negative: backward from the end).
    pub const fn after_keyword(keyword: &'static str, start_from: i8) -> Self {
        Self { begin: BeginSearch::Keyword { keyword, start_from }, ..Self::at(0) }
    }

    /// A spec that says only that there may be keys.
    pub const fn unknown() -> Self {
        Self { begin: BeginSearch::Unknown, find: FindKeys::Unknown, ..Self::at(0) }
    }

    /// With what the command does to the keys.
    #[must_use]
    pub const fn access(mut self, flags: &'static [KeyFlag]) -> Self {
        self.flags = flags;
        self
    }

    /// With keys up to `last`: relative to the first, or negative and counted from the end (−1 = the last
    /// argument).
    ///
    /// # Panics
    /// When the keys are counted; at compile time in a `const`. So do the other refinements.
    #[must_use]
    pub const fn to(mut self, last: i8) -> Self {
        self.find = match self.find {
            FindKeys::Range { step, limit, .. } => FindKeys::Range { last, step, limit },
            FindKeys::KeyNum { .. } | FindKeys::Unknown => {
                panic!("only a range has a last key")
            }
        };
        self
    }

    /// With keys up to the last argument.
    #[must_use]
    pub const fn to_end(self) -> Self {
        self.to(-1)
    }

    /// With `step` arguments from one key to the next.
    ///
    /// # Panics
    /// When `step` is 0.
    #[must_use]
    pub const fn step(mut self, step: u8) -> Self {
        assert!(step > 0, "keys never stand still");
        self.find = match self.find {
            FindKeys::Range { last, limit, .. } => FindKeys::Range { last, step, limit },
            FindKeys::KeyNum { count_at, first, .. } => FindKeys::KeyNum { count_at, first, step },
            FindKeys::Unknown => FindKeys::Unknown,
        };
        self
    }

    /// With keys in the first 1/`limit` of the remaining arguments.
    ///
    /// # Panics
    /// When the keys are counted.
    #[must_use]
    pub const fn limit(mut self, limit: u8) -> Self {
        self.find = match self.find {
            FindKeys::Range { last, step, .. } => FindKeys::Range { last, step, limit },
            FindKeys::KeyNum { .. } | FindKeys::Unknown => {
                panic!("only a range has a limit")
            }
        };
        self
    }

    /// A count stands at the begin, the keys follow it: `numkeys key [key …]`.
    #[must_use]
    pub const fn counted(mut self) -> Self {
        self.find = FindKeys::KeyNum { count_at: 0, first: 1, step: 1 };
        self
    }

    /// With a remark for COMMAND.
    #[must_use]
    pub const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    /// Whether `flag` is declared.
    pub fn has(&self, flag: KeyFlag) -> bool {
        self.flags.contains(&flag)
    }

    /// Calls `found` with the index of each key.
    fn positions(
        &self,
        argv: &[&[u8]],
        found: &mut dyn FnMut(usize),
    ) -> Result<(), KeyPositionError> {
        let Some(first) = self.begin_position(argv) else { return Ok(()) };
        match self.find {
            FindKeys::Range { last, step, limit } => {
                let Some(last) = range_end(first, last, limit, argv.len()) else { return Ok(()) };
                (first..=last).step_by(usize::from(step.max(1))).for_each(found);
                Ok(())
            }
            FindKeys::KeyNum { count_at, first: offset, step } => {
                let count = count_at_index(argv, first + usize::from(count_at))?;
                if count == 0 {
                    return Ok(());
                }
                let first = first + usize::from(offset);
                let span = count.checked_mul(usize::from(step));
                let end = span.and_then(|span| first.checked_add(span));
                // The last key is `step - 1` arguments before the end of its stride.
                let within = end.is_some_and(|end| end - usize::from(step) < argv.len());
                if !within {
                    return Err(KeyPositionError::InvalidArguments);
                }
                (0..count).map(|nth| first + nth * usize::from(step)).for_each(found);
                Ok(())
            }
            FindKeys::Unknown => Ok(()),
        }
    }

    /// Index of the first key or of the key count; `None` when argv has no such argument.
    fn begin_position(&self, argv: &[&[u8]]) -> Option<usize> {
        let position = match self.begin {
            BeginSearch::Index(index) => usize::from(index),
            BeginSearch::Keyword { keyword, start_from } => {
                keyword_position(argv, keyword.as_bytes(), start_from)?.checked_add(1)?
            }
            BeginSearch::Unknown => return None,
        };
        (position < argv.len()).then_some(position)
    }
}

fn keyword_position(argv: &[&[u8]], keyword: &[u8], start_from: i8) -> Option<usize> {
    let is_keyword = |&index: &usize| argv[index].eq_ignore_ascii_case(keyword);
    let distance = usize::from(start_from.unsigned_abs());
    if start_from >= 0 {
        (distance..argv.len()).find(is_keyword)
    } else {
        // The name itself is never a keyword.
        (1..=argv.len().checked_sub(distance)?).rev().find(is_keyword)
    }
}

/// Index of the last key of a range that starts at `first`; `None` when the range is empty.
fn range_end(first: usize, last: i8, limit: u8, argc: usize) -> Option<usize> {
    let distance = usize::from(last.unsigned_abs());
    let end = if last >= 0 {
        first + distance
    } else if limit <= 1 {
        argc.checked_sub(distance)?
    } else {
        // A share of what remains, e.g. XREAD's keys before as many ids.
        first.checked_add((argc - first) / usize::from(limit))?.checked_sub(distance)?
    };
    (end >= first).then(|| end.min(argc.saturating_sub(1)))
}

fn count_at_index(argv: &[&[u8]], index: usize) -> Result<usize, KeyPositionError> {
    let text = argv.get(index).ok_or(KeyPositionError::InvalidArguments)?;
    let count = std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok());
    count.ok_or(KeyPositionError::InvalidArguments)
}

/// How a command finds keys that no key spec can express: calls back with each index.
pub type LocateKeys = fn(argv: &[&[u8]], found: &mut dyn FnMut(usize));

impl Spec {
    /// Indexes of all keys of `argv`, whose first element is the command's name.
    ///
    /// Channels of sharded Pub/Sub ([`KeyFlag::NotKey`]) are left out; [`Spec::for_each_key`] has them.
    ///
    /// # Errors
    /// [`KeyPositionError::InvalidArguments`] when a key count is no number or too big. The command itself then has
    /// the right words for its client: such a request can be run anywhere.
    pub fn key_positions(&self, argv: &[&[u8]]) -> Result<KeyPositions, KeyPositionError> {
        let mut positions = KeyPositions::new();
        if let Some(locate) = self.locate_keys {
            locate(argv, &mut |index| positions.push(index));
            return Ok(positions);
        }
        self.for_each_key(argv, &mut |index, spec| {
            if !spec.has(KeyFlag::NotKey) {
                positions.push(index);
            }
        })?;
        Ok(positions)
    }

    /// Calls `found` with the index of each key of `argv` and the spec that found it, which says what the
    /// command does to it. Keys that only [`Spec::locate_keys`] finds are not among them.
    ///
    /// # Errors
    /// [`KeyPositionError::InvalidArguments`] as [`Spec::key_positions`].
    pub fn for_each_key(
        &self,
        argv: &[&[u8]],
        found: &mut dyn FnMut(usize, &'static KeySpec),
    ) -> Result<(), KeyPositionError> {
        self.keys.iter().try_for_each(|spec| spec.positions(argv, &mut |index| found(index, spec)))
    }

    /// Index of the only key, for the many commands that have exactly one at a fixed place; `None` for all
    /// others.
    pub const fn only_key_position(&self) -> Option<usize> {
        match self.keys {
            [KeySpec { begin: BeginSearch::Index(index), find, .. }] => match find {
                FindKeys::Range { last: 0, .. } => Some(*index as usize),
                FindKeys::Range { .. } | FindKeys::KeyNum { .. } | FindKeys::Unknown => None,
            },
            [] | [_, ..] => None,
        }
    }

    /// Index where the first key stands, when that does not depend on argv.
    pub const fn first_key_position(&self) -> Option<usize> {
        match self.keys {
            [KeySpec { begin: BeginSearch::Index(index), find, .. }, ..] => match find {
                FindKeys::Range { .. } => Some(*index as usize),
                FindKeys::KeyNum { first, .. } => Some(*index as usize + *first as usize),
                FindKeys::Unknown => None,
            },
            [] | [_, ..] => None,
        }
    }

    /// Whether the last key lacks what belongs to it, as in `MSET a 1 b`: such a command is refused as a whole, by its
    /// own function and whatever shard it runs in, and not half of it applied.
    pub fn is_cut_short(&self, argv: &[&[u8]]) -> bool {
        let range = self.legacy_range();
        match (usize::try_from(range.first), usize::try_from(range.step)) {
            (Ok(first), Ok(step)) if step > 1 => argv.len().saturating_sub(first) % step != 0,
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        }
    }

    /// First key, last key and step in the way of Redis before 7; zeros where there are none.
    pub fn legacy_range(&self) -> LegacyRange {
        LegacyRange::of(self.keys)
    }
}

/// The three numbers by which COMMAND described keys before Redis 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegacyRange {
    /// Index of the first key, 0 for none.
    pub first: i64,
    /// Index of the last key; negative counts from the end.
    pub last: i64,
    /// Distance from one key to the next.
    pub step: i64,
    /// Whether the three numbers miss some keys (flag `movablekeys`).
    pub is_movable: bool,
}

impl LegacyRange {
    fn of(specs: &[KeySpec]) -> Self {
        if let [only] = specs {
            return Self::of_one(only);
        }
        // Several specs make one range when they are plain and stand side by side.
        let mut joined: Option<(i64, i64)> = None;
        let mut is_movable = false;
        for spec in specs {
            match (plain_range(spec), joined) {
                (Some((first, last, 1)), None) => joined = Some((first, last)),
                (Some((first, last, 1)), Some((start, end))) if end == first - 1 => {
                    joined = Some((start, last));
                }
                (Some(_) | None, _) => is_movable = true,
            }
            is_movable |= spec.has(KeyFlag::Incomplete);
        }
        match joined {
            Some((first, last)) => Self { first, last, step: 1, is_movable },
            None => Self { is_movable, ..Self::default() },
        }
    }

    fn of_one(spec: &KeySpec) -> Self {
        match plain_range(spec) {
            Some((first, last, step)) => {
                Self { first, last, step, is_movable: spec.has(KeyFlag::Incomplete) }
            }
            None => Self { is_movable: true, ..Self::default() },
        }
    }
}

/// First key, last key and step of a range that starts at an index.
fn plain_range(spec: &KeySpec) -> Option<(i64, i64, i64)> {
    match (spec.begin, spec.find) {
        (BeginSearch::Index(index), FindKeys::Range { last, step, .. }) => {
            let first = i64::from(index);
            let last = i64::from(last);
            Some((first, if last >= 0 { first + last } else { last }, i64::from(step)))
        }
        (
            BeginSearch::Index(_) | BeginSearch::Keyword { .. } | BeginSearch::Unknown,
            FindKeys::Range { .. } | FindKeys::KeyNum { .. } | FindKeys::Unknown,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(spec: KeySpec, line: &str) -> Result<Vec<usize>, KeyPositionError> {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut found = Vec::new();
        spec.positions(&argv, &mut |index| found.push(index))?;
        Ok(found)
    }

    #[test]
    fn keys_are_found_where_the_spec_says() {
        let invalid = Err(KeyPositionError::InvalidArguments);
        for (spec, line, expected) in [
            (KeySpec::at(1), "GET a", Ok(vec![1])),
            (KeySpec::at(1), "GET", Ok(vec![])),
            (KeySpec::at(1).to_end(), "DEL a b c", Ok(vec![1, 2, 3])),
            (KeySpec::at(1).to_end(), "DEL", Ok(vec![])),
            (KeySpec::at(1).to_end().step(2), "MSET a 1 b 2", Ok(vec![1, 3])),
            (KeySpec::at(1).to_end().step(2), "MSET a 1 b", Ok(vec![1, 3])),
            (KeySpec::at(1).to(-2), "BLPOP a b 0", Ok(vec![1, 2])),
            (KeySpec::at(1).to(-2), "BLPOP a", Ok(vec![])),
            (KeySpec::at(1).to(1), "RENAME a b", Ok(vec![1, 2])),
            (KeySpec::at(1).to(1), "RENAME a", Ok(vec![1])),
            (KeySpec::at(2).counted(), "EVAL s 2 a b x", Ok(vec![3, 4])),
            (KeySpec::at(2).counted(), "EVAL s 0 x", Ok(vec![])),
            (KeySpec::at(2).counted(), "EVAL s 2 a", invalid.clone()),
            (KeySpec::at(2).counted(), "EVAL s x a", invalid.clone()),
            (KeySpec::at(2).counted(), "EVAL s 18446744073709551615 a", invalid.clone()),
            (KeySpec::at(1).counted(), "ZUNION 1 a", Ok(vec![2])),
            (KeySpec::at(1).counted(), "ZUNION -1 a", invalid.clone()),
            (
                KeySpec::after_keyword("STREAMS", 1).to_end().limit(2),
                "XREAD COUNT 1 streams a b 0 0",
                Ok(vec![4, 5]),
            ),
            (KeySpec::after_keyword("STREAMS", 1).to_end().limit(2), "XREAD streams", Ok(vec![])),
            (KeySpec::after_keyword("STREAMS", 1).to_end().limit(2), "XREAD streams a", Ok(vec![])),
            (KeySpec::after_keyword("STORE", 6), "GEORADIUS k 1 2 3 m STORE d", Ok(vec![7])),
            (KeySpec::after_keyword("STORE", 6), "GEORADIUS k 1 2 3 m", Ok(vec![])),
            (
                KeySpec::after_keyword("KEYS", -2).to_end(),
                "MIGRATE h p key 0 1 KEYS a b",
                Ok(vec![7, 8]),
            ),
            (KeySpec::after_keyword("KEYS", -2).to_end(), "MIGRATE", Ok(vec![])),
            (KeySpec::unknown(), "SORT a", Ok(vec![])),
        ] {
            assert_eq!(find(spec, line), expected, "{line}");
        }
    }

    #[test]
    fn legacy_ranges_agree_with_redis() {
        type Case = (&'static [KeySpec], (i64, i64, i64, bool));
        const CASES: &[Case] = &[
            (&[], (0, 0, 0, false)),
            (&[KeySpec::at(1)], (1, 1, 1, false)),
            (&[KeySpec::at(1).to_end().step(2)], (1, -1, 2, false)),
            (&[KeySpec::at(1), KeySpec::at(2)], (1, 2, 1, false)),
            (&[KeySpec::at(1), KeySpec::at(2).to_end()], (1, -1, 1, false)),
            (&[KeySpec::at(1), KeySpec::after_keyword("STORE", 6)], (1, 1, 1, true)),
            (&[KeySpec::at(2).counted()], (0, 0, 0, true)),
            (&[KeySpec::at(1), KeySpec::at(2).counted()], (1, 1, 1, true)),
            (&[KeySpec::unknown()], (0, 0, 0, true)),
        ];
        for (specs, (first, last, step, is_movable)) in CASES {
            let expected =
                LegacyRange { first: *first, last: *last, step: *step, is_movable: *is_movable };
            assert_eq!(LegacyRange::of(specs), expected, "{specs:?}");
        }
    }

    /// Every command of the golden file: its three numbers and `movablekeys` follow from its key specs.
    #[test]
    fn legacy_ranges_of_all_commands_of_redis_follow_from_their_key_specs() {
        let facts = include_str!("../../tests/golden/redis-7.2-commands.txt");
        let mut checked = 0;
        for line in facts.lines().filter(|line| !line.starts_with('#')) {
            let field = |name: &str| {
                let mut fields = line.split(' ');
                fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap()
            };
            let specs: Vec<KeySpec> =
                field("specs").split(';').filter(|text| !text.is_empty()).map(parse).collect();
            let range = LegacyRange::of(&specs);
            let keys = format!("{},{},{}", range.first, range.last, range.step);
            assert_eq!(keys, field("keys"), "{line}");
            let is_movable = field("flags").split(',').any(|flag| flag == "movablekeys");
            assert_eq!(range.is_movable, is_movable, "{line}");
            checked += 1;
        }
        assert!(checked > 300, "{checked}");
    }

    /// The key spec that a golden line writes as `index:1/range:0:1:0/RO,access`.
    fn parse(text: &str) -> KeySpec {
        let [begin, find, flags] = text.split('/').collect::<Vec<_>>()[..] else {
            panic!("three parts in {text}")
        };
        let spec = match begin.split(':').collect::<Vec<_>>()[..] {
            ["index", index] => KeySpec::at(index.parse().unwrap()),
            ["keyword", _, from] => KeySpec::after_keyword("WORD", from.parse().unwrap()),
            _ => KeySpec::unknown(),
        };
        let spec = match find.split(':').collect::<Vec<_>>()[..] {
            ["range", last, step, limit] => spec
                .to(last.parse().unwrap())
                .step(step.parse().unwrap())
                .limit(limit.parse().unwrap()),
            ["keynum", ..] => spec.counted(),
            _ => KeySpec::unknown(),
        };
        let is_incomplete = flags.split(',').any(|flag| flag == "incomplete");
        spec.access(if is_incomplete { &[KeyFlag::Incomplete] } else { &[] })
    }

    #[test]
    fn channels_are_routed_but_are_no_keys() {
        const SPEC: Spec =
            Spec { keys: &[KeySpec::at(1).to_end().access(&[KeyFlag::NotKey])], ..Spec::EMPTY };
        let argv: [&[u8]; 3] = [b"SSUBSCRIBE", b"a", b"b"];
        assert!(SPEC.key_positions(&argv).unwrap().is_empty());
        let mut routed = Vec::new();
        SPEC.for_each_key(&argv, &mut |index, _| routed.push(index)).unwrap();
        assert_eq!(routed, [1, 2]);
    }
}
