//! Files that survive a power cut: what std leaves to the caller about fsync, directories and allocation.
//!
//! A file is on disk when its bytes are synced *and* its name is: creating, renaming or deleting a
//! file changes the directory, which has an fsync of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

/// Suffix of a file that is still being written; whoever owns the directory deletes strays at start.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Who may do what with files made here: their owner reads and writes.
const FILE_MODE: u32 = 0o600;

/// The name under which `path` is written before it is renamed into place.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

/// Makes `options` create files for their owner alone, and follow no symbolic link in the last part of the path: whoever
/// may write to the directory could have it lead anywhere.
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(FILE_MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
}

/// Replaces `path` by `bytes` so that a crash leaves either the old file or the new one, whole.
///
/// # Errors
/// Whatever the file system answers; the old file is then still in place, a stray temporary file may
/// be beside it.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    // A stray, or a link that somebody planted to have another file overwritten: made anew, it is neither.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename_durably(&temporary, path)
}

/// Renames `from`, whose bytes are already synced, to `to` in the same directory and syncs the name.
///
/// # Errors
/// Whatever the file system answers. After an error it is unknown which name a power cut would leave.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_dir(parent_of(to))
}

/// Makes the names in `dir` durable: files created, renamed or deleted before this call.
///
/// # Errors
/// Whatever the file system answers.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Reserves `bytes` bytes for `file` and makes it at least that long, so that later writes inside
/// them change no size and find their blocks.
///
/// On file systems without fallocate the file only gets its length.
///
/// # Errors
/// `StorageFull` when the disk is, or whatever else the file system answers.
pub fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            if file.metadata()?.len() < bytes {
                file.set_len(bytes)
            } else {
                Ok(())
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The directory that holds `path`; `.` for a bare name.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_stray() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        for text in ["first, rather long", "second"] {
            write_durably(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(!temporary_path(&path).exists());
    }

    #[test]
    fn preallocation_makes_a_file_longer_and_never_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("segment")).unwrap();
        for (asked, length) in [(4096, 4096), (100, 4096), (10_000, 10_000)] {
            preallocate(&file, asked).unwrap();
            assert_eq!(file.metadata().unwrap().len(), length);
        }
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(sync_dir(&dir.path().join("nowhere")).is_err());
        assert!(write_durably(&dir.path().join("nowhere/file"), b"x").is_err());
    }
}
