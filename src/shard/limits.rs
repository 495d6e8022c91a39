//! Bounds of the shard room, with units.

use std::time::Duration;

/// Bytes of commands in one packet, and so about one log entry. A single larger submission travels alone.
pub(super) const PACKET_BYTES_SOFT_MAX: usize = 512 * 1024;

/// Bytes of one connection's commands for one shard out of one socket read: one command with a value of 512 MiB
/// and its overhead. Stays below what a record of the log and a frame between nodes can hold.
pub(super) const SUBMISSION_BYTES_MAX: usize = 520 * 1024 * 1024;

// It travels with at most the other packets of an entry; twice that leaves room for what surrounds them.
const _: () =
    assert!(SUBMISSION_BYTES_MAX + 2 * ENTRY_BYTES_MAX <= crate::wal::limits::RECORD_BYTES_MAX);

/// Bytes of all packets of an entry, where it has several.
pub(super) const ENTRY_BYTES_MAX: usize = 2 * PACKET_BYTES_SOFT_MAX;

/// Bytes of one reply: the largest value and what surrounds it. A longer one is an error in its place.
pub const REPLY_BYTES_MAX: usize = 520 * 1024 * 1024;

const _: () = assert!(REPLY_BYTES_MAX >= SUBMISSION_BYTES_MAX);

/// Bytes of replies after which no further command of a packet is run, of writes or of reads: the front end is answered,
/// and sends the rest again. Every replica encodes the replies of a packet and keeps them until they are confirmed. A read
/// in the log, because it follows a write of its pipeline, is not run either if its reply would exceed this.
pub(super) const REPLIES_SOFT_MAX: usize = 8 * 1024 * 1024;

/// Bytes of replies of one packet.
pub(super) const REPLIES_BYTES_MAX: usize = REPLIES_SOFT_MAX + REPLY_BYTES_MAX;

// A frame carries them, and where each of as many commands as a packet holds has its end.
const _: () =
    assert!(REPLIES_BYTES_MAX + 8 * PACKET_BYTES_SOFT_MAX <= crate::transport::FRAME_BYTES_MAX);

/// Log entries of one shard that may be proposed and not yet applied. More would not raise
/// throughput (waiting commands join the next entry) but would delay the first of them.
pub(super) const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// Bytes that must wait before a further packet or entry leaves while others are under way: smaller ones wait for the
/// answer and gather, because their fixed cost would outweigh what they hold.
pub(super) const PIPELINE_BYTES_MIN: usize = 4 * 1024;

/// Turns of the runtime for which a shard that was woken lets others speak first.
pub(super) const LINGER_TURNS: usize = 4;

/// Packets of one front end toward one shard that may be unanswered.
pub(super) const PACKETS_IN_FLIGHT_MAX: usize = 4;

/// Packets of reads that a shard's replica runs at a time away from the runtimes, or that wait there for the state; others wait
/// their turn. Each may have as many replies as a packet can, so these are what bounds their memory.
pub(super) const LONG_READS_MAX: usize = 4;

/// How long reads that have been vouched for may take, the wait for their turn and for the state included. Then they are not
/// begun any more, or not gone on with, and answered by an error that says so. As long as the largest reply takes on a slow
/// machine, several times.
pub(super) const READ_PATIENCE: Duration = Duration::from_mins(1);

/// Bytes of commands in reads of other nodes, and in stale ones, that may be under way or wait at a replica; beyond, they are
/// turned away.
pub(super) const LONG_READS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What each of those counts for besides.
pub(super) const LONG_READ_BYTES: usize = 4 * 1024;

/// Packets of reads that may be under way beside [`PACKETS_IN_FLIGHT_MAX`] because they were vouched for and take long: others
/// need not wait for these.
pub(super) const LONG_PACKETS_MAX: usize = 16;

/// Bytes that a leader has sent in the time in which it should have said that it is there, after which it is taken to be: on a
/// slow link what it is to say may stand behind a part of a large answer.
pub(super) const LEADER_PROGRESS_BYTES: u64 = 1024 * 1024;

/// Bytes of replies that a front end has received and not yet told the shard of, beyond which it sends nothing new until it
/// can; each packet counts for some bytes more, [`PACKET_REPLY_BYTES`].
pub(super) const UNCONFIRMED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a packet without replies weighs in the session table, about.
pub(super) const PACKET_REPLY_BYTES: usize = 128;

/// Bytes of replies that each session may have in the table of a shard: what is unconfirmed, and what answers the packets
/// on their way. Only replies of hundreds of MiB come near it.
pub(super) const SESSION_BYTES_MAX: usize =
    UNCONFIRMED_BYTES_MAX + PACKETS_IN_FLIGHT_MAX * REPLIES_BYTES_MAX;

// Mostly it is the packets under way, of which no more are under way as entries than as messages.
const _: () = assert!(
    ENTRIES_IN_FLIGHT_MAX <= PACKETS_IN_FLIGHT_MAX
        && SESSION_BYTES_MAX <= (PACKETS_IN_FLIGHT_MAX + 1) * REPLIES_BYTES_MAX
);

