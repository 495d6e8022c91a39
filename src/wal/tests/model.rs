//! Random histories over three groups, compared with a model after every reopening.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::support::{
    G1, G2, G3, R1, Random, block_on, boot, copy_dir, done, entries, open, options, payload,
};
use crate::ids::{GroupId, RaftId};
use crate::wal::{GroupState, Record, SyncPolicy, Wal, WalError, WalOptions};

/// What a group must hold.
#[derive(Clone, Debug, Default)]
struct Model {
    raft_id: Option<RaftId>,
    is_short: bool,
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
}

impl Model {
    fn next(&self) -> u64 {
        let purged = self.purged.as_ref().map(|(upto, _)| *upto);
        self.entries.keys().last().copied().max(purged).map_or(1, |last| last + 1)
    }

    fn first(&self) -> u64 {
        self.purged.as_ref().map_or(1, |(upto, _)| upto + 1)
    }
}

/// One seeded history.
struct History {
    random: Random,
    dir: tempfile::TempDir,
    path: PathBuf,
    policy: SyncPolicy,
    wal: Option<Wal>,
    groups: BTreeMap<GroupId, Model>,
    generation: u64,
    boot: u64,
}

impl History {
    fn new(seed: u64, policy: SyncPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0");
        let model = Model { raft_id: Some(R1), ..Model::default() };
        let groups = [G1, G2, G3].map(|group| (group, model.clone())).into();
        let wal = Some(open(&path, Self::options(policy, 1)).0);
        Self { random: Random(seed), dir, path, policy, wal, groups, generation: 0, boot: 1 }
    }

    fn options(policy: SyncPolicy, start: u64) -> WalOptions {
        WalOptions { boot_id: boot(start), ..options(policy, 4096) }
    }

    fn step(&mut self) {
        self.generation += 1;
        let group = [G1, G2, G3][usize::try_from(self.random.below(3)).unwrap()];
        if self.groups[&group].raft_id.is_none() {
            return self.born(group);
        }
        match self.random.below(104) {
            100..102 => self.ended(group),
            102..104 => self.whole(group),
            0..70 => self.append(group),
            70..80 => self.truncate(group),
            80..86 => self.vote(group),
            86..95 => self.purge(group),
            95..97 => self.reopen(),
            _ => self.read(group),
        }
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }

    fn append(&mut self, group: GroupId) {
        let model = self.groups.get_mut(&group).unwrap();
        let count = 1 + self.random.below(6);
        let payloads: Vec<_> = (model.next()..model.next() + count)
            .map(|index| (index, Bytes::from(payload(group, index, self.generation))))
            .collect();
        let bodies: Vec<_> = payloads.iter().map(|(_, payload)| payload.slice(5..)).collect();
        let records: Vec<_> = payloads
            .iter()
            .zip(&bodies)
            .map(|((index, payload), body)| Record { index: *index, head: &payload[..5], body })
            .collect();
        let (done, outcome) = done();
        self.wal.as_ref().unwrap().append(group, &records, done);
        // Seldom waiting lets backlogs grow under `Always`.
        if self.random.below(4) == 0 {
            outcome.recv().unwrap().unwrap();
        }
        model.entries.extend(payloads);
    }

    fn truncate(&mut self, group: GroupId) {
        let model = self.groups.get_mut(&group).unwrap();
        let from = model.first() + self.random.below(model.next() - model.first() + 1);
        model.entries.split_off(&from);
        self.wal.as_ref().unwrap().truncate_after(group, Some(from - 1)).unwrap();
    }

    fn born(&mut self, group: GroupId) {
        let id = RaftId(R1.0 + self.generation);
        block_on(self.wal().born(group, id)).unwrap();
        block_on(self.wal().born(group, id)).unwrap();
        let other = block_on(self.wal().born(group, R1)).unwrap_err();
        assert!(matches!(*other, WalError::OtherReplica { .. }), "{other}");
        self.groups.insert(group, Model { raft_id: Some(id), ..Model::default() });
    }

