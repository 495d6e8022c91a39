//! Bounds of one connection, with units.

use std::time::Duration;

use crate::node::GUESS_INTERVAL;

/// Room made in the input buffer before each read.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// How many times what has arrived of a long request the input buffer may be.
pub(super) const INPUT_GROWTH: usize = 8;

/// Bytes of commands for one shard that are lent to it rather than copied.
pub(super) const LENT_BYTES_MIN: usize = 8 * 1024;

/// Commands taken into one batch; further ones of the same read wait for its replies to be written.
pub(super) const BATCH_COMMANDS_MAX: usize = 1024;

/// Bytes of commands gathered for shards before they are sent: large values travel one by one.
pub(super) const BATCH_QUEUED_BYTES_MAX: usize = 1024 * 1024;

/// Reply bytes gathered at once before they are written: a pipeline of large reads streams instead of piling up.
pub(super) const BATCH_READY_BYTES_MAX: usize = 1024 * 1024;

/// Runs of replies that are written to the socket at once: those of lent values and what is between them. Of the shortest, as
/// many as most sockets have room for.
pub(super) const RUNS_AT_ONCE_MAX: usize = 32;

/// Memory that each buffer of a connection keeps for the next batch: there may be ten thousand that have sent or got
/// something large once.
pub(super) const BYTES_KEPT_MAX: usize = 16 * 1024;

/// How long a client may read nothing of its replies before it is disconnected. Counted anew whenever it reads some
/// of them.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a connection may last without authenticating, where a password is required.
pub(super) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection waits for the answer to a wrong password once its turn has come, and takes nothing more meanwhile.
pub(super) const AUTH_FAILURE_DELAY: Duration = GUESS_INTERVAL;

/// Wrong passwords are logged at most once in this time.
pub(super) const AUTH_FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(10);
