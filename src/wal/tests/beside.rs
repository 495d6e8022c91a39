//! Callers beside a busy disk: they do not wait for it, nor for one another.
//!
//! A gate of the disk that the test holds stands for one that takes long: a caller that waited for it would never return.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::support::{
    G1, G2, Outcome, TestDisk, append, await_sync, block_on, done, entries, expected, open_on,
    options, payload,
};
use crate::ids::GroupId;
use crate::wal::{Record, SyncPolicy, Wal};

/// The policies under which an append waits for no sync.
const POLICIES: [SyncPolicy; 2] = [SyncPolicy::EverySecond, SyncPolicy::Never];
/// Longer than anything takes that does not wait for a gate.
const PATIENCE: Duration = Duration::from_secs(20);

/// Appends an entry and does not wait.
fn begin(wal: &Wal, group: GroupId, index: u64) -> mpsc::Receiver<Outcome> {
    let (done, outcome) = done();
    let body = Bytes::from(payload(group, index, 0));
    wal.append(group, &[Record { index, head: b"", body: &body }], done);
    outcome
}

fn log(policy: SyncPolicy) -> (tempfile::TempDir, Arc<TestDisk>, Wal) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, _) = open_on(disk.clone(), dir.path(), options(policy, 1 << 20));
    wal.sync().unwrap();
    (dir, disk, wal)
}

#[test]
fn an_append_is_done_while_a_sync_is_under_way() {
    for policy in POLICIES {
        let (_dir, disk, wal) = log(policy);
        let gate = disk.sync_gate.lock();
        let before = disk.syncs_begun.load(Ordering::SeqCst);
        let vote = wal.save_vote(G1, Bytes::from_static(b"waits for the sync"));
        await_sync(&disk, before);
        let outcomes: Vec<_> = (1..=50).map(|index| begin(&wal, G1, index)).collect();
        for outcome in outcomes {
            outcome.recv_timeout(PATIENCE).unwrap().unwrap();
        }
        assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=50));
        drop(gate);
        block_on(vote).unwrap();
        append(&wal, G1, 51..=51);
        assert_eq!(entries(&wal, G1, 51), expected(G1, 51..=51));
    }
}

#[test]
fn a_call_does_not_wait_for_a_disk_that_takes_no_writes_beside_a_sync() {
    for policy in POLICIES {
        let (_dir, disk, wal) = log(policy);
        append(&wal, G2, 1..=3);
        let (sync_gate, before) = (disk.sync_gate.lock(), disk.syncs_begun.load(Ordering::SeqCst));
        let vote = wal.save_vote(G1, Bytes::from_static(b"v"));
        await_sync(&disk, before);
        let write_gate = disk.write_gate.lock();
        let outcomes: Vec<_> = (1..=20).map(|index| begin(&wal, G1, index)).collect();
        wal.truncate_after(G2, Some(2)).unwrap();
        wal.purge(G2, 1, Bytes::from_static(b"m")).unwrap();
        wal.whole(G1).unwrap();
        let last = begin(&wal, G2, 3);
        assert!(outcomes.iter().chain([&last]).all(|outcome| outcome.try_recv().is_err()));
        drop((write_gate, sync_gate));
        for outcome in outcomes.iter().chain([&last]) {
            outcome.recv_timeout(PATIENCE).unwrap().unwrap();
        }
        block_on(vote).unwrap();
        assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=20));
        assert_eq!(entries(&wal, G2, 2), expected(G2, 2..=3));
    }
}

#[test]
fn nobody_waits_for_a_segment_to_be_made() {
    for policy in [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::default());
        let (wal, _) = open_on(disk.clone(), dir.path(), options(policy, 4096));
        append(&wal, G1, 1..=3);
        wal.sync().unwrap();
        let gate = disk.write_gate.lock();
        let before = wal.stats().segments_created;
        // It does not fit the first segment, so nothing before it goes through the gate.
        let (done, big) = done();
        let body = Bytes::from(vec![7; 4000]);
        wal.append(G1, &[Record { index: 4, head: b"", body: &body }], done);
        let outcomes: Vec<_> = (5..=200).map(|index| begin(&wal, G1, index)).collect();
        assert!(wal.stats().segments_created > before + 1);
        assert!(outcomes.iter().chain([&big]).all(|outcome| outcome.try_recv().is_err()));
        drop(gate);
        for outcome in outcomes.iter().chain([&big]) {
            outcome.recv_timeout(PATIENCE).unwrap().unwrap();
        }
        assert_eq!(entries(&wal, G1, 5), expected(G1, 5..=200));
    }
}

/// A caller that wrote itself would stand at the gate for ever.
#[test]
fn nobody_writes_what_the_kernel_may_make_wait() {
    for policy in POLICIES {
        for (is_crowded, bytes) in [(true, 10), (false, 1 << 17)] {
            let (_dir, disk, wal) = log(policy);
            append(&wal, G1, 1..=1);
            disk.is_crowded.store(is_crowded, Ordering::SeqCst);
            // It has been asked just now, and is not asked again at once.
            let is_noticed = || !wal.writes_at_once(10);
            while is_crowded && !is_noticed() {
                std::thread::yield_now();
            }
            let gate = disk.write_gate.lock();
            let (done, outcome) = done();
            let body = Bytes::from(vec![7; bytes]);
            wal.append(G1, &[Record { index: 2, head: b"", body: &body }], done);
            assert!(outcome.try_recv().is_err());
            drop(gate);
            outcome.recv_timeout(PATIENCE).unwrap().unwrap();
        }
    }
}

#[test]
fn a_write_that_fails_fails_everyone_who_waits_for_it() {
    for policy in POLICIES {
        let (_dir, disk, wal) = log(policy);
        let gate = disk.sync_gate.lock();
        let before = disk.syncs_begun.load(Ordering::SeqCst);
        let vote = wal.save_vote(G1, Bytes::from_static(b"v"));
        await_sync(&disk, before);
        let write_gate = disk.write_gate.lock();
        disk.fails_write.store(true, Ordering::SeqCst);
        let outcomes: Vec<_> = (1..=50).map(|index| begin(&wal, G1, index)).collect();
        drop(write_gate);
        for outcome in outcomes {
            outcome.recv_timeout(PATIENCE).unwrap().unwrap_err();
        }
        drop(gate);
        disk.fails_write.store(false, Ordering::SeqCst);
        // It was synced, or came to the turn that found the log failed.
        drop(block_on(vote));
        assert!(wal.failure().is_some());
        begin(&wal, G2, 1).recv_timeout(PATIENCE).unwrap().unwrap_err();
    }
}

#[test]
fn appends_are_done_in_order_whoever_writes_them() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::default());
        let (wal, _) = open_on(disk, dir.path(), options(policy, 8 << 10));
        std::thread::scope(|scope| {
            for group in [G1, G2] {
                let wal = wal.clone();
                scope.spawn(move || {
                    let seen = Arc::new(Mutex::new(Vec::new()));
                    for index in 1..=2000 {
                        let seen = Arc::clone(&seen);
                        let done = move |outcome: Outcome| {
                            outcome.unwrap();
                            seen.lock().push(index);
                        };
                        let body = Bytes::from(payload(group, index, 0));
                        let record = Record { index, head: b"", body: &body };
                        wal.append(group, &[record], Box::new(done));
                    }
                    wal.sync().unwrap();
                    assert!(seen.lock().iter().copied().eq(1..=2000));
                });
            }
            for _ in 0..100 {
                wal.sync().unwrap();
            }
        });
        for group in [G1, G2] {
            assert_eq!(entries(&wal, group, 1), expected(group, 1..=2000));
        }
    }
}
