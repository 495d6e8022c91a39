//! Bounds of the admin door, with units.

use std::time::Duration;

/// Connections served at one time; for another one the oldest gives way that has yet to ask.
pub(in crate::server) const CONNECTIONS_MAX: usize = 64;

/// Bytes of a request's line and headers.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of a request.
pub(super) const HEADERS_MAX: usize = 64;

/// From accepting a connection to the end of its only reply.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The same where the reply needs a walk over all keys: it goes a step at a time, and over hundreds of millions of keys for
/// minutes.
pub(super) const WALK_TIMEOUT: Duration = Duration::from_mins(15);

/// How long the headers of a request may take to arrive.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// One kind of complaint is logged at most once in this time.
pub(super) const LOG_INTERVAL: Duration = Duration::from_mins(1);
