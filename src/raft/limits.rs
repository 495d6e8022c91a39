//! Bounds of the raft room, with units.

use std::time::Duration;

use super::options::Timing;

/// A gap between two looks at a group's timer from which on this process counts as having stood still.
pub(super) const STALL_MIN: Duration = Duration::from_millis(200);

/// How long a vote may take: it waits for the candidate's disk, then for the voter's, and either may be busy with one sync
/// before. openraft gives up on the call then. Its own lease is a little longer and means nothing here, see `pledge`.
pub(super) const VOTE_TIMEOUT: Duration = Duration::from_millis(2_500);

/// How long a pre-vote may take: it waits for no disk.
pub(super) const PRE_VOTE_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between two tries of a leader that was voted out to hand over.
pub(super) const HAND_OVER_PAUSE: Duration = Duration::from_secs(1);

/// How long what a replica said of its memory counts: several heartbeats, of which each says it anew.
pub(super) const ROOM_AGE_MAX: Duration = Duration::from_secs(2);

/// Entries by which a replica may be behind to be handed the lead: a round of messages brings them.
pub(super) const HAND_OVER_LAG_MAX: u64 = 64;

/// Bytes by which it may be behind: on a link that sends a MiB in [`APPEND_TIMEOUT_PER_MIB`] it has them within a lease.
/// Proposals wait no longer than that for who is handed the lead.
pub(super) const HAND_OVER_LAG_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(
    HAND_OVER_LAG_BYTES_MAX / (1024 * 1024) * (APPEND_TIMEOUT_PER_MIB.subsec_millis() as usize)
        < Timing::DEFAULT.lease.subsec_millis() as usize
);

/// Bytes of entries in one AppendEntries message: large enough to be efficient, small enough that a
/// lagging follower's stream shares the connection fairly with heartbeats.
pub(super) const APPEND_ENTRIES_BYTES_MAX: usize = 1024 * 1024;

/// Entries in one AppendEntries message.
pub(super) const APPEND_ENTRIES_COUNT_MAX: u64 = 1024;

/// How long a message that carries nothing but a newer commit index waits for entries to travel with. Nobody waits for
/// it: a follower applies that much later, while the leader has answered already.
pub(super) const COMMIT_LINGER: Duration = Duration::from_millis(5);

/// How long a follower may take for a message with entries: it answers when they are on its disk, and a disk that is busy
/// with other things can take seconds for that. Plus [`APPEND_TIMEOUT_PER_MIB`].
pub(super) const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Time on the way for each MiB of entries: a link of 10 MiB/s, so that the largest value, 512 MiB, has a minute.
pub(super) const APPEND_TIMEOUT_PER_MIB: Duration = Duration::from_millis(100);

/// Bytes of the log's tail kept in memory per group; older entries are read back from disk.
pub(super) const TAIL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How often whoever appended lets others run before it syncs, so that one sync serves what they append.
pub(super) const SYNC_TURNS: usize = 3;

/// Bytes of it that stay when no entry has come for [`TAIL_IDLE`].
pub(super) const TAIL_IDLE_BYTES_MAX: usize = 512 * 1024;
pub(super) const TAIL_IDLE: Duration = Duration::from_secs(2);

/// AppendEntries of one follower that may be unanswered at a time.
pub(super) const APPEND_PIPELINE_MAX: usize = 64;

/// openraft sends no further heartbeat to a replica that answered within this part of `Timing::heartbeat`.
pub(super) const HEARTBEAT_QUIET_PART: u64 = 4;

/// A leader that waits for a quorum's word asks the silent ones again after this time. No shorter than the time for which
/// openraft sends no further heartbeat to a replica that it believes to have answered, a quarter of `Timing::heartbeat`.
pub(super) const QUORUM_ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes of one snapshot chunk on the wire and on disk, whatever the values in it: they are cut anywhere.
pub(super) const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Advances of the commit index that may wait until a machine has applied what takes long.
///
/// openraft's core hands each to the machine's worker through a bounded channel, and awaits a place in it
/// (`RaftCore::apply_to_state_machine`). While it stands there it takes no message and no notification: it beats no hearts
/// and hears of none, acknowledges nothing and votes for nobody. On a leader the shard has few entries under way, but a
/// follower gets an advance with nearly every message, thousands a second from a majority that goes on without it: its
/// 1024 places were taken within a fraction of a second, less than many an entry of great weight takes. These are ten
/// seconds' or more. Beyond, the core stands until the worker takes the next one: time is lost then, nothing else. An
/// advance in the channel takes some hundred bytes, allocated when it comes, so that all are ten MiB or so for a group;
/// without a bound a machine that never ends would take all memory.
///
/// Can both wait for each other? Having applied, the worker awaits a place among the core's notifications, of which there
/// are 65,536, before it takes the next advance. So it would take a core that stands here while those are full. But
/// whatever fills them has nothing to do then: the log says what is done through a place for one (`watch`), ticks are
/// switched off, streams to followers send what the core has told them of and notify once for each message that is
/// acknowledged, of a MiB or of 1024 entries, and the worker itself has one answer. That is hundreds; 65,536 would take a
/// follower that catches up on tens of GiB while one entry is applied.
pub(super) const COMMITS_WAITING_MAX: u64 = 64 * 1024;

/// Chunks of a step of a snapshot that has waited for who had the state for long: some ten milliseconds' work, in which
/// nobody else has it. With steps of one chunk, and a tenth of a second's wait before each, 10 GiB would take an hour.
pub(super) const SNAPSHOT_LONG_STEP_CHUNKS: usize = 16;

/// What a message carries besides entries and chunks, in bytes, with room.
const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;

// What the log can hold, one message carries: entries up to the limit of a message and then one of any size.
const _: () = assert!(
    crate::wal::limits::RECORD_BYTES_MAX + APPEND_ENTRIES_BYTES_MAX + ENVELOPE_BYTES_MAX
        <= crate::transport::FRAME_BYTES_MAX
);
const _: () =
    assert!(SNAPSHOT_CHUNK_BYTES + ENVELOPE_BYTES_MAX <= crate::transport::FRAME_BYTES_MAX);

/// Pause between two questions of a replica about what others have, while it has no leader or is short.
pub(super) const CENSUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long a voter may take to say what it has.
pub(super) const CENSUS_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a leader may take to commit a fence.
pub(super) const FENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of log that are kept for replicas that a snapshot is on its way to, at most, where twice the snapshot is less.
pub(super) const HELD_LOG_BYTES_MIN: u64 = 512 * 1024 * 1024;

/// A replica that got a snapshot and comes no further for this long gets no log kept for it any more.
pub(super) const HOLDBACK_IDLE_MAX: Duration = Duration::from_mins(1);

/// Snapshot chunks sent ahead of their acknowledgement.
pub(super) const SNAPSHOT_WINDOW: usize = 4;

/// How long the receiver may take for one snapshot chunk, or to load the whole at the end.
pub(super) const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_mins(5);

/// A transfer of which nothing was heard for this long is over: its sender would have given up before.
pub(super) const SNAPSHOT_IDLE_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(SNAPSHOT_IDLE_MAX.as_secs() > SNAPSHOT_CHUNK_TIMEOUT.as_secs());

/// The pause after a failed build, transfer or publication; it doubles with each failure in a row, up to the maximum.
pub(super) const SNAPSHOT_RETRY_MIN: Duration = Duration::from_millis(250);
pub(super) const SNAPSHOT_RETRY_MAX: Duration = Duration::from_secs(16);

/// Longest meta part of a snapshot, in bytes: its membership, with room.
pub(super) const SNAPSHOT_META_BYTES_MAX: usize = 64 * 1024;
