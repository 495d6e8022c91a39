//! What a key of a large store costs: SET and GET over a few keys and over a million, one after the other and with
//! [`Keyspace::look_ahead`].
//!
//! `cargo bench --bench keyspace -- [--keys 1000000] [--rounds 5]`
//!
//! A few keys show the work, many the waiting for memory. Nanoseconds per command, the least of the rounds: what
//! other programs add to a measurement is never negative.

#![expect(clippy::print_stdout, reason = "printing results is what this program is for")]

use std::hint::black_box;
use std::process::ExitCode;

use kvorum::ids::DbIndex;
use kvorum::keyspace::{At, KEYS_AHEAD_MAX, Key, Keyspace, Str};
use kvorum::slot::Slot;
use kvorum::stdx::clock::{Clock, SystemClock, UnixMillis};
use kvorum::stdx::hash_key::HashKey;
use kvorum::stdx::prng::SplitMix64;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const AT: At = At::new(DbIndex(0), UnixMillis(1));

/// Keys that fit into the caches nearest to a processor.
const FEW: u64 = 1000;

/// Commands per round.
const COMMANDS: usize = 1 << 20;

fn main() -> ExitCode {
    let (mut keys, mut rounds) = (1_000_000, 5);
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse::<u64>().ok());
        match (word.as_str(), number) {
            ("--keys", Some(number @ 1..)) => keys = number,
            ("--rounds", Some(number @ 1..)) => rounds = number,
            _ => {
                println!("usage: keyspace [--keys N] [--rounds N]");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{:>10} {:>8} {:>14} {:>10}", "keys", "command", "one by one", "ahead");
    for keys in [FEW, keys] {
        let mut keyspace = Keyspace::new(0..=Slot::COUNT - 1, HashKey::new([1, 2]));
        for number in 0..keys {
            let name = name(number);
            let key = keyspace.key(&name);
            set(&mut keyspace, key);
        }
        for (command, run) in [("SET", set as Run), ("GET", get as Run)] {
            let [plain, ahead] = [false, true].map(|looks_ahead| {
                let times =
                    (0..rounds).map(|seed| time(&mut keyspace, keys, run, looks_ahead, seed));
                times.fold(f64::INFINITY, f64::min)
            });
            println!("{keys:>10} {command:>8} {plain:>11.0} ns {ahead:>7.0} ns");
        }
    }
    ExitCode::SUCCESS
}

type Run = fn(&mut Keyspace, Key<'_>);

fn set(keyspace: &mut Keyspace, key: Key<'_>) {
    keyspace.put(AT, key, Str::from_bytes(b"xxx").into(), None);
}

fn get(keyspace: &mut Keyspace, key: Key<'_>) {
    black_box(keyspace.get(AT, key).is_some());
}

/// The key numbered `number`, as redis-benchmark writes it.
fn name(number: u64) -> [u8; 16] {
    let text = format!("key:{number:012}");
    *text.as_bytes().first_chunk().expect("twelve digits and four letters")
}

/// Nanoseconds per command at random keys.
fn time(keyspace: &mut Keyspace, keys: u64, run: Run, looks_ahead: bool, seed: u64) -> f64 {
    let mut random = SplitMix64::new(seed);
    let names: Vec<[u8; 16]> = (0..COMMANDS).map(|_| name(random.below(keys))).collect();
    let clock = SystemClock::new();
    let started = clock.monotonic();
    let mut window = Vec::with_capacity(KEYS_AHEAD_MAX);
    for names in names.chunks(KEYS_AHEAD_MAX) {
        window.clear();
        window.extend(names.iter().map(|name| keyspace.key(name)));
        if looks_ahead {
            keyspace.look_ahead(window.iter().map(|&key| (AT.db(), key)));
        }
        for &key in &window {
            run(keyspace, key);
        }
    }
    let microseconds = clock.monotonic().since(started);
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    let nanoseconds = microseconds as f64 * 1000.0 / COMMANDS as f64;
    nanoseconds
}
