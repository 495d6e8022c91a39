//! Replicas that are born, end and may miss their end; and damage in what an idle log had synced.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;

use super::support::{
    G1, G2, G3, R1, TestDisk, append, block_on, boot, copy_dir, entries, expected, open, open_on,
    options, segments, try_append,
};
use crate::ids::{GroupId, Incarnation, RaftId, Session};
use crate::wal::{SyncPolicy, Wal, WalError, WalOptions, cut_to_last_sync};

const R2: RaftId = RaftId(0x52);

fn on_boot(sync: SyncPolicy, number: u64) -> WalOptions {
    let session = Session { number, random: number };
    WalOptions { boot_id: boot(number), session, ..options(sync, 4096) }
}

/// Which of the three groups are short after the log was opened.
fn short(dir: &Path, options: WalOptions) -> (Wal, [bool; 3]) {
    let (wal, groups) = open(dir, options);
    let shorts = [G1, G2, G3].map(|group| groups[&group].is_short);
    (wal, shorts)
}

#[test]
fn a_group_that_was_not_born_is_refused_and_the_log_stays_well() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), options(SyncPolicy::Never, 4096)).unwrap();
    for error in [
        try_append(&wal, G1, 1, b"x").unwrap_err(),
        block_on(wal.save_vote(G1, Bytes::new())).unwrap_err(),
        wal.truncate_after(G1, None).unwrap_err(),
        wal.purge(G1, 1, Bytes::new()).unwrap_err(),
        wal.whole(G1).unwrap_err(),
    ] {
        assert!(matches!(*error, WalError::Unborn { group: G1 }), "{error}");
    }
    block_on(wal.born(G1, R1)).unwrap();
    append(&wal, G1, 1..=1);
    drop(wal);
    assert_eq!(open(dir.path(), options(SyncPolicy::Never, 4096)).1.len(), 1);
}

#[test]
fn an_ended_replica_leaves_nothing_and_frees_its_segments() {
    for policy in [SyncPolicy::Always, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = open(dir.path(), options(policy, 4096));
        append(&wal, G1, 1..=200);
        append(&wal, G2, 1..=3);
        block_on(wal.save_vote(G1, Bytes::from_static(b"old"))).unwrap();
        block_on(wal.ended(G1, R1)).unwrap();
        // The thread gives free what the last sync allowed; the next one comes behind that.
        wal.sync().unwrap();
        assert!(wal.live_bytes() < 8192, "{}", wal.live_bytes());
        block_on(wal.born(G1, R2)).unwrap();
        append(&wal, G1, 1..=2);
        drop(wal);
        let (wal, groups) = open(dir.path(), options(policy, 4096));
        assert_eq!((groups[&G1].raft_id, &groups[&G1].vote), (Some(R2), &None));
        assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=2));
        assert_eq!(entries(&wal, G2, 1), expected(G2, 1..=3));
    }
}

#[test]
fn a_log_of_another_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let of = |number| WalOptions {
        incarnation: Incarnation(number),
        ..options(SyncPolicy::Never, 4096)
    };
    drop(open(dir.path(), of(7)));
    drop(open(dir.path(), of(7)));
    let error = Wal::open(dir.path(), of(8)).unwrap_err();
    assert!(matches!(error, WalError::OtherIncarnation { .. }), "{error}");
}

#[test]
fn a_power_cut_shortens_every_group_until_it_is_whole() {
    for policy in [SyncPolicy::EverySecond, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = open(dir.path(), on_boot(policy, 1));
        append(&wal, G1, 1..=200);
        drop(wal);
        // A process that dies alone loses nothing.
        let (wal, shorts) = short(dir.path(), on_boot(policy, 1));
        assert_eq!(shorts, [false; 3]);
        append(&wal, G1, 201..=210);
        drop(wal);
        assert!(cut_to_last_sync(dir.path()).unwrap() > 0);
        let (wal, shorts) = short(dir.path(), on_boot(policy, 2));
        assert_eq!(shorts, [true; 3]);
        wal.whole(G2).unwrap();
        drop(wal);
        // Neither another death nor a stop in order cures, nor does a full segment forget.
        let (wal, shorts) = short(dir.path(), on_boot(policy, 2));
        assert_eq!(shorts, [true, false, true]);
        append(&wal, G3, 1..=400);
        wal.purge(G1, 200, Bytes::new()).unwrap();
        wal.purge(G3, 390, Bytes::new()).unwrap();
        wal.close().unwrap();
        let (wal, shorts) = short(dir.path(), on_boot(policy, 3));
        assert_eq!(shorts, [true, false, true], "a clean stop loses nothing, and cures nothing");
        block_on(wal.ended(G1, R1)).unwrap();
        block_on(wal.born(G1, R2)).unwrap();
        wal.whole(G3).unwrap();
        wal.close().unwrap();
        // The start in between wrote nothing but that it started: its clean stop before vouches for nothing.
        let (wal, shorts) = short(dir.path(), on_boot(policy, 3));
        assert_eq!(shorts, [false; 3]);
        drop(wal);
        assert_eq!(short(dir.path(), on_boot(policy, 4)).1, [true; 3]);
    }
}

