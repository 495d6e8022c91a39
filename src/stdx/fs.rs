//! The machine's disk, behind the seam of `disk.rs`.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::disk::{Disk, DiskFile, Open, Stat};

/// Who may do what with files made here: their owner reads and writes.
const FILE_MODE: u32 = 0o600;

/// Who may do what in directories made here: their owner everything, others nothing.
const DIR_MODE: u32 = 0o700;

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl SystemDisk {
    /// The machine's disk for whoever takes any.
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for SystemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = match how {
            Open::Read => options.read(true).open(path),
            Open::Write => private(&mut options).create(true).truncate(false).open(path),
            Open::New => private(&mut options).create_new(true).open(path),
        };
        Ok(Box::new(SystemFile(file?)))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let metadata = std::fs::metadata(path)?;
        let created = metadata.created().ok();
        let created = created.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(Stat {
            is_dir: metadata.is_dir(),
            bytes: metadata.len(),
            inode: metadata.ino(),
            created: created.and_then(|at| u64::try_from(at.as_nanos()).ok()).unwrap_or(0),
        })
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(dir)?.map(|item| Ok(item?.file_name())).collect()
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Makes `options` read and write, create files for their owner alone, and follow no symbolic link in the last part of the
/// path: whoever may write to the directory could have it lead anywhere.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    options.read(true).write(true).mode(FILE_MODE).custom_flags(no_follow)
}

#[derive(Debug)]
struct SystemFile(File);

impl DiskFile for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    /// On file systems without fallocate the file only gets its length.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                if self.bytes()? < bytes {
                    self.set_bytes(bytes)
                } else {
                    Ok(())
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
