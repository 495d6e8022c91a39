//! Tests of commands as data: lines of commands and the replies they must give.
//!
//! They compare what RESP2 carries, in the compact spelling of [`Value`].

use crate::command::{Context, DataCommand, Execute, Invocation, Spec, lookup, run, run_read};
use crate::ids::DbIndex;
use crate::keyspace::{At, Keyspace, VALUE_PARTS_SMALL_MAX};
use crate::resp::testing::Value;
use crate::resp::{ErrorReply, Protocol, Reply, encode};
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;
use crate::stdx::words;

/// The time at which every test starts, in Unix ms: 2023-11-14 22:13:20 UTC.
pub(crate) const START: UnixMillis = UnixMillis(1_700_000_000_000);

/// Runs `script` on an empty keyspace: `SET k v => +OK; GET k => $v`.
///
/// `@+10` instead of a command lets 10 ms pass, `@db 3` goes to another database. A command without `=>`
/// may reply anything but an error.
///
/// # Panics
/// When a reply differs or a command does not exist.
#[track_caller]
pub(crate) fn check(script: &str) {
    let mut bench = Bench::default();
    for step in split_unquoted(script, ";") {
        let step = step.trim();
        if step.is_empty() || bench.direct(step) {
            continue;
        }
        let (line, expected) = match split_unquoted(step, "=>")[..] {
            [line, expected] => (line.trim(), Some(expected.trim())),
            [line] => (line.trim(), None),
            _ => panic!("more than one => in {step:?}"),
        };
        let reply = bench.run_line(line);
        match expected {
            Some(expected) => assert_eq!(reply.compact(), expected, "{line}   in: {script}"),
            None => assert!(!matches!(reply, Value::Error(_)), "{line} replied {reply:?}"),
        }
    }
}

/// A command that pops elements of a large collection, as [`Pops::check`] tries it.
#[derive(Debug)]
pub(crate) struct Pops<'a> {
    /// What puts elements at `k`.
    pub(crate) fill: &'a str,
    /// The words of one element, by its number.
    pub(crate) element: fn(usize) -> String,
    /// What pops elements of `k`, without its count.
    pub(crate) pop: &'a str,
    /// What tells how many are left at `k`.
    pub(crate) count: &'a str,
    /// The parts of a reply that are one element.
    pub(crate) width: usize,
}

impl Pops<'_> {
    /// Whether nearly all elements go, all or more than there are, the same go in the same order, the collection goes with
    /// its last one, and a snapshot is handed one that goes. Returns what went first.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub(crate) fn check(&self) -> String {
        // A large collection goes whole when all of it is popped, and one by one otherwise.
        const ELEMENTS: usize = 2 * VALUE_PARTS_SMALL_MAX;
        let elements: Vec<String> = (0..ELEMENTS).map(self.element).collect();
        let popped = [ELEMENTS - 1, ELEMENTS, 10 * ELEMENTS].map(|count| {
            let mut bench = Bench::default();
            let filled = bench.run_line(&format!("{} k {}", self.fill, elements.join(" ")));
            assert_eq!(filled.compact(), format!(":{ELEMENTS}"), "{}", self.fill);
            assert!(bench.keyspace.begin_snapshot());
            let popped = bench.run_line(&format!("{} k {count}", self.pop)).compact();
            let is_copied = bench.keyspace.snapshot_kept_bytes() > 0;
            assert_eq!(is_copied, count < ELEMENTS, "{} {count}: what goes whole is not", self.pop);
            (popped, bench.run_line(&format!("{} k", self.count)).compact())
        });
        let [(nearly_all, one_left), (all, none_left), more] = &popped;
        assert_eq!((one_left.as_str(), none_left.as_str()), (":1", ":0"), "{}", self.pop);
        let elements_of = |reply: &str, count: usize| {
            let length = format!("*{} ", count * self.width);
            let elements = reply.strip_prefix(&length).map(str::to_owned);
            elements.unwrap_or_else(|| panic!("{} gives not {count} elements", self.pop))
        };
        let nearly_all = elements_of(nearly_all, ELEMENTS - 1);
        assert!(elements_of(all, ELEMENTS).starts_with(&nearly_all), "{}: others go", self.pop);
        assert_eq!(&popped[1], more, "{}", self.pop);
        nearly_all.split(' ').next().unwrap_or_default().to_owned()
    }
}

/// A keyspace with a clock that stands still, and a client's database.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) keyspace: Keyspace,
    pub(crate) now: UnixMillis,
    pub(crate) db: DbIndex,
    pub(crate) seed: u64,
}

impl Default for Bench {
    fn default() -> Self {
        let keyspace = Keyspace::new(0..=Slot::COUNT - 1, HashKey::new([1, 2]));
        Self { keyspace, now: START, db: DbIndex(0), seed: 1 }
    }
}

impl Bench {
    /// Runs one line as a client would type it.
    pub(crate) fn run_line(&mut self, line: &str) -> Value {
        let argv = split_args(line).unwrap_or_else(|| panic!("unbalanced quotes in {line:?}"));
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        self.run(&argv)
    }

