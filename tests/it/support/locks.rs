//! Locks with a deadline, taken and looked at through every door, and compared with true time.
//!
//! A lock is `SET key token NX PX ttl`; nobody deletes it. True time is this process's monotonic clock; shard time may run
//! 1 % faster or slower, and stamps are whole milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvorum::stdx::prng::SplitMix64;

use super::client::Value;
use super::load::{Outcome, Wanderer};
use super::{let_pass, now_us, us};

const KEYS: u64 = 3;

/// By how much a lock may live shorter than 99 % of its TTL, in µs: stamps are whole milliseconds, and a follower that
/// becomes leader may have kept to a time that is as much ahead as a leader slews between two heartbeats.
const EARLY_US: u64 = 5_000;

/// A try to take a lock. Times are in µs.
#[derive(Clone, Debug)]
struct Grant {
    token: String,
    ttl_us: u64,
    asked: u64,
    /// When the grant was known; `None`: nobody knows whether it was granted, or when.
    known: Option<u64>,
}

impl Grant {
    /// A moment at which it was certainly held, if it was granted before.
    fn earliest_end(&self) -> u64 {
        self.asked + (self.ttl_us * 99 / 100).saturating_sub(EARLY_US)
    }

    /// From then on it is held no more.
    fn latest_end(&self, late_us: u64) -> Option<u64> {
        Some(self.known? + self.ttl_us * 101 / 100 + late_us)
    }

    /// Whether it is held during all of `look`.
    fn is_held_during(&self, look: &Look) -> bool {
        self.known.is_some_and(|known| known < look.asked) && look.known < self.earliest_end()
    }
}

/// What somebody saw of a lock.
#[derive(Clone, Debug)]
struct Look {
    asked: u64,
    known: u64,
    seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// By GET: nobody, or who.
    Holder(Option<String>),
    /// By PTTL, ms left: nobody, or how long.
    Left(Option<u64>),
}

/// All that is known of one lock.
#[derive(Debug, Default)]
struct Book {
    grants: Vec<Grant>,
    looks: Vec<Look>,
}

type Books = BTreeMap<String, Book>;

/// Clients that take and watch locks until told to stop.
#[derive(Debug)]
pub(crate) struct Locks {
    is_over: Arc<AtomicBool>,
    late_us: u64,
    clients: Vec<JoinHandle<Books>>,
}

impl Locks {
    /// Starts two clients at each of `ports`: one takes locks and one looks. A lock may live longer than 101 % of its TTL by
    /// `late`: by how long it takes a follower to hear of the time.
    pub(crate) fn start(ports: &[u16], seed: u64, late: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for index in 0..ports.len() {
            for takes in [true, false] {
                let mut prng = SplitMix64::new(seed ^ (clients.len() as u64 + 1));
                let mut wanderer = Wanderer::new(ports, index);
                let is_over = Arc::clone(&is_over);
                clients.push(thread::spawn(move || {
                    let mut books = Books::new();
                    while !is_over.load(Ordering::Acquire) {
                        let key = format!("lease:{}", prng.below(KEYS));
                        if takes {
                            take(&mut wanderer, &mut prng, &key, &mut books);
                        } else {
                            look(&mut wanderer, &mut prng, &key, &mut books);
                        }
                        let_pass(Duration::from_millis(1 + prng.below(8)));
                    }
                    books
                }));
            }
        }
        Self { is_over, late_us: us(late), clients }
    }

    /// Stops the clients and judges what they saw. How many grants and looks there were.
    ///
    /// # Panics
    /// When a lock was held by two at once, or did not live as long as it should, or came back.
    #[track_caller]
    pub(crate) fn finish(self) -> (usize, usize) {
        self.is_over.store(true, Ordering::Release);
        let mut books = Books::new();
        for client in self.clients {
            for (key, book) in client.join().expect("no client panics") {
                let whole = books.entry(key).or_default();
                whole.grants.extend(book.grants);
                whole.looks.extend(book.looks);
            }
        }
        books.iter_mut().for_each(|(key, book)| {
            if let Err(why) = judge(book, self.late_us) {
                panic!("{key}: {why}");
            }
        });
        let grants = books.values().flat_map(|book| &book.grants);
        let granted = grants.filter(|grant| grant.known.is_some()).count();
        (granted, books.values().map(|book| book.looks.len()).sum())
    }
}

fn take(wanderer: &mut Wanderer, prng: &mut SplitMix64, key: &str, books: &mut Books) {
    let token = format!("{:x}", prng.next_u64());
    let ttl_ms = 200 + prng.below(400);
    let (asked, outcome) =
        wanderer.run_timed(&["SET", key, &token, "NX", "PX", &ttl_ms.to_string()]);
    let known = match outcome {
        Outcome::Done(Value::Simple(_)) => Some(now_us()),
        Outcome::Done(_) | Outcome::NotApplied => return,
        Outcome::Unknown => None,
    };
    let grant = Grant { token, ttl_us: ttl_ms * 1000, asked, known };
    books.entry(key.to_owned()).or_default().grants.push(grant);
}

fn look(wanderer: &mut Wanderer, prng: &mut SplitMix64, key: &str, books: &mut Books) {
    let by_get = prng.below(2) == 0;
    let (asked, outcome) = wanderer.run_timed(&[if by_get { "GET" } else { "PTTL" }, key]);
    let known = now_us();
    let seen = match outcome {
        Outcome::Done(Value::Null) => Seen::Holder(None),
        Outcome::Done(Value::Integer(left)) => Seen::Left(u64::try_from(left).ok()),
        Outcome::Done(value) => Seen::Holder(Some(value.text())),
        Outcome::NotApplied | Outcome::Unknown => return,
    };
    books.entry(key.to_owned()).or_default().looks.push(Look { asked, known, seen });
}

