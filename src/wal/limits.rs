//! What the log refuses or bounds, with units.

use std::time::Duration;

/// Payload (head and body together) of the longest record, in bytes: a 512 MiB value with room for
/// its keys and envelope. A record that no frame between nodes could carry would stop its group for good.
pub const RECORD_BYTES_MAX: usize = 544 << 20;

/// Longest vote or purge marker, in bytes. Every segment repeats these for every group.
pub const MARKER_BYTES_MAX: usize = 4 << 10;

/// Size of a segment file unless [`WalOptions`](super::WalOptions) says otherwise, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Smallest segment file, in bytes; a smaller option is raised to it.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// A group gets an index row about once in this many bytes of the log.
pub(super) const RUN_BYTES: u64 = 256 << 10;

/// The disk is read in pieces of at least this many bytes.
pub(super) const WINDOW_BYTES: usize = 256 << 10;

/// The most that who appends writes to the page cache itself, in bytes: the kernel makes a writer wait at most once in so
/// many.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;

/// The most that who appends writes and syncs itself, in bytes: what a pipeline sends is more, and keeps the processor
/// busy while a thread syncs.
pub(super) const SYNC_BYTES_MAX: usize = 3 << 10;

/// A buffer that one huge record stretched beyond this many bytes is given back.
pub(super) const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// A record's body of at least so many bytes is written from where it lies. Those of the room's tests are on either side.
pub(super) const LENT_BYTES_MIN: usize = if cfg!(test) { 100 } else { 4 << 10 };

/// Purged segment files kept for reuse; more are deleted.
pub(super) const SPARES_MAX: usize = 2;

/// Pause before the log asks again for a file when the system had no descriptor left.
pub(super) const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);

/// How often it asks again, which is for a minute: then it fails, and other nodes take over.
pub(super) const DESCRIPTOR_RETRIES_MAX: u32 = 1200;

/// Longest chunk and longest meta part of a snapshot file, in bytes. Whatever is longer is cut by its owner.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 4 << 20;

/// Longest record of the cluster that adopted a data directory, in bytes.
pub const CLUSTER_RECORD_BYTES_MAX: usize = 4 << 20;

/// Starts of a node that are kept while the cluster does not record them.
pub const STARTS_MAX: usize = 4096;

/// Starts that are kept before the last one that the cluster has recorded: a loss of power of a majority can take that
/// record back, and then an earlier one is what the cluster knows this directory by.
pub const STARTS_KEPT: usize = 64;
