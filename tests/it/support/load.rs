//! Clients that keep book: what was acknowledged, what is unknown, and whether the cluster agrees afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::{Client, Value};
use super::{PATIENCE, let_pass, now_us, us, wait_for};

/// What became of one command.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was answered, with no error that speaks of the cluster.
    Done(Value),
    /// The cluster says that it was not applied.
    NotApplied,
    /// Nobody can say whether it was applied, now or later.
    Unknown,
}

/// A client that goes on at another door when its node dies.
#[derive(Debug)]
pub(crate) struct Wanderer {
    ports: Vec<u16>,
    at: usize,
    client: Option<Client>,
    /// Doors at which a connection broke.
    pub(crate) broken: BTreeSet<u16>,
    /// The longest time to an answer, in µs.
    pub(crate) longest_us: u64,
}

impl Wanderer {
    /// A client that begins at `ports[first]`.
    pub(crate) fn new(ports: &[u16], first: usize) -> Self {
        let at = first % ports.len();
        Self { ports: ports.to_vec(), at, client: None, broken: BTreeSet::new(), longest_us: 0 }
    }

    /// Runs one command; connects first when need be.
    ///
    /// # Panics
    /// On an error other than the two that the cluster may answer: no quorum, and time out.
    pub(crate) fn run<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> Outcome {
        self.run_timed(argv).1
    }

    /// [`Wanderer::run`] and when the command was sent, in µs: connecting is not part of it.
    pub(crate) fn run_timed<A: AsRef<[u8]>>(&mut self, argv: &[A]) -> (u64, Outcome) {
        let mut client = self.client.take().unwrap_or_else(|| self.connect());
        let start = now_us();
        let Ok(value) = client.try_cmd(argv) else {
            self.broken.insert(self.ports[self.at]);
            self.at = (self.at + 1) % self.ports.len();
            return (start, Outcome::Unknown);
        };
        self.longest_us = self.longest_us.max(now_us() - start);
        if value.error().is_some_and(|text| text.starts_with("LOADING")) {
            // A node that is being filled again serves nobody yet: others do.
            self.at = (self.at + 1) % self.ports.len();
            return (start, Outcome::NotApplied);
        }
        self.client = Some(client);
        let outcome = match value.error() {
            None => Outcome::Done(value),
            Some(text) if text.starts_with("CLUSTERDOWN no quorum") => Outcome::NotApplied,
            Some(text) if text.starts_with("TIMEOUT the command was not applied") => {
                Outcome::NotApplied
            }
            Some(text) if text.starts_with("TIMEOUT outcome unknown") => Outcome::Unknown,
            Some(text) => panic!("an error that no client may see: {text}"),
        };
        (start, outcome)
    }

    fn connect(&mut self) -> Client {
        wait_for("open door", PATIENCE, || {
            let connected = Client::connect(self.ports[self.at]);
            connected.map_err(|error| {
                self.at = (self.at + 1) % self.ports.len();
                error.to_string()
            })
        })
    }
}

/// What one kind of client knows of one key.
#[derive(Debug, Default)]
struct Account {
    acknowledged: Vec<i64>,
    pushed: Vec<String>,
    unknown: BTreeSet<String>,
    unknown_count: usize,
}

/// What the clients saw, all together.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    counters: BTreeMap<String, Account>,
    lists: BTreeMap<String, Account>,
    grants: usize,
    /// Doors at which a connection broke.
    pub(crate) broken: BTreeSet<u16>,
    /// The longest time to an answer, in µs.
    pub(crate) longest_us: u64,
}

impl Ledger {
    fn merge(&mut self, other: Self) {
        for (into, from) in [(&mut self.counters, other.counters), (&mut self.lists, other.lists)] {
            for (key, account) in from {
                let mine = into.entry(key).or_default();
                mine.acknowledged.extend(account.acknowledged);
                mine.pushed.extend(account.pushed);
                mine.unknown.extend(account.unknown);
                mine.unknown_count += account.unknown_count;
            }
        }
        self.grants += other.grants;
        self.broken.extend(other.broken);
        self.longest_us = self.longest_us.max(other.longest_us);
    }

    /// Compares the books with what `client` reads.
    ///
    /// # Panics
    /// When an acknowledged write is missing or applied twice, an answer was given twice, or nothing was written.
    #[track_caller]
    pub(crate) fn verify(&self, client: &mut Client) {
        assert!(!self.counters.is_empty() && !self.lists.is_empty(), "no load ran");
        assert!(self.grants > 0, "no lock was granted");
        for (key, account) in &self.counters {
            let acknowledged = account.acknowledged.len();
            assert!(acknowledged > 0, "no INCR of {key} was acknowledged");
            let distinct: BTreeSet<i64> = account.acknowledged.iter().copied().collect();
            assert_eq!(distinct.len(), acknowledged, "an answer of {key} was given twice");
            let last: usize = client.cmd(&["GET", key]).text().parse().expect("a number");
            let at_most = acknowledged + account.unknown_count;
            assert!(
                (acknowledged..=at_most).contains(&last),
                "{key} is {last}; acknowledged {acknowledged}, unknown {}",
                account.unknown_count
            );
            assert!(distinct.iter().all(|&answer| usize::try_from(answer).unwrap() <= last));
        }
        for (key, account) in &self.lists {
            assert!(!account.pushed.is_empty(), "no RPUSH to {key} was acknowledged");
            let found: Vec<String> =
                client.cmd(&["LRANGE", key, "0", "-1"]).array().iter().map(Value::text).collect();
            let distinct: BTreeSet<&String> = found.iter().collect();
            assert_eq!(distinct.len(), found.len(), "an element of {key} was pushed twice");
            for element in &account.pushed {
                assert!(distinct.contains(element), "{element} was acknowledged and is lost");
            }
            let acknowledged: BTreeSet<&String> = account.pushed.iter().collect();
            for element in &found {
                let is_known = acknowledged.contains(element) || account.unknown.contains(element);
                assert!(is_known, "{element} came from nowhere");
            }
            // One client pushes to one list, one element at a time: their order is the client's.
            let order: Vec<&String> =
                found.iter().filter(|element| acknowledged.contains(element)).collect();
            assert_eq!(order, account.pushed.iter().collect::<Vec<_>>(), "order of {key}");
        }
        let acknowledged = |accounts: &BTreeMap<String, Account>| -> usize {
            accounts.values().map(|account| account.acknowledged.len() + account.pushed.len()).sum()
        };
        eprintln!(
            "acknowledged: {} INCR, {} RPUSH, {} locks; longest wait {} ms",
            acknowledged(&self.counters),
            acknowledged(&self.lists),
            self.grants,
            self.longest_us / 1000
        );
    }

