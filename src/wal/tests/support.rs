//! A disk that can fail and forget, and short words for tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::ids::{GroupId, RaftId};
use crate::stdx::disk::{Disk, DiskFile, Open, Privacy, Stat};
use crate::stdx::fs::SystemDisk;
use crate::wal::{
    BootId, Done, GroupState, Next, Record, Stepper, SyncPolicy, Wal, WalError, WalOptions, Woken,
};

pub(super) const G1: GroupId = GroupId(1);
pub(super) const G2: GroupId = GroupId(2);
pub(super) const G3: GroupId = GroupId(3);

const PAGE_BYTES: u64 = 512;

/// The outcome of an append.
pub(super) type Outcome = Result<(), Arc<WalError>>;

/// Options with segments so small that tests fill many.
pub(super) fn options(sync: SyncPolicy, segment_bytes: u64) -> WalOptions {
    WalOptions { sync, segment_bytes, sync_mark: true, boot_id: boot(1), ..WalOptions::default() }
}

/// [`options`] of a log whose callers sync.
pub(super) fn callers_sync(segment_bytes: u64) -> WalOptions {
    WalOptions {
        callers_sync: true,
        sync_mark: false,
        ..options(SyncPolicy::Always, segment_bytes)
    }
}

/// Opens a log that the test steps, and lets the groups live in it; nothing is left to do, and all is marked.
#[expect(clippy::needless_pass_by_value, reason = "a test's own disk becomes any disk here")]
pub(super) fn open_stepped(disk: Arc<dyn Disk>, dir: &Path, options: WalOptions) -> (Wal, Stepper) {
    let (wal, _, mut stepper) = Wal::open_stepped(&disk, dir, options).unwrap();
    let births = [G1, G2].map(|group| wal.born(group, R1));
    settle(&mut stepper);
    for born in births {
        block_on(born).unwrap();
    }
    assert_eq!(stepper.step(Woken::ByTime), Next::More);
    assert_eq!(settle(&mut stepper), Next::Work);
    (wal, stepper)
}

/// Steps until there is nothing to do; what is waited for then.
pub(super) fn settle(stepper: &mut Stepper) -> Next {
    loop {
        match stepper.step(Woken::ByWork) {
            Next::More => {}
            next @ (Next::Work | Next::WorkWithin(_) | Next::Ended) => return next,
        }
    }
}

/// The replica of every group, unless a test ends it.
pub(super) const R1: RaftId = RaftId(0x51);

/// Opens a log that must open, and lets the groups live in it.
pub(super) fn open(dir: &Path, options: WalOptions) -> (Wal, BTreeMap<GroupId, GroupState>) {
    open_on(SystemDisk::shared(), dir, options)
}

/// [`open`] on a disk of the test's choice.
#[expect(clippy::needless_pass_by_value, reason = "a test's own disk becomes any disk here")]
pub(super) fn open_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: WalOptions,
) -> (Wal, BTreeMap<GroupId, GroupState>) {
    let (wal, groups) = Wal::open_on(&disk, dir, options).unwrap();
    for group in [G1, G2, G3] {
        if !groups.contains_key(&group) && wal.last_ended(group).is_none() {
            block_on(wal.born(group, R1)).unwrap();
        }
    }
    (wal, groups)
}

/// The start `number` of a machine.
pub(super) fn boot(number: u64) -> Option<BootId> {
    BootId::new(number.into())
}

/// A callback and where its outcome arrives.
pub(super) fn done() -> (Done, mpsc::Receiver<Outcome>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |outcome| sender.send(outcome).unwrap_or_default()), receiver)
}

/// Appends one entry and waits for its outcome.
pub(super) fn try_append(wal: &Wal, group: GroupId, index: u64, payload: &[u8]) -> Outcome {
    let (done, outcome) = done();
    let (head, body) = payload.split_at(payload.len() / 3);
    let body = &Bytes::copy_from_slice(body);
    if let Some(owed) = wal.append(group, &[Record { index, head, body }], done) {
        owed.sync();
    }
    outcome.recv().unwrap()
}

/// Appends entries `indexes` whose payload [`payload`] makes.
pub(super) fn append(wal: &Wal, group: GroupId, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        try_append(wal, group, index, &payload(group, index, 0)).unwrap();
    }
}

/// The payload of an entry: its length varies, its bytes tell where it belongs.
pub(super) fn payload(group: GroupId, index: u64, generation: u64) -> Vec<u8> {
    let word = format!("{group}/{index}/{generation}.");
    let bytes = 20 + (index * 37 + generation * 11) % 150;
    word.bytes().cycle().take(usize::try_from(bytes).unwrap()).collect()
}

/// All entries of a group.
pub(super) fn entries(wal: &Wal, group: GroupId, from: u64) -> Vec<(u64, Bytes)> {
    wal.read(group, from..u64::MAX, usize::MAX).unwrap()
}

/// The entries that [`append`] made.
pub(super) fn expected(
    group: GroupId,
    indexes: std::ops::RangeInclusive<u64>,
) -> Vec<(u64, Bytes)> {
    indexes.map(|index| (index, payload(group, index, 0).into())).collect()
}

/// Waits until the log stands at the gate of a sync, which the test holds.
pub(super) fn await_sync(disk: &TestDisk, before: u64) {
    while disk.syncs_begun.load(Ordering::SeqCst) == before {
        std::thread::yield_now();
    }
}

