//! Who may build, receive and install a snapshot, and when: the decisions alone, as one state machine.
//!
//! Build, transfer, install and stop may meet in any order. Whoever moves bytes asks here first and does what the
//! answer says, so the rules stand in one place:
//! - One receiver per group. A transfer is named by (sender, term, nonce); a newer one replaces an older one that is
//!   still receiving, and what comes late of the older one is refused.
//! - Chunks are numbered: a gap, or a number twice, ends the transfer. Nothing is received beyond its window.
//! - What is being installed is not replaced: the next transfer waits.
//! - One build at a time; a failed one is tried again after a pause that doubles.
//! - After a stop nothing begins, and what was being received is dropped.
//!
//! Pure: it is told the time, and holds of each transfer only the way to its writer (`W`); dropping that ends the
//! writer, which deletes its own file and no other. Which file is the best is `snapshot`'s affair.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::{SNAPSHOT_IDLE_MAX, SNAPSHOT_RETRY_MAX, SNAPSHOT_RETRY_MIN};
use crate::ids::RaftId;
use crate::stdx::planted::{Bug, is_planted};

/// The name of a transfer. A term has one leader and a leader numbers its transfers, so they are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) term: u64,
    pub(super) sender: RaftId,
    pub(super) nonce: u64,
}

impl Transfer {
    fn is_after(self, other: Self) -> bool {
        (self.term, self.nonce) > (other.term, other.nonce)
    }
}

/// Why something of a transfer is not taken. Codes are part of the wire format: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The replica has stopped and will take nothing any more.
    Stopped = 1,
    /// An earlier transfer is being installed, or more was sent than there is room for.
    Busy = 2,
    /// A newer transfer was begun since.
    Stale = 3,
    /// It is not the transfer under way, or not its next chunk.
    OutOfStep = 4,
    /// The bytes are not what was sent, or the disk did not take them.
    Failed = 5,
}

impl Refusal {
    /// The refusal of a wire code; an unknown one is a failure.
    pub(super) fn of_code(code: u8) -> Self {
        [Self::Stopped, Self::Busy, Self::Stale, Self::OutOfStep]
            .into_iter()
            .find(|refusal| *refusal as u8 == code)
            .unwrap_or(Self::Failed)
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Receiving { next: u64, heard: Instant },
    Installing,
}

#[derive(Debug)]
struct Incoming<W> {
    transfer: Transfer,
    phase: Phase,
    writer: W,
}

/// Snapshot business of one replica.
#[derive(Debug)]
pub(super) struct Desk<W> {
    is_stopped: bool,
    incoming: Option<Incoming<W>>,
    /// The last transfer that was begun, also when it is over.
    latest: Option<Transfer>,
    is_building: bool,
    build_pause: Pause,
}

impl<W> Default for Desk<W> {
    fn default() -> Self {
        Self {
            is_stopped: false,
            incoming: None,
            latest: None,
            is_building: false,
            build_pause: Pause::default(),
        }
    }
}

impl<W> Desk<W> {
    /// A leader begins to send; its chunks go to `writer`.
    pub(super) fn begin(
        &mut self,
        transfer: Transfer,
        now: Instant,
        writer: W,
    ) -> Result<(), Refusal> {
        if self.is_stopped {
            return Err(Refusal::Stopped);
        }
        if self.latest.is_some_and(|latest| !transfer.is_after(latest)) {
            return Err(Refusal::Stale);
        }
        if self.is_installing() {
            return Err(Refusal::Busy);
        }
        self.latest = Some(transfer);
        let phase = Phase::Receiving { next: 0, heard: now };
        self.incoming = Some(Incoming { transfer, phase, writer });
        Ok(())
    }

    /// Chunk `number` has come: where it goes.
    pub(super) fn chunk(
        &mut self,
        transfer: Transfer,
        number: u64,
        now: Instant,
    ) -> Result<&W, Refusal> {
        let (next, heard) = self.receiving(transfer)?;
        if *next != number && !is_planted(Bug::ChunksUnnumbered) {
            self.incoming = None;
            return Err(Refusal::OutOfStep);
        }
        *next += 1;
        *heard = now;
        self.writer(transfer)
    }

    /// All `chunks` were sent: where to say so. From now on it is being installed, until [`Self::finish`].
    pub(super) fn end(&mut self, transfer: Transfer, chunks: u64) -> Result<&W, Refusal> {
        let (next, _) = self.receiving(transfer)?;
        if *next != chunks && !is_planted(Bug::ChunksUnnumbered) {
            self.incoming = None;
            return Err(Refusal::OutOfStep);
        }
        if let Some(incoming) = &mut self.incoming {
            incoming.phase = Phase::Installing;
        }
        self.writer(transfer)
    }

