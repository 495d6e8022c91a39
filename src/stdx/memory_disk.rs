//! A disk in memory that knows what is synced and what is not, for tests and simulations.
//!
//! It can lose its power, fail and be full when told. Everything follows from what it is asked and from the seeds it is
//! given: no clock, no entropy, no thread.
//!
//! **What a loss of power leaves.** Of a file's bytes, per page of 512: what was last synced, or what was written since;
//! of its length the same. Of the names: those of each directory's last sync, and of all changes since then a first part,
//! in order, as journaling file systems keep it. Of what is not synced a seed decides how much stays; without one nothing
//! does. A file whose name is gone is gone, synced or not.
//!
//! A failed sync leaves pages that pass for clean and never reach the disk unless they are written anew (Rebello et al.,
//! "Can Applications Recover from fsync Failures?", 2020).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::disk::{Disk, DiskFile, Open, Privacy, Stat};
use super::prng::SplitMix64;

/// What a disk writes whole or not at all, in bytes.
const PAGE_BYTES: usize = 512;

/// The number of the directory `/`.
const ROOT: u64 = 1;

type Page = [u8; PAGE_BYTES];

/// A disk in memory. A clone is another handle of the same one.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    machine: Arc<Mutex<Machine>>,
}

/// What goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It fails, once.
    Error,
    /// The power is lost before it, and the seed says how much of what was not synced stays.
    PowerLoss(Option<u64>),
}

#[derive(Debug)]
struct Machine {
    nodes: BTreeMap<u64, Inode>,
    inodes: u64,
    /// Changes of names that no sync of their directory has covered, oldest first.
    journal: Vec<NameChange>,
    /// Counts losses of power and ends of the process: files opened in an earlier one are dead.
    life: u64,
    is_off: bool,
    is_full: bool,
    is_crowded: bool,
    /// How many files and directories cannot be opened for want of a descriptor.
    lacks: u32,
    operations: u64,
    fault: Option<(u64, Fault)>,
    locked: BTreeSet<u64>,
}

#[derive(Debug)]
enum Inode {
    File(Arc<Mutex<Content>>),
    Dir(Dir),
}

#[derive(Debug, Default)]
struct Dir {
    names: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
}

/// A name that goes, and one that comes, in one step.
#[derive(Debug)]
struct NameChange {
    gone: Option<(u64, OsString)>,
    new: Option<(u64, OsString, u64)>,
}

/// The bytes of a file; pages that are all zero may be absent.
#[derive(Debug, Default)]
struct Content {
    bytes: u64,
    pages: BTreeMap<u64, Box<Page>>,
    synced_bytes: u64,
    /// What the disk has of the pages written since the last sync.
    old: BTreeMap<u64, Old>,
}

#[derive(Debug)]
struct Old {
    page: Option<Box<Page>>,
    /// A sync has failed since: no other will write it.
    is_given_up: bool,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations were asked for so far: calls of [`Disk`] and of [`DiskFile`] that may fail.
    pub fn operations(&self) -> u64 {
        self.machine.lock().operations
    }

    /// Has the operation fail that comes after `count` others.
    pub fn fail_after(&self, count: u64) {
        let mut machine = self.machine.lock();
        machine.fault = Some((machine.operations + count, Fault::Error));
    }

    /// Loses the power before the operation that comes after `count` others, as [`lose_power`](Self::lose_power) does.
    pub fn lose_power_after(&self, count: u64, kept: Option<u64>) {
        let mut machine = self.machine.lock();
        machine.fault = Some((machine.operations + count, Fault::PowerLoss(kept)));
    }

    /// From now on says of itself that writers may be made to wait, or not.
    pub fn set_crowded(&self, is_crowded: bool) {
        self.machine.lock().is_crowded = is_crowded;
    }

    /// While it is full, no file is made or becomes longer.
    pub fn set_full(&self, is_full: bool) {
        self.machine.lock().is_full = is_full;
    }

    /// Has no file descriptor for the next `count` files and directories that are to be opened.
    pub fn lack_descriptors(&self, count: u32) {
        self.machine.lock().lacks = count;
    }

    /// How many of these are still to come.
    pub fn lacks_descriptors(&self) -> u32 {
        self.machine.lock().lacks
    }

    /// Loses the power now: of what was not synced nothing stays, or a part that the seed `kept` picks. Every operation
    /// fails from now on, until [`power_on`](Self::power_on), and on files opened before for ever.
    pub fn lose_power(&self, kept: Option<u64>) {
        self.machine.lock().lose_power(kept);
    }

    /// Whether the power is lost.
    pub fn is_off(&self) -> bool {
        self.machine.lock().is_off
    }