    fn ended(&mut self, group: GroupId) {
        let id = self.groups[&group].raft_id.unwrap();
        let other = block_on(self.wal().ended(group, RaftId(0))).unwrap_err();
        assert!(matches!(*other, WalError::OtherReplica { .. }), "{other}");
        block_on(self.wal().ended(group, id)).unwrap();
        block_on(self.wal().ended(group, id)).unwrap();
        assert_eq!(entries(self.wal(), group, 1), []);
        let vote = block_on(self.wal().save_vote(group, Bytes::new())).unwrap_err();
        assert!(matches!(*vote, WalError::Unborn { .. }), "{vote}");
        let again = block_on(self.wal().born(group, id)).unwrap_err();
        assert!(matches!(*again, WalError::HasEnded { .. }), "{again}");
        self.groups.insert(group, Model::default());
    }

    fn whole(&mut self, group: GroupId) {
        self.wal().whole(group).unwrap();
        self.groups.get_mut(&group).unwrap().is_short = false;
    }

    fn vote(&mut self, group: GroupId) {
        let vote = Bytes::from(self.generation.to_string());
        block_on(self.wal().save_vote(group, vote.clone())).unwrap();
        self.groups.get_mut(&group).unwrap().vote = Some(vote);
    }

    fn purge(&mut self, group: GroupId) {
        let model = self.groups.get_mut(&group).unwrap();
        let reach = model.next() - model.first();
        let beyond = if self.random.below(10) == 0 { 5 } else { 0 };
        let upto = model.first() + self.random.below(reach + 1 + beyond);
        let marker = Bytes::from(format!("m{upto}"));
        self.wal.as_ref().unwrap().purge(group, upto, marker.clone()).unwrap();
        model.purged = Some((upto, marker));
        model.entries = model.entries.split_off(&(upto + 1));
    }

    fn read(&mut self, group: GroupId) {
        let model = &self.groups[&group];
        let from = model.first() + self.random.below(model.next() - model.first() + 1);
        let upto = from + self.random.below(30);
        let found = self.wal().read(group, from..upto, usize::MAX).unwrap();
        assert!(found.iter().map(|(i, p)| (i, p)).eq(model.entries.range(from..upto)));
    }

    /// Closes, drops or kills the log, opens it again and compares everything.
    fn reopen(&mut self) {
        let wal = self.wal.take().unwrap();
        let is_clean = self.random.below(3) == 0;
        match self.random.below(2) {
            _ if is_clean => wal.close().unwrap(),
            1 => drop(wal),
            _ => {
                // An entry may be on its way only: a kill loses what was not done.
                if self.policy == SyncPolicy::Always {
                    wal.sync().unwrap();
                }
                while !wal.is_written() {
                    std::thread::yield_now();
                }
                let image = self.dir.path().join(self.generation.to_string());
                while !copy_dir(&self.path, &image) {}
                drop(wal);
                self.path = image;
            }
        }
        let is_new_boot = self.random.below(2) == 0;
        self.boot += u64::from(is_new_boot);
        let is_lossy = is_new_boot && !is_clean && self.policy != SyncPolicy::Always;
        let (wal, groups) = open(&self.path, Self::options(self.policy, self.boot));
        for (group, model) in &mut self.groups {
            if model.raft_id.is_none() {
                assert_eq!(groups.get(group), None);
                continue;
            }
            model.is_short |= is_lossy;
            let state = groups.get(group).cloned().unwrap_or_default();
            let last_index = model.entries.keys().last().copied();
            let first_index = if last_index.is_some() || model.purged.is_some() {
                model.first()
            } else {
                state.first_index
            };
            let expected = GroupState {
                raft_id: model.raft_id,
                is_short: model.is_short,
                vote: model.vote.clone(),
                purged: model.purged.clone(),
                first_index,
                last_index,
            };
            assert_eq!(state, expected, "{group}");
            let found = entries(&wal, *group, model.first());
            assert!(found.iter().map(|(i, p)| (i, p)).eq(&model.entries), "{group}");
        }
        self.wal = Some(wal);
    }
}

#[test]
fn random_histories_match_the_model() {
    let seeds = match std::env::var("KVORUM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=8).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        for policy in [SyncPolicy::Always, SyncPolicy::Never] {
            eprintln!("KVORUM_SEED={seed} {policy:?}");
            let mut history = History::new(seed, policy);
            for _ in 0..400 {
                history.step();
            }
            history.reopen();
        }
    }
}