    /// Runs one argv as dispatch would: unknown names panic, arity is checked first.
    pub(crate) fn run(&mut self, argv: &[&[u8]]) -> Value {
        let name = argv.first().copied().unwrap_or_default();
        let command =
            lookup(name).unwrap_or_else(|| panic!("no command {}", String::from_utf8_lossy(name)));
        if !command.spec.arity.accepts(argv.len()) {
            return Value::of(&Reply::Error(ErrorReply::wrong_arity(command.spec.name)));
        }
        self.run_unchecked(command, argv)
    }

    /// Runs one argv whatever its length.
    pub(crate) fn run_unchecked(&mut self, command: &'static DataCommand, argv: &[&[u8]]) -> Value {
        self.seed += 1;
        let context = Context::new(At::new(self.db, self.now), self.seed);
        let invocation = Invocation::new(command, argv);
        match command.execute {
            Execute::Read(_) => Value::of(&run_read(&invocation, &self.keyspace, &context)),
            Execute::Write(_) => Value::of(&run(&invocation, &mut self.keyspace, &context)),
        }
    }

    /// Obeys `@+ms` and `@db n`; false for anything else.
    fn direct(&mut self, step: &str) -> bool {
        let Some(directive) = step.strip_prefix('@') else { return false };
        if let Some(ms) = directive.strip_prefix('+') {
            self.now.0 += ms.parse::<u64>().expect("@+ is followed by milliseconds");
        } else if let Some(db) = directive.strip_prefix("db ") {
            self.db = DbIndex(db.parse().expect("@db is followed by a number"));
        } else {
            panic!("unknown directive {step:?}");
        }
        true
    }
}

impl Value {
    /// What a client of RESP2 gets when `reply` is sent.
    pub(crate) fn of(reply: &Reply<'_>) -> Self {
        let mut bytes = Vec::new();
        encode(reply, Protocol::Resp2, &mut bytes);
        Self::parse(&bytes)
    }
}

/// The arguments of a line, quoted as Redis does it; `None` when a quote is left open.
pub(crate) fn split_args(line: &str) -> Option<Vec<Vec<u8>>> {
    words::of(line.as_bytes())
}

/// `text` cut at each `separator` outside double quotes.
pub(crate) fn split_unquoted<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut is_quoted) = (0, 0, false);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if is_quoted => at += 1,
            b'"' => is_quoted = !is_quoted,
            _ if !is_quoted && bytes[at..].starts_with(separator.as_bytes()) => {
                parts.push(&text[start..at]);
                at += separator.len();
                start = at;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts
}

/// Holds `spec` and its subcommands to what Redis 7.2 says of them.
///
/// # Panics
/// When they differ, or Redis has no such command and the spec does not say so by [`Group::Module`].
///
/// [`Group::Module`]: crate::command::Group::Module
#[track_caller]
pub(crate) fn check_spec(spec: &Spec) {
    use crate::command::Group;

    let facts = include_str!("../../tests/golden/redis-7.2-commands.txt");
    if spec.group == Group::Module {
        return;
    }
    let line = fact_line(spec);
    let redis = facts.lines().find(|fact| fact.split(' ').next() == Some(spec.name));
    assert_eq!(Some(&line[..]), redis, "{}: ours left, Redis right", spec.name);
    assert!(!spec.summary.is_empty() && spec.summary.ends_with('.'), "{}: summary", spec.name);
    assert!(!spec.since.is_empty(), "{}: since", spec.name);
    spec.subcommands.iter().for_each(|spec| check_spec(spec));
}

/// A spec as a line of the golden file, which explains the form.
fn fact_line(spec: &Spec) -> String {
    use crate::command::{AclCategory, BeginSearch, FindKeys};

    let joined = |mut items: Vec<&'static str>| {
        items.sort_unstable();
        items.join(",")
    };
    let range = spec.legacy_range();
    let specs: Vec<String> = spec
        .keys
        .iter()
        .map(|key| {
            let begin = match key.begin {
                BeginSearch::Index(index) => format!("index:{index}"),
                BeginSearch::Keyword { keyword, start_from } => {
                    format!("keyword:{keyword}:{start_from}")
                }
                BeginSearch::Unknown => "unknown".into(),
            };
            let find = match key.find {
                FindKeys::Range { last, step, limit } => format!("range:{last}:{step}:{limit}"),
                FindKeys::KeyNum { count_at, first, step } => {
                    format!("keynum:{count_at}:{first}:{step}")
                }
                FindKeys::Unknown => "unknown".into(),
            };
            let flags = joined(key.flags.iter().map(|flag| flag.name()).collect());
            format!("{begin}/{find}/{flags}")
        })
        .collect();
    format!(
        "{} arity={} flags={} keys={},{},{} acl={} tips={} specs={}",
        spec.name,
        spec.arity.number(),
        joined(spec.flag_names()),
        range.first,
        range.last,
        range.step,
        joined(spec.acl_categories().map(AclCategory::label).collect()),
        joined(spec.tips.iter().map(|tip| tip.text()).collect()),
        specs.join(";"),
    )
}

mod tests {
    use super::*;

    #[test]
    fn quotes_hide_separators() {
        assert_eq!(split_unquoted(r#"a "b;\";" c;d"#, ";"), [r#"a "b;\";" c"#, "d"]);
    }
}
