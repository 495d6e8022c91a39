//! Writing and reading back in fair weather.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::support::{
    G1, G2, G3, R1, TestDisk, append, block_on, done, entries, expected, open, open_on,
    open_stepped, options, payload, segments, settle, try_append,
};
use crate::stdx::fs::SystemDisk;
use crate::wal::limits::MARKER_BYTES_MAX;
use crate::wal::{GroupState, Next, Record, SyncPolicy, Wal, WalError, Woken};

const POLICIES: [SyncPolicy; 3] = [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::Never];

#[test]
fn everything_comes_back_after_a_close_and_after_a_drop() {
    for policy in POLICIES {
        for is_closed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let options = options(policy, 4096);
            let (wal, groups) = open(dir.path(), options);
            assert!(groups.is_empty());
            append(&wal, G1, 1..=200);
            append(&wal, G2, 0..=50);
            block_on(wal.save_vote(G1, Bytes::from_static(b"vote"))).unwrap();
            append(&wal, G2, 51..=51);
            wal.purge(G3, 9, Bytes::from_static(b"marker")).unwrap();
            append(&wal, G3, 10..=10);
            if is_closed {
                wal.close().unwrap();
            } else {
                drop(wal);
            }
            let (wal, groups) = open(dir.path(), options);
            assert_eq!(wal.was_closed_cleanly(), is_closed);
            let state = |first_index, last| GroupState {
                raft_id: Some(R1),
                first_index,
                last_index: Some(last),
                ..GroupState::default()
            };
            let g1 = GroupState { vote: Some("vote".into()), ..state(1, 200) };
            let g2 = state(0, 51);
            let g3 = GroupState { purged: Some((9, "marker".into())), ..state(10, 10) };
            assert_eq!(Vec::from_iter(groups), [(G1, g1), (G2, g2), (G3, g3)]);
            assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=200));
            assert_eq!(entries(&wal, G2, 0), expected(G2, 0..=51));
            assert_eq!(entries(&wal, G3, 10), expected(G3, 10..=10));
        }
    }
}

#[test]
fn reads_stay_within_the_range_and_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 8192));
    append(&wal, G1, 1..=300);
    append(&wal, G2, 1..=300);
    wal.purge(G1, 20, Bytes::new()).unwrap();
    let cases = [
        (21..40, usize::MAX, 21..=39),
        (299..1000, usize::MAX, 299..=300),
        (100..200, 0, 100..=100),
        (100..101, usize::MAX, 100..=100),
    ];
    for (range, bytes_max, indexes) in cases {
        assert_eq!(wal.read(G1, range, bytes_max).unwrap(), expected(G1, indexes));
    }
    let some = wal.read(G1, 50..300, 2000).unwrap();
    let bytes: usize = some.iter().map(|(_, payload)| payload.len()).sum();
    assert!((1000..=2000).contains(&bytes), "{bytes}");
    assert_eq!(some, expected(G1, 50..=49 + some.len() as u64));
    for range in [301..400, 50..50] {
        assert_eq!(wal.read(G1, range, usize::MAX).unwrap(), []);
    }
    assert_eq!(wal.read(G3, 1..9, usize::MAX).unwrap(), []);
    let purged = wal.read(G1, 20..30, usize::MAX).unwrap_err();
    assert!(matches!(*purged, WalError::NotInLog { index: 20, first: 21, .. }), "{purged}");
}

#[test]
fn many_runs_in_one_segment_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 8 << 20));
    let body = vec![7; 60_000];
    for index in 1..=60 {
        for group in [G1, G2] {
            try_append(&wal, group, index, &body).unwrap();
        }
    }
    for index in 1..=60 {
        let found = wal.read(G2, index..index + 1, 0).unwrap();
        assert_eq!(found, [(index, Bytes::from(body.clone()))]);
    }
    assert_eq!(entries(&wal, G1, 1).len(), 60);
}