fn judge(book: &mut Book, late_us: u64) -> Result<(), String> {
    book.grants.sort_by_key(|grant| grant.asked);
    book.looks.sort_by_key(|look| look.asked);
    judge_grants(&book.grants)?;
    for look in &book.looks {
        judge_look(&book.grants, look, late_us)?;
    }
    judge_returns(book)
}

/// No two hold a lock at once.
fn judge_grants(grants: &[Grant]) -> Result<(), String> {
    for (at, one) in grants.iter().enumerate() {
        let Some(known) = one.known else { continue };
        for other in grants[at + 1..].iter().take_while(|it| it.asked < one.earliest_end()) {
            // Who learnt it later, from a new leader, may have been granted it earlier, by the old one.
            let is_apart = other.known.is_none_or(|other_known| {
                other_known >= one.earliest_end() || known >= other.earliest_end()
            });
            if !is_apart {
                return Err(format!("two holders at once: {one:?} {other:?}"));
            }
        }
    }
    Ok(())
}

fn judge_look(grants: &[Grant], look: &Look, late_us: u64) -> Result<(), String> {
    let held = grants.iter().find(|grant| grant.is_held_during(look));
    match (&look.seen, held) {
        (Seen::Holder(None) | Seen::Left(None), Some(held)) => {
            Err(format!("{held:?} is gone while held: {look:?}"))
        }
        (Seen::Holder(Some(token)), _) => {
            let grant = grants.iter().find(|grant| grant.token == *token);
            match grant.and_then(|grant| grant.latest_end(late_us)) {
                Some(end) if look.asked > end => {
                    Err(format!("{grant:?} outlives its deadline: {look:?}"))
                }
                _ => Ok(()),
            }
        }
        (Seen::Left(Some(left)), _) => {
            let left_us = left * 1000;
            let fits = |grant: &Grant| {
                let passed = look.known.saturating_sub(grant.asked);
                let least = grant.ttl_us.saturating_sub(passed * 101 / 100 + EARLY_US);
                let most = grant.known.map_or(u64::MAX, |known| {
                    let passed = look.asked.saturating_sub(known) * 99 / 100;
                    (grant.ttl_us + late_us).saturating_sub(passed)
                });
                grant.asked <= look.known && (least..=most).contains(&left_us)
            };
            if grants.iter().any(fits) {
                Ok(())
            } else {
                let recent = grants.iter().filter(|it| it.asked < look.known);
                let recent: Vec<_> = recent.rev().take(3).collect();
                Err(format!("no lock has so long to live: {look:?}, the last were {recent:?}"))
            }
        }
        (Seen::Holder(None) | Seen::Left(None), None) => Ok(()),
    }
}

/// Who was seen gone is not seen again.
fn judge_returns(book: &Book) -> Result<(), String> {
    for grant in book.grants.iter().filter(|grant| grant.known.is_some()) {
        let after = book.looks.iter().filter(|look| Some(look.asked) > grant.known);
        let held = Seen::Holder(Some(grant.token.clone()));
        let is_gone = |look: &&Look| match &look.seen {
            Seen::Holder(holder) => holder.as_ref() != Some(&grant.token),
            Seen::Left(left) => left.is_none(),
        };
        let Some(gone) = after.clone().filter(is_gone).min_by_key(|look| look.known) else {
            continue;
        };
        let back = after.clone().find(|look| look.asked > gone.known && look.seen == held);
        if let Some(back) = back {
            return Err(format!("{grant:?} was gone {gone:?} and is back: {back:?}"));
        }
    }
    Ok(())
}

/// The judge finds what it is there for.
mod tests {
    use super::*;

    fn grant(token: &str, asked_ms: u64) -> Grant {
        let asked = asked_ms * 1000;
        Grant { token: token.to_owned(), ttl_us: 400_000, asked, known: Some(asked + 1000) }
    }

    fn look(at_ms: u64, seen: Seen) -> Look {
        Look { asked: at_ms * 1000, known: at_ms * 1000 + 500, seen }
    }

    fn holder(token: &str) -> Seen {
        Seen::Holder(Some(token.to_owned()))
    }

    fn verdict(grants: &[Grant], looks: &[Look]) -> Result<(), String> {
        judge(&mut Book { grants: grants.to_vec(), looks: looks.to_vec() }, 20_000)
    }

    #[test]
    fn a_judge_of_locks_accepts_what_is_right_and_nothing_else() {
        let (a, b) = (grant("a", 1000), grant("b", 1410));
        let right = [
            look(1100, holder("a")),
            look(1200, Seen::Left(Some(200))),
            look(1405, Seen::Holder(None)),
            look(1420, holder("b")),
            look(2500, Seen::Left(None)),
        ];
        assert_eq!(verdict(&[a.clone(), b.clone()], &right), Ok(()));
        let wrong = [
            (vec![a.clone(), grant("b", 1300)], vec![], "two holders"),
            (vec![a.clone()], vec![look(1300, Seen::Holder(None))], "gone while held"),
            (vec![a.clone()], vec![look(1300, Seen::Left(None))], "gone while held"),
            (vec![a.clone()], vec![look(1430, holder("a"))], "outlives"),
            (vec![a.clone()], vec![look(1100, Seen::Left(Some(100)))], "so long to live"),
            (vec![a.clone()], vec![look(1350, Seen::Left(Some(90)))], "so long to live"),
            (vec![a], vec![look(1401, Seen::Holder(None)), look(1403, holder("a"))], "and is back"),
        ];
        for (grants, looks, what) in wrong {
            let why = verdict(&grants, &looks).unwrap_err();
            assert!(why.contains(what), "{what}: {why}");
        }
    }
}
