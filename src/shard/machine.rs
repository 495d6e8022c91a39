//! What a shard's log is applied to: a keyspace, the session table, and the replicated clock.
//!
//! **Invariant:** apply uses nothing but this state and the entry. Commands see the entry's stamp, clamped
//! so that it never goes back; the same prefix gives the same state, the same replies and the same hash
//! on every replica.
//!
//! **Who waits for whom.** The state has one lock. A runtime's thread beats the hearts of other shards too, so what it
//! does with the state is short, and it waits for it no longer than [`STATE_PATIENCE`]. What takes long, an entry or reads of
//! great weight, has the state on a thread of its own; it counts itself among those who have it [long](Long) before
//! it takes the lock, so that nobody on a runtime waits for it at all: then an entry is applied on such a thread, too,
//! reads queue for one, and upkeep comes again later. An entry that turns out to be heavy takes its lock along, so nobody
//! ever sees a part of one; and since the next is applied only when it has ended, the order is that of the log. What is
//! left of one whose replica has ended, or that a panic has cut off, stays a part: nobody reads such a state any more.

use std::io;
use std::ops::{DerefMut, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{ArcRwLockWriteGuard, Mutex, RawRwLock, RwLock, RwLockReadGuard};

use super::admission::decode_known;
use super::limits::{
    APPLY_BYTES_MAX, APPLY_WEIGHT_MAX, HASH_STEP_BYTES, HASH_WAITS_MAX, STATE_PATIENCE,
};
use super::reply::Replies;
use super::run::{AppliedPackets, Progress, Run, begin_entry, run_reads};
use super::session_snapshot::TableWriter;
use super::state::{BegunSnapshot, Gauges, SNAPSHOT_HEAD_VERSION, State, load};
use crate::ids::{DbIndex, Incarnation, Session};
use crate::keyspace::{DueKeys, Graveyard, Key, Keyspace};
use crate::raft::{
    Applied, EntryPosition, Origin, Restored, SnapshotProgress, SnapshotTicket, StateMachine,
    UnknownEntry, aside,
};
use crate::slot::Slot;
use crate::stdx::clock::UnixMillis;
use crate::stdx::hash_key::HashKey;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::{Work, Workers};

/// A replica's hashes for comparison with its peers at an equal index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// Index of the last applied proposal.
    pub index: u64,
    /// Hash of all proposals and replies so far.
    pub history: u64,
    /// Hash of all keys, values and deadlines.
    pub keyspace: u64,
    /// Number of keys over all databases, expired ones not yet purged included.
    pub keys: usize,
}

/// The hashes of a replica were not found out: a snapshot was under way all the time, or they were for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard is busy with a snapshot or with another hash; ask again")]
pub struct HashRefused;

/// The state machine of a shard.
pub(super) struct ShardMachine {
    slots: RangeInclusive<u16>,
    hash_key: HashKey,
    state: Arc<RwLock<State>>,
    /// The latest stamp applied, for who does not want to wait for the state.
    now: Arc<AtomicU64>,
    /// How many have the state for long, or wait to.
    long: Arc<AtomicUsize>,
    gauges: Mutex<Gauges>,
    listener: Arc<dyn AppliedPackets>,
    workers: Arc<dyn Workers>,
    /// What may be looked at in place.
    weight_max: usize,
    snapshots_begun: AtomicU64,
    /// See [`Epoch`]. Changed under the state's lock.
    epoch: AtomicU64,
    /// Reads that have had the state for long.
    #[cfg(test)]
    long_reads: AtomicUsize,
}

/// Whose state it is, as long as it belongs to one replica: it is another one after [`ShardMachine::clear`]. A snapshot that is
/// installed is a newer state of the same replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// The state, to be changed by whoever this goes along to.
type StateMut = ArcRwLockWriteGuard<RawRwLock, State>;

/// One who has the state for long, or waits to, on a thread that beats no hearts.
struct Long(Arc<AtomicUsize>);

impl Drop for Long {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ShardMachine {
    pub(super) fn new(
        slots: RangeInclusive<u16>,
        hash_key: HashKey,
        listener: Arc<dyn AppliedPackets>,
        workers: Arc<dyn Workers>,
    ) -> Self {
        let state = Arc::new(RwLock::new(State::new(slots.clone(), hash_key)));
        let (now, long, gauges) = (Arc::default(), Arc::default(), Mutex::default());
        let (snapshots_begun, epoch) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            slots,
            hash_key,
            state,
            now,
            long,
            gauges,
            listener,
            workers,
            weight_max: APPLY_WEIGHT_MAX,
            snapshots_begun,
            epoch,
            #[cfg(test)]
            long_reads: AtomicUsize::new(0),
        }
    }

    /// Does in place what weighs no more than `weight_max`.
    pub(super) fn with_weight_max(self, weight_max: usize) -> Self {
        Self { weight_max, ..self }
    }

    /// What may be looked at in place.
    pub(super) const fn weight_max(&self) -> usize {
        self.weight_max
    }

    fn empty_state(&self) -> State {
        State::new(self.slots.clone(), self.hash_key)
    }

    /// Which replica's the state is. Whoever has it vouched for asks first, and it is compared when it is read.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// A replica begins, with a state that may be read.
    pub(super) fn open(&self) {
        self.state.write().is_unfit = false;
    }

    /// Runs `read` on the applied state, unless somebody has that for long, or it is to be read no more. Its `now` is the later of `clock` (the shard's
    /// time as this node continues it) and the last stamp applied, so a key that a write saw expired never comes back.
    pub(super) fn read<R>(
        &self,
        clock: UnixMillis,
        read: impl FnOnce(&Keyspace, UnixMillis) -> R,
    ) -> Option<R> {
        let state = self.state_here()?;
        if state.is_unfit {
            return None;
        }
        Some(read(&state.keyspace, clock.max(state.now)))
    }

    /// Runs the reads in `body`, unless somebody has the state for long, or they themselves would.
    pub(super) fn run_reads(&self, clock: UnixMillis, seed: u64, body: &[u8]) -> Option<Replies> {
        self.read(clock, |keyspace, now| {
            run_reads(keyspace, now, seed, body, Some(self.weight_max), || true)
        })?
    }