#[test]
fn indexes_that_do_not_follow_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Never, 4096));
    for first in [2, 7, u64::MAX] {
        assert!(matches!(
            *try_append(&wal, G1, first, b"x").unwrap_err(),
            WalError::Misplaced { .. }
        ));
    }
    append(&wal, G1, 1..=3);
    for wrong in [0, 3, 5] {
        assert!(matches!(
            *try_append(&wal, G1, wrong, b"x").unwrap_err(),
            WalError::Misplaced { .. }
        ));
    }
    let (done, outcome) = done();
    let body = Bytes::from_static(b"x");
    let record = |index| Record { index, head: b"", body: &body };
    wal.append(G1, &[record(4), record(6)], done);
    assert!(outcome.recv().unwrap().is_err());
    wal.purge(G1, 2, Bytes::new()).unwrap();
    assert!(wal.truncate_after(G1, Some(0)).is_err());
    assert!(wal.truncate_after(G1, None).is_err());
    assert!(wal.purge(G1, u64::MAX, Bytes::new()).is_err());
    let long = Bytes::from(vec![0; MARKER_BYTES_MAX + 1]);
    assert!(matches!(*wal.purge(G1, 3, long.clone()).unwrap_err(), WalError::TooLarge { .. }));
    assert!(block_on(wal.save_vote(G1, long)).is_err());
    assert_eq!(entries(&wal, G1, 3), expected(G1, 3..=3));
    assert!(wal.failure().is_none());
    append(&wal, G1, 4..=4);
}

#[test]
fn a_truncated_suffix_is_superseded() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let options = options(policy, 4096);
        let (wal, _) = open(dir.path(), options);
        append(&wal, G1, 1..=90);
        append(&wal, G2, 1..=5);
        wal.truncate_after(G1, Some(40)).unwrap();
        assert_eq!(entries(&wal, G1, 1), expected(G1, 1..=40));
        let mut all = expected(G1, 1..=40);
        for index in 41..=95 {
            let payload = payload(G1, index, 1);
            try_append(&wal, G1, index, &payload).unwrap();
            all.push((index, payload.into()));
        }
        wal.truncate_after(G2, None).unwrap();
        append(&wal, G2, 0..=3);
        assert_eq!(entries(&wal, G1, 1), all);
        drop(wal);
        let (wal, _) = open(dir.path(), options);
        assert_eq!(entries(&wal, G1, 1), all);
        assert_eq!(entries(&wal, G2, 0), expected(G2, 0..=3));
    }
}

#[test]
fn a_purge_beyond_the_end_moves_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 4096);
    let (wal, _) = open(dir.path(), options);
    append(&wal, G1, 1..=5);
    wal.purge(G1, 100, Bytes::from_static(b"snapshot")).unwrap();
    wal.purge(G1, 50, Bytes::from_static(b"older")).unwrap();
    assert_eq!(wal.group_bytes(G1), 0);
    drop(wal);
    let (wal, groups) = open(dir.path(), options);
    assert_eq!(groups[&G1].purged, Some((100, Bytes::from_static(b"snapshot"))));
    assert_eq!((groups[&G1].first_index, groups[&G1].last_index), (101, None));
    assert!(try_append(&wal, G1, 6, b"x").is_err());
    append(&wal, G1, 101..=102);
    assert_eq!(entries(&wal, G1, 101), expected(G1, 101..=102));
}

#[test]
fn the_slowest_group_bounds_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 4096);
    let (wal, _) = open(dir.path(), options);
    block_on(wal.save_vote(G3, Bytes::from_static(b"old vote"))).unwrap();
    append(&wal, G2, 1..=1);
    for round in 1..=20 {
        append(&wal, G1, round * 100 - 99..=round * 100);
        wal.purge(G1, round * 100, Bytes::from_static(b"m")).unwrap();
    }
    wal.sync().unwrap();
    assert_eq!(wal.pinned_by(), Some(G2));
    assert!(wal.live_bytes() > 200_000);
    assert_eq!(entries(&wal, G2, 1), expected(G2, 1..=1));
    wal.purge(G2, 1, Bytes::from_static(b"m")).unwrap();
    wal.sync().unwrap();
    wal.sync().unwrap();
    assert!(wal.live_bytes() <= 4096, "{}", wal.live_bytes());
    assert_eq!(wal.pinned_by(), None);
    assert!(segments(dir.path()).len() <= 2);
    for round in 21..=40 {
        append(&wal, G1, round * 100 - 99..=round * 100);
        wal.purge(G1, round * 100, Bytes::from_static(b"m")).unwrap();
        wal.sync().unwrap();
        assert!(wal.live_bytes() < 4 * 4096 + 20_000, "{}", wal.live_bytes());
    }
    let stats = wal.stats();
    assert!(stats.segments_recycled > 5, "{stats:?}");
    append(&wal, G1, 4001..=4003);
    drop(wal);
    // The oldest segments are gone, what they said of every group is not; stale bytes are not read.
    let (wal, groups) = open(dir.path(), options);
    assert_eq!(groups[&G3].vote, Some(Bytes::from_static(b"old vote")));
    assert_eq!(groups[&G2].purged, Some((1, Bytes::from_static(b"m"))));
    assert_eq!(entries(&wal, G1, 4001), expected(G1, 4001..=4003));
}

