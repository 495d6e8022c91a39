//! Damaged files, torn tails and failing disks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::support::{
    G1, G2, TestDisk, append, block_on, callers_sync, copy_dir, done, entries, expected, open,
    open_on, options, payload, segments, try_append,
};
use crate::stdx::memory_disk::MemoryDisk;
use crate::wal::{Record, SyncPolicy, Wal, WalError, cut_to_last_sync};

fn opening_error(dir: &Path) -> Option<WalError> {
    Wal::open(dir, options(SyncPolicy::Never, 4096)).err()
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_of_the_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 4096);
    let (wal, _) = open(dir.path(), options);
    append(&wal, G1, 1..=9);
    let start = wal.live_bytes();
    append(&wal, G1, 10..=10);
    let end = wal.live_bytes();
    let image = tempfile::tempdir().unwrap();
    assert!(copy_dir(dir.path(), image.path()));
    drop(wal);
    let segment = segments(image.path()).pop().unwrap();
    let good = std::fs::read(&segment).unwrap();
    for cut in start..=end {
        for stale in [0x00, 0xff] {
            // The last few bytes may be padding, which is zero anyway.
            let is_whole = good[usize::try_from(cut).unwrap()..usize::try_from(end).unwrap()]
                .iter()
                .all(|byte| *byte == stale);
            let mut torn = good.clone();
            torn[usize::try_from(cut).unwrap()..].fill(stale);
            std::fs::write(&segment, torn).unwrap();
            let (wal, groups) = open(image.path(), options);
            let last = if is_whole { 10 } else { 9 };
            assert_eq!(groups[&G1].last_index, Some(last), "cut at {cut}");
            assert!(!wal.was_closed_cleanly());
            append(&wal, G1, last + 1..=12);
            drop(wal);
            let (wal, _) = open(image.path(), options);
            assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=12));
        }
    }
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_refused() {
    for is_closed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 4096));
        append(&wal, G1, 1..=60);
        append(&wal, G2, 1..=30);
        wal.sync().unwrap();
        let synced = wal.live_bytes();
        if is_closed {
            wal.close().unwrap();
        } else {
            // This carries the mark of the sync before.
            append(&wal, G2, 31..=31);
            drop(wal);
        }
        let all = segments(dir.path());
        assert!(all.len() > 2);
        let mut before = 0;
        for (number, segment) in all.iter().enumerate() {
            let good = std::fs::read(segment).unwrap();
            let end = match all.get(number + 1) {
                Some(next) => previous_end(next),
                None => usize::try_from(synced).unwrap() - before,
            };
            // Of the last segments, only what lay before the sync.
            let end = end.min(usize::try_from(synced).unwrap() - before);
            for byte in (0..end).step_by(11) {
                let mut bad = good.clone();
                bad[byte] ^= 1 << (byte % 8);
                std::fs::write(segment, bad).unwrap();
                let error = opening_error(dir.path()).unwrap_or_else(|| panic!("byte {byte}"));
                let WalError::Corrupt { offset, .. } = &error else { panic!("{error}") };
                assert!(*offset <= byte as u64 || byte < 32, "{error}, damaged at {byte}");
            }
            std::fs::write(segment, good).unwrap();
            before += end;
        }
        assert!(opening_error(dir.path()).is_none());
    }
}

/// Where the header of a segment says the one before it ended.
fn previous_end(segment: &Path) -> usize {
    let bytes = std::fs::read(segment).unwrap();
    usize::try_from(u64::from_le_bytes(bytes[24..32].try_into().unwrap())).unwrap()
}

/// D1: a thousand idle clients left none, and the log took nothing more for good.
#[test]
fn a_log_without_a_descriptor_for_its_next_segment_waits_for_one() {
    for sync in [SyncPolicy::Always, SyncPolicy::Never] {
        let disk = MemoryDisk::new();
        let (wal, _) = open_on(Arc::new(disk.clone()), Path::new("/log"), options(sync, 4096));
        disk.lack_descriptors(3);
        append(&wal, G1, 1..=100);
        wal.sync().unwrap();
        assert_eq!(disk.lacks_descriptors(), 0, "it came to another segment");
        assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=100));
    }
}

#[test]
fn a_lost_segment_is_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 4096));
    append(&wal, G1, 1..=200);
    wal.close().unwrap();
    let all = segments(dir.path());
    for lost in &all[..all.len() - 1] {
        let bytes = std::fs::read(lost).unwrap();
        std::fs::remove_file(lost).unwrap();
        let error = opening_error(dir.path()).unwrap();
        assert!(matches!(error, WalError::Hole { .. }), "{error}");
        std::fs::write(lost, bytes).unwrap();
    }
    assert!(opening_error(dir.path()).is_none());
}

#[test]
fn a_missing_or_damaged_or_newer_format_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 4096));
    append(&wal, G1, 1..=1);
    drop(wal);
    let path = dir.path().join("format");
    let good = std::fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(opening_error(dir.path()), Some(WalError::Corrupt { .. })));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(opening_error(dir.path()), Some(WalError::Io { .. })));
    std::fs::write(&path, good).unwrap();
    assert!(opening_error(dir.path()).is_none());
}

#[test]
fn damage_under_a_running_log_is_noticed_by_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 4096));
    append(&wal, G1, 1..=8);
    let place = usize::try_from(wal.live_bytes()).unwrap();
    append(&wal, G1, 9..=9);
    let segment = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[place + 30] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let error = wal.read(G1, 1..10, usize::MAX).unwrap_err();
    assert!(matches!(*error, WalError::Corrupt { .. }), "{error}");
}

