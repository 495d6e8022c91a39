//! The few disk operations that may fail while the log runs, behind a seam where tests fail them.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::stdx::fs::preallocate;

/// How the running log touches its segment files.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync: everything written to `file` before the call is on stable storage after it.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Reserves the first `bytes` bytes of `file`.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Debug)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        preallocate(file, bytes)
    }
}