/// Bytes of replies that a front end with nothing to send confirms soon, by a packet of its own; fewer wait for
/// [`SIGN_OF_LIFE_INTERVAL`], so that an idle cluster writes nothing for their sake.
pub(super) const CONFIRM_BYTES_MIN: usize = 64 * 1024;

/// How long a front end must have had nothing to send before that.
pub(super) const CONFIRM_PAUSE: Duration = Duration::from_millis(500);

/// How often a front end that holds a session and has nothing to send says that it lives.
pub(super) const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_mins(10);

/// Time of the shard after which the replies of a silent session are dropped, and a closed one is forgotten.
pub(super) const SESSION_SILENCE_MAX: Duration = Duration::from_hours(1);

// Several signs of life may be lost, and no packet waits for so long.
const _: () = assert!(
    4 * SIGN_OF_LIFE_INTERVAL.as_secs() <= SESSION_SILENCE_MAX.as_secs()
        && 100 * REQUEST_DEADLINE.as_secs() < SESSION_SILENCE_MAX.as_secs()
        && 30 * INBOX_AGE_MAX.as_secs() < SESSION_SILENCE_MAX.as_secs()
);

/// Bytes of commands that may wait in one front end for one shard; beyond, clients get an error.
pub(super) const OUTBOX_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes of packets from other nodes that may wait at a leader; beyond, they are asked to come again.
pub(super) const INBOX_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// How long a packet of another node may wait at a leader. Less than the time after which a shard forgets a closed
/// session, by far: a packet that comes after that would be taken for a new one.
pub(super) const INBOX_AGE_MAX: Duration = Duration::from_mins(1);

/// How long a command may wait for a leader and a quorum before its client gets an error (design §10).
pub(super) const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// How long one try at another node may take before the packet is sent again, and what each MiB of it adds.
pub(super) const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const FORWARD_TIMEOUT_PER_MIB: Duration = Duration::from_millis(100);

/// How often reads under way look whether another node leads by now.
pub(super) const LEADER_LOOK_INTERVAL: Duration = Duration::from_millis(20);

const _: () = assert!(READ_PATIENCE.as_secs() > REQUEST_DEADLINE.as_secs());

/// Leaders that may fall silent over the same reads before these are answered with an error. One: it may have
/// failed by chance. Two: the reads may be what they failed over.
pub(super) const READ_LEADERS_LOST_MAX: usize = 2;

/// Pause between two tries while no leader is known or the known one refuses.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Room of a shard, in bytes, below which nodes that do not lead it ask how much it is at every tick.
pub(super) const TIGHT_BYTES: u64 = 64 * 1024 * 1024;

/// How long a thread that beats hearts waits for a shard's state: longer than anybody has it in place. Who has it longer
/// says so, and is waited for elsewhere.
pub(super) const STATE_PATIENCE: Duration = Duration::from_millis(5);

/// Looks for due keys in a row that find the state taken, about a second's, after which one waits for it elsewhere. Reads
/// wait behind that one, so not each does.
pub(super) const BUSY_LOOKS_MAX: u32 = 10;

/// Words and elements, by [`command::weight`](crate::command::weight), that commands of one entry, or the reads of a batch or
/// of a packet, may look at before the rest is done where no heartbeat waits: ten to twenty milliseconds' work.
pub(super) const APPLY_WEIGHT_MAX: usize = 32 * 1024;

/// Bytes of an entry that is applied there from the beginning: they are hashed, and mostly copied.
pub(super) const APPLY_BYTES_MAX: usize = 8 * 1024 * 1024;

// Nobody waits for the state in place behind work that takes as long as that of an entry may elsewhere.
const _: () = assert!(APPLY_BYTES_MAX > ENTRY_BYTES_MAX);

/// Keys one purge proposal removes, about. As many as are removed in a millisecond or two: more per wait for the log would
/// only make commands wait longer behind them.
pub(super) const PURGE_KEYS_MAX: usize = 2048;

/// How many times as long as a look for due keys takes the next one is put off, when it found fewer than half of
/// [`PURGE_KEYS_MAX`]: then it is the looking that takes the thread. Where it found more, the log sets the pace.
pub(super) const PURGE_REST: u32 = 3;

/// Bytes that one step toward the hash of a replica goes over, a thousand small entries or a part of a large one: less than
/// half a millisecond's work, in which nobody writes.
pub(super) const HASH_STEP_BYTES: usize = 128 * 1024;

/// Pause between two of these steps, so that the thread of the shard is not held up at every turn.
pub(super) const HASH_PAUSE: Duration = Duration::from_millis(1);

/// Pauses for which a hash waits for a snapshot to end, or begins anew, before it is refused: ten seconds or so.
pub(super) const HASH_WAITS_MAX: usize = 10_000;

/// Log bytes of one shard after which a snapshot is taken, unless its last snapshot was larger.
pub(super) const SNAPSHOT_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// Log bytes kept behind a snapshot, so that a replica that lags by a moment needs no snapshot.
pub(super) const LOG_KEPT_BYTES: u64 = 32 * 1024 * 1024;