    /// Runs the reads in `body` however long that takes, and whoever is to be waited for: not on a runtime. `None` when the
    /// state is not that of `epoch` any more, or not to be read, or by then it `is_wanted` no more.
    pub(super) fn run_reads_long(
        &self,
        (epoch, clock): (Epoch, UnixMillis),
        seed: u64,
        body: &[u8],
        is_wanted: impl Fn() -> bool,
    ) -> Option<Replies> {
        if !is_wanted() {
            return None;
        }
        let long = self.begin_long();
        let state = self.state.read();
        let is_served = self.epoch() == epoch && !state.is_unfit && is_wanted();
        let replies = is_served.then(|| {
            #[cfg(test)]
            self.long_reads.fetch_add(1, Ordering::Relaxed);
            run_reads(&state.keyspace, clock.max(state.now), seed, body, None, is_wanted)
        });
        drop(state);
        drop(long);
        replies?
    }

    /// How many have the state for long, or wait to; and how many reads of that kind there were so far.
    #[cfg(test)]
    pub(super) fn long_reads(&self) -> (usize, usize) {
        (self.long.load(Ordering::Acquire), self.long_reads.load(Ordering::Relaxed))
    }

    /// The state, for a short look.
    #[inline]
    fn state_here(&self) -> Option<RwLockReadGuard<'_, State>> {
        self.state.try_read().or_else(|| {
            let is_waited_for = !self.is_held_long();
            if is_waited_for { self.state.try_read_for(STATE_PATIENCE) } else { None }
        })
    }

    /// The state, for a short change.
    fn state_mut_here(&self) -> Option<StateMut> {
        self.state.try_write_arc().or_else(|| {
            let is_waited_for = !self.is_held_long();
            if is_waited_for { self.state.try_write_arc_for(STATE_PATIENCE) } else { None }
        })
    }

    fn is_held_long(&self) -> bool {
        self.long.load(Ordering::Acquire) > 0
    }

    fn begin_long(&self) -> Long {
        self.long.fetch_add(1, Ordering::AcqRel);
        Long(Arc::clone(&self.long))
    }

    /// Whether looking ahead in the keyspace is worth its while.
    pub(super) fn is_large(&self) -> bool {
        self.state.try_read().is_some_and(|state| state.keyspace.is_large())
    }

    /// The key that `bytes` are, which lies in `slot`.
    pub(super) fn key<'k>(&self, slot: Slot, bytes: &'k [u8]) -> Key<'k> {
        Key::within(slot, bytes, self.hash_key)
    }

    /// Lets `keys` be fetched together, before reads of them.
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = (DbIndex, Key<'k>)>) {
        if let Some(state) = self.state.try_read() {
            state.keyspace.look_ahead(keys);
        }
    }

    /// Forgets everything: the replica it belonged to has ended. Waits for reads however long they take: not on a runtime.
    pub(super) fn clear(&self) {
        let long = self.begin_long();
        let mut state = self.state.write();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let old = std::mem::replace(&mut *state, State { is_unfit: true, ..self.empty_state() });
        drop(state);
        drop(long);
        self.now.store(0, Ordering::Release);
        drop(old);
    }

    /// The latest stamp applied.
    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis(self.now.load(Ordering::Acquire))
    }

    /// Keys past their deadline at `now`, some `keys_max`; see [`Keyspace::due_keys`]. `None` while somebody has the state
    /// for long.
    pub(super) fn due_keys(&self, now: UnixMillis, keys_max: usize) -> Option<DueKeys> {
        Some(self.state_mut_here()?.keyspace.due_keys(now, keys_max))
    }

    /// The same, whoever is to be waited for: not on a runtime.
    pub(super) fn due_keys_long(&self, now: UnixMillis, keys_max: usize) -> DueKeys {
        let long = self.begin_long();
        let due = self.state.write().keyspace.due_keys(now, keys_max);
        drop(long);
        due
    }

    /// The sessions that have not ended, as far as the shard knows. `None` while somebody has the state for long.
    pub(super) fn open_sessions(&self) -> Option<Vec<(Incarnation, Session)>> {
        Some(self.state_here()?.sessions.open().collect())
    }

    /// The same, whoever is to be waited for: not on a runtime.
    pub(super) fn open_sessions_long(&self) -> Vec<(Incarnation, Session)> {
        let long = self.begin_long();
        let open = self.state.read().sessions.open().collect();
        drop(long);
        open
    }

    /// How much there is; while somebody has the state for long, how much there was when this was asked last.
    pub(super) fn gauges(&self) -> Gauges {
        let mut latest = self.gauges.lock();
        if let Some(state) = self.state_here() {
            *latest = Gauges::of(&state);
        }
        *latest
    }

    /// The replica's hashes, all of one state, at the time of the call or later. Walks all keys, some
    /// [`HASH_STEP_BYTES`] at a time; `pause` lets others have the state between two steps, and while it must wait: a
    /// snapshot goes before. For operators and tests.
    ///
    /// # Errors
    /// [`HashRefused`] when there was no end of the waiting, or the state is not to be read.
    pub(super) fn hash(&self, mut pause: impl FnMut()) -> Result<StateHash, HashRefused> {
        let mut waits = 0;
        'anew: while waits < HASH_WAITS_MAX {
            if self.state.read().is_unfit {
                break;
            }
            let Some((ticket, begun)) = self.begin_hash() else {
                waits += 1;
                pause();
                continue;
            };
            loop {
                let mut state = self.state.write();
                if state.digest != Some(ticket) {
                    waits += 1;
                    continue 'anew;
                }
                let digest = state.keyspace.digest_step(HASH_STEP_BYTES);
                if digest.is_some() {
                    state.digest = None;
                }
                free_buried(state, &*self.workers);
                if let Some(keyspace) = digest {
                    return Ok(StateHash { keyspace, ..begun });
                }
                pause();
            }
        }
        Err(HashRefused)
    }

    /// All of the hashes but that of the keyspace, and by what name that is being found out.
    fn begin_hash(&self) -> Option<(SnapshotTicket, StateHash)> {
        let mut state = self.state.write();
        if !state.keyspace.begin_digest() {
            return None;
        }
        let ticket = self.draw_ticket();
        state.digest = Some(ticket);
        let keys = (0..DbIndex::COUNT).map(|db| state.keyspace.len(DbIndex(db))).sum();
        let (index, history) = (state.index, state.history);
        Some((ticket, StateHash { index, history, keyspace: 0, keys }))
    }

    fn rest_of_entry(&self) -> RestOfEntry {
        let (now, listener) = (Arc::clone(&self.now), Arc::clone(&self.listener));
        RestOfEntry { long: self.begin_long(), now, listener, workers: Arc::clone(&self.workers) }
    }

    fn draw_ticket(&self) -> SnapshotTicket {
        SnapshotTicket(self.snapshots_begun.fetch_add(1, Ordering::Relaxed))
    }
}

