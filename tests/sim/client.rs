//! Clients: each a task on the clients' own host that goes from door to door and keeps book of what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kvorum::transport::Duplex;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::network::Port;
use crate::support::operation::{Action, Operation, answer, argv};
use crate::support::reply::{Reader, Value};
use crate::trace;

/// Longest wait for a connection.
const DIAL_PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for a reply: longer than a node takes to say that it does not know.
const REPLY_PATIENCE: Duration = Duration::from_secs(15);
/// After a door was closed.
const PAUSE: Duration = Duration::from_millis(40);
/// The same keys are used for this long, in milliseconds: the judge's work grows with the operations of a key.
const GENERATION_MS: u64 = 4_000;
/// Keys of each kind.
const KEYS: u64 = 2;

/// How errors begin that say that the cluster did nothing.
const NOT_APPLIED: [&str; 3] =
    ["CLUSTERDOWN no quorum", "TIMEOUT the command was not applied", "LOADING"];
/// How those begin that say that nobody knows.
const UNKNOWN: [&str; 2] = ["TIMEOUT outcome unknown", "TIMEOUT the read was not answered"];

/// What all clients saw.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) operations: Vec<Operation>,
    /// Counters that last: increments acknowledged, and those of which nobody can say.
    pub(crate) totals: BTreeMap<String, (u64, u64)>,
    /// Through which nodes (by number) which shards were seen to serve.
    pub(crate) served: BTreeSet<(usize, usize)>,
    /// What no client may see.
    pub(crate) violation: Option<String>,
    /// Clients end.
    pub(crate) is_over: bool,
    /// Counts what happens: it is the histories' clock, so that what came before something else is known exactly.
    events: u64,
}

impl Book {
    fn tick(&mut self) -> u64 {
        self.events += 1;
        self.events
    }
}

/// The book, shared.
pub(crate) type Shared = Arc<Mutex<Book>>;

/// What became of one command.
enum Outcome {
    Done(Value),
    NotApplied,
    Unknown,
}

/// A connection to a node.
struct Connection {
    duplex: Duplex,
    received: Reader,
}

impl Connection {
    async fn open(port: &Port, door: SocketAddr) -> io::Result<Self> {
        let duplex = timeout(DIAL_PATIENCE, port.dial(door)).await??;
        Ok(Self { duplex, received: Reader::default() })
    }

    /// Sends a command and waits for its reply.
    async fn ask(&mut self, argv: &[Vec<u8>]) -> io::Result<Value> {
        let mut request = format!("*{}\r\n", argv.len()).into_bytes();
        for word in argv {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.duplex.sink.write_all(&request).await?;
        let reply = timeout(REPLY_PATIENCE, self.reply()).await??;
        trace::note("told", format_args!("{} {reply:?}", shown(argv)));
        Ok(reply)
    }

    async fn reply(&mut self) -> io::Result<Value> {
        loop {
            if let Some(reply) = self.received.next_reply().map_err(io::Error::other)? {
                return Ok(reply);
            }
            let mut bytes = [0; 4096];
            match self.duplex.source.read(&mut bytes).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.received.feed(&bytes[..count]),
            }
        }
    }
}

fn shown(argv: &[Vec<u8>]) -> String {
    let words: Vec<_> = argv.iter().map(|word| String::from_utf8_lossy(word)).collect();
    words.join(" ")
}

/// A client with a connection or without.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) port: Port,
    pub(crate) doors: Vec<SocketAddr>,
    pub(crate) dice: Dice,
    pub(crate) book: Shared,
}

impl Client {
    /// Reads and writes until the book is closed.
    pub(crate) async fn roam(mut self) {
        let mut at = self.number % self.doors.len();
        let mut connection = None;
        let mut turn = 0;
        while !self.book.lock().is_over {
            sleep(Duration::from_millis(self.dice.within(1, 60))).await;
            let opened = match connection.take() {
                Some(open) => Ok(open),
                None => Connection::open(&self.port, self.doors[at]).await,
            };
            let Ok(mut open) = opened else {
                at = (at + 1) % self.doors.len();
                sleep(PAUSE).await;
                continue;
            };
            turn += 1;
            let (key, action) = self.choose(turn);
            let invoked = self.book.lock().tick();
            let reply = open.ask(&argv(&key, &action)).await;
            let goes_on = reply.is_ok();
            self.record(key, action, invoked, reply);
            if goes_on && !self.dice.percent(2) {
                connection = Some(open);
            } else {
                at = self.dice.index(self.doors.len());
            }
        }
    }