#[test]
fn a_record_bigger_than_a_segment_gets_a_segment_of_its_size() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let options = options(policy, 4096);
        let (wal, _) = open(dir.path(), options);
        append(&wal, G1, 1..=3);
        let big: Vec<u8> = (0..3_000_000u32).map(|it| it.to_le_bytes()[0]).collect();
        try_append(&wal, G1, 4, &big).unwrap();
        append(&wal, G1, 5..=7);
        drop(wal);
        let (wal, _) = open(dir.path(), options);
        assert_eq!(wal.read(G1, 4..5, 0).unwrap(), [(4, Bytes::from(big))]);
        assert_eq!(entries(&wal, G1, 5), expected(G1, 5..=7));
        wal.purge(G1, 7, Bytes::new()).unwrap();
        wal.sync().unwrap();
        wal.sync().unwrap();
        assert!(wal.live_bytes() < 8192);
    }
}

#[test]
fn one_sync_serves_everyone_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = options(SyncPolicy::Always, 1 << 20);
    let (wal, _) = open_on(disk.clone(), dir.path(), options);
    let before = disk.syncs.load(Ordering::SeqCst);
    let gate = disk.sync_gate.lock();
    let before_stats = wal.stats().syncs;
    let outcomes: Vec<_> = (1..=500)
        .flat_map(|index| [(G1, index), (G2, index)])
        .map(|(group, index)| {
            let (done, outcome) = done();
            let body = Bytes::from_static(b"b");
            wal.append(group, &[Record { index, head: b"h", body: &body }], done);
            outcome
        })
        .collect();
    assert!(outcomes.iter().skip(1).all(|outcome| outcome.try_recv().is_err()), "done too early");
    drop(gate);
    for outcome in outcomes {
        outcome.recv().unwrap().unwrap();
    }
    // Those that came before the thread stood at the gate, and all the others.
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&syncs), "{syncs}");
    assert!(wal.stats().syncs - before_stats <= 3);
}

#[test]
fn entries_on_their_way_to_the_file_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Always, 4096));
    for index in 1..=300 {
        let (done, _outcome) = done();
        let body = Bytes::from(payload(G1, index, 0));
        wal.append(G1, &[Record { index, head: b"", body: &body }], done);
        assert_eq!(wal.read(G1, index..index + 1, 0).unwrap(), expected(G1, index..=index));
    }
}

#[test]
fn under_other_policies_only_votes_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = options(SyncPolicy::Never, 1 << 20);
    let (wal, _) = open_on(disk.clone(), dir.path(), options);
    wal.sync().unwrap();
    let before = disk.syncs.load(Ordering::SeqCst);
    for index in 1..=100 {
        let (done, outcome) = done();
        let body = Bytes::from_static(b"b");
        wal.append(G1, &[Record { index, head: b"", body: &body }], done);
        outcome.recv().unwrap().unwrap();
    }
    assert_eq!(disk.syncs.load(Ordering::SeqCst), before);
    let gate = disk.sync_gate.lock();
    let votes: Vec<_> = (0..50u8).map(|it| wal.save_vote(G1, vec![it].into())).collect();
    drop(gate);
    for vote in votes {
        block_on(vote).unwrap();
    }
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&syncs), "{syncs}");
}

#[test]
fn every_second_syncs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::EverySecond, 1 << 20));
    wal.sync().unwrap();
    let before = wal.stats().syncs;
    append(&wal, G1, 1..=1);
    let deadline = std::time::Duration::from_secs(20);
    let step = std::time::Duration::from_millis(20);
    let mut waited = std::time::Duration::ZERO;
    while wal.stats().syncs == before {
        assert!(waited < deadline, "no sync");
        std::thread::sleep(step);
        waited += step;
    }
}