impl StateMachine for ShardMachine {
    fn apply(
        &self,
        position: EntryPosition,
        origin: Origin,
        bytes: &Bytes,
    ) -> Result<Applied, UnknownEntry> {
        // All of it before any of it: an entry is applied whole or not at all.
        let (stamp, proposal) = decode_known(origin, bytes).map_err(UnknownEntry::because)?;
        let here = if bytes.len() > APPLY_BYTES_MAX { None } else { self.state_mut_here() };
        let Some(mut state) = here else {
            let (bytes, index) = (bytes.clone(), position.index);
            let (shared, rest) = (Arc::clone(&self.state), self.rest_of_entry());
            return Ok(Applied::Rest(Box::new(move || {
                let mut state = shared.write_arc();
                let run = begin_entry(&mut state, index, &bytes, (stamp, proposal));
                rest.run(state, run);
            })));
        };
        let mut run = begin_entry(&mut state, position.index, bytes, (stamp, proposal));
        match run.go_on(&mut state, Some(self.weight_max), &*self.listener) {
            Progress::Ended => {
                end_entry(state, &self.now, &*self.workers);
                Ok(Applied::Whole)
            }
            Progress::Paused => {
                let rest = self.rest_of_entry();
                Ok(Applied::Rest(Box::new(move || rest.run(state, run))))
            }
        }
    }

    fn begin_snapshot(&self) -> SnapshotTicket {
        let ticket = self.draw_ticket();
        let mut buried = Graveyard::default();
        // Waits for reads however long they take.
        let long = self.begin_long();
        let mut state = self.state.write();
        if state.is_unfit {
            // Whoever takes it learns that it is gone.
            return ticket;
        }
        let mut head = vec![SNAPSHOT_HEAD_VERSION];
        for number in [state.now.0, state.history, state.index] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        let none = super::session::SessionTable::default();
        let is_left_out = is_planted(Bug::SessionsNotInSnapshot);
        let head = TableWriter::new(head, if is_left_out { &none } else { &state.sessions });
        state.snapshot = Some(BegunSnapshot { ticket, head });
        if !state.keyspace.begin_snapshot() {
            // The builder of an earlier one is gone, for openraft has one at a time; or it is a hash, which can wait.
            state.digest = None;
            buried = state.keyspace.abort_snapshot();
            let begun = state.keyspace.begin_snapshot();
            debug_assert!(begun, "nothing is under way any more");
        }
        drop(state);
        drop(long);
        if !buried.is_empty() {
            free_elsewhere(buried, &*self.workers);
        }
        ticket
    }

