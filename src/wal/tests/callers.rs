//! Callers that sync: what they owe, beside each other and beside the log's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;

use super::support::{
    G1, G2, Outcome, TestDisk, append, await_sync, block_on, callers_sync, done, entries, expected,
    open, open_on, open_stepped, payload, settle, try_append,
};
use crate::ids::GroupId;
use crate::wal::limits::SYNC_BYTES_MAX;
use crate::wal::{Next, Record, SyncOwed, Wal, WalError, Woken};

/// Longer than anything takes that waits for nobody.
const PATIENCE: Duration = Duration::from_secs(20);

/// Appends an entry: what is owed for it, and where its outcome arrives.
fn begin(wal: &Wal, group: GroupId, index: u64) -> (Option<SyncOwed>, mpsc::Receiver<Outcome>) {
    let (done, outcome) = done();
    let body = Bytes::from(payload(group, index, 0));
    (wal.append(group, &[Record { index, head: b"", body: &body }], done), outcome)
}

#[test]
fn a_caller_syncs_what_has_gathered_when_it_pays() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, stepper) = open_stepped(disk.clone(), dir.path(), callers_sync(1 << 20));
    let before = disk.syncs.load(Ordering::SeqCst);
    let (owed, first) = begin(&wal, G1, 1);
    let others: Vec<_> = (1..=8)
        .map(|index| {
            let (more, outcome) = begin(&wal, G2, index);
            assert!(more.is_none(), "it owes already");
            outcome
        })
        .collect();
    let vote = wal.save_vote(G1, Bytes::from_static(b"v"));
    assert!(others.iter().chain([&first]).all(|outcome| outcome.try_recv().is_err()));
    owed.unwrap().sync();
    assert!(others.iter().chain([&first]).all(|outcome| outcome.try_recv().unwrap().is_ok()));
    block_on(vote).unwrap();
    assert_eq!(disk.syncs.load(Ordering::SeqCst) - before, 1);
    assert!(begin(&wal, G1, 2).0.is_some(), "it owes anew");
    drop((wal, stepper));
    let (wal, _) = open(dir.path(), callers_sync(1 << 20));
    assert_eq!(entries(&wal, G1, 1)[0], expected(G1, 1..=1)[0]);
    assert_eq!(entries(&wal, G2, 1), expected(G2, 1..=8));
}

#[test]
fn what_is_long_or_needs_more_than_a_sync_is_left_to_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, mut stepper) = open_stepped(disk.clone(), dir.path(), callers_sync(8 << 10));
    let mut index = 0;
    let mut is_synced_here = |bytes: usize| {
        index += 1;
        let (done, outcome) = done();
        let body = Bytes::from(vec![7; bytes]);
        wal.append(G1, &[Record { index, head: b"", body: &body }], done).unwrap().sync();
        let is_done = outcome.try_recv().is_ok();
        settle(&mut stepper);
        assert!(is_done || outcome.try_recv().unwrap().is_ok());
        is_done
    };
    assert!(is_synced_here(100));
    assert!(!is_synced_here(SYNC_BYTES_MAX + 1));
    assert!(is_synced_here(SYNC_BYTES_MAX - 200));
    assert!(!is_synced_here(SYNC_BYTES_MAX - 200), "it needs another segment");
    wal.purge(G1, 1, Bytes::new()).unwrap();
    assert!(!is_synced_here(100), "a segment may be free");
    assert!(is_synced_here(100));
}

/// Each thread owes for itself: that of another comes only when that one is no longer busy.
#[test]
fn a_thread_does_not_wait_for_what_another_one_owes() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _stepper) =
        open_stepped(Arc::new(TestDisk::default()), dir.path(), callers_sync(1 << 20));
    let (owed, outcome) = begin(&wal, G1, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| begin(&wal, G2, 1).0.expect("it owes too").sync());
    });
    outcome.try_recv().unwrap().unwrap();
    // Nothing is left to do.
    let before = wal.stats().syncs;
    owed.unwrap().sync();
    assert_eq!(wal.stats().syncs, before);
}

#[test]
fn what_is_owed_and_not_paid_is_left_to_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), callers_sync(1 << 20));
    // Once a second it comes by itself.
    let until = tokio::time::Instant::now() + PATIENCE;
    for index in 1..=100 {
        let (owed, outcome) = begin(&wal, G1, index);
        drop(owed.unwrap());
        let patience = until.saturating_duration_since(tokio::time::Instant::now());
        outcome.recv_timeout(patience).unwrap().unwrap();
    }
    // As the task of a runtime that ends, on another thread.
    let (owed, outcome) = begin(&wal, G1, 101);
    std::thread::spawn(move || drop(owed)).join().unwrap();
    outcome.recv_timeout(PATIENCE).unwrap().unwrap();
    append(&wal, G1, 102..=102);
}

/// Without callers that sync nothing is owed: elsewhere it would miss the sync mark, or the writer.
#[test]
fn nothing_is_owed_but_where_callers_sync() {
    use crate::wal::{SyncPolicy, WalOptions};
    let all = callers_sync(1 << 20);
    for options in [
        WalOptions { sync_mark: true, ..all },
        WalOptions { callers_sync: false, ..all },
        WalOptions { sync: SyncPolicy::EverySecond, ..all },
        WalOptions { sync: SyncPolicy::Never, ..all },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = open(dir.path(), options);
        let (owed, outcome) = begin(&wal, G1, 1);
        assert!(owed.is_none(), "{options:?}");
        outcome.recv_timeout(PATIENCE).unwrap().unwrap();
    }
}