#[test]
fn threads_appending_at_once_lose_nothing() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let options = options(policy, 16 << 10);
        let (wal, _) = open(dir.path(), options);
        std::thread::scope(|scope| {
            for number in 1..=8 {
                let wal = wal.clone();
                scope.spawn(move || {
                    let group = crate::ids::GroupId(number);
                    block_on(wal.born(group, R1)).unwrap();
                    append(&wal, group, 1..=200);
                    block_on(wal.save_vote(group, Bytes::from_static(b"v"))).unwrap();
                    assert_eq!(entries(&wal, group, 1), expected(group, 1..=200));
                    wal.purge(group, 150, Bytes::new()).unwrap();
                    assert_eq!(entries(&wal, group, 151), expected(group, 151..=200));
                });
            }
        });
        wal.close().unwrap();
        let (wal, groups) = open(dir.path(), options);
        for number in 1..=8 {
            let group = crate::ids::GroupId(number);
            assert_eq!(groups[&group].vote, Some(Bytes::from_static(b"v")));
            assert_eq!(entries(&wal, group, 151), expected(group, 151..=200));
        }
    }
}

#[test]
fn a_log_in_use_is_refused_and_a_closed_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Never, 4096);
    let (wal, _) = open(dir.path(), options);
    assert!(matches!(Wal::open(dir.path(), options), Err(WalError::InUse { .. })));
    assert!(matches!(crate::wal::cut_to_last_sync(dir.path()), Err(WalError::InUse { .. })));
    append(&wal, G1, 1..=1);
    let other = wal.clone();
    wal.close().unwrap();
    assert!(matches!(*try_append(&other, G1, 2, b"x").unwrap_err(), WalError::Closed));
    assert!(matches!(*other.sync().unwrap_err(), WalError::Closed));
    assert_eq!(entries(&other, G1, 1), expected(G1, 1..=1));
    drop(other);
    drop(open(dir.path(), options));
}

#[test]
fn a_panicking_callback_fails_the_log_instead_of_hanging_it() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = open(dir.path(), options(SyncPolicy::Always, 4096));
    let record = Record { index: 1, head: b"", body: &Bytes::from_static(b"x") };
    wal.append(G1, &[record], Box::new(|_| panic!("a callback of this test")));
    while wal.failure().is_none() {
        std::thread::yield_now();
    }
    assert!(block_on(wal.save_vote(G1, Bytes::new())).is_err());
    assert!(wal.sync().is_err());
    assert!(wal.close().is_err());
}

/// What a simulation rests on.
#[test]
fn a_stepped_log_says_when_it_wants_a_step_and_has_closed_when_nobody_steps_any_more() {
    fn poll<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> Poll<T> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
    let dir = tempfile::tempdir().unwrap();
    let options = options(SyncPolicy::Always, 4096);
    let (wal, mut stepper) = open_stepped(SystemDisk::shared(), dir.path(), options);
    assert!(!stepper.is_wanted(Next::Work) && stepper.is_wanted(Next::More));
    let mut synced = Box::pin(wal.synced());
    assert!(stepper.is_wanted(Next::Work) && stepper.is_wanted(Next::WorkWithin(Duration::MAX)));
    assert_eq!(stepper.step(Woken::ByWork), Next::More);
    assert!(poll(&mut synced).is_pending(), "it is only written");
    assert_eq!(settle(&mut stepper), Next::Work);
    assert!(matches!(poll(&mut synced), Poll::Ready(Ok(()))));
    assert!(!stepper.is_wanted(Next::Work));

    let mut closed = Box::pin(wal.closed());
    wal.clone().close().unwrap();
    assert!(stepper.is_wanted(Next::Work));
    assert!(matches!(block_on(wal.synced()).unwrap_err().as_ref(), WalError::Closed));
    assert!(poll(&mut closed).is_pending(), "nothing is done yet");
    assert_eq!(settle(&mut stepper), Next::Ended);
    assert!(!stepper.is_wanted(Next::Ended));
    drop((wal, stepper));
    assert!(poll(&mut closed).is_ready());
    assert!(open(dir.path(), options).0.was_closed_cleanly());
}