    fn snapshot_step(
        &self,
        ticket: SnapshotTicket,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> SnapshotProgress {
        match self.state_mut_here() {
            Some(state) => snapshot_step(state, ticket, budget, out, &*self.workers),
            None => SnapshotProgress::Busy,
        }
    }

    fn snapshot_step_long(
        &self,
        ticket: SnapshotTicket,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> SnapshotProgress {
        let long = self.begin_long();
        // Queues: reads that come later wait for it, however they overlap.
        let state = self.state.write_arc();
        let progress = snapshot_step(state, ticket, budget, out, &*self.workers);
        drop(long);
        progress
    }

    fn abort_snapshot(&self, ticket: SnapshotTicket) {
        let long = self.begin_long();
        let mut state = self.state.write();
        if state.snapshot.as_ref().is_none_or(|begun| begun.ticket != ticket) {
            return;
        }
        state.snapshot = None;
        let flushed = state.keyspace.abort_snapshot();
        // It may hold a whole flushed database, and all that went.
        drop(state);
        drop(long);
        drop(flushed);
    }

    fn prepare(
        self: Arc<Self>,
        chunks: &mut dyn Iterator<Item = io::Result<Bytes>>,
    ) -> io::Result<Restored> {
        let state = load(chunks, self.empty_state())?;
        Ok(Box::new(move || {
            let now = state.now.0;
            let old = std::mem::replace(&mut *self.state.write(), state);
            self.now.store(now, Ordering::Release);
            drop(old);
        }))
    }
}

fn snapshot_step(
    mut guard: StateMut,
    ticket: SnapshotTicket,
    budget: usize,
    out: &mut Vec<u8>,
    workers: &dyn Workers,
) -> SnapshotProgress {
    let state = &mut *guard;
    let Some(begun) = state.snapshot.as_mut().filter(|begun| begun.ticket == ticket) else {
        return SnapshotProgress::Lost;
    };
    if !begun.head.is_done() {
        begun.head.write(budget, out);
        return SnapshotProgress::More;
    }
    let progress = match state.keyspace.snapshot_step(budget, out) {
        crate::keyspace::SnapshotProgress::More => SnapshotProgress::More,
        crate::keyspace::SnapshotProgress::Done => {
            state.snapshot = None;
            SnapshotProgress::Done
        }
    };
    free_buried(guard, workers);
    progress
}

/// What ends an entry away from the runtimes.
struct RestOfEntry {
    long: Long,
    now: Arc<AtomicU64>,
    listener: Arc<dyn AppliedPackets>,
    workers: Arc<dyn Workers>,
}

impl RestOfEntry {
    fn run(self, mut state: StateMut, mut run: Run) {
        while run.go_on(&mut state, None, &*self.listener) == Progress::Paused {}
        end_entry(state, &self.now, &*self.workers);
        // After the lock has gone: who finds that taken must find somebody counted.
        drop(self.long);
    }
}

fn end_entry(mut state: StateMut, now: &AtomicU64, workers: &dyn Workers) {
    state.is_unfit = false;
    now.store(state.now.0, Ordering::Release);
    free_buried(state, workers);
}

/// Gives the state back, and then frees what has gone from it.
fn free_buried(mut state: impl DerefMut<Target = State>, workers: &dyn Workers) {
    let buried = state.keyspace.take_graveyard();
    drop(state);
    if !buried.is_empty() {
        free_elsewhere(buried, workers);
    }
}

/// Frees what has gone where nobody waits: neither for the state nor, with heartbeats to send, for this thread.
fn free_elsewhere<T: Send + 'static>(buried: T, workers: &dyn Workers) {
    aside(workers, Work::Disk, move || drop(buried));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    use crate::command::Context;
    use crate::keyspace::At;
    use crate::raft::BlockingPool;
    use crate::resp::Protocol;
    use crate::shard::limits::REPLIES_SOFT_MAX;
    use crate::shard::proposal::testing::{body, packet_of};
    use crate::shard::proposal::{self, Commands, Packet, PacketId, Stamp};
    use crate::shard::run::run;
    use crate::shard::window::Window;
    use crate::stdx::rope::LENT_BYTES_MIN;

    struct Nobody;

    impl AppliedPackets for Nobody {
        fn stale(&self, _id: PacketId) {}

        fn applied(&self, _: PacketId, _: Range<usize>, _: &Arc<Replies>) {}
    }

    fn machine_with(value: &[u8]) -> Arc<ShardMachine> {
        let machine = ShardMachine::new(
            0..=Slot::COUNT - 1,
            HashKey::new([1, 2]),
            Arc::new(Nobody),
            BlockingPool::shared(),
        );
        set_keys(&machine, 3, value);
        Arc::new(machine)
    }

    fn set_keys(machine: &ShardMachine, keys: usize, value: &[u8]) {
        let mut state = machine.state.write();
        for number in 0..keys {
            let body = body(&[b"SET", format!("{{a}}{number}").as_bytes(), value]);
            let mut window = Window::default();
            let command = window.take(&mut Commands::new(&body), &state.keyspace).unwrap();
            let context = Context::new(At::new(DbIndex(0), UnixMillis(1)), 1);
            run(&mut state.keyspace, command, &context, &mut Replies::default());
        }
    }

    fn hash_of(machine: &ShardMachine) -> StateHash {
        machine.hash(|| ()).unwrap()
    }

    /// faults.md B2: whoever wrote waited until all keys had been walked over.
    #[test]
    fn a_hash_is_of_one_state_and_lets_others_write_meanwhile() {
        let machine = machine_with(b"v");
        set_keys(&machine, HASH_STEP_BYTES / 16, b"v");
        let before = hash_of(&machine);
        let stamp = Stamp { now: UnixMillis(1), seed: 1 };
        let mut pauses = 0;
        let hash = machine.hash(|| {
            pauses += 1;
            let session = Session { number: 1, random: 1 };
            let id = PacketId { incarnation: Incarnation(1), session, sequence: pauses };
            let set = body(&[b"SET", format!("{{a}}{}", pauses * 7).as_bytes(), b"w"]);
            let packet = Packet { id, floor: 1, commands: 1, body: set.into() };
            let entry = proposal::encode_packets(stamp, &[packet]);
            let position = EntryPosition { term: 1, index: pauses };
            machine.apply(position, Origin::Elsewhere, &entry).unwrap().finish();
        });
        assert!(pauses >= 4, "{pauses}");
        assert_eq!(hash, Ok(before));
        assert_ne!(hash_of(&machine), before);
    }

    /// Applies one command after the other to `machine`, each in an entry of its own.
    fn entries_for(machine: &ShardMachine) -> impl FnMut(&[&[u8]]) {
        let mut index = 0;
        move |argv| {
            index += 1;
            let mut packet = packet_of(body(argv), 1);
            packet.id.sequence = index;
            let entry = proposal::encode_packets(Stamp { now: UnixMillis(1), seed: 1 }, &[packet]);
            let position = EntryPosition { term: 1, index };
            machine.apply(position, Origin::Elsewhere, &entry).unwrap().finish();
        }
    }

    /// It stayed in memory until the next entry.
    #[test]
    fn what_goes_while_it_is_hashed_is_freed_with_the_hash() {
        let machine = machine_with(b"v");
        let members: Vec<Vec<u8>> = (0..50_000_u32).map(|it| it.to_le_bytes().to_vec()).collect();
        let add: Vec<&[u8]> =
            [&b"SADD"[..], b"{a}s"].into_iter().chain(members.iter().map(Vec::as_slice)).collect();
        let mut apply = entries_for(&machine);
        apply(&add);
        let before = hash_of(&machine);
        let mut pauses = 0;
        let hash = machine.hash(|| {
            pauses += 1;
            if pauses == 1 {
                apply(&[b"DEL", b"{a}s"]);
            }
        });
        assert!(pauses > 1, "it was handed over");
        assert_eq!(hash, Ok(before));
        assert!(machine.state.write().keyspace.take_graveyard().is_empty());
    }

    #[test]
    fn a_hash_yields_to_a_snapshot_and_waits_for_its_end() {
        let machine = machine_with(b"v");
        let before = hash_of(&machine);
        assert!(machine.begin_hash().is_some());
        let ticket = machine.begin_snapshot();
        assert_eq!(machine.hash(|| ()), Err(HashRefused));
        let mut waits = 0;
        let hash = machine.hash(|| {
            waits += 1;
            if waits == 3 {
                let mut out = Vec::new();
                while machine.snapshot_step(ticket, 1000, &mut out) == SnapshotProgress::More {}
            }
        });
        assert_eq!(hash, Ok(before));
    }

    /// An entry of two packets: strings, and sets that are taken as a whole and in part.
    fn entry_of_many() -> (Stamp, Vec<Packet>) {
        let members: Vec<String> = (0..60).map(|it| it.to_string()).collect();
        let members: Vec<&[u8]> = members.iter().map(String::as_bytes).collect();
        let sadd = [&[&b"SADD"[..], b"{a}s"], &members[..]].concat();
        let first: [&[&[u8]]; 6] = [
            &[b"INCR", b"{a}n"],
            &sadd,
            &[b"SPOP", b"{a}s", b"7"],
            &[b"SMEMBERS", b"{a}s"],
            &[b"INCR", b"{a}n"],
            &[b"SPOP", b"{a}s"],
        ];
        let second: [&[&[u8]]; 3] = [
            &[b"SPOP", b"{a}s", b"99"],
            &[b"INCR", b"{a}n"],
            &[b"SETRANGE", b"{a}t", b"9999", b"x"],
        ];
        let session = Session { number: 1, random: 1 };
        let packet = |sequence, lines: &[&[&[u8]]]| {
            let body: Vec<u8> = lines.iter().flat_map(|line| body(line)).collect();
            let id = PacketId { incarnation: Incarnation(1), session, sequence };
            let commands = u32::try_from(lines.len()).unwrap();
            Packet { id, floor: 1, commands, body: body.into() }
        };
        let packets = vec![packet(1, &first), packet(2, &second)];
        (Stamp { now: UnixMillis(5), seed: 77 }, packets)
    }

    /// Wherever an entry is paused: the state, the replies and what is said of them are those of one go.
    #[test]
    fn a_pause_within_an_entry_changes_nothing() {
        let (stamp, packets) = entry_of_many();
        let entry = proposal::encode_packets(stamp, &packets);
        // Few keys, and so many that they are fetched ahead.
        for (keys, step) in [(0, 1), (9000, 29)] {
            let outcome = |weight: Option<usize>| {
                let heard = Arc::new(Heard::default());
                let listener = Arc::clone(&heard) as Arc<dyn AppliedPackets>;
                let machine = ShardMachine::new(
                    0..=Slot::COUNT - 1,
                    HashKey::new([1, 2]),
                    listener,
                    BlockingPool::shared(),
                );
                set_keys(&machine, keys, b"v");
                let mut state = machine.state.write_arc();
                let decoded = proposal::decode(entry.clone()).unwrap();
                let mut run = begin_entry(&mut state, 9, &entry, decoded);
                let paused = run.go_on(&mut state, weight, &*heard);
                if paused == Progress::Paused {
                    assert_eq!(run.go_on(&mut state, Some(0), &*heard), Progress::Paused);
                    assert_eq!(run.go_on(&mut state, None, &*heard), Progress::Ended);
                }
                end_entry(state, &machine.now, &*machine.workers);
                assert_eq!(machine.now(), UnixMillis(5));
                (paused, hash_of(&machine), heard.0.lock().clone())
            };
            let (progress, hash, heard) = outcome(None);
            assert_eq!(progress, Progress::Ended);
            let mut pauses = 0;
            for weight in (0..).step_by(step) {
                let other = outcome(Some(weight));
                assert_eq!((&other.1, &other.2), (&hash, &heard), "{weight}");
                if other.0 == Progress::Ended {
                    break;
                }
                pauses += 1;
            }
            assert!((100..300).contains(&(pauses * step)), "{pauses}");
        }
    }

    /// An offset that no string has weighed 2^55; 512 of them were more than there was left where nothing was to be counted,
    /// and every replica ended over them.
    #[test]
    fn lines_of_whatever_weight_are_applied() {
        const LINES: u32 = 600;
        let heard = Arc::new(Heard::default());
        let machine = ShardMachine::new(
            0..=Slot::COUNT - 1,
            HashKey::new([1, 2]),
            Arc::clone(&heard) as _,
            BlockingPool::shared(),
        );
        for (index, offset) in [(1, &b"9223372036854775807"[..]), (2, b"536870912")] {
            let line = body(&[b"SETRANGE", b"k", offset, b"x"]);
            let mut packet = packet_of(line.repeat(LINES as usize), LINES);
            packet.id.sequence = index;
            let entry = proposal::encode_packets(Stamp { now: UnixMillis(1), seed: 1 }, &[packet]);
            let position = EntryPosition { term: 1, index };
            machine.apply(position, Origin::Elsewhere, &entry).unwrap().finish();
        }
        let heard = heard.0.lock();
        assert_eq!(heard.len(), 2);
        for (_, replies) in heard.iter() {
            assert_eq!(replies.ends.len(), LINES as usize);
            assert!(replies.bytes.starts_with(b"-ERR string exceeds maximum allowed size"));
        }
    }

    /// faults.md B4: it was applied on the thread that beats hearts, and whoever read waited for it there.
    #[test]
    fn who_beats_hearts_neither_applies_what_is_heavy_nor_waits_for_it() {
        let machine = machine_with(b"v");
        let members: Vec<Vec<u8>> =
            (0..=APPLY_WEIGHT_MAX).map(|it| it.to_le_bytes().to_vec()).collect();
        let add: Vec<&[u8]> =
            [&b"SADD"[..], b"{a}s"].into_iter().chain(members.iter().map(Vec::as_slice)).collect();
        let apply = |index, packet: Packet| {
            let session = Session { number: 1, random: 1 };
            let id = PacketId { incarnation: Incarnation(1), session, sequence: index };
            let packet = Packet { id, floor: 1, ..packet };
            let entry = proposal::encode_packets(Stamp { now: UnixMillis(2), seed: 1 }, &[packet]);
            let position = EntryPosition { term: 1, index };
            machine.apply(position, Origin::Elsewhere, &entry).unwrap()
        };
        let get = body(&[b"GET", b"{a}1"]);
        let is_read = || machine.run_reads(UnixMillis(1), 1, &get).is_some();
        let small = || packet_of(body(&[b"SET", b"{a}1", b"w"]), 1);
        assert!(matches!(apply(1, small()), Applied::Whole));
        let rest = apply(2, packet_of(body(&add), 1));
        assert!(matches!(rest, Applied::Rest(_)));
        // Nobody sees a part of it, and nobody waits.
        assert!(!is_read() && !machine.is_large());
        assert!(machine.due_keys(UnixMillis(9), 1).is_none());
        assert!(machine.open_sessions().is_none());
        assert_eq!(
            machine.snapshot_step(SnapshotTicket(0), 1, &mut Vec::new()),
            SnapshotProgress::Busy
        );
        rest.finish();
        assert!(is_read() && machine.open_sessions().unwrap().len() == 1);
        assert_eq!(machine.gauges().len(), 4);
        // Reads of great weight are run elsewhere, too, and entries are then applied there.
        let smembers = body(&[b"SMEMBERS", b"{a}s"]);
        assert!(machine.run_reads(UnixMillis(1), 1, &smembers).is_none());
        let read_long = |is_wanted: bool| {
            machine.run_reads_long((machine.epoch(), UnixMillis(1)), 1, &smembers, || is_wanted)
        };
        assert!(!read_long(true).unwrap().bytes.is_empty());
        assert_eq!(read_long(false), None);
        let reading = (machine.begin_long(), machine.state.read());
        let rest = apply(3, small());
        assert!(matches!(rest, Applied::Rest(_)));
        drop(reading);
        rest.finish();
        assert!(matches!(apply(4, small()), Applied::Whole), "all that is heavy has ended");
        let large = vec![b'x'; APPLY_BYTES_MAX];
        let rest = apply(5, packet_of(body(&[b"SET", b"{a}1", &large]), 1));
        assert!(matches!(rest, Applied::Rest(_)));
        // The replica has ended: what is left of an entry is not applied any more, and holds up nobody.
        drop(rest);
        assert!(is_read(), "it was not begun");
    }

    #[test]
    fn what_is_heavy_is_said_by_whoever_starts_the_shard() {
        let machine = ShardMachine::new(
            0..=Slot::COUNT - 1,
            HashKey::new([1, 2]),
            Arc::new(Nobody),
            BlockingPool::shared(),
        )
        .with_weight_max(8);
        machine.open();
        let members = [&b"1"[..], b"2", b"3", b"4", b"5"];
        let add = |key| body(&[&[&b"SADD"[..], key], &members[..]].concat());
        let two = [add(b"{a}s"), add(b"{a}t")].concat();
        for (index, packet) in [(1, packet_of(add(b"{a}s"), 1)), (2, packet_of(two, 2))] {
            let id = PacketId { sequence: index, ..packet.id };
            let packet = Packet { id, ..packet };
            let entry = proposal::encode_packets(Stamp { now: UnixMillis(1), seed: 1 }, &[packet]);
            let position = EntryPosition { term: 1, index };
            let applied = machine.apply(position, Origin::Elsewhere, &entry).unwrap();
            assert_eq!(matches!(applied, Applied::Rest(_)), index == 2);
            applied.finish();
        }
        let read = body(&[b"SMEMBERS", b"{a}s"]);
        assert!(machine.run_reads(UnixMillis(1), 1, &read).is_some());
        assert!(machine.run_reads(UnixMillis(1), 1, &[&read[..], &read].concat()).is_none());
    }

    /// It answered, and was hashed, as if it were the state of a replica.
    #[test]
    fn what_a_replica_leaves_behind_is_read_by_nobody() {
        let machine = machine_with(b"v");
        let get = body(&[b"GET", b"{a}1"]);
        let is_read = |epoch| {
            let read = machine.run_reads(UnixMillis(1), 1, &get);
            let at = (epoch, UnixMillis(1));
            let read_long = machine.run_reads_long(at, 1, &get, || true);
            let hash = machine.hash(|| ());
            assert_eq!((read.is_some(), hash.is_ok()), (read_long.is_some(), read_long.is_some()));
            read_long.is_some()
        };
        let before = machine.epoch();
        assert!(is_read(before));
        let members: Vec<Vec<u8>> =
            (0..=APPLY_WEIGHT_MAX).map(|it| it.to_le_bytes().to_vec()).collect();
        let add: Vec<&[u8]> =
            [&b"SADD"[..], b"{a}s"].into_iter().chain(members.iter().map(Vec::as_slice)).collect();
        let entry = proposal::encode_packets(
            Stamp { now: UnixMillis(2), seed: 1 },
            &[packet_of(body(&add), 1)],
        );
        let rest = machine.apply(EntryPosition { term: 1, index: 1 }, Origin::Elsewhere, &entry);
        drop(rest.unwrap());
        assert!(!is_read(before), "a part of an entry");
        let ticket = machine.begin_snapshot();
        assert_eq!(
            machine.snapshot_step(ticket, 1, &mut Vec::new()),
            SnapshotProgress::Lost,
            "nor is a snapshot of it"
        );
        machine.clear();
        assert!(!is_read(machine.epoch()), "nothing is there");
        machine.open();
        assert!(is_read(machine.epoch()));
        let late = machine.run_reads_long((before, UnixMillis(1)), 1, &get, || true);
        assert_eq!(late, None, "it was vouched for in the time of another replica");
    }

    /// What a change keeps aside for a snapshot, all of a large value, was spelled on the thread that beats hearts.
    #[test]
    fn what_a_snapshot_makes_heavy_is_applied_elsewhere() {
        let machine = machine_with(b"v");
        let index = AtomicU64::new(1);
        let apply_as = |machine: &ShardMachine, packet: Packet| {
            let index = index.fetch_add(1, Ordering::Relaxed);
            let session = Session { number: 1, random: 1 };
            let id = PacketId { incarnation: Incarnation(1), session, sequence: index };
            let packet = Packet { id, floor: 1, ..packet };
            let entry = proposal::encode_packets(Stamp { now: UnixMillis(2), seed: 1 }, &[packet]);
            machine.apply(EntryPosition { term: 1, index }, Origin::Elsewhere, &entry).unwrap()
        };
        let apply = |packet| apply_as(&machine, packet);
        let members: Vec<Vec<u8>> =
            (0..=APPLY_WEIGHT_MAX).map(|it| it.to_le_bytes().to_vec()).collect();
        let one = |argv: &[&[u8]]| packet_of(body(argv), 1);
        for key in [&b"{a}s"[..], b"{a}t", b"{a}u"] {
            let add = [&b"SADD"[..], key].into_iter().chain(members.iter().map(Vec::as_slice));
            apply(one(&add.collect::<Vec<_>>())).finish();
        }
        for line in [&[&b"PEXPIREAT"[..], b"{a}u", b"9"][..], &[b"SADD", b"{a}s", b"x"]] {
            assert!(matches!(apply(one(line)), Applied::Whole), "nothing is kept");
        }
        let ticket = machine.begin_snapshot();
        for argv in [&[&b"GET"[..], b"{a}1"][..], &[b"SET", b"{a}new", b"v"]] {
            assert!(matches!(apply(one(argv)), Applied::Whole), "they are small");
        }
        let rest = apply(one(&[b"SADD", b"{a}s", b"y"]));
        assert!(matches!(rest, Applied::Rest(_)), "all that there was is kept");
        rest.finish();
        assert!(matches!(apply(one(&[b"SADD", b"{a}s", b"z"])), Applied::Whole), "it is kept");
        let delete = apply(one(&[b"DEL", b"{a}1", b"{a}t"]));
        assert!(matches!(delete, Applied::Whole), "what goes is handed over");
        let stamp = Stamp { now: UnixMillis(10), seed: 1 };
        let keys = machine.due_keys(stamp.now, 9).unwrap();
        let purge = proposal::encode_purge(stamp, &keys.keys);
        let position = EntryPosition { term: 1, index: 99 };
        let purge = machine.apply(position, Origin::Elsewhere, &purge).unwrap();
        assert!(matches!(purge, Applied::Whole), "so it is by a purge");
        assert_eq!(machine.gauges().len(), 4);
        let mut bytes = Vec::new();
        while machine.snapshot_step(ticket, 1000, &mut bytes) == SnapshotProgress::More {}
        let other = machine_with(b"");
        Arc::clone(&other).prepare(&mut std::iter::once(Ok(Bytes::from(bytes)))).unwrap()();
        assert_eq!(other.gauges().len(), 6, "the state as it was");
    }

    /// faults.md B4: it was freed in apply, under the lock.
    #[test]
    fn what_takes_long_to_free_is_not_freed_by_the_command() {
        let machine = machine_with(b"v");
        let mut state = machine.state.write();
        let at = At::new(DbIndex(0), UnixMillis(1));
        let mut run_line = |argv: &[&[u8]]| {
            let body = body(argv);
            let mut window = Window::default();
            let command = window.take(&mut Commands::new(&body), &state.keyspace).unwrap();
            run(&mut state.keyspace, command, &Context::new(at, 1), &mut Replies::default());
            state.keyspace.take_graveyard().len()
        };
        let members: Vec<Vec<u8>> = (0..5000).map(|it: u32| it.to_le_bytes().to_vec()).collect();
        let add: Vec<&[u8]> =
            [&b"SADD"[..], b"{a}s"].into_iter().chain(members.iter().map(Vec::as_slice)).collect();
        for ends in [
            &[&b"DEL"[..], b"{a}s"][..],
            &[b"UNLINK", b"{a}s"],
            &[b"SET", b"{a}s", b"v"],
            &[b"PEXPIREAT", b"{a}s", b"0"],
        ] {
            assert_eq!(run_line(&[b"DEL", b"{a}s"]), 0, "what is small is freed at once");
            assert_eq!(run_line(&add), 0);
            assert_eq!(run_line(ends), 1, "{ends:?}");
        }
        assert_eq!(run_line(&[b"FLUSHALL"]), 3);
    }

    fn stream_of(machine: &ShardMachine) -> Vec<u8> {
        let (ticket, mut bytes) = (machine.begin_snapshot(), Vec::new());
        while machine.snapshot_step(ticket, 1000, &mut bytes) == SnapshotProgress::More {}
        bytes
    }

    /// Fault M1: values longer than several chunks are cut, and come back.
    #[test]
    fn a_snapshot_comes_back_however_it_was_cut() {
        let machine = machine_with(&[b'x'; 5000]);
        let bytes = stream_of(&machine);
        for length in [1, 8, 9, 10, 1000, 100_000] {
            let other = machine_with(b"other");
            let mut pieces = bytes.chunks(length).map(|piece| Ok(Bytes::copy_from_slice(piece)));
            Arc::clone(&other).prepare(&mut pieces).unwrap()();
            assert_eq!(hash_of(&other), hash_of(&machine), "pieces of {length}");
        }
        for length in [0, 5, 9, 20, bytes.len() - 1] {
            let mut cut = std::iter::once(Ok(Bytes::copy_from_slice(&bytes[..length])));
            assert!(machine_with(b"").prepare(&mut cut).is_err(), "{length} bytes");
        }
    }

    /// faults.md M2: every replica encoded and kept them.
    #[test]
    fn reads_in_the_log_have_little_to_say() {
        let heard = Arc::new(Heard::default());
        let machine = ShardMachine::new(
            0..=Slot::COUNT - 1,
            HashKey::new([1, 2]),
            Arc::clone(&heard) as _,
            BlockingPool::shared(),
        );
        let value = vec![b'x'; REPLIES_SOFT_MAX / 4];
        let mut reads = Vec::new();
        for _ in 0..5 {
            proposal::put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"a"], &mut reads);
        }
        let mut packet = proposal::PacketBuffer::new();
        let mut set = Vec::new();
        proposal::put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"a", &value], &mut set);
        packet.push(&set, 1);
        packet.push(&reads, 5);
        packet.push(&reads[..reads.len() / 5], 1);
        let packet = packet_of(packet.frame().body().to_vec(), 7);
        let stamp = Stamp { now: UnixMillis(1), seed: 1 };
        let entry = proposal::encode_packets(stamp, std::slice::from_ref(&packet));
        machine.apply(EntryPosition { term: 1, index: 1 }, Origin::Here, &entry).unwrap().finish();
        let heard = heard.0.lock();
        let replies = &heard[0].1;
        let first: Vec<u8> = (0..4).map(|place| replies.get(place).unwrap()[0]).collect();
        assert_eq!(first, b"+$$$");
        assert_eq!(replies.submission_ends(), [1, 4, 4], "three reads were not run");
    }

    /// faults.md M3: 600 MB came in one answer, which no frame carries.
    #[test]
    fn an_answer_to_reads_ends_early_and_says_so() {
        let machine = machine_with(&vec![b'x'; REPLIES_SOFT_MAX / 4]);
        let mut reads = Vec::new();
        for _ in 0..9 {
            proposal::put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"{a}1"], &mut reads);
        }
        let mut packet = proposal::PacketBuffer::new();
        packet.push(&reads, 9);
        packet.push(&reads, 9);
        let replies = machine.run_reads(UnixMillis(1), 1, &packet.frame().body()).unwrap();
        assert_eq!(replies.submission_ends(), [4, 4]);
    }

    /// faults.md B4: 128 MiB were copied with the shard's lock, 100 to 190 ms on a thread that beats hearts.
    #[test]
    fn a_long_value_is_lent_to_its_replies_which_stay_as_they_are() {
        let machine = machine_with(&vec![b'x'; LENT_BYTES_MIN]);
        let place = || {
            let state = machine.state.read();
            let key = state.keyspace.key(b"{a}1");
            let string = state.keyspace.string(At::new(DbIndex(0), UnixMillis(1)), key).unwrap();
            string.map(|string| string.lent().unwrap().as_ptr())
        };
        let lent = |replies: &Replies| -> Vec<*const u8> {
            let runs = replies.bytes.runs().filter(|run| run.len() >= LENT_BYTES_MIN);
            runs.map(<[u8]>::as_ptr).collect()
        };
        let get = || {
            let reads = [body(&[b"GET", b"{a}1"]), body(&[b"MGET", b"{a}1", b"{a}1"])].concat();
            machine.run_reads(UnixMillis(1), 1, &reads).unwrap()
        };
        let before = get();
        let (text, first) = (before.bytes.to_vec(), place().unwrap());
        assert_eq!(lent(&before), [first; 3]);
        let mut apply = entries_for(&machine);
        apply(&[b"SETRANGE", b"{a}1", b"7", b"y"]);
        let second = place().unwrap();
        assert_ne!(second, first, "it was edited elsewhere");
        assert_eq!(lent(&get()), [second; 3]);
        apply(&[b"SETRANGE", b"{a}1", b"8", b"y"]);
        assert_eq!(place(), Some(second), "nobody else has it");
        apply(&[b"DEL", b"{a}1"]);
        assert_eq!(place(), None);
        assert!(before.bytes.to_vec() == text);
        assert_eq!(lent(&before), [first; 3]);
    }

    /// It was copied for each who waited for a part of it.
    #[test]
    fn long_text_is_lent_from_where_it_was_encoded() {
        let machine = machine_with(b"v");
        let argv = [vec![&b"MGET"[..]], vec![&b"{a}1"[..]; 20_000]].concat();
        let replies = machine.run_reads(UnixMillis(1), 1, &body(&argv)).unwrap();
        let (length, place) = (replies.bytes.len(), replies.bytes.run_at(0).as_ptr());
        assert!(length > LENT_BYTES_MIN);
        assert_eq!(replies.bytes.part(0..length).run_at(0).as_ptr(), place);
    }

    /// Each replica copied it for the session table, and who leads once more for who waited.
    #[test]
    fn a_long_value_is_lent_to_what_a_write_replies() {
        let heard = Arc::new(Heard::default());
        let machine = ShardMachine::new(
            0..=Slot::COUNT - 1,
            HashKey::new([1, 2]),
            Arc::clone(&heard) as _,
            BlockingPool::shared(),
        );
        set_keys(&machine, 1, &vec![b'x'; LENT_BYTES_MIN]);
        let place = || {
            let state = machine.state.read();
            let key = state.keyspace.key(b"{a}0");
            let string = state.keyspace.string(At::new(DbIndex(0), UnixMillis(1)), key).unwrap();
            string.unwrap().lent().unwrap().as_ptr()
        };
        let value = vec![b'y'; LENT_BYTES_MIN];
        let writes: [&[&[u8]]; 4] = [
            &[b"GETEX", b"{a}0", b"PERSIST"],
            &[b"GETSET", b"{a}0", &value],
            &[b"SET", b"{a}0", &value, b"GET"],
            &[b"GETDEL", b"{a}0"],
        ];
        for (index, write) in (1..).zip(writes) {
            let before = place();
            let mut packet = packet_of(body(write), 1);
            packet.id.sequence = index;
            let entry = proposal::encode_packets(Stamp { now: UnixMillis(1), seed: 1 }, &[packet]);
            let position = EntryPosition { term: 1, index };
            machine.apply(position, Origin::Here, &entry).unwrap().finish();
            let (_, replies) = heard.0.lock().pop().unwrap();
            let mut runs = replies.bytes.runs();
            assert!(runs.any(|run| run.as_ptr() == before), "{}", write[0].escape_ascii());
        }
    }

    /// Fault R7: it ended as done, with keys missing.
    #[test]
    fn a_snapshot_whose_state_was_replaced_is_lost() {
        let machine = machine_with(&[b'x'; 5000]);
        let bytes = stream_of(&machine);
        let (ticket, mut out) = (machine.begin_snapshot(), Vec::new());
        assert_eq!(machine.snapshot_step(ticket, 10, &mut out), SnapshotProgress::More);
        let mut whole = std::iter::once(Ok(Bytes::from(bytes)));
        Arc::clone(&machine).prepare(&mut whole).unwrap()();
        assert_eq!(machine.snapshot_step(ticket, 10, &mut out), SnapshotProgress::Lost);
        let next = machine.begin_snapshot();
        machine.abort_snapshot(ticket);
        assert_eq!(machine.snapshot_step(ticket, 10, &mut out), SnapshotProgress::Lost);
        assert_eq!(machine.snapshot_step(next, 10, &mut out), SnapshotProgress::More);
    }

    /// faults.md R14: replicas of an older version skipped what they did not know, and differed from then on.
    #[test]
    fn an_entry_that_is_not_known_is_not_applied_in_part_and_stops_the_replica() {
        let machine = machine_with(b"v");
        let before = hash_of(&machine);
        let stamp = Stamp { now: UnixMillis(1), seed: 1 };
        let set = body(&[b"SET", b"{a}9", b"v"]);
        let two = |second: &[u8]| {
            let second = packet_of([&set[..], second].concat(), 2);
            proposal::encode_packets(stamp, &[packet_of(set.clone(), 1), second]).to_vec()
        };
        let good = two(&set);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let cases = [
            (changed(0, 99), "version 99"),
            (changed(1, 77), "kind 77"),
            (two(&body(&[b"NOSUCH", b"{a}9"])), "'NOSUCH'"),
            (two(b"\0\0\x03"), "malformed"),
            (two(b"\x04\0\x01\x03GET"), "flags"),
            (two(b""), "commands"),
            (good[..good.len() - 1].to_vec(), "malformed"),
            ([&good[..], b"x"].concat(), "trailing"),
            (Vec::new(), "malformed"),
        ];
        for (bytes, why) in cases {
            let position = EntryPosition { term: 1, index: 7 };
            let error =
                machine.apply(position, Origin::Elsewhere, &bytes.into()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(hash_of(&machine), before, "{why}");
        }
        machine
            .apply(EntryPosition { term: 1, index: 7 }, Origin::Elsewhere, &good.into())
            .unwrap()
            .finish();
        assert_eq!(hash_of(&machine).keys, before.keys + 1);
    }

    /// What a listener hears.
    #[derive(Default)]
    struct Heard(parking_lot::Mutex<Vec<(Range<usize>, Replies)>>);

    impl AppliedPackets for Heard {
        fn stale(&self, _id: PacketId) {}

        fn applied(&self, _: PacketId, submissions: Range<usize>, replies: &Arc<Replies>) {
            self.0.lock().push((submissions, (**replies).clone()));
        }
    }

    #[test]
    fn replies_are_those_of_submissions_also_when_a_packet_comes_again() {
        let heard = Arc::new(Heard::default());
        let machine = ShardMachine::new(
            0..=Slot::COUNT - 1,
            HashKey::new([1, 2]),
            Arc::clone(&heard) as _,
            BlockingPool::shared(),
        );
        let mut set = body(&[b"SET", b"a", b"1"]);
        let mut incr = body(&[b"INCR", b"a"]);
        let first = [&set[..], &incr].concat();
        // Of the second submission only the first command begins it.
        set[0] &= 1;
        incr[0] &= 1;
        let second = [&body(&[b"GET", b"a"])[..], &set, &incr].concat();
        let packet = packet_of([first, second].concat(), 5);
        let stamp = Stamp { now: UnixMillis(1), seed: 1 };
        for index in 1..3 {
            let entry = proposal::encode_packets(stamp, std::slice::from_ref(&packet));
            machine
                .apply(EntryPosition { term: 1, index }, Origin::Elsewhere, &entry)
                .unwrap()
                .finish();
        }
        let replies =
            Replies::of(&[&["+OK\r\n"], &[":2\r\n"], &["$1\r\n2\r\n", "+OK\r\n", ":2\r\n"]]);
        assert_eq!(*heard.0.lock(), [(0..3, replies.clone()), (0..3, replies)]);
    }
}