/// Waits for a future that another thread completes.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Copies the files of a log, as a killed process would leave them; false when they were being
/// renamed meanwhile, and `to` is no picture of any moment.
#[must_use]
pub(super) fn copy_dir(from: &Path, to: &Path) -> bool {
    let _absent = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    let names = || {
        let names = std::fs::read_dir(from).unwrap().map(|item| item.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let is_copied = before.iter().all(|name| std::fs::copy(from.join(name), to.join(name)).is_ok());
    is_copied && before == names()
}

/// The segment files of a log, in order.
pub(super) fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let (sequences, _) = crate::wal::segment::list(&SystemDisk, dir).unwrap();
    sequences.into_iter().map(|it| crate::wal::segment::segment_path(dir, it)).collect()
}

/// Numbers that are the same for the same seed (`SplitMix64`).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A disk whose operations fail when told, and that remembers what a power cut could undo.
#[derive(Debug, Default)]
pub(super) struct TestDisk(Arc<Faults>);

/// What goes wrong with segments, and what a power cut would take from them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) fails_write: AtomicBool,
    pub(super) fails_sync: AtomicBool,
    pub(super) fails_allocate: AtomicBool,
    /// What the disk says of itself.
    pub(super) is_crowded: AtomicBool,
    pub(super) syncs: AtomicU64,
    /// Syncs that came to the gate.
    pub(super) syncs_begun: AtomicU64,
    /// While held, no sync begins.
    pub(super) sync_gate: Mutex<()>,
    /// While held, no write and no reservation begins.
    pub(super) write_gate: Mutex<()>,
    /// What pages held before they were written since their file's last sync, by inode and page.
    unsynced: Mutex<BTreeMap<(u64, u64), Vec<u8>>>,
    /// Pages that a failed sync left clean in the cache and old on the disk: no later sync writes them.
    given_up: Mutex<BTreeMap<(u64, u64), Vec<u8>>>,
}

impl Deref for TestDisk {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.0
    }
}

impl Faults {
    fn check(flag: &AtomicBool, errno: i32) -> io::Result<()> {
        if flag.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
    }

    /// Copies the log to `to` as a power cut would leave it: of the pages not synced, some are as they
    /// were before.
    pub(super) fn cut_power(&self, from: &Path, to: &Path, random: &mut Random) {
        // Nothing is written or synced meanwhile; files may still be renamed by the log's thread.
        let unsynced = self.unsynced.lock();
        let given_up = self.given_up.lock();
        while !copy_dir(from, to) {}
        let mercy = random.below(5);
        for path in segments(to) {
            let original = from.join(path.file_name().unwrap());
            // A file given free since the copy was made held nothing unsynced that matters.
            let Ok(metadata) = std::fs::metadata(original) else { continue };
            let inode = metadata.ino();
            let file = File::options().write(true).open(&path).unwrap();
            for ((_, page), before) in unsynced.range((inode, 0)..=(inode, u64::MAX)) {
                if random.below(4) >= mercy {
                    file.write_all_at(before, page * PAGE_BYTES).unwrap();
                }
            }
            for ((_, page), before) in given_up.range((inode, 0)..=(inode, u64::MAX)) {
                file.write_all_at(before, page * PAGE_BYTES).unwrap();
            }
        }
    }
}

impl Disk for TestDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let file = SystemDisk.open(path, how)?;
        if path.extension().is_none_or(|suffix| suffix != "wal") {
            return Ok(file);
        }
        let inode = SystemDisk.stat(path)?.inode;
        Ok(Box::new(TestFile { file, inode, faults: Arc::clone(&self.0) }))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        SystemDisk.stat(path)
    }

    fn exists(&self, path: &Path) -> bool {
        SystemDisk.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        SystemDisk.list(dir)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        SystemDisk.make_dir(path)
    }

    fn make_private(&self, path: &Path) -> io::Result<Privacy> {
        SystemDisk.make_private(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }

    fn is_crowded(&self) -> bool {
        self.is_crowded.load(Ordering::SeqCst)
    }
}

/// A segment on a [`TestDisk`].
#[derive(Debug)]
struct TestFile {
    file: Box<dyn DiskFile>,
    inode: u64,
    faults: Arc<Faults>,
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        const ENOSPC: i32 = 28;
        let _gate = self.faults.write_gate.lock();
        let mut unsynced = self.faults.unsynced.lock();
        let mut given_up = self.faults.given_up.lock();
        let file_bytes = self.file.bytes()?;
        let last = (offset + bytes.len() as u64).div_ceil(PAGE_BYTES);
        for page in offset / PAGE_BYTES..last {
            let given_up = given_up.remove(&(self.inode, page));
            unsynced.entry((self.inode, page)).or_insert_with(|| {
                if let Some(before) = given_up {
                    return before;
                }
                let start = page * PAGE_BYTES;
                let there = file_bytes.saturating_sub(start).min(PAGE_BYTES);
                let mut before = vec![0; usize::try_from(there).unwrap()];
                self.file.read_exact_at(&mut before, start).unwrap();
                before
            });
        }
        Faults::check(&self.faults.fails_write, ENOSPC)?;
        self.file.write_all_at(bytes, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_bytes(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        const ENOSPC: i32 = 28;
        let _gate = self.faults.write_gate.lock();
        Faults::check(&self.faults.fails_allocate, ENOSPC)?;
        self.file.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        const EIO: i32 = 5;
        self.faults.syncs_begun.fetch_add(1, Ordering::SeqCst);
        let _gate = self.faults.sync_gate.lock();
        if let Err(error) = Faults::check(&self.faults.fails_sync, EIO) {
            let mut unsynced = self.faults.unsynced.lock();
            let pages: Vec<_> = unsynced
                .range((self.inode, 0)..=(self.inode, u64::MAX))
                .map(|(page, _)| *page)
                .collect();
            let mut given_up = self.faults.given_up.lock();
            for page in pages {
                let before = unsynced.remove(&page).unwrap();
                given_up.entry(page).or_insert(before);
            }
            return Err(error);
        }
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.faults.unsynced.lock().retain(|(synced, _), _| *synced != self.inode);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
