//! The starts of a node from its data directory, and what tells the directory from a copy of it.

use std::fmt::Write as _;
use std::path::Path;

use crate::ids::Session;
use crate::stdx::disk::Disk;

use super::data_dir::{IDENTITY_FILE, STARTS_FILE};
use super::error::WalError;
use super::limits::{STARTS_KEPT, STARTS_MAX};
use super::opening::BootId;
use super::sealed_file::{FORMAT_VERSION, lines_after_title, read_sealed, write_sealed};

const STARTS_TITLE: &str = "kvorum starts";

/// The starts of this directory that may matter to the cluster, oldest first, and what the last one was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Starts {
    sessions: Vec<Session>,
    boot_id: Option<BootId>,
    place: Place,
    is_stopped: bool,
}

/// Where a directory lies and since when: what a copy does not take along, be it beside the original or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the directory.
    inode: u64,
    /// When its identity file was made, by the disk's reckoning.
    made: u64,
}

impl Place {
    pub(super) fn of(disk: &dyn Disk, dir: &Path) -> Result<Self, WalError> {
        let identity = dir.join(IDENTITY_FILE);
        let inode = disk.stat(dir).map_err(WalError::io("look at", dir))?.inode;
        let made = disk.stat(&identity).map_err(WalError::io("look at", &identity))?.created;
        Ok(Self { inode, made })
    }
}

impl Starts {
    pub(super) fn first(random: u64, boot_id: Option<BootId>, place: Place) -> Self {
        let sessions = vec![Session { number: 1, random }];
        Self { sessions, boot_id, place, is_stopped: false }
    }

    /// The starts after one more.
    pub(super) fn next(
        mut self,
        dir: &Path,
        random: u64,
        boot_id: Option<BootId>,
        place: Place,
    ) -> Result<Self, WalError> {
        if place != self.place && !self.is_stopped {
            return Err(WalError::Copied { path: dir.to_owned() });
        }
        let damaged = || WalError::corrupt(&dir.join(STARTS_FILE), 0, "it names no start");
        let last = self.sessions.last().ok_or_else(damaged)?;
        let number = last.number.checked_add(1).ok_or_else(damaged)?;
        if self.sessions.len() >= STARTS_MAX {
            // The recorded one is among the first.
            self.sessions.remove(STARTS_MAX / 2);
        }
        self.sessions.push(Session { number, random });
        Ok(Self { sessions: self.sessions, boot_id, place, is_stopped: false })
    }

    /// Those that are told, this one last.
    pub(super) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Without what may be forgotten once the cluster has recorded `session`; `None` when that is nothing.
    pub(super) fn after_recording(&self, session: Session) -> Option<Self> {
        let place = self.sessions.iter().position(|it| *it == session)?;
        let old = place.checked_sub(STARTS_KEPT).filter(|old| *old > 0)?;
        let mut starts = self.clone();
        starts.sessions.drain(..old);
        Some(starts)
    }

    /// The last one stops in order.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
        let boot = self.boot_id.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        let stop = if self.is_stopped { "in order" } else { "none" };
        let mut text = format!(
            "{STARTS_TITLE}\nformat {FORMAT_VERSION}\nboot {boot}\ninode {} made {}\nstop {stop}\n",
            self.place.inode, self.place.made
        );
        for session in &self.sessions {
            writeln!(text, "session {session}").expect("a String takes everything");
        }
        write_sealed(disk, &dir.join(STARTS_FILE), &text)
    }

    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, WalError> {
        let path = dir.join(STARTS_FILE);
        let Some(text) = read_sealed(disk, &path)? else { return Ok(None) };
        let lines = lines_after_title(&path, &text, STARTS_TITLE)?;
        let starts = Self::parse(lines);
        starts.map(Some).ok_or_else(|| WalError::corrupt(&path, 0, "not a list of starts"))
    }

    fn parse<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let boot_id = BootId::parse(lines.next()?.strip_prefix("boot ")?);
        let (inode, made) = lines.next()?.strip_prefix("inode ")?.split_once(" made ")?;
        let place = Place { inode: inode.parse().ok()?, made: made.parse().ok()? };
        let is_stopped = lines.next()?.strip_prefix("stop ")? == "in order";
        let session = |line: &str| {
            let (number, random) = line.strip_prefix("session ")?.split_once('-')?;
            let random = u64::from_str_radix(random, 16).ok()?;
            Some(Session { number: number.parse().ok()?, random })
        };
        let sessions = lines.map(session).collect::<Option<Vec<_>>>()?;
        Some(Self { sessions, boot_id, place, is_stopped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_nobody_records_are_bounded_and_keep_the_first() {
        const PLACE: Place = Place { inode: 7, made: 8 };
        let mut starts = Starts::first(1, None, PLACE);
        for random in 0..2 * STARTS_MAX as u64 {
            starts = starts.next(Path::new("d"), random, None, PLACE).unwrap();
        }
        assert_eq!(starts.sessions.len(), STARTS_MAX);
        assert_eq!(starts.sessions[0], Session { number: 1, random: 1 });
        assert_eq!(starts.sessions.last().unwrap().number, 2 * STARTS_MAX as u64 + 1);
    }
}
