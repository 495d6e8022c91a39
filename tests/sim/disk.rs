//! The disk as one process sees it: every act is an event, and none succeeds once the process is dead.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use kvorum::stdx::disk::{Disk, DiskFile, Open, Privacy, Stat};
use kvorum::stdx::memory_disk::MemoryDisk;

use crate::host::Vitals;
use crate::trace;

/// A disk in memory, seen by a process that may die at any act.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    disk: MemoryDisk,
    vitals: Arc<Vitals>,
}

impl SimDisk {
    pub(crate) fn new(disk: MemoryDisk, vitals: Arc<Vitals>) -> Self {
        Self { disk, vitals }
    }

    fn act(&self, what: &str, path: &Path) -> io::Result<()> {
        self.vitals.act()?;
        trace::note(what, format_args!("{}", path.display()));
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        self.act("open", path)?;
        let file = self.disk.open(path, how)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Box::new(SimFile { file, name, vitals: Arc::clone(&self.vitals) }))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.vitals.check()?;
        self.disk.stat(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.vitals.check()?;
        self.disk.list(dir)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.act("make-dir", path)?;
        self.disk.make_dir(path)
    }

    fn make_private(&self, path: &Path) -> io::Result<Privacy> {
        self.vitals.check()?;
        self.disk.make_private(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("rename", to)?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.act("remove", path)?;
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.act("remove-dir", path)?;
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act("sync-dir", dir)?;
        self.disk.sync_dir(dir)
    }

    fn is_crowded(&self) -> bool {
        self.disk.is_crowded()
    }
}

#[derive(Debug)]
struct SimFile {
    file: Box<dyn DiskFile>,
    name: String,
    vitals: Arc<Vitals>,
}

impl SimFile {
    fn act(&self, what: &str) -> io::Result<()> {
        self.vitals.act()?;
        trace::note(what, format_args!("{}", self.name));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.vitals.check()?;
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.vitals.act()?;
        trace::note_bytes("write", format_args!("{} at {offset}", self.name), bytes);
        self.file.write_all_at(bytes, offset)
    }

    fn write_all_vectored_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut end = offset;
        for part in parts {
            self.write_all_at(part, end)?;
            end += part.len() as u64;
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        self.vitals.check()?;
        self.file.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.act("set-bytes")?;
        self.file.set_bytes(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.act("allocate")?;
        self.file.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act("sync")?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.act("sync")?;
        self.file.sync_all()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.vitals.check()?;
        self.file.try_lock()
    }
}