#[test]
fn a_log_that_syncs_always_is_never_short() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), on_boot(SyncPolicy::Always, 1));
    append(&wal, G1, 1..=20);
    drop(wal);
    let (wal, shorts) = short(dir.path(), on_boot(SyncPolicy::Never, 2));
    assert_eq!(shorts, [false; 3]);
    drop(wal);
    // The policy of the time before counts, not that of now.
    assert_eq!(short(dir.path(), on_boot(SyncPolicy::Always, 3)).1, [true; 3]);
}

/// Waits until the log has vouched for all it holds, and returns an image of it.
fn idle_image(wal: &Wal, dir: &Path, to: &Path) {
    let (sender, done) = mpsc::channel();
    let wal = wal.clone();
    std::thread::spawn(move || {
        while wal.has_unmarked() {
            std::thread::yield_now();
        }
        sender.send(()).unwrap_or_default();
    });
    done.recv_timeout(Duration::from_mins(1)).expect("an idle log marks what it synced");
    while !copy_dir(dir, to) {}
}

/// Fault R12: damage in the last synced stretch passed for a torn tail.
#[test]
fn every_bit_of_an_idle_log_is_refused_or_does_no_harm() {
    for policy in [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let image = tempfile::tempdir().unwrap();
        let (wal, _) = open(dir.path(), options(policy, 4096));
        append(&wal, G1, 1..=3);
        append(&wal, G2, 1..=2);
        block_on(wal.save_vote(G2, Bytes::from_static(b"vote"))).unwrap();
        idle_image(&wal, dir.path(), image.path());
        let writes = wal.stats().writes;
        let held = usize::try_from(wal.live_bytes()).unwrap();
        drop(wal);
        let (_, good_groups) = open(image.path(), options(policy, 4096));
        let spoiled = tempfile::tempdir().unwrap();
        let segment = segments(dir.path()).pop().unwrap();
        let name = segment.file_name().unwrap();
        idle_bits(dir.path(), spoiled.path(), name, held, &mut |byte| {
            let opened = Wal::open(spoiled.path(), options(policy, 4096));
            if let Ok((_, groups)) = opened {
                assert_eq!(groups, good_groups, "{policy:?}: byte {byte} made the log shorter");
            }
        });
        assert!(writes > 0);
    }
}

/// Copies the log for each bit of segment `name` below `held`, flips it there, and looks.
fn idle_bits(
    from: &Path,
    to: &Path,
    name: &std::ffi::OsStr,
    held: usize,
    look: &mut dyn FnMut(usize),
) {
    for bit in 0..held * 8 {
        while !copy_dir(from, to) {}
        let path = to.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes).unwrap();
        look(bit / 8);
    }
}

#[test]
fn an_idle_log_marks_once_and_writes_nothing_further() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, _) = open_on(disk.clone(), dir.path(), options(SyncPolicy::EverySecond, 1 << 20));
    append(&wal, G1, 1..=5);
    let image = tempfile::tempdir().unwrap();
    idle_image(&wal, dir.path(), image.path());
    wal.sync().unwrap();
    let (writes, end) = (wal.stats().writes, wal.live_bytes());
    let syncs = disk.syncs.load(Ordering::SeqCst);
    let (sender, ticks) = mpsc::channel::<()>();
    // Two of the log's ticks; nothing can arrive.
    let _timeout = ticks.recv_timeout(Duration::from_millis(2500));
    drop(sender);
    assert_eq!((wal.stats().writes, wal.live_bytes()), (writes, end));
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs);
}

/// A cluster that is known only as it was names replicas that have ended since.
#[test]
fn a_replica_that_has_ended_is_never_born_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 4096);
    let refused = |wal: &Wal, id| {
        let error = block_on(wal.born(G1, id)).unwrap_err();
        assert!(matches!(*error, WalError::HasEnded { group: G1, .. }), "{error}");
    };
    let (wal, _) = Wal::open(dir.path(), options).unwrap();
    block_on(wal.born(G1, R1)).unwrap();
    block_on(wal.born(G2, R1)).unwrap();
    block_on(wal.ended(G1, R1)).unwrap();
    refused(&wal, R1);
    refused(&wal, RaftId(R1.0 - 1));
    // Also once the segment that says so is gone.
    append(&wal, G2, 1..=200);
    wal.purge(G2, 200, Bytes::new()).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (wal, groups) = Wal::open(dir.path(), options).unwrap();
    assert!(!groups.contains_key(&G1));
    assert_eq!((wal.last_ended(G1), wal.last_ended(G2)), (Some(R1), None));
    refused(&wal, R1);
    block_on(wal.born(G1, R2)).unwrap();
    block_on(wal.ended(G1, R2)).unwrap();
    refused(&wal, R2);
}

