//! The seam between a node and its disk: everything that a data directory needs of one, and nothing else.
//!
//! Two disks stand behind it: the machine's ([`SystemDisk`](super::fs::SystemDisk)), and one in memory that can fail, fill
//! up and lose power ([`MemoryDisk`](super::memory_disk::MemoryDisk)).
//!
//! A file is on the disk when its bytes are synced *and* its name is: creating, renaming or deleting a file changes the
//! directory, which has a sync of its own.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

/// Suffix of a file that is still being written; whoever owns the directory deletes strays at start.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To be read; it must be there.
    Read,
    /// To be read and written; made when there is none, never emptied. No symbolic link is followed, and nobody but its
    /// owner may touch a file made so.
    Write,
    /// As [`Write`](Self::Write), but it must not be there yet.
    New,
}

/// Who may touch what lies under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Nobody but its owner could.
    Private,
    /// Others could, and cannot any more.
    Tightened,
    /// Others can, and it belongs to another user than this process's.
    OfAnother,
}

/// What lies under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// A directory rather than a file.
    pub is_dir: bool,
    /// The length of a file, in bytes.
    pub bytes: u64,
    /// Its number on the disk, which stays when it is renamed.
    pub inode: u64,
    /// When it was made, in nanoseconds of the disk's own reckoning, which no copy keeps; 0 where the disk does not say.
    pub created: u64,
}

/// Files by path.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// Whatever the file system answers, as with every call here.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;

    /// Looks at what lies under `path`, behind symbolic links.
    ///
    /// # Errors
    /// `NotFound` when there is nothing.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// Whether the name `path` is taken, be it by a link that leads nowhere.
    fn exists(&self, path: &Path) -> bool;

    /// The names in the directory `dir`, in no order.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes the directory `path` and those above it where there are none, for their owner alone. One that is there keeps
    /// its mode.
    ///
    /// # Errors
    /// When a file is in the way.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the file or directory `path` away from everybody but its owner.
    ///
    /// # Errors
    /// `PermissionDenied` for a symbolic link that neither this process's user nor root has made.
    fn make_private(&self, path: &Path) -> io::Result<Privacy>;

    /// Gives `from` the name `to`, in one step; a file of that name is gone.
    ///
    /// # Errors
    /// `NotFound` when there is no `from`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes the name of the file `path` away; whoever has it open can still read it.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Deletes the directory `path` with everything in it.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: of files created, renamed or deleted before this call.
    ///
    /// # Errors
    /// After one, it is unknown which names a power cut would leave.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether whoever writes to a file may soon be made to wait until other bytes are on the disk. Asked often: no look at
    /// the disk itself.
    fn is_crowded(&self) -> bool {
        false
    }
}

/// An open file. Closed when dropped, and then its lock is free.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads into `buffer` what there is at `offset`; how many bytes that were, 0 at the end.
    ///
    /// # Errors
    /// Whatever the file system answers, as with every call here.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, making the file longer where need be.
    ///
    /// # Errors
    /// Then any part of them may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// As [`write_all_at`](Self::write_all_at), of `parts` one behind the other. What is left of them afterwards is anything.
    ///
    /// # Errors
    /// As there.
    fn write_all_vectored_at(&self, parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for part in parts {
            self.write_all_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Its length.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn bytes(&self) -> io::Result<u64>;

    /// Cuts it to `bytes`, or fills it up with zeros.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Reserves `bytes` bytes and makes the file at least that long, so that later writes inside them change no size and
    /// find their blocks.
    ///
    /// # Errors
    /// `StorageFull` when the disk is.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// fdatasync: everything written to the file before the call, and its length, is on stable storage after it.
    ///
    /// # Errors
    /// Then what was written may be lost, also if a later sync succeeds.
    fn sync_data(&self) -> io::Result<()>;

    /// fsync: as [`sync_data`](Self::sync_data), with what else the file system keeps of the file.
    ///
    /// # Errors
    /// As there.
    fn sync_all(&self) -> io::Result<()>;

    /// Takes the lock of the file, which lasts until it is closed; false while another has it.
    ///
    /// # Errors
    /// When the file system knows no locks.
    fn try_lock(&self) -> io::Result<bool>;
}

/// All bytes of the file `path`.
///
/// # Errors
/// Whatever the file system answers.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut Sequential::new(disk.open(path, Open::Read)?), &mut bytes)?;
    Ok(bytes)
}