    /// The writer of `transfer` is done with it, one way or the other.
    pub(super) fn finish(&mut self, transfer: Transfer) {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.transfer == transfer) {
            self.incoming = None;
        }
    }

    /// Drops a transfer of which nothing was heard for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_idle = |incoming: &Incoming<W>| match incoming.phase {
            Phase::Receiving { heard, .. } => now.duration_since(heard) >= SNAPSHOT_IDLE_MAX,
            Phase::Installing => false,
        };
        if self.incoming.as_ref().is_some_and(is_idle) {
            self.incoming = None;
        }
    }

    /// Nothing begins any more.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.incoming = None;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether a build may begin: none is under way and the pause after a failed one is over.
    pub(super) fn may_build(&self, now: Instant) -> bool {
        !self.is_stopped && !self.is_building && self.build_pause.is_over(now)
    }

    /// Begins a build, if one may.
    pub(super) fn begin_build(&mut self, now: Instant) -> bool {
        let begins = self.may_build(now);
        self.is_building |= begins;
        begins
    }

    /// The build came to its end.
    pub(super) fn finish_build(&mut self) {
        self.is_building = false;
        self.build_pause = Pause::default();
    }

    /// The build failed at `now`.
    pub(super) fn fail_build(&mut self, now: Instant) {
        self.is_building = false;
        self.build_pause.fail(now);
    }

    /// The builder is gone without an end.
    pub(super) fn drop_build(&mut self) {
        self.is_building = false;
    }

    fn is_installing(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.phase == Phase::Installing)
    }

    fn receiving(&mut self, transfer: Transfer) -> Result<(&mut u64, &mut Instant), Refusal> {
        if self.is_stopped {
            return Err(Refusal::Stopped);
        }
        match &mut self.incoming {
            Some(Incoming {
                transfer: under_way, phase: Phase::Receiving { next, heard }, ..
            }) if *under_way == transfer => Ok((next, heard)),
            Some(_) | None => Err(Refusal::OutOfStep),
        }
    }

    fn writer(&self, transfer: Transfer) -> Result<&W, Refusal> {
        let incoming = self.incoming.as_ref().filter(|incoming| incoming.transfer == transfer);
        incoming.map(|incoming| &incoming.writer).ok_or(Refusal::OutOfStep)
    }
}

/// A pause before the next try that doubles with every failure, up to a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    until: Option<Instant>,
    last: Duration,
}

impl Pause {
    /// Another failure, at `now`.
    pub(super) fn fail(&mut self, now: Instant) {
        self.last = (self.last * 2).clamp(SNAPSHOT_RETRY_MIN, SNAPSHOT_RETRY_MAX);
        self.until = Some(now + self.last);
    }

    /// When the next try may begin; `None`: at once.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::snapshot::SnapshotStore;
    use super::super::type_config::{LogId, SnapshotMeta};
    use super::*;
    use crate::ids::GroupId;
    use crate::stdx::disk::TEMPORARY_SUFFIX;
    use crate::stdx::fs::SystemDisk;
    use crate::stdx::prng::SplitMix64;
    use crate::wal::snapshot_file::{CompleteSnapshot, SnapshotDir};
    use crate::wal::{Covered, SnapshotWriter};

    const GROUP: GroupId = GroupId(3);

    fn transfer(term: u64, nonce: u64) -> Transfer {
        Transfer { term, sender: RaftId(term), nonce }
    }