/// The ids that the meta group gives out are never to be given out again.
#[test]
fn what_the_meta_group_says_is_on_the_disk_first_whatever_the_policy() {
    for policy in [SyncPolicy::EverySecond, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(dir.path(), on_boot(policy, 1)).unwrap();
        block_on(wal.born(GroupId::META, R1)).unwrap();
        block_on(wal.born(G1, R1)).unwrap();
        let before = wal.stats().syncs;
        append(&wal, GroupId::META, 1..=1);
        assert!(wal.stats().syncs > before);
        std::mem::forget(wal);
        let image = tempfile::tempdir().unwrap();
        assert!(copy_dir(dir.path(), image.path()));
        let (_, groups) = Wal::open(image.path(), on_boot(policy, 2)).unwrap();
        assert!(groups[&G1].is_short && !groups[&GroupId::META].is_short);
    }
}

/// The kernel drops what it could not write, and says so once: to a process that may be gone when it matters.
#[test]
fn a_log_that_failed_may_miss_its_end_although_the_machine_ran_on() {
    for policy in [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::Never] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::default());
        let (wal, _) = open_on(disk.clone(), dir.path(), on_boot(policy, 1));
        disk.fails_sync.store(true, Ordering::SeqCst);
        block_on(wal.save_vote(G1, Bytes::from_static(b"vote"))).unwrap_err();
        // A process that is killed now does not end its log.
        let killed = tempfile::tempdir().unwrap();
        assert!(copy_dir(dir.path(), killed.path()));
        drop(wal);
        let (_, shorts) =
            short(killed.path(), WalOptions { boot_id: boot(1), ..on_boot(policy, 2) });
        assert_eq!(shorts, [policy != SyncPolicy::Always; 3], "{policy:?}");
        let is_short = policy != SyncPolicy::Always;
        let same_boot = WalOptions { boot_id: boot(1), ..on_boot(policy, 2) };
        let (wal, shorts) = short(dir.path(), same_boot);
        assert_eq!(shorts, [is_short; 3], "{policy:?}");
        for group in [G1, G2, G3] {
            wal.whole(group).unwrap();
        }
        drop(wal);
        let (_, shorts) = short(dir.path(), WalOptions { boot_id: boot(1), ..on_boot(policy, 3) });
        assert_eq!(shorts, [false; 3], "that is over");
    }
}

/// The same where the disk fails at the very end, or only while the log is read back.
#[test]
fn a_sync_that_fails_at_the_end_or_at_the_beginning_is_noted_too() {
    for policy in [SyncPolicy::EverySecond, SyncPolicy::Never] {
        let again = |number| WalOptions { boot_id: boot(1), ..on_boot(policy, number) };
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::default());
        let (wal, _) = open_on(disk.clone(), dir.path(), on_boot(policy, 1));
        append(&wal, G1, 1..=3);
        disk.fails_sync.store(true, Ordering::SeqCst);
        wal.close().unwrap_err();
        assert_eq!(short(dir.path(), again(2)).1, [true; 3], "at the end");

        let dir = tempfile::tempdir().unwrap();
        let (wal, _) = open(dir.path(), on_boot(policy, 1));
        append(&wal, G1, 1..=3);
        let killed = tempfile::tempdir().unwrap();
        assert!(copy_dir(dir.path(), killed.path()));
        let disk = Arc::new(TestDisk::default());
        disk.fails_sync.store(true, Ordering::SeqCst);
        let disk: Arc<dyn crate::stdx::disk::Disk> = disk;
        Wal::open_on(&disk, killed.path(), again(2)).unwrap_err();
        assert_eq!(short(killed.path(), again(3)).1, [true; 3], "at the beginning");
    }
}

/// What does not fit was never acknowledged, and nothing else is missing.
#[test]
fn a_full_disk_makes_no_replica_short() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (wal, _) = open_on(disk.clone(), dir.path(), on_boot(SyncPolicy::Never, 1));
    disk.fails_allocate.store(true, Ordering::SeqCst);
    let refused = (1..=200).any(|index| try_append(&wal, G1, index, &[0; 100]).is_err());
    assert!(refused);
    drop(wal);
    let same_boot = WalOptions { boot_id: boot(1), ..on_boot(SyncPolicy::Never, 2) };
    assert_eq!(short(dir.path(), same_boot).1, [false; 3]);
}