/// The name under which `path` is written before it is renamed into place.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

/// Replaces `path` by `bytes` so that a crash leaves either the old file or the new one, whole.
///
/// # Errors
/// Whatever the file system answers; the old file is then still in place, a stray temporary file may
/// be beside it.
pub fn write_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    // A stray, or a link that somebody planted to have another file overwritten: made anew, it is neither.
    match disk.remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = disk.open(&temporary, Open::New)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(parent_of(path))
}

/// The directory that holds `path`; `.` for a bare name.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is read or written from its beginning to its end.
#[derive(Debug)]
pub struct Sequential {
    file: Box<dyn DiskFile>,
    offset: u64,
}

impl Sequential {
    /// At the beginning of `file`.
    pub fn new(file: Box<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }

    /// The file itself.
    pub fn file(&self) -> &dyn DiskFile {
        self.file.as_ref()
    }
}

impl io::Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.offset)?;
        self.offset += bytes as u64;
        Ok(bytes)
    }
}

impl io::Write for Sequential {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::super::fs::SystemDisk;
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    /// Does `test` on the machine's disk and on one in memory, each time in an empty directory.
    fn on_both(test: impl Fn(&dyn Disk, &Path)) {
        let dir = tempfile::tempdir().unwrap();
        test(&SystemDisk, dir.path());
        let memory = MemoryDisk::new();
        memory.make_dir(Path::new("/dir")).unwrap();
        test(&memory, Path::new("/dir"));
    }

    fn kind<T: fmt::Debug>(outcome: io::Result<T>) -> io::ErrorKind {
        outcome.unwrap_err().kind()
    }

    #[test]
    fn bytes_are_where_they_were_written() {
        on_both(|disk, dir| {
            let path = dir.join("file");
            assert_eq!(kind(disk.open(&path, Open::Read)), io::ErrorKind::NotFound);
            let file = disk.open(&path, Open::New).unwrap();
            assert_eq!(kind(disk.open(&path, Open::New)), io::ErrorKind::AlreadyExists);
            file.write_all_at(b"middle", 1000).unwrap();
            file.write_all_at(b"start", 0).unwrap();
            assert_eq!(file.bytes().unwrap(), 1006);
            let mut buffer = [1; 8];
            assert_eq!(file.read_at(&mut buffer, 1003).unwrap(), 3);
            assert_eq!(file.read_at(&mut buffer, 2000).unwrap(), 0);
            assert_eq!(kind(file.read_exact_at(&mut buffer, 1003)), io::ErrorKind::UnexpectedEof);
            file.read_exact_at(&mut buffer, 996).unwrap();
            assert_eq!(&buffer, b"\0\0\0\0midd");
            for (bytes, length) in [(1002, 1002), (1500, 1500)] {
                file.set_bytes(bytes).unwrap();
                assert_eq!(file.bytes().unwrap(), length);
            }
            file.read_exact_at(&mut buffer, 998).unwrap();
            assert_eq!(&buffer, b"\0\0mi\0\0\0\0", "cut off and filled up");
            for (bytes, length) in [(100, 1500), (4096, 4096)] {
                file.allocate(bytes).unwrap();
                assert_eq!(file.bytes().unwrap(), length);
            }
            let mut parts: Vec<_> = (0..2000).map(|part| vec![7; part % 3]).collect();
            parts[1999] = b"end".to_vec();
            let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            file.write_all_vectored_at(&mut slices, 1200).unwrap();
            file.read_exact_at(&mut buffer, 1200 + 1998 - 3).unwrap();
            assert_eq!(&buffer, b"\x07\x07\x07end\0\0", "more parts than one write takes");
            file.sync_data().unwrap();
            let again = disk.open(&path, Open::Write).unwrap();
            again.read_exact_at(&mut buffer[..5], 0).unwrap();
            assert_eq!(&buffer[..5], b"start");
            assert_eq!(read(disk, &path).unwrap().len(), 4096);
        });
    }

