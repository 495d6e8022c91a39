//! Records what clients did and saw, with times, for the checker to judge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvorum::stdx::prng::SplitMix64;

use super::load::{Outcome, Wanderer};
use super::operation::{Action, Operation, answer, argv};
use super::{let_pass, now_us};

/// Clients that read and write a few keys and record it.
#[derive(Debug)]
pub(crate) struct Recording {
    stop: Arc<AtomicBool>,
    operations: Arc<Mutex<Vec<Operation>>>,
    clients: Vec<JoinHandle<()>>,
}

/// Keys of each kind.
const KEYS: u64 = 2;

/// Between two commands of one client.
const PACE: Duration = Duration::from_millis(3);

impl Recording {
    /// Starts `count` clients at `ports`, client *i* at door *i* modulo their number.
    pub(crate) fn start(ports: &[u16], count: usize, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let operations = Arc::new(Mutex::new(Vec::new()));
        let clients = (0..count)
            .map(|client| {
                let (stop, operations) = (Arc::clone(&stop), Arc::clone(&operations));
                let wanderer = Wanderer::new(ports, client);
                let prng = SplitMix64::new(seed.wrapping_add(u64::try_from(client).unwrap()));
                thread::spawn(move || run(client, wanderer, prng, &stop, &operations))
            })
            .collect();
        Self { stop, operations, clients }
    }

    /// How many operations were recorded so far.
    pub(crate) fn len(&self) -> usize {
        self.operations.lock().expect("no client panics").len()
    }

    /// Stops the clients and returns what they did.
    #[track_caller]
    pub(crate) fn finish(self) -> Vec<Operation> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client saw what it must not see");
        }
        let operations = Arc::into_inner(self.operations).expect("the clients ended");
        operations.into_inner().expect("no client panicked")
    }
}

fn run(
    client: usize,
    mut wanderer: Wanderer,
    mut prng: SplitMix64,
    stop: &AtomicBool,
    operations: &Mutex<Vec<Operation>>,
) {
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let (key, action) = choose(&mut prng, client, turn);
        let argv: Vec<Vec<u8>> = argv(&key, &action);
        let (invoked, outcome) = wanderer.run_timed(&argv);
        let returned = match outcome {
            Outcome::Done(value) => Some((now_us(), answer(&value))),
            Outcome::Unknown if action != Action::Get => None,
            // A read that told nothing, or a write that did nothing, bears no witness.
            Outcome::Unknown | Outcome::NotApplied => continue,
        };
        let operation = Operation { client, key, action, invoked, returned };
        operations.lock().expect("no client panics").push(operation);
        let_pass(PACE);
    }
}

/// A key and what to do with it. Values are unique, so that a read shows which write it saw.
fn choose(prng: &mut SplitMix64, client: usize, turn: u64) -> (String, Action) {
    let number = prng.below(KEYS);
    let value = format!("{client}-{turn}").into_bytes();
    let percent = prng.below(100);
    match prng.below(3) {
        0 => {
            let action = match percent {
                0..45 => Action::Get,
                45..90 => Action::Set(value),
                _ => Action::Append([b"+", &value[..]].concat()),
            };
            (format!("register:{number}"), action)
        }
        1 => {
            let action = if percent < 40 { Action::Get } else { Action::Incr };
            (format!("counter:{number}"), action)
        }
        _ => {
            let action = match percent {
                0..30 => Action::Get,
                30..70 => Action::SetNx(value),
                _ => Action::Del,
            };
            (format!("lock:{number}"), action)
        }
    }
}
