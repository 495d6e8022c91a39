//! Power cuts: of the pages written since a file's last sync, any may be missing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::support::{
    G1, G2, Random, TestDisk, append, block_on, callers_sync, entries, expected, open, open_on,
    options, payload, try_append,
};
use crate::wal::{SyncPolicy, WalOptions};

/// Runs a random history on a disk that forgets, cuts the power again and again, and compares what
/// survived with what was acknowledged as synced.
fn run(seed: u64, options: WalOptions) {
    let policy = options.sync;
    eprintln!("KVORUM_SEED={seed} {policy:?}, callers sync: {}", options.callers_sync);
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().join("0");
    let mut last = [0; 2];
    let mut votes = [const { None }; 2];
    for round in 1..=6 {
        let disk = Arc::new(TestDisk::default());
        let (wal, groups) = open_on(disk.clone(), &path, options);
        let mut safe = last;
        let mut purged = [0; 2];
        for (number, group) in [G1, G2].into_iter().enumerate() {
            let state = groups.get(&group).cloned().unwrap_or_default();
            let known = state.last_index.or(state.purged.as_ref().map(|(upto, _)| *upto));
            assert!(known.unwrap_or(0) >= last[number], "{group} lost acknowledged entries");
            assert_eq!(state.vote, votes[number], "{group} lost its vote");
            safe[number] = known.unwrap_or(0);
            purged[number] = state.purged.map_or(0, |(upto, _)| upto);
            if let Some(last_index) = state.last_index {
                let all = entries(&wal, group, state.first_index);
                assert_eq!(all, expected(group, state.first_index..=last_index));
            }
        }
        let mut next = safe.map(|last| last + 1);
        for _ in 0..random.below(120) {
            let number = usize::try_from(random.below(2)).unwrap();
            let group = [G1, G2][number];
            match random.below(30) {
                0 => {
                    let vote = Bytes::from(next[number].to_string());
                    block_on(wal.save_vote(group, vote.clone())).unwrap();
                    votes[number] = Some(vote);
                    // A vote's sync covers everything before it.
                    safe = next.map(|next| next - 1);
                }
                1 if next[number] - 1 > purged[number] => {
                    purged[number] += 1 + random.below(next[number] - 1 - purged[number]);
                    wal.purge(group, purged[number], Bytes::from_static(b"m")).unwrap();
                }
                _ => {
                    append(&wal, group, next[number]..=next[number]);
                    next[number] += 1;
                    if policy == SyncPolicy::Always {
                        safe = next.map(|next| next - 1);
                    }
                }
            }
        }
        let image = dir.path().join(round.to_string());
        if random.below(8) == 0 {
            wal.close().unwrap();
            safe = next.map(|next| next - 1);
            disk.cut_power(&path, &image, &mut random);
        } else {
            disk.cut_power(&path, &image, &mut random);
            drop(wal);
        }
        path = image;
        last = safe;
    }
}

#[test]
fn a_power_cut_loses_only_what_was_not_synced() {
    let seeds = match std::env::var("KVORUM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=15).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let (always, never) = (SyncPolicy::Always, SyncPolicy::Never);
        for options in [options(always, 4096), callers_sync(4096), options(never, 4096)] {
            run(seed, options);
        }
    }
}

/// Fault R11: clean pages that never reached the disk were vouched for.
#[test]
fn what_a_killed_process_left_is_synced_before_the_log_opens() {
    for seed in 1..=10 {
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        let (path, image) = (dir.path().join("log"), dir.path().join("image"));
        let disk = Arc::new(TestDisk::default());
        let options = options(SyncPolicy::Never, 4096);
        let (wal, _) = open_on(disk.clone(), &path, options);
        wal.sync().unwrap();
        // The process dies before any sync: the kernel alone has the entries.
        disk.fails_sync.store(true, Ordering::SeqCst);
        let mut last = 0;
        while try_append(&wal, G1, last + 1, &payload(G1, last + 1, 0)).is_ok() && last < 90 {
            last += 1;
        }
        drop(wal);
        disk.fails_sync.store(false, Ordering::SeqCst);
        let (wal, groups) = open_on(disk.clone(), &path, options);
        let last = groups[&G1].last_index.unwrap();
        disk.cut_power(&path, &image, &mut random);
        drop(wal);
        assert_eq!(open(&image, options).1[&G1].last_index, Some(last), "seed {seed}");
    }
}
