//! What happened, in order: a hash of all of it, by which two runs are told apart, and lines for who wants to read.
//!
//! Everything outwardly visible is an event: what a host does to its disk, what it sends and gets, what befalls it, what
//! clients are answered. Lines of a node's own log are shown among them and never hashed.

use std::cell::{Cell, RefCell};
use std::fmt;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use xxhash_rust::xxh3::Xxh3;

/// Events and log lines at the end of a run that failed, unless all are shown.
const LAST_LINES: usize = 60;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static HOST: RefCell<String> = RefCell::new("world".to_owned());
    static TRACE: RefCell<Trace> = RefCell::new(Trace::default());
}

#[derive(Default)]
struct Trace {
    hash: Xxh3,
    events: u64,
    shows: bool,
    only: Vec<String>,
    last: std::collections::VecDeque<String>,
    panicked: Option<String>,
}

/// Shows events as they happen: all, or those whose line contains one of `only`.
pub(crate) fn show(only: Vec<String>) {
    TRACE.with_borrow_mut(|trace| {
        trace.shows = true;
        trace.only = only;
    });
}

/// Virtual time is `now` milliseconds from here on.
pub(crate) fn pass_to(now: u64) {
    NOW.set(now);
}

/// The virtual time, in milliseconds.
pub(crate) fn now() -> u64 {
    NOW.get()
}

/// Says that what happens until the guard goes happens on `host`.
pub(crate) fn on(host: &str) -> OnHost {
    OnHost(HOST.replace(host.to_owned()))
}

/// See [`on`].
pub(crate) struct OnHost(String);

impl Drop for OnHost {
    fn drop(&mut self) {
        HOST.set(std::mem::take(&mut self.0));
    }
}

/// Notes an event: its kind, and whatever tells it from others of that kind.
pub(crate) fn note(kind: &str, what: fmt::Arguments<'_>) {
    HOST.with_borrow(|host| {
        TRACE.with_borrow_mut(|trace| {
            let line = format!("{} {host} {kind} {what}", Stamp(NOW.get()));
            trace.hash.update(line.as_bytes());
            trace.events += 1;
            trace.put(line);
        });
    });
}

/// Notes an event of bytes, by their number and hash.
pub(crate) fn note_bytes(kind: &str, what: fmt::Arguments<'_>, bytes: &[u8]) {
    let hash = xxhash_rust::xxh3::xxh3_64(bytes);
    note(kind, format_args!("{what} {} bytes {hash:016x}", bytes.len()));
}

/// The hash of all events so far, and how many there were.
pub(crate) fn digest() -> (u64, u64) {
    TRACE.with_borrow(|trace| (trace.hash.digest(), trace.events))
}

/// Notes a panic, which is a failure of the run wherever it happened.
pub(crate) fn panicked(what: String) {
    TRACE.with_borrow_mut(|trace| {
        trace.panicked.get_or_insert(what);
    });
}

/// The first panic.
pub(crate) fn panic() -> Option<String> {
    TRACE.with_borrow(|trace| trace.panicked.clone())
}

/// The last lines before now, oldest first.
pub(crate) fn last_lines() -> Vec<String> {
    TRACE.with_borrow(|trace| trace.last.iter().cloned().collect())
}

impl Trace {
    #[expect(clippy::print_stderr, reason = "what --trace is for")]
    fn put(&mut self, line: String) {
        if self.shows && (self.only.is_empty() || self.only.iter().any(|word| line.contains(word)))
        {
            eprintln!("{line}");
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

/// Milliseconds as seconds.
struct Stamp(u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Begins a line of a node's log as an event begins.
pub(crate) struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        HOST.with_borrow(|host| write!(w, "{} {host} log", Stamp(NOW.get())))
    }
}

/// Takes the lines of nodes' logs.
pub(crate) struct LogLines;

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
        TRACE.with_borrow_mut(|trace| trace.put(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
