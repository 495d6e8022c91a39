//! How long one command over many elements takes, as apply runs it: with the encoding of its reply, without freeing what
//! it removed for others to free.
//!
//! `cargo bench --bench elements -- [--elements 1000000]`
//!
//! Milliseconds of one run, and nanoseconds per element: whoever holds a shard's lock that long keeps its other clients
//! waiting.

#![expect(clippy::print_stdout, reason = "printing results is what this program is for")]

use std::process::ExitCode;

use kvorum::command::{self, Context, Invocation};
use kvorum::ids::DbIndex;
use kvorum::keyspace::{At, Keyspace};
use kvorum::resp::{self, Protocol};
use kvorum::slot::Slot;
use kvorum::stdx::clock::{Clock, SystemClock, UnixMillis};
use kvorum::stdx::hash_key::HashKey;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const AT: At = At::new(DbIndex(0), UnixMillis(1));

/// What a row needs before it, and what it runs; `N` stands for the number of elements, `H` for half of it, and `*` for
/// as many words of the kind that follows.
const ROWS: &[(&str, &str)] = &[
    ("", "SADD k *m"),
    ("", "SADD k *i"),
    ("", "ZADD k *p"),
    ("", "ZADD k *r"),
    ("", "HSET k *f"),
    ("", "RPUSH k *m"),
    ("", "LPUSH k *m"),
    ("", "MSET *f"),
    ("SADD k *m", "SPOP k N"),
    ("SADD k *m", "SPOP k H"),
    ("SADD k *m", "SREM k *m"),
    ("SADD k *m", "SMEMBERS k"),
    ("SADD k *m", "DEL k"),
    ("ZADD k *r", "ZPOPMIN k N"),
    ("ZADD k *r", "ZPOPMIN k H"),
    ("ZADD k *r", "ZPOPMAX k N"),
    ("ZADD k *r", "ZREM k *m"),
    ("HSET k *f", "HDEL k *m"),
    ("HSET k *f", "HGETALL k"),
    ("RPUSH k *m", "LPOP k N"),
    ("RPUSH k *m", "RPOP k N"),
    ("RPUSH k *m", "LPOP k H"),
    ("RPUSH k *m", "LRANGE k 0 -1"),
    ("MSET *f", "DEL *m"),
    ("MSET *f", "EXISTS *m"),
    ("MSET *f", "MGET *m"),
    ("MSET *f", "KEYS *"),
    ("MSET *f", "KEYS *zzz*"),
    ("", "SETRANGE k 536870900 x"),
    ("SETRANGE k 536870900 x", "APPEND k x"),
    ("SETRANGE k 536870900 x", "GET k"),
];

fn main() -> ExitCode {
    let mut elements = 1_000_000;
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse::<usize>().ok());
        let ("--elements", Some(number @ 2..)) = (word.as_str(), number) else {
            println!("usage: elements [--elements N]");
            return ExitCode::FAILURE;
        };
        elements = number;
    }
    println!("{:>28} {:>26} {:>10} {:>12}", "before", "command", "ms", "ns/element");
    for (before, line) in ROWS {
        let mut keyspace = Keyspace::new(0..=Slot::COUNT - 1, HashKey::new([1, 2]));
        if !before.is_empty() {
            run(&mut keyspace, &argv_of(before, elements));
        }
        let argv = argv_of(line, elements);
        let clock = SystemClock::new();
        let begun = clock.monotonic().0;
        run(&mut keyspace, &argv);
        let micros = clock.monotonic().0 - begun;
        #[expect(clippy::cast_precision_loss, reason = "a duration in microseconds and a count")]
        let (ms, each) = (micros as f64 / 1e3, micros as f64 * 1e3 / elements as f64);
        println!("{before:>28} {line:>26} {ms:>10.1} {each:>12.1}");
    }
    ExitCode::SUCCESS
}

fn argv_of(line: &str, elements: usize) -> Vec<Vec<u8>> {
    let numbers = 0..elements as u64;
    let member = |number: u64| format!("member:{number}").into_bytes();
    let mut argv = Vec::new();
    for word in line.split(' ') {
        match word {
            "N" => argv.push(elements.to_string().into_bytes()),
            "H" => argv.push((elements / 2).to_string().into_bytes()),
            "*m" => argv.extend(numbers.clone().map(member)),
            "*i" => argv.extend(numbers.clone().map(|number| number.to_string().into_bytes())),
            "*f" => argv.extend(numbers.clone().flat_map(|n| [member(n), b"value".to_vec()])),
            "*p" => {
                argv.extend(numbers.clone().flat_map(|n| [n.to_string().into_bytes(), member(n)]));
            }
            // In no order: odd multipliers are permutations.
            "*r" => argv.extend(numbers.clone().flat_map(|n| {
                let score = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                [score.to_string().into_bytes(), member(n)]
            })),
            other => argv.push(other.as_bytes().to_vec()),
        }
    }
    argv
}

fn run(keyspace: &mut Keyspace, argv: &[Vec<u8>]) {
    let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    let found = command::lookup(argv[0]).expect("the rows name commands that exist");
    let mut out = Vec::new();
    let reply = command::run(&Invocation::new(found, &argv), keyspace, &Context::new(AT, 7));
    resp::encode(&reply, Protocol::Resp2, &mut out);
    drop(reply);
    assert!(!out.starts_with(b"-"), "{}", out[..40.min(out.len())].escape_ascii());
    // Apply has it freed elsewhere.
    std::mem::forget(keyspace.take_graveyard());
}