    /// Begins anew after a loss of power; no fault waits any more.
    pub fn power_on(&self) {
        let mut machine = self.machine.lock();
        machine.is_off = false;
        machine.fault = None;
    }

    /// What the death of the process does: nothing is lost, but files opened before are dead and their locks free.
    pub fn end_process(&self) {
        let mut machine = self.machine.lock();
        machine.life += 1;
        machine.locked.clear();
    }

    /// Begins an operation, if it may.
    fn begin(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let mut machine = self.machine.lock();
        machine.begin()?;
        Ok(machine)
    }
}

impl Disk for MemoryDisk {
    fn is_crowded(&self) -> bool {
        self.machine.lock().is_crowded
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.begin()?;
        machine.take_descriptor()?;
        let (dir, name) = machine.place(path)?;
        let found = machine.dir(dir)?.names.get(&name).copied();
        let inode = match (found, how) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), Open::Read | Open::Write) => inode,
            (None, Open::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::Write | Open::New) => {
                machine.check_room()?;
                machine.make(dir, name, Inode::File(Arc::default()))
            }
        };
        let content = match machine.nodes.get(&inode) {
            Some(Inode::File(content)) => Arc::clone(content),
            Some(Inode::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let (life, disk) = (machine.life, self.clone());
        Ok(Box::new(MemoryFile { disk, life, inode, content, is_locker: AtomicBool::new(false) }))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let machine = self.begin()?;
        let inode = machine.find(path)?;
        Ok(match machine.nodes.get(&inode) {
            Some(Inode::File(content)) => {
                Stat { is_dir: false, bytes: content.lock().bytes, inode, created: inode }
            }
            Some(Inode::Dir(_)) => Stat { is_dir: true, bytes: 0, inode, created: inode },
            None => return Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn exists(&self, path: &Path) -> bool {
        self.machine.lock().find(path).is_ok()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut machine = self.begin()?;
        machine.take_descriptor()?;
        Ok(machine.dir(machine.find(dir)?)?.names.keys().cloned().collect())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.begin()?;
        let mut inode = ROOT;
        for name in names(path) {
            inode = match machine.dir(inode)?.names.get(name) {
                Some(inner) => *inner,
                None => machine.make(inode, name.to_owned(), Inode::Dir(Dir::default())),
            };
        }
        machine.dir(inode).map(drop)
    }

    /// There are no users here.
    fn make_private(&self, _path: &Path) -> io::Result<Privacy> {
        Ok(Privacy::Private)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.begin()?;
        let inode = machine.find(from)?;
        let (gone, (dir, name)) = (machine.place(from)?, machine.place(to)?);
        machine.change(NameChange { gone: Some(gone), new: Some((dir, name, inode)) });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.begin()?;
        let inode = machine.find(path)?;
        if matches!(machine.nodes.get(&inode), Some(Inode::Dir(_))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let gone = machine.place(path)?;
        machine.change(NameChange { gone: Some(gone), new: None });
        Ok(())
    }

    /// In one step, other than a real one: a loss of power in the middle leaves all or nothing of it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.begin()?;
        machine.dir(machine.find(path)?)?;
        let gone = machine.place(path)?;
        machine.change(NameChange { gone: Some(gone), new: None });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut machine = self.begin()?;
        machine.take_descriptor()?;
        let inode = machine.find(dir)?;
        machine.dir(inode)?;
        let (covered, rest) =
            std::mem::take(&mut machine.journal).into_iter().partition(|it| it.touches(inode));
        machine.journal = rest;
        machine.keep(covered);
        machine.forget_unreachable();
        Ok(())
    }
}

impl NameChange {
    fn touches(&self, dir: u64) -> bool {
        self.gone.as_ref().is_some_and(|(of, _)| *of == dir)
            || self.new.as_ref().is_some_and(|(of, _, _)| *of == dir)
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            nodes: [(ROOT, Inode::Dir(Dir::default()))].into(),
            inodes: ROOT,
            journal: Vec::new(),
            life: 0,
            is_off: false,
            is_full: false,
            is_crowded: false,
            lacks: 0,
            operations: 0,
            fault: None,
            locked: BTreeSet::new(),
        }
    }
}

impl Machine {
    fn begin(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if self.operations > at => {
                self.fault = None;
                match fault {
                    Fault::Error => return Err(io::Error::other("a fault of this test")),
                    Fault::PowerLoss(kept) => self.lose_power(kept),
                }
            }
            Some(_) | None => {}
        }
        if self.is_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn take_descriptor(&mut self) -> io::Result<()> {
        match self.lacks.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.lacks = left;
                Err(rustix::io::Errno::MFILE.into())
            }
        }
    }

    fn check_room(&self) -> io::Result<()> {
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn dir(&self, inode: u64) -> io::Result<&Dir> {
        match self.nodes.get(&inode) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        names(path).try_fold(ROOT, |dir, name| {
            self.dir(dir)?.names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
        })
    }

    /// The directory that holds `path`, and the name there.
    fn place(&self, path: &Path) -> io::Result<(u64, OsString)> {
        let name = names(path).last().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name.to_owned()))
    }

    fn make(&mut self, dir: u64, name: OsString, node: Inode) -> u64 {
        self.inodes += 1;
        self.nodes.insert(self.inodes, node);
        self.change(NameChange { gone: None, new: Some((dir, name, self.inodes)) });
        self.inodes
    }

    fn change(&mut self, change: NameChange) {
        self.apply(&change, |dir| &mut dir.names);
        self.journal.push(change);
    }

    /// Makes `changes` durable.
    fn keep(&mut self, changes: Vec<NameChange>) {
        for change in changes {
            self.apply(&change, |dir| &mut dir.synced);
        }
    }

    fn apply(
        &mut self,
        change: &NameChange,
        names: impl Fn(&mut Dir) -> &mut BTreeMap<OsString, u64>,
    ) {
        if let Some((dir, name)) = &change.gone
            && let Some(Inode::Dir(dir)) = self.nodes.get_mut(dir)
        {
            names(dir).remove(name);
        }
        if let Some((dir, name, inode)) = &change.new
            && let Some(Inode::Dir(dir)) = self.nodes.get_mut(dir)
        {
            names(dir).insert(name.clone(), *inode);
        }
    }

    /// Drops what no name leads to, neither now nor after a loss of power.
    fn forget_unreachable(&mut self) {
        let (mut reached, mut next) = (BTreeSet::from([ROOT]), vec![ROOT]);
        let waiting = self.journal.iter().filter_map(|change| Some(change.new.as_ref()?.2));
        next.extend(waiting);
        while let Some(inode) = next.pop() {
            reached.insert(inode);
            if let Some(Inode::Dir(dir)) = self.nodes.get(&inode) {
                let inner = dir.names.values().chain(dir.synced.values()).copied();
                next.extend(inner.filter(|inner| !reached.contains(inner)));
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    fn lose_power(&mut self, kept: Option<u64>) {
        let mut random = kept.map(SplitMix64::new);
        let mut below = |bound| random.as_mut().map_or(0, |random| random.below(bound));
        let mut changes = std::mem::take(&mut self.journal);
        changes.truncate(usize::try_from(below(changes.len() as u64 + 1)).unwrap_or(0));
        self.keep(changes);
        // Of some losses little stays, of others nearly all.
        let mercy = below(5);
        for node in self.nodes.values_mut() {
            match node {
                Inode::File(content) => content.lock().lose_unsynced(|| below(4) < mercy),
                Inode::Dir(dir) => dir.names.clone_from(&dir.synced),
            }
        }
        self.forget_unreachable();
        self.life += 1;
        self.locked.clear();
        self.is_off = true;
    }
}

impl Content {
    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        for (page, inner, range) in pages(offset, wanted) {
            match self.pages.get(&page) {
                Some(page) => buffer[range.clone()].copy_from_slice(&page[inner..][..range.len()]),
                None => buffer[range].fill(0),
            }
        }
        wanted
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for (number, inner, range) in pages(offset, bytes.len()) {
            self.keep_old(number);
            let page = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[inner..][..range.len()].copy_from_slice(&bytes[range]);
        }
        self.bytes = self.bytes.max(offset + bytes.len() as u64);
    }

    fn set_bytes(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let first_gone = bytes.div_ceil(PAGE_BYTES as u64);
            let gone: Vec<u64> = self.pages.range(first_gone..).map(|(page, _)| *page).collect();
            for page in gone {
                self.keep_old(page);
                self.pages.remove(&page);
            }
            let kept = usize::try_from(bytes % PAGE_BYTES as u64).unwrap_or(0);
            if kept > 0 && self.pages.contains_key(&(first_gone - 1)) {
                self.keep_old(first_gone - 1);
                self.pages.entry(first_gone - 1).and_modify(|page| page[kept..].fill(0));
            }
        }
        self.bytes = bytes;
    }

    /// Remembers what the disk has of a page that is about to change.
    fn keep_old(&mut self, page: u64) {
        let there = self.pages.get(&page);
        let old = self.old.entry(page);
        let old = old.or_insert_with(|| Old { page: there.cloned(), is_given_up: false });
        old.is_given_up = false;
    }

    fn sync(&mut self) {
        self.old.retain(|_, old| old.is_given_up);
        self.synced_bytes = self.bytes;
    }

    fn fail_sync(&mut self) {
        for old in self.old.values_mut() {
            old.is_given_up = true;
        }
    }

    fn lose_unsynced(&mut self, mut stays: impl FnMut() -> bool) {
        for (number, old) in std::mem::take(&mut self.old) {
            if !old.is_given_up && stays() {
                continue;
            }
            match old.page {
                Some(page) => drop(self.pages.insert(number, page)),
                None => drop(self.pages.remove(&number)),
            }
        }
        if self.bytes != self.synced_bytes && !stays() {
            self.set_bytes(self.synced_bytes);
        }
        self.synced_bytes = self.bytes;
        self.pages.split_off(&self.bytes.div_ceil(PAGE_BYTES as u64));
        self.old.clear();
    }
}