    /// Faults R6 and R10: a transfer that starts over, or another leader's, replaces the first; late chunks of that
    /// one are refused, and so is its late beginning.
    #[test]
    fn a_newer_transfer_replaces_an_older_one_and_never_the_other_way() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.begin(transfer(4, 1), now, "first").unwrap();
        assert_eq!(desk.chunk(transfer(4, 1), 0, now), Ok(&"first"));
        desk.begin(transfer(4, 2), now, "second").unwrap();
        assert_eq!(desk.chunk(transfer(4, 1), 1, now), Err(Refusal::OutOfStep));
        assert_eq!(desk.begin(transfer(4, 1), now, "late"), Err(Refusal::Stale));
        assert_eq!(desk.chunk(transfer(4, 2), 0, now), Ok(&"second"));
        desk.begin(transfer(5, 1), now, "new leader").unwrap();
        assert_eq!(desk.begin(transfer(4, 9), now, "old leader"), Err(Refusal::Stale));
        assert_eq!(desk.end(transfer(5, 1), 0), Ok(&"new leader"));
        assert_eq!(desk.begin(transfer(5, 2), now, "waits"), Err(Refusal::Busy));
        desk.finish(transfer(5, 1));
        desk.begin(transfer(5, 3), now, "its turn").unwrap();
    }

    /// Fault R10: chunks had no numbers and the end no count.
    #[test]
    fn a_gap_a_double_and_a_wrong_count_end_the_transfer() {
        let now = Instant::now();
        for (numbers, count) in [(&[0, 2][..], 2), (&[0, 0], 2), (&[0, 1], 3), (&[1], 1)] {
            let mut desk = Desk::default();
            desk.begin(transfer(1, 1), now, ()).unwrap();
            let chunks = numbers.iter().all(|&n| desk.chunk(transfer(1, 1), n, now).is_ok());
            let is_taken = chunks && desk.end(transfer(1, 1), count).is_ok();
            assert!(!is_taken, "{numbers:?} {count}");
            assert_eq!(desk.end(transfer(1, 1), count), Err(Refusal::OutOfStep));
        }
    }

    #[test]
    fn an_idle_transfer_ends_and_a_stopped_replica_takes_nothing() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        desk.begin(transfer(1, 1), now, ()).unwrap();
        desk.expire(now + SNAPSHOT_IDLE_MAX / 2);
        assert!(desk.chunk(transfer(1, 1), 0, now + SNAPSHOT_IDLE_MAX / 2).is_ok());
        desk.expire(now + SNAPSHOT_IDLE_MAX);
        assert!(desk.chunk(transfer(1, 1), 1, now).is_ok(), "heard in between");
        desk.expire(now + 2 * SNAPSHOT_IDLE_MAX);
        assert_eq!(desk.chunk(transfer(1, 1), 2, now), Err(Refusal::OutOfStep));
        desk.stop();
        assert_eq!(desk.begin(transfer(2, 1), now, ()), Err(Refusal::Stopped));
        assert!(!desk.begin_build(now));
    }

    #[test]
    fn a_failed_build_is_tried_again_after_a_growing_pause() {
        let (mut desk, mut now) = (Desk::<()>::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(desk.begin_build(now));
            assert!(!desk.begin_build(now), "one at a time");
            desk.fail_build(now);
            let begun = now;
            while !desk.may_build(now) {
                now += SNAPSHOT_RETRY_MIN;
            }
            pauses.push(now - begun);
        }
        assert_eq!(pauses.first(), Some(&SNAPSHOT_RETRY_MIN));
        assert_eq!(pauses.last(), Some(&SNAPSHOT_RETRY_MAX));
        assert!(pauses.is_sorted());
        assert!(desk.begin_build(now));
        desk.finish_build();
        assert!(desk.may_build(now), "a good one ends the pauses");
    }

    fn meta(covered: Covered) -> SnapshotMeta {
        let last_log_id = Some(LogId::new_term_index(covered.term, covered.index));
        SnapshotMeta { last_log_id, ..SnapshotMeta::default() }
    }

    fn at(path: &Path) -> SnapshotDir {
        SnapshotDir::new(SystemDisk::shared(), path.to_owned())
    }

    fn temporary_files(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(TEMPORARY_SUFFIX)).count()
    }

    /// Real files, and every input in any order. Faults R5, R6, R7.
    struct Trace {
        desk: Desk<SnapshotWriter>,
        store: SnapshotStore,
        /// Complete, and not accepted yet.
        received: Option<(Transfer, Covered, CompleteSnapshot)>,
        receiving: Option<(Transfer, Covered, u64)>,
        built: Option<(Covered, SnapshotWriter)>,
        best: Option<Covered>,
        accepted: BTreeSet<Covered>,
    }

    impl Trace {
        fn step(&mut self, random: &mut SplitMix64, now: Instant, nonce: u64) {
            match random.below(9) {
                0 | 1 => {
                    let transfer = transfer(1 + random.below(3), nonce);
                    let covered =
                        Covered { term: 1 + random.below(transfer.term), index: random.below(40) };
                    let writer = self.store.create(&meta(covered)).unwrap();
                    if self.desk.begin(transfer, now, writer).is_ok() {
                        self.receiving = Some((transfer, covered, 0));
                    }
                }
                2 | 3 => {
                    let Some((transfer, _, next)) = &mut self.receiving else { return };
                    // One in eight is late or lost.
                    let number = *next + u64::from(random.below(8) == 0);
                    if self.desk.chunk(*transfer, number, now).is_ok() {
                        *next += 1;
                    } else {
                        self.receiving = None;
                    }
                }
                4 => {
                    let Some((transfer, covered, next)) = self.receiving.take() else { return };
                    if self.desk.end(transfer, next).is_ok() {
                        let writer = self.store.create(&meta(covered)).unwrap();
                        self.received = Some((transfer, covered, writer.complete().unwrap()));
                    }
                }
                5 => {
                    let Some((transfer, covered, mut file)) = self.received.take() else { return };
                    // openraft takes it, or it is dropped.
                    if random.below(4) > 0 {
                        self.store.publish(&mut file, &meta(covered)).unwrap();
                        self.accept(covered);
                    }
                    self.desk.finish(transfer);
                }
                6 => {
                    let covered = Covered { term: 1 + random.below(3), index: random.below(40) };
                    if self.built.is_none() && self.desk.begin_build(now) {
                        self.built = Some((covered, self.store.create(&meta(covered)).unwrap()));
                    }
                }
                7 => {
                    let Some((covered, writer)) = self.built.take() else { return };
                    if random.below(3) == 0 {
                        // Its state was replaced.
                        drop(writer);
                        return self.desk.fail_build(now);
                    }
                    let mut file = writer.complete().unwrap();
                    self.store.publish(&mut file, &meta(covered)).unwrap();
                    self.accept(covered);
                    self.desk.finish_build();
                }
                _ => self.desk.expire(now),
            }
        }

        fn accept(&mut self, covered: Covered) {
            self.accepted.insert(covered);
            self.best = self.best.max(Some(covered));
        }

        fn check(&self, dir: &Path) {
            let published = at(dir).published(GROUP).unwrap();
            assert_eq!(published.first().map(|file| file.covered), self.best, "the best is lost");
            assert!(published.len() <= 1, "what is worse is gone");
            for file in &published {
                let mut reader = at(dir).open(&file.path).unwrap();
                while reader.next_chunk().unwrap().is_some() {}
            }
            assert!(temporary_files(dir) <= 3, "one receiver, one install, one build");
        }
    }

    #[test]
    fn in_any_order_the_best_accepted_snapshot_stays() {
        for seed in 0..24 {
            let dir = tempfile::tempdir().unwrap();
            let mut random = SplitMix64::new(seed);
            let mut trace = Trace {
                desk: Desk::default(),
                store: SnapshotStore::new(at(dir.path()), GROUP),
                received: None,
                receiving: None,
                built: None,
                best: None,
                accepted: BTreeSet::new(),
            };
            let mut now = Instant::now();
            std::fs::create_dir_all(dir.path()).unwrap();
            for nonce in 0..200 {
                now += SNAPSHOT_RETRY_MIN * 8;
                trace.step(&mut random, now, nonce);
                trace.check(dir.path());
            }
            assert!(!trace.accepted.is_empty(), "seed {seed}: nothing happened");
            trace.desk.stop();
            drop((trace.received.take(), trace.built.take()));
            assert_eq!(temporary_files(dir.path()), 0, "seed {seed}");
            // After a restart the same one is found.
            let store = SnapshotStore::new(at(dir.path()), GROUP);
            store.recover(|chunks| chunks.try_for_each(|chunk| chunk.map(drop))).unwrap();
            assert_eq!(store.covered_index(), trace.best.unwrap().index, "seed {seed}");
        }
    }

    /// A damaged best one gives way to the next.
    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let write = |index, byte: u8| {
            let covered = Covered { term: 1, index };
            let bytes = postcard::to_stdvec(&meta(covered)).unwrap();
            let mut writer = at(dir.path()).create(GROUP, covered, &bytes).unwrap();
            writer.write_chunk(&[byte; 100]).unwrap();
            writer.complete().unwrap().publish().unwrap()
        };
        let (good, bad) = (write(5, 1), write(9, 2));
        let mut bytes = std::fs::read(&bad.path).unwrap();
        let middle = bytes.len() - 50;
        bytes[middle] ^= 1;
        std::fs::write(&bad.path, bytes).unwrap();
        let store = SnapshotStore::new(at(dir.path()), GROUP);
        store.recover(|chunks| chunks.try_for_each(|chunk| chunk.map(drop))).unwrap();
        assert_eq!(store.covered_index(), 5);
        assert!(good.path.exists() && bad.path.exists(), "nothing is deleted for that");
    }
}
