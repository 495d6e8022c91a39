//! What the tests stand on: processes, clusters, clients, bad networks, recorded histories and their judge.

pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod damage;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod locks;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod ports;
pub(crate) mod preload;
pub(crate) mod proxy;
#[path = "../../../src/resp/testing.rs"]
pub(crate) mod reply;
#[path = "../../../src/stdx/script.rs"]
pub(crate) mod script;
pub(crate) mod shards;
pub(crate) mod slow_disk;
pub(crate) mod small_machine;
pub(crate) mod wall_clock;

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use kvorum::stdx::clock::{Clock, SystemClock, UnixMillis};

/// How long a test waits for something that must happen, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

fn clock() -> &'static SystemClock {
    static CLOCK: OnceLock<SystemClock> = OnceLock::new();
    CLOCK.get_or_init(SystemClock::new)
}

/// Microseconds on this process's monotonic clock, the same for all threads.
pub(crate) fn now_us() -> u64 {
    clock().monotonic().0
}

/// The wall clock.
pub(crate) fn wall() -> UnixMillis {
    clock().now()
}

/// Whole microseconds of `duration`.
pub(crate) fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

/// The first `Some` that `probe` gives within `patience`.
///
/// # Panics
/// With `what` and the last answer of `describe`d failure, when there is none.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = now_us() + us(patience);
    loop {
        match probe() {
            Ok(found) => return found,
            Err(last) => assert!(now_us() < deadline, "no {what} within {patience:?}: {last}"),
        }
        thread::sleep(POLL);
    }
}

/// Lets `duration` of load or of a fault pass. Never used to wait for an outcome.
pub(crate) fn let_pass(duration: Duration) {
    thread::sleep(duration);
}

/// The seed of this run, printed: `KVORUM_SEED` when set, else of the clock.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("KVORUM_SEED") {
        Ok(text) => text.parse().expect("KVORUM_SEED is a number"),
        Err(_) => wall().0,
    };
    eprintln!("KVORUM_SEED={seed}");
    seed
}

/// True when the heavier loops were asked for by `KVORUM_LONG=1`.
pub(crate) fn is_long() -> bool {
    std::env::var("KVORUM_LONG").is_ok_and(|value| value == "1")
}

/// `short`, or `long` with `KVORUM_LONG=1`.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if is_long() { long } else { short }
}