    fn record(&self, key: String, action: Action, invoked: u64, reply: io::Result<Value>) {
        let mut book = self.book.lock();
        let outcome = match reply {
            Ok(value) => judge(value, &mut book.violation),
            Err(_) => Outcome::Unknown,
        };
        if key.starts_with("total") {
            let total = book.totals.entry(key).or_default();
            match outcome {
                Outcome::Done(_) => total.0 += 1,
                Outcome::Unknown => total.1 += 1,
                Outcome::NotApplied => {}
            }
            return;
        }
        let returned = match outcome {
            Outcome::Done(value) => Some((book.tick(), answer(&value))),
            Outcome::Unknown if action != Action::Get => None,
            // A read that told nothing, or a write that did nothing, bears no witness.
            Outcome::Unknown | Outcome::NotApplied => return,
        };
        book.operations.push(Operation { client: self.number, key, action, invoked, returned });
    }

    /// A key and what to do with it. Values are unique, so that a read shows which write it saw.
    fn choose(&mut self, turn: u64) -> (String, Action) {
        let dice = &mut self.dice;
        let place = format!("{}:{}", trace::now() / GENERATION_MS, dice.below(KEYS));
        let value = format!("{}-{turn}", self.number).into_bytes();
        let percent = dice.below(100);
        match dice.below(4) {
            0 => {
                let action = match percent {
                    0..45 => Action::Get,
                    45..90 => Action::Set(value),
                    _ => Action::Append([b"+", &value[..]].concat()),
                };
                (format!("register:{place}"), action)
            }
            1 => {
                let action = if percent < 40 { Action::Get } else { Action::Incr };
                (format!("counter:{place}"), action)
            }
            2 => {
                let action = match percent {
                    0..30 => Action::Get,
                    30..70 => Action::SetNx(value),
                    _ => Action::Del,
                };
                (format!("lock:{place}"), action)
            }
            _ => (format!("total:{}", dice.below(4)), Action::Incr),
        }
    }
}

/// What a reply says of its command.
fn judge(value: Value, violation: &mut Option<String>) -> Outcome {
    let Value::Error(text) = &value else { return Outcome::Done(value) };
    let says = |start: &&str| text.starts_with(start);
    if NOT_APPLIED.iter().any(says) {
        return Outcome::NotApplied;
    }
    if !UNKNOWN.iter().any(says) {
        violation.get_or_insert_with(|| format!("a client is told: {text}"));
    }
    Outcome::Unknown
}

/// A node that shall serve a shard by itself or by others.
pub(crate) struct Probe {
    pub(crate) node: usize,
    pub(crate) shard: usize,
    pub(crate) door: SocketAddr,
    /// One of the shard's.
    pub(crate) key: String,
    pub(crate) port: Port,
    pub(crate) book: Shared,
}

impl Probe {
    /// Writes and reads through the node until that has gone well once.
    pub(crate) async fn until_served(self) {
        let key = self.key.clone().into_bytes();
        let value = format!("by {}", self.node).into_bytes();
        let set = [b"SET".to_vec(), key.clone(), value];
        let get = [b"GET".to_vec(), key];
        loop {
            if let Ok(mut open) = Connection::open(&self.port, self.door).await
                && matches!(open.ask(&set).await, Ok(Value::Simple(_)))
                && matches!(open.ask(&get).await, Ok(Value::Bulk(_)))
            {
                self.book.lock().served.insert((self.node, self.shard));
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

/// Reads counters that last, through one node.
pub(crate) async fn read_totals(
    port: Port,
    door: SocketAddr,
    keys: Vec<String>,
) -> io::Result<BTreeMap<String, u64>> {
    let mut open = Connection::open(&port, door).await?;
    let mut found = BTreeMap::new();
    for key in keys {
        let value = match open.ask(&[b"GET".to_vec(), key.clone().into_bytes()]).await? {
            Value::Bulk(bytes) => String::from_utf8_lossy(&bytes).parse().unwrap(),
            Value::Null => 0,
            other => return Err(io::Error::other(format!("GET {key} answers {other:?}"))),
        };
        found.insert(key, value);
    }
    Ok(found)
}
