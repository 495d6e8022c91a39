//! What must hold for every data command, whatever it does.

use super::testing::{Bench, check_spec};
use super::{Arity, DataCommand, Group, all};
use crate::keyspace::{self, At, List};
use crate::resp::testing::Value;
use crate::stdx::clock::UnixMillis;
use crate::stdx::prng::SplitMix64;

#[test]
fn specs_agree_with_redis() {
    all().for_each(|command| check_spec(command.spec));
}

/// Words that commands know or that lie at the edges of what they take. No number makes a value big.
const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "{a}1",
    "",
    "0",
    "1",
    "-1",
    "7",
    "10",
    "01",
    " 1",
    "1.5",
    "-0",
    "inf",
    "nan",
    "1e300",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "536870912",
    "*",
    "?",
    "[",
    "\\",
    "(1",
    "[a",
    "+",
    "-",
    "$",
    ">",
    "~",
    "=",
    "0-1",
    "1-*",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "KEEPTTL",
    "PERSIST",
    "NX",
    "XX",
    "GT",
    "LT",
    "GET",
    "CH",
    "INCR",
    "MATCH",
    "COUNT",
    "TYPE",
    "string",
    "LIMIT",
    "WITHSCORES",
    "WITHVALUES",
    "BYSCORE",
    "BYLEX",
    "REV",
    "WEIGHTS",
    "AGGREGATE",
    "MAX",
    "LEFT",
    "RIGHT",
    "BEFORE",
    "RANK",
    "MAXLEN",
    "MINID",
    "STREAMS",
    "GROUP",
    "ASYNC",
    "SYNC",
    "\r\n",
    "\u{fffd}",
];

/// A command with a random number of random words, often one its arity accepts.
fn random_line(dice: &mut SplitMix64) -> (&'static DataCommand, Vec<&'static str>) {
    let command = all().nth(pick(dice, all().count())).unwrap();
    let usual = match command.spec.arity {
        Arity::Exactly(count) | Arity::AtLeast(count) => usize::try_from(count).unwrap(),
    };
    let count = if pick(dice, 8) == 0 { pick(dice, 4) } else { usual - 1 + pick(dice, 4) };
    // The first words are the likely keys: most lines should meet in one.
    let words = (0..count).map(|nth| {
        let choices = if nth == 0 { 4 } else { WORDS.len() };
        WORDS[pick(dice, choices)]
    });
    (command, std::iter::once(command.spec.name).chain(words).collect())
}

fn pick(dice: &mut SplitMix64, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).unwrap()
}

fn run(bench: &mut Bench, command: &'static DataCommand, line: &[&str]) -> Value {
    let argv: Vec<&[u8]> = line.iter().map(|word| word.as_bytes()).collect();
    bench.run_unchecked(command, &argv)
}

/// At time 0 no deadline a client can set is over, so that nothing expires behind the tests' back.
fn timeless() -> Bench {
    Bench { now: UnixMillis(0), ..Bench::default() }
}

#[test]
fn nothing_panics_and_replicas_agree_whatever_clients_send() {
    for seed in 0..10 {
        eprintln!("seed {seed}");
        let mut dice = SplitMix64::new(seed);
        let (mut left, mut right) = (timeless(), timeless());
        // The right replica has another history behind it.
        for nth in 0..200 {
            right.run_line(&format!("SET old:{nth} v"));
        }
        right.run_line("FLUSHALL");
        right.seed = left.seed;
        for _ in 0..1000 {
            let (command, line) = random_line(&mut dice);
            let reply = run(&mut left, command, &line);
            assert_eq!(reply, run(&mut right, command, &line), "{line:?}");
        }
        assert_eq!(left.keyspace.digest(), right.keyspace.digest());
    }
}

#[test]
fn a_refused_command_changes_nothing() {
    for seed in 100..103 {
        eprintln!("seed {seed}");
        let mut dice = SplitMix64::new(seed);
        let mut bench = timeless();
        let mut refused = 0;
        for _ in 0..300 {
            let (command, line) = random_line(&mut dice);
            let before = bench.keyspace.digest();
            if let Value::Error(_) = run(&mut bench, command, &line) {
                refused += 1;
                assert_eq!(bench.keyspace.digest(), before, "{line:?}");
            }
        }
        assert!(refused > 50, "the words are bad enough to be refused: {refused}");
    }
}

#[test]
fn commands_of_strings_refuse_other_types() {
    const WITHOUT_TYPE: [&str; 6] = ["set", "setex", "psetex", "setnx", "mset", "msetnx"];
    let strings = all().filter(|command| command.spec.group == Group::String);
    for command in strings.filter(|command| !WITHOUT_TYPE.contains(&command.spec.name)) {
        let name = command.spec.name;
        let mut bench = Bench::default();
        let at = At::new(bench.db, bench.now);
        let list = keyspace::Value::List(Box::new(List::new()));
        bench.keyspace.put(at, bench.keyspace.key(b"k"), list, None);
        let line: &[&str] = match command.spec.arity.number() {
            2 | -2 => &[name, "k"],
            3 => &[name, "k", "1"],
            _ => &[name, "k", "1", "1"],
        };
        let reply = run(&mut bench, command, line);
        if name == "mget" {
            assert_eq!(reply, Value::Array(vec![Value::Null]));
        } else {
            let text = "WRONGTYPE Operation against a key holding the wrong kind of value";
            assert_eq!(reply, Value::Error(text.into()), "{line:?}");
        }
    }
}

#[test]
fn keys_of_a_shortest_call_are_where_the_spec_says() {
    for command in all() {
        let spec = command.spec;
        let length = usize::try_from(spec.arity.number().abs()).unwrap();
        let positions = spec.key_positions(&vec![&b"1"[..]; length]).unwrap();
        assert!(positions.iter().all(|&position| position < length), "{}", spec.name);
        assert_eq!(spec.keys.is_empty(), positions.is_empty(), "{}", spec.name);
        if let Some(first) = spec.only_key_position() {
            assert_eq!(positions[..], [first], "{}", spec.name);
        }
        if let (Some(first), Some(found)) = (spec.first_key_position(), positions.first()) {
            assert_eq!(first, *found, "{}", spec.name);
        }
    }
}