#[test]
fn a_failed_write_sync_or_reservation_is_final() {
    type Fail = fn(&TestDisk, bool);
    let failures: [(&str, Fail); 3] = [
        ("write", |disk, is_on| disk.fails_write.store(is_on, Ordering::SeqCst)),
        ("sync", |disk, is_on| disk.fails_sync.store(is_on, Ordering::SeqCst)),
        ("reserve", |disk, is_on| disk.fails_allocate.store(is_on, Ordering::SeqCst)),
    ];
    let (always, never) = (SyncPolicy::Always, SyncPolicy::Never);
    for options in [options(always, 4096), callers_sync(4096), options(never, 4096)] {
        for (what, fail) in failures {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(TestDisk::default());
            let (wal, _) = open_on(disk.clone(), dir.path(), options);
            append(&wal, G1, 1..=10);
            block_on(wal.save_vote(G1, Bytes::from_static(b"v1"))).unwrap();
            assert!(wal.failure().is_none());
            fail(&disk, true);
            let mut last = 10;
            let first = loop {
                let outcome = try_append(&wal, G1, last + 1, &payload(G1, last + 1, 0));
                let vote = wal.save_vote(G1, Bytes::from_static(b"v2"));
                if let Err(error) = outcome.and_then(|()| block_on(vote)) {
                    break error;
                }
                last += 1;
                assert!(last < 200, "{what} does not fail");
            };
            fail(&disk, false);
            assert!(first.to_string().contains(what), "{first}");
            assert!(Arc::ptr_eq(&wal.failure().unwrap(), &first));
            for error in [
                try_append(&wal, G1, last + 1, b"x").unwrap_err(),
                try_append(&wal, G2, 1, b"x").unwrap_err(),
                block_on(wal.save_vote(G2, Bytes::new())).unwrap_err(),
                wal.truncate_after(G1, Some(5)).unwrap_err(),
                wal.purge(G1, 5, Bytes::new()).unwrap_err(),
                wal.sync().unwrap_err(),
            ] {
                assert!(Arc::ptr_eq(&error, &first), "{error}");
            }
            assert_eq!(wal.read(G1, 1..11, usize::MAX).unwrap(), expected(G1, 1..=10));
            assert!(wal.close().is_err());
            // What was acknowledged is there when the disk is well again.
            let (wal, groups) = open(dir.path(), options);
            assert!(!wal.was_closed_cleanly());
            assert!(groups[&G1].last_index >= Some(last));
            assert!(groups[&G1].vote.is_some());
            assert_eq!(wal.read(G1, 1..last + 1, usize::MAX).unwrap(), expected(G1, 1..=last));
        }
    }
}

#[test]
fn everyone_who_waits_learns_of_a_failed_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, _) = open_on(disk.clone(), dir.path(), options(SyncPolicy::Always, 4096));
    let gate = disk.sync_gate.lock();
    disk.fails_sync.store(true, Ordering::SeqCst);
    let outcomes: Vec<_> = (1..=300)
        .map(|index| {
            let (done, outcome) = done();
            let body = Bytes::from_static(b"some bytes");
            wal.append(G1, &[Record { index, head: b"", body: &body }], done);
            outcome
        })
        .collect();
    drop(gate);
    for outcome in outcomes {
        assert!(matches!(*outcome.recv().unwrap().unwrap_err(), WalError::Io { .. }));
    }
}

#[test]
fn a_log_cut_to_its_last_sync_loses_what_was_not_synced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let image = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 1 << 20);
    let (wal, _) = open(dir.path(), options);
    append(&wal, G1, 1..=30);
    block_on(wal.save_vote(G1, Bytes::from_static(b"vote"))).unwrap();
    append(&wal, G1, 31..=70);
    assert!(copy_dir(dir.path(), image.path()));
    drop(wal);
    assert!(cut_to_last_sync(image.path()).unwrap() > 0);
    assert_eq!(cut_to_last_sync(image.path()).unwrap(), 0);
    let (wal, groups) = open(image.path(), options);
    assert_eq!(groups[&G1].vote, Some(Bytes::from_static(b"vote")));
    assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=30));
    drop(wal);
    std::fs::remove_file(image.path().join("synced")).unwrap();
    assert!(matches!(cut_to_last_sync(image.path()), Err(WalError::NoSyncMark { .. })));
}

#[test]
fn records_of_a_lost_future_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 4096);
    let disk = Arc::new(TestDisk::default());
    let (wal, _) = open_on(disk.clone(), dir.path(), options);
    // Full segments are synced, and what comes later says so.
    let gate = disk.sync_gate.lock();
    append(&wal, G1, 1..=10);
    let hole = wal.live_bytes();
    append(&wal, G1, 11..=60);
    let image = tempfile::tempdir().unwrap();
    assert!(copy_dir(dir.path(), image.path()));
    drop(gate);
    drop(wal);
    // A power cut lost one page in the middle; later ones and later segments arrived.
    let first = &segments(image.path())[0];
    let mut bytes = std::fs::read(first).unwrap();
    bytes[usize::try_from(hole).unwrap() + 4] ^= 1;
    std::fs::write(first, bytes).unwrap();
    for last in 10..=60 {
        let (wal, groups) = open(image.path(), options);
        assert_eq!(groups[&G1].last_index, Some(last));
        assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=last));
        // Written to exactly where the old record of this index lay.
        append(&wal, G1, last + 1..=last + 1);
    }
}
