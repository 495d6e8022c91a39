//! Limits of the transport: every buffer, queue and wait of this room ends at a number named here.

use std::time::Duration;

/// Bytes in one mebibyte.
const MIB: usize = 1024 * 1024;

/// Longest body of a frame, in bytes. What the log can hold, a frame must carry: the rooms above assert it.
pub const FRAME_BYTES_MAX: usize = 576 * MIB;

/// Bodies up to this size are read through the shared socket buffer and copied out; a longer body is read
/// into an allocation of its own. In bytes.
///
/// A body must never be a slice of the socket buffer: a 160-byte log entry would keep 128 KiB alive.
pub(super) const SMALL_BODY_BYTES_MAX: usize = 32 * 1024;

/// Size of the socket buffer of one connection, in bytes. Must hold the longest small frame.
pub(super) const READ_BUFFER_BYTES: usize = 128 * 1024;

/// What is allocated for a long body before any of it has arrived, in bytes.
pub(super) const LARGE_BODY_START_BYTES: usize = 256 * 1024;

/// How many times what has arrived of a long body is allocated for it. What has not arrived takes no memory of the machine, only
/// addresses; and each time that it does not suffice, all that is there is copied.
pub(super) const LARGE_BODY_GROWTH: usize = 8;

/// A server tells a caller that it is alive whenever this many more bytes have arrived: on a slow link a part, and what the
/// kernel has taken, may take longer than the caller's idle timeout, and its pings wait behind that.
pub(super) const PROGRESS_BYTES: usize = 256 * 1024;

/// A message whose body has at least so many bytes is long: it waits apart, and what is short passes it. Bytes of a body from
/// so many on are lent instead of copied.
pub const LONG_BYTES_MIN: usize = 64 * 1024;

/// A long message is sent in frames of so many bytes of its body, or as many as leave with them that are short; between them
/// are others. Room for a chunk of a snapshot.
pub(super) const PART_BYTES: usize = 257 * 1024;

/// How much of a connection the kernel takes that it cannot send yet, in bytes: megabytes otherwise, and a heartbeat that is
/// written next waits behind them. As much again as a part, 25 ms each on a link of 10 MiB/s. It asks for more when half of it
/// is left, which a link of 10 Gbit/s sends within 100 µs: with less it would be idle while the thread is busy elsewhere.
pub(super) const UNSENT_BYTES_MAX: u32 = 256 * 1024;

/// What an outgoing buffer keeps allocated between two writes, in bytes.
pub(super) const OUTGOING_KEPT_BYTES_MAX: usize = MIB;

/// Socket reads a connection makes before it lets its writer have a turn.
pub(super) const READS_PER_TURN_MAX: u32 = 8;

/// How much later than its deadline a call may be reported as timed out.
pub(super) const SWEEP_GRANULARITY: Duration = Duration::from_millis(20);

/// The longest timeout of a call; a longer one is cut to it.
pub(super) const CALL_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// A silent connection is looked at this many times within its idle timeout.
pub(super) const CHECKS_PER_IDLE_TIMEOUT: u32 = 4;

/// The first wait between two attempts to connect, after one immediate attempt.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// The longest wait between two attempts to connect, before jitter.
pub(super) const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A connection that lived at least this long was a good one: the next attempt is immediate again.
pub(super) const BACKOFF_FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// Addresses of one peer tried in turn, resolved ones included; the rest is ignored.
pub(super) const ADDRESSES_MAX: usize = 16;

/// How long the server waits after a failed accept (usually: out of file descriptors).
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One kind of complaint is logged at most once in this time.
pub(super) const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What one connection may use. `Default` is meant for production; tests shrink single fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message sent or accepted, its header included and in however many frames, in bytes. Room for one 512 MiB value and its envelope.
    pub frame_bytes_max: usize,
    /// Bytes that may wait in a client's outgoing queue before calls are refused with
    /// [`TransportError::Busy`](super::TransportError::Busy). One frame alone in the queue may be longer.
    pub outgoing_bytes_max: usize,
    /// Bytes of answers that may wait for one connection of a server; a peer that lets more pile up is cut off.
    pub answers_bytes_max: usize,
    /// Calls of one client that may wait for their answer; above it calls are refused with `Busy`.
    pub calls_max: usize,
    /// Requests of one connection a server's handler may hold unanswered; above it they are sent back not handled.
    pub requests_max: usize,
    /// Connections of peers that have proved themselves a server keeps open at once.
    pub connections_max: usize,
    /// Connections still shaking hands a server keeps open at once.
    pub handshakes_max: usize,
    /// Of these, from one address: so that one machine alone cannot lock the others out.
    pub handshakes_per_address_max: usize,
    /// Time to connect, and time again for the whole handshake.
    pub handshake_timeout: Duration,
    /// A client that receives nothing for this long gives the connection up. It pings four times within it.
    pub idle_timeout: Duration,
    /// A server that receives nothing for this long closes the connection. At least the clients' `idle_timeout`.
    pub silence_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX,
            outgoing_bytes_max: 256 * MIB,
            answers_bytes_max: 1152 * MIB,
            calls_max: 65_536,
            requests_max: 262_144,
            connections_max: 1024,
            handshakes_max: 256,
            handshakes_per_address_max: 64,
            handshake_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(3),
            silence_timeout: Duration::from_secs(10),
        }
    }
}
