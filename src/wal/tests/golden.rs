//! The golden script of recovery: what a log holds after it was killed, cut, torn and damaged, down to its records.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::support::{block_on, boot, settle};
use crate::ids::{GroupId, RaftId};
use crate::stdx::disk::{Disk, Open};
use crate::stdx::golden::{check, number};
use crate::stdx::memory_disk::MemoryDisk;
use crate::wal::record::{ALIGNMENT, Head, SEGMENT_HEAD_BYTES, Salt};
use crate::wal::segment::{Segment, Window, list, segment_path};
use crate::wal::{GroupState, Next, Record, Stepper, SyncPolicy, Wal, WalError, WalOptions, Woken};

const DIR: &str = "/log";

/// A disk, and the log on it while it is open.
struct Play {
    disk: MemoryDisk,
    boot: u64,
    open: Option<(Wal, Stepper)>,
}

fn group(word: &str) -> GroupId {
    GroupId(number(word.strip_prefix('g').expect("g and a number")))
}

fn ended(outcome: Result<(), Arc<WalError>>) -> String {
    outcome.err().map_or_else(String::new, |error| error.to_string())
}

impl Play {
    fn begin() -> Self {
        let disk = MemoryDisk::new();
        disk.make_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        Self { disk, boot: 1, open: None }
    }

    fn wal(&self) -> &Wal {
        &self.open.as_ref().expect("an open log").0
    }

    fn open(&mut self, policy: &str) -> String {
        let sync = match policy {
            "always" => SyncPolicy::Always,
            "everysec" => SyncPolicy::EverySecond,
            "no" => SyncPolicy::Never,
            _ => panic!("no policy: {policy}"),
        };
        let options = WalOptions {
            sync,
            segment_bytes: 4096,
            boot_id: boot(self.boot),
            ..WalOptions::default()
        };
        let disk = Arc::new(self.disk.clone()) as Arc<dyn Disk>;
        match Wal::open_stepped(&disk, Path::new(DIR), options) {
            Ok((wal, groups, stepper)) => {
                let how = if wal.was_closed_cleanly() { "after a clean stop" } else { "" };
                let lines = groups.iter().map(|(group, state)| holds(*group, state));
                let lines =
                    std::iter::once(format!("open {how}").trim_end().to_owned()).chain(lines);
                let lines = lines.collect::<Vec<_>>().join("\n");
                self.open = Some((wal, stepper));
                lines
            }
            Err(error) => format!("refused: {error}"),
        }
    }

    /// Lets what the log has begun be done by its threads.
    fn step(&mut self, woken: Woken) {
        let (_, stepper) = self.open.as_mut().expect("an open log");
        stepper.step(woken);
        settle(stepper);
    }

    /// The process is gone, and with it what had not reached the kernel.
    fn die(&mut self) {
        self.disk.end_process();
        self.open = None;
    }

    fn cut(&mut self, kept: Option<u64>) {
        self.disk.lose_power(kept);
        self.open = None;
        self.disk.power_on();
        self.boot += 1;
    }

    fn append(&self, words: [&str; 4]) -> String {
        let [to, first, count, bytes] = words;
        let body = Bytes::from(vec![b'x'; number(bytes)]);
        let first: u64 = number(first);
        let records: Vec<Record<'_>> = (first..first + number::<u64>(count))
            .map(|index| Record { index, head: b"", body: &body })
            .collect();
        let (done, outcome) = super::support::done();
        drop(self.wal().append(group(to), &records, done));
        match outcome.try_recv() {
            Ok(Ok(())) => "done".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "waits for a sync".to_owned(),
        }
    }

