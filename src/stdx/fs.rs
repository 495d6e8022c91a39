//! The machine's disk, behind the seam of `disk.rs`.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::disk::{Disk, DiskFile, Open, Privacy, Stat};

/// Who may do what with files made here: their owner reads and writes.
const FILE_MODE: u32 = 0o600;

/// Parts that Linux takes in one write.
const PARTS_MAX: usize = 1024;

/// Who may do what in directories made here: their owner everything, others nothing.
const DIR_MODE: u32 = 0o700;

/// What of a mode lets its group and all others in.
const RIGHTS_OF_OTHERS: u32 = 0o077;

/// The user who may do everything anyway.
const ROOT_USER: u32 = 0;

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

    fn make_private(&self, path: &Path) -> io::Result<Privacy> {
        let found = path.symlink_metadata()?;
        let me = rustix::process::geteuid().as_raw();
        if found.is_symlink() && found.uid() != me && found.uid() != ROOT_USER {
            let what = "a symbolic link that another user has made";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let is_link = found.is_symlink();
        let metadata = if is_link { std::fs::metadata(path)? } else { found };
        // Files behind links are never opened to be written, and not ours.
        let is_ours = metadata.is_dir() || (metadata.is_file() && !is_link);
        let mode = metadata.mode();
        if mode & RIGHTS_OF_OTHERS == 0 || !is_ours {
            return Ok(Privacy::Private);
        }
        match std::fs::set_permissions(path, Permissions::from_mode(mode & !RIGHTS_OF_OTHERS)) {
            Ok(()) => Ok(Privacy::Tightened),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Privacy::OfAnother),
            Err(error) => Err(error),
        }
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

    fn is_crowded(&self) -> bool {
        // Where the kernel does not say, nobody knows.
        std::fs::read_to_string(VMSTAT).is_ok_and(|text| nears_throttling(&text))
    }
}

/// Where Linux tells how many pages are yet to be written, and from how many on it makes writers wait.
const VMSTAT: &str = "/proc/vmstat";

/// Whether so many pages are dirty or being written that writers will soon be made to wait. The kernel begins with that
/// half-way between the number at which it begins to write and the one that it allows; three quarters of that is soon.
fn nears_throttling(vmstat: &str) -> bool {
    let [mut dirty, mut writeback, mut background, mut threshold] = [0_u64; 4];
    for line in vmstat.lines() {
        let Some((name, number)) = line.split_once(' ') else { continue };
        let field = match name {
            "nr_dirty" => &mut dirty,
            "nr_writeback" => &mut writeback,
            "nr_dirty_background_threshold" => &mut background,
            "nr_dirty_threshold" => &mut threshold,
            _ => continue,
        };
        *field = number.parse().unwrap_or(0);
    }
    let free_run = background.saturating_add(threshold) / 2;
    free_run > 0 && dirty.saturating_add(writeback) > free_run / 4 * 3
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

    fn write_all_vectored_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_parts(parts, offset, |parts, offset| rustix::io::pwritev(&self.0, parts, offset))
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

/// Writes all of `parts` at `offset` by a `write` that may be interrupted, take a part only, or no more than so many parts.
fn write_parts(
    mut parts: &mut [IoSlice<'_>],
    mut offset: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> Result<usize, Errno>,
) -> io::Result<()> {
    // Parts without bytes go: a write of nothing else would pass for one that does not get on.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match write(&parts[..parts.len().min(PARTS_MAX)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut parts, written);
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies in a file, from 100 on, after `parts` were written by a kernel that does `what` it is told, one after the
    /// other, and then takes everything; and how that ended.
    fn written(parts: &[&[u8]], what: &[Result<usize, Errno>]) -> (Vec<u8>, io::Result<()>) {
        let (mut file, mut turns) = (Vec::new(), what.iter());
        let mut parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let ended = write_parts(&mut parts, 100, |parts, offset| {
            assert!(!parts.is_empty() && parts.len() <= PARTS_MAX);
            let room = turns.next().copied().unwrap_or(Ok(usize::MAX))?;
            let from = usize::try_from(offset).unwrap() - 100;
            assert!(from <= file.len(), "a hole");
            file.truncate(from);
            file.extend(parts.iter().flat_map(|part| part.iter()).take(room));
            Ok(file.len() - from)
        });
        (file, ended)
    }

    #[test]
    fn what_the_kernel_did_not_take_is_written_where_it_belongs() {
        let parts = [&b"ab"[..], b"", b"cde", b"", b"f"];
        for first in 1..=6 {
            for second in 1..=6 {
                let what = [Ok(first), Err(Errno::INTR), Ok(second), Err(Errno::INTR)];
                let (file, ended) = written(&parts, &what);
                ended.unwrap();
                assert_eq!(file, b"abcdef", "{first}, then {second}");
            }
        }
        let many = vec![&b"x"[..]; 2 * PARTS_MAX + 1];
        assert_eq!(written(&many, &[Ok(PARTS_MAX - 1)]).0.len(), many.len());
    }

    #[test]
    fn a_write_that_fails_or_does_not_get_on_ends_and_one_of_nothing_is_none() {
        let (file, ended) = written(&[b"ab", b"cd"], &[Ok(3), Err(Errno::NOSPC)]);
        assert_eq!(
            (&file[..], ended.unwrap_err().kind()),
            (&b"abc"[..], io::ErrorKind::StorageFull)
        );
        let (file, ended) = written(&[b"ab", b"cd"], &[Ok(3), Ok(0)]);
        assert_eq!((&file[..], ended.unwrap_err().kind()), (&b"abc"[..], io::ErrorKind::WriteZero));
        written(&[b"", b""], &[Err(Errno::IO)]).1.unwrap();
        written(&[], &[Err(Errno::IO)]).1.unwrap();
    }

    #[test]
    fn a_disk_is_crowded_before_the_kernel_makes_writers_wait() {
        let text = |dirty: u64, writeback: u64| {
            format!(
                "nr_free_pages 5\nnr_dirty {dirty}\nnr_writeback {writeback}\n\
                 nr_dirty_threshold 1200\nnr_dirty_background_threshold 400\nnr_x 1\n"
            )
        };
        assert!(!nears_throttling(&text(300, 300)));
        assert!(nears_throttling(&text(301, 300)));
        assert!(nears_throttling(&text(0, 900)));
        assert!(!nears_throttling(""), "a kernel that does not say");
        assert!(!nears_throttling("nr_dirty many\n"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_how_much_it_lets_be_dirty() {
        let text = std::fs::read_to_string(VMSTAT).unwrap();
        assert!(text.contains("\nnr_dirty_threshold ") && text.contains("\nnr_dirty "));
    }
}