    /// True when some command's outcome is unknown.
    pub(crate) fn has_unknown(&self) -> bool {
        let unknown = |account: &Account| account.unknown_count > 0 || !account.unknown.is_empty();
        self.counters.values().chain(self.lists.values()).any(unknown)
    }
}

/// Who holds the locks, by the clients' own book: key generation → token.
#[derive(Debug, Default)]
struct Locks {
    generation: AtomicU64,
    holders: Mutex<BTreeMap<u64, String>>,
}

/// Clients at work until [`Load::finish`].
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Ledger>>,
}

/// One pause between two commands of a client: the machine has other things to do, and lists stay short.
const PACE: Duration = Duration::from_millis(1);

impl Load {
    /// Starts clients that count, push and lock at `ports`.
    pub(crate) fn start(ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let locks = Arc::new(Locks::default());
        let mut workers = Vec::new();
        for worker in 0..6 {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let locks = Arc::clone(&locks);
            let mut wanderer = Wanderer::new(ports, worker);
            workers.push(thread::spawn(move || {
                let mut ledger = Ledger::default();
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    match worker % 3 {
                        0 => count(&mut wanderer, &mut ledger, &format!("counter:{}", turn % 3)),
                        1 => push(&mut wanderer, &mut ledger, worker, turn),
                        _ => lock(&mut wanderer, &mut ledger, &locks, worker, turn),
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                    let_pass(PACE);
                }
                ledger.broken = wanderer.broken;
                ledger.longest_us = wanderer.longest_us;
                ledger
            }));
        }
        Self { stop, written, workers }
    }

    /// Waits until `count` more commands were answered.
    #[track_caller]
    pub(crate) fn await_progress(&self, count: u64) {
        let goal = self.written.load(Ordering::Relaxed) + count;
        wait_for("progress of the load", PATIENCE, || {
            let written = self.written.load(Ordering::Relaxed);
            assert!(self.workers.iter().all(|worker| !worker.is_finished()), "a client panicked");
            if written >= goal { Ok(()) } else { Err(format!("{written} of {goal}")) }
        });
    }

    /// Stops the clients and returns their books.
    #[track_caller]
    pub(crate) fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for worker in self.workers {
            all.merge(worker.join().expect("a client saw what it must not see"));
        }
        all
    }
}

fn count(wanderer: &mut Wanderer, ledger: &mut Ledger, key: &str) {
    let account = ledger.counters.entry(key.to_owned()).or_default();
    match wanderer.run(&["INCR", key]) {
        Outcome::Done(value) => account.acknowledged.push(value.integer()),
        Outcome::NotApplied => {}
        Outcome::Unknown => account.unknown_count += 1,
    }
}

fn push(wanderer: &mut Wanderer, ledger: &mut Ledger, worker: usize, turn: u64) {
    let key = format!("list:{worker}");
    let element = format!("{worker}:{turn}");
    let account = ledger.lists.entry(key.clone()).or_default();
    match wanderer.run(&["RPUSH", &key, &element]) {
        Outcome::Done(length) => {
            assert!(length.integer() > 0);
            account.pushed.push(element);
        }
        Outcome::NotApplied => {}
        Outcome::Unknown => {
            account.unknown.insert(element);
        }
    }
}

/// Takes the lock of the current generation, holds it, frees it. A generation in which an outcome is unknown is
/// left alone by everybody: nobody can say who holds its lock.
fn lock(wanderer: &mut Wanderer, ledger: &mut Ledger, locks: &Locks, worker: usize, turn: u64) {
    let generation = locks.generation.load(Ordering::SeqCst);
    let next_generation = || {
        locks.generation.fetch_max(generation + 1, Ordering::SeqCst);
    };
    let key = format!("lock:{generation}");
    let token = format!("{worker}:{turn}");
    match wanderer.run(&["SET", &key, &token, "NX", "PX", "60000"]) {
        Outcome::Done(Value::Null) | Outcome::NotApplied => return,
        Outcome::Done(value) => assert_eq!(value, Value::ok()),
        Outcome::Unknown => return next_generation(),
    }
    ledger.grants += 1;
    let before = locks.holders.lock().expect("no double grant").insert(generation, token.clone());
    assert!(before.is_none(), "{key} was granted to {token} while {before:?} held it");
    let_pass(PACE);
    locks.holders.lock().expect("no double grant").remove(&generation);
    let deadline = now_us() + us(PATIENCE);
    while now_us() < deadline {
        match wanderer.run(&["DEL", &key]) {
            Outcome::Done(freed) => return assert_eq!(freed.integer(), 1, "{key} lost its holder"),
            Outcome::NotApplied => {}
            Outcome::Unknown => return next_generation(),
        }
    }
    panic!("{key} could not be freed");
}