    /// Every intact record that lies in the segments, and where.
    fn records(&self) -> String {
        let (sequences, spares) = list(&self.disk, Path::new(DIR)).unwrap();
        let mut lines = String::new();
        for sequence in sequences {
            let (path, salt) = (segment_path(Path::new(DIR), sequence), Salt::new(0, sequence));
            let bytes = self.disk.stat(&path).unwrap().bytes;
            let segment = Segment::open(&self.disk, &path, (sequence, salt), bytes).unwrap();
            let mut window = Window::open(Arc::new(segment)).unwrap();
            let mut offset = SEGMENT_HEAD_BYTES as u64;
            writeln!(lines, "segment {sequence}, {bytes} bytes").unwrap();
            let mut behind = "";
            while offset < bytes {
                let Some((head, _)) = window.record(offset).unwrap() else {
                    behind = ", behind the tear";
                    offset += ALIGNMENT as u64;
                    continue;
                };
                let Head { kind, group, index, payload_bytes } = head;
                write!(lines, "{offset:5} {kind:?} {group} {index}, {payload_bytes} bytes")
                    .unwrap();
                writeln!(lines, "{behind}").unwrap();
                offset += head.record_bytes() as u64;
            }
        }
        for spare in spares {
            writeln!(lines, "spare {}", spare.file_name().unwrap().display()).unwrap();
        }
        lines
    }

    fn flip(&self, sequence: &str, offset: &str) {
        let path = segment_path(Path::new(DIR), number(sequence));
        let file = self.disk.open(&path, Open::Write).unwrap();
        let (offset, mut byte) = (number(offset), [0]);
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[!byte[0]], offset).unwrap();
        file.sync_all().unwrap();
    }

    fn answer(&mut self, words: &[&str]) -> String {
        match *words {
            ["begin"] => *self = Self::begin(),
            ["open", policy] => return self.open(policy),
            ["born", to, id] => {
                let born = self.wal().born(group(to), RaftId(number(id)));
                self.step(Woken::ByWork);
                return ended(block_on(born));
            }
            ["ended", to, id] => {
                let gone = self.wal().ended(group(to), RaftId(number(id)));
                self.step(Woken::ByWork);
                return ended(block_on(gone));
            }
            ["vote", to, vote] => {
                let saved = self.wal().save_vote(group(to), Bytes::from(vote.to_owned()));
                self.step(Woken::ByWork);
                return ended(block_on(saved));
            }
            ["append", to, first, count, bytes] => return self.append([to, first, count, bytes]),
            ["truncate", to, kept] => {
                return ended(self.wal().truncate_after(group(to), Some(number(kept))));
            }
            ["purge", to, upto] => {
                return ended(self.wal().purge(group(to), number(upto), Bytes::from_static(b"m")));
            }
            ["whole", to] => return ended(self.wal().whole(group(to))),
            ["sync"] => self.step(Woken::ByWork),
            ["idle"] => self.step(Woken::ByTime),
            ["close"] => {
                let (wal, mut stepper) = self.open.take().expect("an open log");
                let outcome = wal.close();
                while stepper.step(Woken::ByWork) != Next::Ended {}
                return ended(outcome);
            }
            ["kill"] => self.die(),
            ["cut"] => self.cut(None),
            ["cut", kept] => self.cut(Some(number(kept))),
            ["flip", sequence, offset] => self.flip(sequence, offset),
            ["records"] => return self.records(),
            _ => panic!("no such command: {words:?}"),
        }
        String::new()
    }
}

/// What a log holds for a group, in a line.
fn holds(group: GroupId, state: &GroupState) -> String {
    let mut line = format!("{group} is {}", state.raft_id.unwrap());
    if let Some(vote) = &state.vote {
        write!(line, ", voted {}", vote.escape_ascii()).unwrap();
    }
    if let Some((upto, _)) = &state.purged {
        write!(line, ", purged up to {upto}").unwrap();
    }
    match state.last_index {
        Some(last) => write!(line, ", entries {} to {last}", state.first_index).unwrap(),
        None => write!(line, ", no entries").unwrap(),
    }
    if state.is_short {
        line.push_str(", short");
    }
    line
}

#[test]
fn logs_are_recovered_as_the_script_says() {
    let mut play = Play::begin();
    check("wal/recovery.txt", |words| play.answer(words));
}