    #[test]
    fn names_come_move_and_go() {
        on_both(|disk, dir| {
            let names = |dir: &Path| {
                let mut names = disk.list(dir).unwrap();
                names.sort();
                names
            };
            let (inner, a, b) = (dir.join("x/y"), dir.join("x/a"), dir.join("x/b"));
            disk.make_dir(&inner).unwrap();
            disk.make_dir(&inner).unwrap();
            assert!(disk.stat(&inner).unwrap().is_dir);
            let file = disk.open(&a, Open::New).unwrap();
            file.write_all_at(b"abc", 0).unwrap();
            assert_eq!(names(&dir.join("x")), ["a", "y"]);
            let before = disk.stat(&a).unwrap();
            assert_eq!((before.is_dir, before.bytes), (false, 3));
            drop(disk.open(&b, Open::New).unwrap());
            disk.rename(&a, &b).unwrap();
            assert_eq!(disk.stat(&b).unwrap(), before, "it replaced the other");
            assert!(!disk.exists(&a) && disk.exists(&b));
            disk.rename(&dir.join("x"), &dir.join("z")).unwrap();
            assert_eq!(names(&dir.join("z")), ["b", "y"]);
            disk.sync_dir(&dir.join("z")).unwrap();
            disk.remove_file(&dir.join("z/b")).unwrap();
            let mut buffer = [0; 3];
            file.read_exact_at(&mut buffer, 0).unwrap();
            assert_eq!(&buffer, b"abc", "open, it stays");
            disk.remove_dir_all(&dir.join("z")).unwrap();
            assert!(names(dir).is_empty());
            for outcome in [
                disk.rename(&a, &b),
                disk.remove_file(&a),
                disk.remove_dir_all(&dir.join("z")),
                disk.sync_dir(&dir.join("z")),
                disk.list(&dir.join("z")).map(drop),
                disk.stat(&a).map(drop),
                disk.open(&dir.join("z/a"), Open::New).map(drop),
                write_durably(disk, &dir.join("z/a"), b"x"),
            ] {
                assert_eq!(kind(outcome), io::ErrorKind::NotFound);
            }
        });
    }

    #[test]
    fn a_lock_is_one_file_handles_until_it_is_closed() {
        on_both(|disk, dir| {
            let open = || disk.open(&dir.join("lock"), Open::Write).unwrap();
            let (first, second) = (open(), open());
            assert!(first.try_lock().unwrap());
            assert!(!second.try_lock().unwrap());
            drop(first);
            assert!(second.try_lock().unwrap());
        });
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_stray() {
        on_both(|disk, dir| {
            let path = dir.join("identity");
            for text in ["first, rather long", "second"] {
                write_durably(disk, &path, text.as_bytes()).unwrap();
                assert_eq!(read(disk, &path).unwrap(), text.as_bytes());
            }
            assert!(!disk.exists(&temporary_path(&path)));
        });
    }

    #[test]
    fn what_is_written_in_order_is_read_in_order() {
        on_both(|disk, dir| {
            let path = dir.join("sequence");
            let mut file = Sequential::new(disk.open(&path, Open::New).unwrap());
            for piece in ["one ", "two ", "three"] {
                file.write_all(piece.as_bytes()).unwrap();
            }
            let mut text = String::new();
            let mut file = Sequential::new(disk.open(&path, Open::Read).unwrap());
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "one two three");
        });
    }
}