/// The thread comes to look while the next sync is under way, whose mark covers the one before: it found nothing to mark,
/// slept without a timer, and was told no more.
#[test]
fn what_callers_synced_last_is_marked_when_the_log_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, mut stepper) = open_stepped(disk.clone(), dir.path(), callers_sync(1 << 20));
    // It sleeps until it is told.
    append(&wal, G1, 1..=1);
    assert!(!wal.forgets_to_mark());
    let gate = disk.sync_gate.lock();
    let before = disk.syncs_begun.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| append(&wal, G1, 2..=2));
        await_sync(&disk, before);
        settle(&mut stepper);
        drop(gate);
        second.join().unwrap();
    });
    assert!(wal.has_unmarked());
    assert!(!wal.forgets_to_mark());
    assert!(matches!(stepper.step(Woken::ByWork), Next::WorkWithin(_)));
    assert_eq!(stepper.step(Woken::ByTime), Next::More);
    assert_eq!(settle(&mut stepper), Next::Work);
    assert!(!wal.has_unmarked());
}

/// The time is over while a caller syncs: the thread comes back for the mark.
#[test]
fn a_sync_under_way_puts_the_mark_off_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, mut stepper) = open_stepped(disk.clone(), dir.path(), callers_sync(1 << 20));
    append(&wal, G1, 1..=1);
    let gate = disk.sync_gate.lock();
    let before = disk.syncs_begun.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| append(&wal, G1, 2..=2));
        await_sync(&disk, before);
        assert_eq!(stepper.step(Woken::ByTime), Next::Work);
        drop(gate);
        second.join().unwrap();
    });
    assert!(!wal.forgets_to_mark());
    assert!(matches!(settle(&mut stepper), Next::WorkWithin(_)));
    assert_eq!(stepper.step(Woken::ByTime), Next::More);
    assert_eq!(settle(&mut stepper), Next::Work);
    assert!(!wal.has_unmarked());
}

/// With the threads themselves: whenever the callers stop, the log is marked soon.
#[test]
fn a_log_that_callers_sync_is_marked_when_it_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), callers_sync(1 << 20));
    for round in 0..3 {
        append(&wal, G1, round * 50 + 1..=round * 50 + 50);
        while wal.has_unmarked() {
            assert!(!wal.forgets_to_mark());
            std::thread::yield_now();
        }
    }
}

#[test]
fn everyone_who_waits_learns_of_a_failed_sync_of_a_caller() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, _stepper) = open_stepped(disk.clone(), dir.path(), callers_sync(1 << 20));
    let (owed, first) = begin(&wal, G1, 1);
    let others: Vec<_> = (1..=8).map(|index| begin(&wal, G2, index).1).collect();
    disk.fails_sync.store(true, Ordering::SeqCst);
    owed.unwrap().sync();
    disk.fails_sync.store(false, Ordering::SeqCst);
    let failure = wal.failure().unwrap();
    assert!(matches!(*failure, WalError::Io { .. }));
    for outcome in others.iter().chain([&first]) {
        assert!(Arc::ptr_eq(&outcome.try_recv().unwrap().unwrap_err(), &failure));
    }
    assert!(Arc::ptr_eq(&try_append(&wal, G1, 2, b"x").unwrap_err(), &failure));
}

#[test]
fn a_callback_that_panics_in_a_callers_sync_fails_the_log_instead_of_hanging_it() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open_on(Arc::new(TestDisk::default()), dir.path(), callers_sync(1 << 20));
    // Until it is the caller that syncs: the thread may be at it.
    let mut index = 0;
    let is_seen = loop {
        index += 1;
        let record = Record { index, head: b"", body: &Bytes::from_static(b"x") };
        let (caller, (sender, is_callers)) = (std::thread::current().id(), mpsc::channel());
        let done = move |_| {
            let is_callers = std::thread::current().id() == caller;
            sender.send(is_callers).unwrap();
            assert!(!is_callers, "a callback of this test");
        };
        let owed = wal.append(G1, &[record], Box::new(done)).unwrap();
        let paid = catch_unwind(AssertUnwindSafe(|| owed.sync()));
        if is_callers.recv_timeout(PATIENCE).unwrap() {
            break paid.is_err();
        }
    };
    assert!(is_seen);
    assert!(wal.failure().is_some());
    assert!(block_on(wal.save_vote(G1, Bytes::new())).is_err());
    assert!(wal.sync().is_err());
    assert!(wal.close().is_err());
}

/// Callers, who tell those who waited themselves, and the thread, by turns.
#[test]
fn whoever_syncs_tells_those_who_wait_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), callers_sync(8 << 10));
    std::thread::scope(|scope| {
        for group in [G1, G2] {
            let wal = wal.clone();
            scope.spawn(move || {
                let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
                let mut held = None;
                for index in 1..=1000 {
                    let seen = Arc::clone(&seen);
                    let body = Bytes::from(payload(group, index, 0));
                    let record = Record { index, head: b"", body: &body };
                    let done = move |outcome: Outcome| {
                        outcome.unwrap();
                        seen.lock().push(index);
                    };
                    let owed = wal.append(group, &[record], Box::new(done)).or(held.take());
                    match index % 3 {
                        0 => held = owed,
                        1 => drop(owed),
                        _ => owed.into_iter().for_each(SyncOwed::sync),
                    }
                    if index % 100 == 0 {
                        wal.sync().unwrap();
                    }
                }
                wal.sync().unwrap();
                assert!(seen.lock().iter().copied().eq(1..=1000));
            });
        }
    });
    for group in [G1, G2] {
        assert_eq!(entries(&wal, group, 1), expected(group, 1..=1000));
    }
}
