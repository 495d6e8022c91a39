//! The node's data directory: whose it is, that nobody else uses it, and how often it was opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::stdx::fs::write_durably;

use super::error::WalError;

/// The version of the directory's layout.
const FORMAT_VERSION: u32 = 1;

/// Longest name of a node, in bytes.
const NODE_NAME_BYTES_MAX: usize = 255;

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "identity";
const BOOT_EPOCH_FILE: &str = "boot-epoch";
const IDENTITY_TITLE: &str = "kvorum data directory";

/// The locked data directory of this node. Unlocked when dropped, or when the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    boot_epoch: u64,
    _lock: File,
}

impl DataDir {
    /// Locks the directory `path` for the node `node_name`, creating it when there is none, and counts
    /// this opening: the new boot epoch is on the disk when this returns.
    ///
    /// # Errors
    /// [`WalError::InUse`] while another process has it, [`WalError::OtherNode`] when it is another
    /// node's, [`WalError::Version`] when a newer program wrote it, [`WalError::Corrupt`] when its
    /// identity or epoch cannot be read, [`WalError::TooLarge`] for a name over 255 bytes, and
    /// [`WalError::Io`].
    pub fn open(path: &Path, node_name: &str) -> Result<Self, WalError> {
        if node_name.len() > NODE_NAME_BYTES_MAX {
            let (bytes, limit) = (node_name.len(), NODE_NAME_BYTES_MAX);
            return Err(WalError::TooLarge { bytes, limit });
        }
        std::fs::create_dir_all(path).map_err(WalError::io("create", path))?;
        let lock = lock_dir(path)?;
        check_identity(path, node_name)?;
        let boot_epoch = next_boot_epoch(path)?;
        Ok(Self { path: path.to_owned(), boot_epoch, _lock: lock })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the write-ahead log belongs.
    pub fn wal_path(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// Where snapshot files belong.
    pub fn snapshot_path(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// How often this directory was opened, this time included: 1, 2, …; never the same twice.
    pub const fn boot_epoch(&self) -> u64 {
        self.boot_epoch
    }
}

/// Takes the lock of `dir`, which lasts as long as the file returned.
pub(super) fn lock_dir(dir: &Path) -> Result<File, WalError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(WalError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WalError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(WalError::Io { action: "lock", path, source }),
    }
}

/// Compares the identity file with what it must be, or writes it into a new directory.
fn check_identity(dir: &Path, node_name: &str) -> Result<(), WalError> {
    let path = dir.join(IDENTITY_FILE);
    let Some(text) = read_sealed(&path)? else {
        let text = format!("{IDENTITY_TITLE}\nformat {FORMAT_VERSION}\nnode {node_name:?}\n");
        return write_sealed(&path, &text);
    };
    let damaged = || WalError::corrupt(&path, 0, "not an identity file");
    let mut lines = text.lines();
    if lines.next() != Some(IDENTITY_TITLE) {
        return Err(damaged());
    }
    let version = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
    match version.ok_or_else(damaged)? {
        FORMAT_VERSION => {}
        found => return Err(WalError::Version { path, found, known: FORMAT_VERSION }),
    }
    // Debug quoting keeps any name on its line; comparing quoted texts needs no parser for it.
    let found = lines.next().and_then(|line| line.strip_prefix("node ")).ok_or_else(damaged)?;
    if found == format!("{node_name:?}") {
        return Ok(());
    }
    let found = found.trim_matches('"').to_owned();
    Err(WalError::OtherNode { path: dir.to_owned(), found, expected: node_name.to_owned() })
}

/// Counts one more opening, durably.
fn next_boot_epoch(dir: &Path) -> Result<u64, WalError> {
    let path = dir.join(BOOT_EPOCH_FILE);
    let damaged = || WalError::corrupt(&path, 0, "not a boot epoch");
    let last: u64 = match read_sealed(&path)? {
        Some(text) => text.trim_end().parse().map_err(|_| damaged())?,
        None => 0,
    };
    let epoch = last.checked_add(1).ok_or_else(damaged)?;
    write_sealed(&path, &format!("{epoch}\n"))?;
    Ok(epoch)
}

/// Writes a small text with a last line that proves it whole.
fn write_sealed(path: &Path, text: &str) -> Result<(), WalError> {
    let sealed = format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()));
    write_durably(path, sealed.as_bytes()).map_err(WalError::io("write", path))
}

/// The text [`write_sealed`] wrote; `None` when there is no file.
fn read_sealed(path: &Path) -> Result<Option<String>, WalError> {
    let sealed = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(WalError::Io { action: "read", path: path.to_owned(), source }),
    };
    let damaged = || WalError::corrupt(path, 0, "its checksum does not match");
    let sealed = String::from_utf8(sealed).map_err(|_| damaged())?;
    let (text, crc) = sealed.rsplit_once("crc ").ok_or_else(damaged)?;
    if crc != format!("{:08x}\n", crc32fast::hash(text.as_bytes())) {
        return Err(damaged());
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opening_counts_and_the_name_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        for epoch in 1..=3 {
            let data = DataDir::open(&path, "n1").unwrap();
            assert_eq!(data.boot_epoch(), epoch);
            assert_eq!(data.wal_path(), path.join("wal"));
        }
        let error = DataDir::open(&path, "n2").unwrap_err();
        let WalError::OtherNode { found, expected, .. } = &error else { panic!("{error}") };
        assert_eq!((found.as_str(), expected.as_str()), ("n1", "n2"));
        assert_eq!(DataDir::open(&path, "n1").unwrap().boot_epoch(), 4);
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), "n1").unwrap();
        let error = DataDir::open(dir.path(), "n1").unwrap_err();
        assert!(matches!(error, WalError::InUse { .. }), "{error}");
        drop(first);
        assert_eq!(DataDir::open(dir.path(), "n1").unwrap().boot_epoch(), 2);
    }

    #[test]
    fn names_with_odd_characters_are_told_apart() {
        for (name, other) in [("a\nb", "a"), ("\"", ""), ("crc 12345678", "crc"), ("é", "e")] {
            let dir = tempfile::tempdir().unwrap();
            drop(DataDir::open(dir.path(), name).unwrap());
            drop(DataDir::open(dir.path(), name).unwrap());
            assert!(matches!(DataDir::open(dir.path(), other), Err(WalError::OtherNode { .. })));
        }
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(NODE_NAME_BYTES_MAX + 1);
        assert!(matches!(DataDir::open(dir.path(), &long), Err(WalError::TooLarge { .. })));
    }

    #[test]
    fn a_damaged_identity_or_epoch_is_refused() {
        for name in [IDENTITY_FILE, BOOT_EPOCH_FILE] {
            let dir = tempfile::tempdir().unwrap();
            drop(DataDir::open(dir.path(), "n1").unwrap());
            let path = dir.path().join(name);
            let good = std::fs::read(&path).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, bad).unwrap();
                let error = DataDir::open(dir.path(), "n1").unwrap_err();
                assert!(matches!(error, WalError::Corrupt { .. }), "{name}, bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{IDENTITY_TITLE}\nformat 2\nnode \"n1\"\n");
        write_sealed(&dir.path().join(IDENTITY_FILE), &text).unwrap();
        let error = DataDir::open(dir.path(), "n1").unwrap_err();
        assert!(matches!(error, WalError::Version { found: 2, known: 1, .. }), "{error}");
    }
}