/// The pages that `length` bytes at `offset` lie in: the page, where in it they begin, and which of the bytes they are.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let inner = usize::try_from(at % PAGE_BYTES as u64).unwrap_or(0);
        let count = (PAGE_BYTES - inner).min(length - done);
        let range = done..done + count;
        done += count;
        Some((at / PAGE_BYTES as u64, inner, range))
    })
}

/// The names on the way to `path`; one that is relative begins at the root.
fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    })
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    life: u64,
    inode: u64,
    content: Arc<Mutex<Content>>,
    is_locker: AtomicBool,
}

impl MemoryFile {
    fn begin(&self) -> io::Result<(MutexGuard<'_, Machine>, MutexGuard<'_, Content>)> {
        let machine = self.begin_alive()?;
        Ok((machine, self.content.lock()))
    }

    fn begin_alive(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.disk.begin()?;
        if machine.life == self.life { Ok(machine) } else { Err(dead()) }
    }
}

fn dead() -> io::Error {
    io::Error::other("the process that had opened this file is dead")
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (_machine, content) = self.begin()?;
        Ok(content.read(buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (machine, mut content) = self.begin()?;
        if offset + bytes.len() as u64 > content.bytes {
            machine.check_room()?;
        }
        content.write(bytes, offset);
        Ok(())
    }

    fn write_all_vectored_at(&self, parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let (machine, mut content) = self.begin()?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if offset + bytes as u64 > content.bytes {
            machine.check_room()?;
        }
        for part in parts {
            content.write(part, offset);
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let (_machine, content) = self.begin()?;
        Ok(content.bytes)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let (machine, mut content) = self.begin()?;
        if bytes > content.bytes {
            machine.check_room()?;
        }
        content.set_bytes(bytes);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let (machine, mut content) = self.begin()?;
        if bytes > content.bytes {
            machine.check_room()?;
            content.set_bytes(bytes);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.disk.machine.lock();
        let outcome = machine.begin();
        if machine.life != self.life {
            return Err(dead());
        }
        let mut content = self.content.lock();
        match &outcome {
            Ok(()) => content.sync(),
            Err(_) => content.fail_sync(),
        }
        outcome
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut machine = self.begin_alive()?;
        let is_taken = machine.locked.insert(self.inode);
        self.is_locker.fetch_or(is_taken, Ordering::Relaxed);
        Ok(is_taken)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if self.is_locker.load(Ordering::Relaxed) {
            let mut machine = self.disk.machine.lock();
            if machine.life == self.life {
                machine.locked.remove(&self.inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::is_lack;
    use super::super::disk::read;
    use super::*;

    fn path(name: &str) -> &Path {
        Path::new(name)
    }

    /// A disk with the synced file `f`, which holds two pages of 1.
    fn disk() -> (MemoryDisk, Box<dyn DiskFile>) {
        let disk = MemoryDisk::new();
        let file = disk.open(path("f"), Open::New).unwrap();
        file.write_all_at(&[1; 2 * PAGE_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path("/")).unwrap();
        (disk, file)
    }

    fn content(disk: &MemoryDisk) -> Vec<u8> {
        disk.power_on();
        read(disk, path("f")).unwrap()
    }

    #[test]
    fn a_loss_of_power_takes_the_bytes_that_were_not_synced() {
        let (disk, file) = disk();
        file.write_all_at(&[2; 3 * PAGE_BYTES], 0).unwrap();
        disk.lose_power(None);
        assert_eq!(content(&disk), [1; 2 * PAGE_BYTES]);
        assert!(file.write_all_at(&[3], 0).is_err(), "its process is dead");

        let file = disk.open(path("f"), Open::Write).unwrap();
        file.set_bytes(100).unwrap();
        file.set_bytes(300).unwrap();
        disk.lose_power(None);
        assert_eq!(content(&disk), [1; 2 * PAGE_BYTES]);
    }

    #[test]
    fn of_what_was_not_synced_a_seed_keeps_some_pages() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let (disk, file) = disk();
            file.write_all_at(&[2; 2 * PAGE_BYTES], 0).unwrap();
            disk.lose_power(Some(seed));
            let bytes = content(&disk);
            seen.insert((bytes[0], bytes[PAGE_BYTES]));
            assert!(bytes.chunks(PAGE_BYTES).all(|page| page.iter().all(|it| *it == page[0])));
        }
        assert_eq!(seen, [(1, 1), (1, 2), (2, 1), (2, 2)].into());
    }

    #[test]
    fn names_are_lost_like_bytes_and_in_order() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let (disk, _) = disk();
            disk.rename(path("f"), path("g")).unwrap();
            disk.open(path("h"), Open::New).unwrap().sync_data().unwrap();
            disk.lose_power(if seed == 0 { None } else { Some(seed) });
            disk.power_on();
            let names = disk.list(path("/")).unwrap();
            assert!(seed > 0 || names == ["f"]);
            seen.insert(names);
        }
        assert_eq!(seen, [vec!["f".into()], vec!["g".into()], vec!["g".into(), "h".into()]].into());
        let (disk, _) = disk();
        disk.rename(path("f"), path("g")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        disk.lose_power(None);
        disk.power_on();
        assert_eq!(disk.list(path("/")).unwrap(), ["g"]);
    }

    #[test]
    fn what_a_failed_sync_left_no_later_one_writes() {
        let (disk, file) = disk();
        file.write_all_at(&[2; 2 * PAGE_BYTES], 0).unwrap();
        disk.fail_after(0);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        file.write_all_at(&[3], 0).unwrap();
        file.sync_data().unwrap();
        disk.lose_power(Some(7));
        let bytes = content(&disk);
        assert_eq!((bytes[0], bytes[1], bytes[PAGE_BYTES]), (3, 2, 1));
    }

    #[test]
    fn the_operation_named_fails_or_loses_the_power() {
        let (disk, file) = disk();
        disk.fail_after(1);
        file.write_all_at(&[2], 0).unwrap();
        assert!(file.bytes().is_err());
        assert!(file.bytes().is_ok());
        let before = disk.operations();
        disk.lose_power_after(2, None);
        file.sync_data().unwrap();
        file.write_all_at(&[3], 0).unwrap();
        assert!(file.sync_data().is_err());
        assert!(disk.stat(path("f")).is_err(), "the power is off");
        assert_eq!(disk.operations(), before + 4);
        assert_eq!(content(&disk)[0], 2);
    }

    #[test]
    fn without_descriptors_only_what_is_open_works() {
        let (disk, file) = disk();
        disk.lack_descriptors(3);
        for outcome in [
            disk.open(path("f"), Open::Read).map(drop),
            disk.list(path("/")).map(drop),
            disk.sync_dir(path("/")),
        ] {
            assert!(is_lack(&outcome.unwrap_err()));
            file.sync_data().unwrap();
        }
        assert_eq!(disk.lacks_descriptors(), 0);
        disk.sync_dir(path("/")).unwrap();
    }

    #[test]
    fn a_full_disk_takes_what_needs_no_room() {
        let (disk, file) = disk();
        disk.set_full(true);
        let full =
            |outcome: io::Result<()>| outcome.unwrap_err().kind() == io::ErrorKind::StorageFull;
        assert!(full(file.write_all_at(&[2; 2], 2 * PAGE_BYTES as u64 - 1)));
        assert!(full(file.allocate(4096)));
        assert!(full(disk.open(path("g"), Open::Write).map(drop)));
        file.write_all_at(&[2; 2], 0).unwrap();
        disk.set_full(false);
        file.allocate(4096).unwrap();
    }

    #[test]
    fn the_death_of_a_process_loses_nothing_and_frees_its_locks() {
        let (disk, file) = disk();
        assert!(file.try_lock().unwrap());
        file.write_all_at(&[2], 0).unwrap();
        disk.end_process();
        assert!(file.write_all_at(&[3], 0).is_err());
        let again = disk.open(path("f"), Open::Write).unwrap();
        assert!(again.try_lock().unwrap());
        drop(file);
        assert!(!disk.open(path("f"), Open::Write).unwrap().try_lock().unwrap());
        assert_eq!(content(&disk)[0], 2);
    }
}
