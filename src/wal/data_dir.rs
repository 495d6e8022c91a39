//! The node's data directory: which one it is, whose, that nobody else uses it, and how often it was started from.
//!
//! | file | holds |
//! | --- | --- |
//! | `identity` | the directory's incarnation and the node's name; written once |
//! | `starts` | every start since the last one the cluster is known to have recorded; where the directory lies on disk |
//! | `cluster` | what the cluster that adopted it said; written once |
//! | `wal/`, `snapshots/` | the log, which repeats the incarnation, and the snapshots |
//! | `set-aside-<n>/` | what was left of a directory that had lost a part |
//!
//! **Invariant:** a directory keeps its incarnation only with everything that was ever written under it. The log is made,
//! empty, before the identity that names it, so an identity without its log has lost it, and so has a log without its
//! identity or without its starts: whoever remembers only half of what it promised must not pass for the one who promised.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Incarnation, Session};
use crate::stdx::disk::{Disk, DiskFile, Open};

use super::error::WalError;
use super::limits::CLUSTER_RECORD_BYTES_MAX;
use super::loss::{SET_ASIDE_PREFIX, set_aside, what_is_lost};
use super::opening::BootId;
use super::privacy;
use super::recovery;
use super::sealed_file::{FORMAT_VERSION, lines_after_title, read_sealed, write_sealed};
use super::snapshot_file::SnapshotDir;
use super::starts::{Place, Starts};

/// The last of the versions before, whose logs cannot be read any more.
const FORMAT_VERSION_OUTDATED: u32 = 2;

/// Longest name of a node, in bytes.
const NODE_NAME_BYTES_MAX: usize = 255;

pub(super) const LOCK_FILE: &str = "lock";
pub(super) const IDENTITY_FILE: &str = "identity";
pub(super) const STARTS_FILE: &str = "starts";
pub(super) const CLUSTER_FILE: &str = "cluster";
pub(super) const WAL_DIR: &str = "wal";
pub(super) const SNAPSHOT_DIR: &str = "snapshots";
const IDENTITY_TITLE: &str = "kvorum data directory";
const CLUSTER_TITLE: &str = "kvorum cluster";

/// Who opens a data directory.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The node's name, at most 255 bytes.
    pub node_name: &'a str,
    /// It is the only node of its cluster: nobody else has its data.
    pub is_sole: bool,
    /// This start of the machine.
    pub boot_id: Option<BootId>,
}

/// The locked data directory of this node. Unlocked when dropped, or when the process ends.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    incarnation: Incarnation,
    boot_id: Option<BootId>,
    starts: Starts,
    adopted: Option<Bytes>,
    _lock: Box<dyn DiskFile>,
}

impl DataDir {
    /// Locks the directory `path` of `disk` for the node that makes the `claim`, creating it when there is none, and notes
    /// this start: it is on the disk when this returns. `entropy` gives 64 random bits a call, which no other node or start
    /// may share.
    ///
    /// A directory that has lost its log or its identity becomes a new, empty one, another incarnation; what remains of
    /// the old one is set aside. Where the node is the only one of its cluster, it is refused instead: nobody else has the
    /// data.
    ///
    /// # Errors
    /// [`WalError::InUse`] while another process has it, [`WalError::OtherNode`] when it is another node's,
    /// [`WalError::Outdated`] and [`WalError::Version`] when an earlier or a newer program wrote it,
    /// [`WalError::Corrupt`] when one of its small files cannot be read, [`WalError::LostDisk`], [`WalError::Copied`] for
    /// the copy of a directory in use, [`WalError::TooLarge`] for a name over 255 bytes, and [`WalError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        claim: Claim<'_>,
        entropy: &mut dyn FnMut() -> u64,
    ) -> Result<Self, WalError> {
        let Claim { node_name, is_sole, boot_id } = claim;
        let on = disk.as_ref();
        if node_name.len() > NODE_NAME_BYTES_MAX {
            let (bytes, limit) = (node_name.len(), NODE_NAME_BYTES_MAX);
            return Err(WalError::TooLarge { bytes, limit });
        }
        make_dir(on, path)?;
        let lock = lock_dir(on, path)?;
        privacy::tighten(on, path, |name| name == LOCK_FILE || name.starts_with(SET_ASIDE_PREFIX))?;
        let found = read_identity(on, path, node_name)?;
        let incarnation = match (found, what_is_lost(on, path, found)?) {
            (Some(incarnation), None) => incarnation,
            (None, None) => make(on, path, node_name, entropy)?,
            (_, Some(what)) if is_sole => {
                return Err(WalError::LostDisk { path: path.to_owned(), what });
            }
            (_, Some(what)) => {
                set_aside(on, path, what)?;
                make(on, path, node_name, entropy)?
            }
        };
        let place = Place::of(on, path)?;
        let random = entropy();
        let starts = match Starts::read(on, path)? {
            Some(before) => before.next(path, random, boot_id, place)?,
            None => Starts::first(random, boot_id, place),
        };
        starts.write(on, path)?;
        let adopted = read_cluster(on, path)?;
        let path = path.to_owned();
        Ok(Self { disk, path, incarnation, boot_id, starts, adopted, _lock: lock })
    }

    /// The disk it lies on.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the write-ahead log belongs.
    pub fn wal_path(&self) -> PathBuf {
        self.path.join(WAL_DIR)
    }

    /// Where snapshot files belong.
    pub fn snapshots(&self) -> SnapshotDir {
        SnapshotDir::new(self.disk(), self.path.join(SNAPSHOT_DIR))
    }

    /// Which directory this is.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Which start of the machine this is.
    pub const fn boot_id(&self) -> Option<BootId> {
        self.boot_id
    }

    /// This start.
    pub fn session(&self) -> Session {
        self.starts.sessions().last().copied().unwrap_or_default()
    }

    /// Every start since the last one that is known to be recorded by the cluster, that one and this one included, and
    /// [`STARTS_KEPT`](super::limits::STARTS_KEPT) before it.
    pub fn starts(&self) -> &[Session] {
        self.starts.sessions()
    }

    /// Notes that the cluster has recorded `session`: all but the [`STARTS_KEPT`](super::limits::STARTS_KEPT) before it are
    /// forgotten, durably. Unknown ones are ignored.
    ///
    /// # Errors
    /// [`WalError::Io`]; then nothing is forgotten.
    pub fn note_recorded(&mut self, session: Session) -> Result<(), WalError> {
        if let Some(starts) = self.starts.after_recording(session) {
            starts.write(self.disk.as_ref(), &self.path)?;
            self.starts = starts;
        }
        Ok(())
    }

    /// Gives this directory to the cluster that `record` describes, durably and for good.
    ///
    /// # Errors
    /// [`WalError::AdoptedBefore`] when another record was adopted before; the same one again is no error.
    /// [`WalError::TooLarge`] over [`CLUSTER_RECORD_BYTES_MAX`], and [`WalError::Io`].
    pub fn adopt(&mut self, record: &[u8]) -> Result<(), WalError> {
        match &self.adopted {
            Some(before) if before == record => return Ok(()),
            Some(_) => return Err(WalError::AdoptedBefore { path: self.path.clone() }),
            None => {}
        }
        if record.len() > CLUSTER_RECORD_BYTES_MAX {
            let (bytes, limit) = (record.len(), CLUSTER_RECORD_BYTES_MAX);
            return Err(WalError::TooLarge { bytes, limit });
        }
        let mut text = format!("{CLUSTER_TITLE}\nformat {FORMAT_VERSION}\nrecord ");
        for byte in record {
            write!(text, "{byte:02x}").expect("a String takes everything");
        }
        text.push('\n');
        write_sealed(self.disk.as_ref(), &self.path.join(CLUSTER_FILE), &text)?;
        self.adopted = Some(Bytes::copy_from_slice(record));
        Ok(())
    }

    /// The record of the cluster that adopted this directory.
    pub fn adopted(&self) -> Option<Bytes> {
        self.adopted.clone()
    }

    /// Notes that the node stops in order, after its log was closed: from now on the directory may be moved.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn note_stop(&mut self) -> Result<(), WalError> {
        self.starts.stop();
        self.starts.write(self.disk.as_ref(), &self.path)
    }
}

/// Takes the lock of `dir`, which lasts as long as the file returned.
pub(super) fn lock_dir(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskFile>, WalError> {
    let path = dir.join(LOCK_FILE);
    let file = disk.open(&path, Open::Write).map_err(WalError::io("open", &path))?;
    if file.try_lock().map_err(WalError::io("lock", &path))? {
        Ok(file)
    } else {
        Err(WalError::InUse { path: dir.to_owned() })
    }
}

/// Makes the directory `path`, where there is none.
pub(super) fn make_dir(disk: &dyn Disk, path: &Path) -> Result<(), WalError> {
    disk.make_dir(path).map_err(WalError::io("create", path))
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))
}

pub(super) fn is_dir(disk: &dyn Disk, path: &Path) -> bool {
    disk.stat(path).is_ok_and(|stat| stat.is_dir)
}

/// The incarnation in the identity file, after it was compared with what it must be; `None` without a file.
fn read_identity(
    disk: &dyn Disk,
    dir: &Path,
    node_name: &str,
) -> Result<Option<Incarnation>, WalError> {
    let path = dir.join(IDENTITY_FILE);
    let Some(text) = read_sealed(disk, &path)? else { return Ok(None) };
    let damaged = || WalError::corrupt(&path, 0, "not an identity file");
    let mut lines = text.lines();
    if lines.next() != Some(IDENTITY_TITLE) {
        return Err(damaged());
    }
    let version = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
    match version.ok_or_else(damaged)? {
        FORMAT_VERSION => {}
        found if found <= FORMAT_VERSION_OUTDATED => {
            return Err(WalError::Outdated { path: dir.to_owned(), found });
        }
        found => return Err(WalError::Version { path, found, known: FORMAT_VERSION }),
    }
    let incarnation = lines.next().and_then(|line| line.strip_prefix("incarnation "));
    let incarnation = incarnation.and_then(|digits| u128::from_str_radix(digits, 16).ok());
    let incarnation = Incarnation(incarnation.ok_or_else(damaged)?);
    // Debug quoting keeps any name on its line; comparing quoted texts needs no parser for it.
    let found = lines.next().and_then(|line| line.strip_prefix("node ")).ok_or_else(damaged)?;
    if found == format!("{node_name:?}") {
        return Ok(Some(incarnation));
    }
    let found = found.trim_matches('"').to_owned();
    Err(WalError::OtherNode { path: dir.to_owned(), found, expected: node_name.to_owned() })
}

/// Makes a new directory of `path`, where nothing of value lies: an empty log first, the identity last.
fn make(
    disk: &dyn Disk,
    path: &Path,
    node_name: &str,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<Incarnation, WalError> {
    let incarnation = Incarnation((u128::from(entropy()) << 64) | u128::from(entropy()));
    let wal = path.join(WAL_DIR);
    if is_dir(disk, &wal) {
        // What a crash in the middle of this left, with an incarnation that nobody ever heard of.
        disk.remove_dir_all(&wal).map_err(WalError::io("delete", &wal))?;
    }
    make_dir(disk, &wal)?;
    make_dir(disk, &path.join(SNAPSHOT_DIR))?;
    recovery::make(disk, &wal, incarnation, entropy())?;
    sync_dir(disk, path)?;
    // `Debug` quotes the name, so that any name stays on its line.
    let text = format!(
        "{IDENTITY_TITLE}\nformat {FORMAT_VERSION}\nincarnation {incarnation}\nnode {node_name:?}\n"
    );
    write_sealed(disk, &path.join(IDENTITY_FILE), &text)?;
    // The directory's own name, or a power cut takes all of it: then it was never there for anyone else either.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(disk, parent)?;
    }
    Ok(incarnation)
}

/// The record in the `cluster` file; `None` without one.
fn read_cluster(disk: &dyn Disk, dir: &Path) -> Result<Option<Bytes>, WalError> {
    let path = dir.join(CLUSTER_FILE);
    let Some(text) = read_sealed(disk, &path)? else { return Ok(None) };
    let digits = lines_after_title(&path, &text, CLUSTER_TITLE)?;
    let record = { digits }.next().and_then(|line| parse_hex(line.strip_prefix("record ")?));
    let record = record.ok_or_else(|| WalError::corrupt(&path, 0, "not a cluster file"))?;
    Ok(Some(record.into()))
}

fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::stdx::fs::SystemDisk;
    use crate::wal::limits::STARTS_KEPT;
    use crate::wal::loss::PARTS;
    use crate::wal::{SyncPolicy, Wal, WalOptions};

    /// Bits that differ from call to call.
    fn entropy(seed: u64) -> impl FnMut() -> u64 {
        let mut count = seed << 32;
        move || {
            count += 1;
            count.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }
    }

    fn open_as(path: &Path, name: &str, seed: u64) -> Result<DataDir, WalError> {
        let claim = Claim { node_name: name, is_sole: false, boot_id: BootId::read() };
        DataDir::open(SystemDisk::shared(), path, claim, &mut entropy(seed))
    }

    /// Opens it as the only node of a cluster.
    fn open_alone(path: &Path, seed: u64) -> Result<DataDir, WalError> {
        let claim = Claim { node_name: "n1", is_sole: true, boot_id: None };
        DataDir::open(SystemDisk::shared(), path, claim, &mut entropy(seed))
    }

    fn exists(path: &Path) -> bool {
        SystemDisk.exists(path)
    }

    fn open(path: &Path, seed: u64) -> Result<DataDir, WalError> {
        open_as(path, "n1", seed)
    }

    #[test]
    fn the_same_entropy_makes_the_same_directory() {
        let made = |seed| {
            let dir = tempfile::tempdir().unwrap();
            let data = open(dir.path(), seed).unwrap();
            let read = |path: PathBuf| std::fs::read(path).unwrap();
            let log = crate::wal::recovery::FORMAT_FILE;
            (read(data.wal_path().join(log)), read(dir.path().join(IDENTITY_FILE)))
        };
        assert_eq!(made(1), made(1));
        let (one, other) = (made(1), made(2));
        assert!(one.0 != other.0 && one.1 != other.1);
    }

    /// Opens the directory's log, as a node does, and lets it write.
    fn use_log(data: &DataDir) {
        let options = WalOptions {
            sync: SyncPolicy::Always,
            segment_bytes: 4096,
            incarnation: data.incarnation(),
            session: data.session(),
            ..WalOptions::default()
        };
        let (wal, _) = Wal::open(&data.wal_path(), options).unwrap();
        wal.sync().unwrap();
    }

    #[test]
    fn a_directory_keeps_its_incarnation_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mut sessions = Vec::new();
        let mut incarnation = Incarnation::NONE;
        for number in 1..=3 {
            let data = open(&path, number).unwrap();
            sessions.push(data.session());
            assert_eq!((data.session().number, data.starts()), (number, sessions.as_slice()));
            assert!(number == 1 || data.incarnation() == incarnation);
            incarnation = data.incarnation();
            use_log(&data);
        }
        assert_ne!(incarnation, Incarnation::NONE);
        let mut data = open(&path, 4).unwrap();
        data.note_recorded(Session { number: 2, random: 0 }).unwrap();
        assert_eq!(data.starts().len(), 4, "an unknown one is ignored");
        data.note_recorded(sessions[1]).unwrap();
        assert_eq!(data.starts()[..3], sessions, "the record may be taken back");
        drop(data);
        for number in 5..=100 {
            let mut data = open(&path, number).unwrap();
            let session = data.session();
            data.note_recorded(session).unwrap();
            assert!(data.starts().len() <= STARTS_KEPT + 1);
        }
        assert_eq!(open(&path, 101).unwrap().starts().len(), STARTS_KEPT + 2);
        let error = open_as(&path, "n2", 6).unwrap_err();
        let WalError::OtherNode { found, expected, .. } = &error else { panic!("{error}") };
        assert_eq!((found.as_str(), expected.as_str()), ("n1", "n2"));
    }

    #[test]
    fn a_cluster_adopts_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = open(dir.path(), 1).unwrap();
        assert_eq!(data.adopted(), None);
        data.adopt(b"\x00record\n").unwrap();
        data.adopt(b"\x00record\n").unwrap();
        let error = data.adopt(b"another").unwrap_err();
        assert!(matches!(error, WalError::AdoptedBefore { .. }), "{error}");
        drop(data);
        let mut data = open(dir.path(), 2).unwrap();
        assert_eq!(data.adopted(), Some(Bytes::from_static(b"\x00record\n")));
        assert!(data.adopt(b"another").is_err());
    }

    #[test]
    fn a_lost_part_makes_a_new_directory_and_what_remains_is_set_aside() {
        for lost in [WAL_DIR, "wal/format", "wal/0000000000000001.wal", IDENTITY_FILE, STARTS_FILE]
        {
            let dir = tempfile::tempdir().unwrap();
            let data = open(dir.path(), 1).unwrap();
            use_log(&data);
            let before = data.incarnation();
            std::fs::write(data.snapshots().path().join("x.snap"), "kept").unwrap();
            drop(data);
            let path = dir.path().join(lost);
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            let alone = open_alone(dir.path(), 2);
            assert!(matches!(alone, Err(WalError::LostDisk { .. })), "{lost}: {alone:?}");
            let data = open(dir.path(), 3).unwrap();
            assert_ne!(data.incarnation(), before, "{lost}");
            assert_eq!(data.session().number, 1);
            let aside = dir.path().join("set-aside-1");
            assert_eq!(std::fs::read_to_string(aside.join("snapshots/x.snap")).unwrap(), "kept");
            use_log(&data);
            let after = data.incarnation();
            drop(data);
            assert_eq!(open(dir.path(), 4).unwrap().incarnation(), after);
        }
    }

    #[test]
    fn setting_aside_goes_on_after_a_crash_at_any_point() {
        for crash in 0..PARTS.len() {
            let dir = tempfile::tempdir().unwrap();
            let data = open(dir.path(), 1).unwrap();
            use_log(&data);
            let before = data.incarnation();
            std::fs::write(data.snapshots().path().join("x.snap"), "kept").unwrap();
            drop(data);
            // As far as an earlier try came.
            let aside = dir.path().join("set-aside-1");
            std::fs::create_dir(&aside).unwrap();
            let parts = PARTS.iter().filter(|part| exists(&dir.path().join(part)));
            for part in parts.take(crash + 1) {
                std::fs::rename(dir.path().join(part), aside.join(part)).unwrap();
            }
            let data = open(dir.path(), 2).unwrap();
            assert_ne!(data.incarnation(), before, "after part {crash}");
            use_log(&data);
        }
    }

    #[test]
    fn a_first_start_that_died_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path(), 1).unwrap();
        drop(data);
        // Before its list of starts was written, then before its identity was, then before its log was.
        for lost in [STARTS_FILE, IDENTITY_FILE, "wal/0000000000000001.wal"] {
            for name in [STARTS_FILE, lost] {
                let _absent = std::fs::remove_file(dir.path().join(name));
            }
            let data = open_alone(dir.path(), 2).unwrap();
            assert_eq!(data.session().number, 1, "{lost}");
            assert!(!exists(&dir.path().join("set-aside-1")));
            drop(data);
            let _absent = std::fs::remove_file(dir.path().join(IDENTITY_FILE));
        }
    }

    #[test]
    fn a_log_of_another_directory_counts_as_lost() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, seed) in [(&one, 1), (&two, 2)] {
            use_log(&open(dir.path(), seed).unwrap());
        }
        std::fs::rename(one.path().join("wal"), one.path().join("old")).unwrap();
        std::fs::rename(two.path().join("wal"), one.path().join("wal")).unwrap();
        let alone = open_alone(one.path(), 3);
        assert!(matches!(alone, Err(WalError::LostDisk { .. })), "{alone:?}");
        assert_eq!(open(one.path(), 4).unwrap().session().number, 1);
    }

    #[test]
    fn a_copy_is_refused_unless_it_was_stopped_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("a"), dir.path().join("b"));
        for is_stopped in [false, true] {
            let mut data = open(&path, 1).unwrap();
            use_log(&data);
            if is_stopped {
                data.note_stop().unwrap();
            }
            drop(data);
            let _absent = std::fs::remove_dir_all(&copy);
            let copied = std::process::Command::new("cp").arg("-a").args([&path, &copy]).status();
            assert!(copied.unwrap().success());
            match open(&copy, 2) {
                Ok(_) => assert!(is_stopped),
                Err(error) => {
                    assert!(!is_stopped && matches!(error, WalError::Copied { .. }), "{error}");
                }
            }
        }
    }

    /// It has the directory's own number on the disk.
    #[test]
    fn a_copy_that_is_put_back_in_place_is_refused_unless_it_was_stopped_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("a"), dir.path().join("b"));
        let cp = |from: &Path, to: &Path| {
            let done = std::process::Command::new("cp").arg("-a").args([from, to]).status();
            assert!(done.unwrap().success());
        };
        for is_stopped in [false, true] {
            let mut data = open(&path, 1).unwrap();
            use_log(&data);
            if is_stopped {
                data.note_stop().unwrap();
            }
            drop(data);
            if SystemDisk.stat(&path.join(IDENTITY_FILE)).unwrap().created == 0 {
                return eprintln!("SKIPPED: this file system does not say when a file was made");
            }
            let _absent = std::fs::remove_dir_all(&copy);
            cp(&path, &copy);
            for entry in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
                let removed = std::fs::remove_dir_all(&entry);
                removed.or_else(|_| std::fs::remove_file(&entry)).unwrap();
            }
            cp(&copy.join("."), &path);
            match open(&path, 2) {
                Ok(_) => assert!(is_stopped),
                Err(error) => {
                    assert!(!is_stopped && matches!(error, WalError::Copied { .. }), "{error}");
                    std::fs::remove_dir_all(&path).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), 1).unwrap();
        let error = open(dir.path(), 2).unwrap_err();
        assert!(matches!(error, WalError::InUse { .. }), "{error}");
        drop(first);
        assert_eq!(open(dir.path(), 3).unwrap().session().number, 2);
    }

    #[test]
    fn names_with_odd_characters_are_told_apart() {
        for (name, other) in [("a\nb", "a"), ("\"", ""), ("crc 12345678", "crc"), ("é", "e")] {
            let dir = tempfile::tempdir().unwrap();
            drop(open_as(dir.path(), name, 1).unwrap());
            drop(open_as(dir.path(), name, 2).unwrap());
            assert!(matches!(open_as(dir.path(), other, 3), Err(WalError::OtherNode { .. })));
        }
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(NODE_NAME_BYTES_MAX + 1);
        assert!(matches!(open_as(dir.path(), &long, 1), Err(WalError::TooLarge { .. })));
    }

    #[test]
    fn a_damaged_small_file_is_refused() {
        for name in [IDENTITY_FILE, STARTS_FILE, CLUSTER_FILE] {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path(), 1).unwrap().adopt(b"us").unwrap();
            let path = dir.path().join(name);
            let good = std::fs::read(&path).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, bad).unwrap();
                let error = open(dir.path(), 2).unwrap_err();
                assert!(matches!(error, WalError::Corrupt { .. }), "{name}, bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn earlier_and_newer_layouts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        write_sealed(&SystemDisk, &path, &format!("{IDENTITY_TITLE}\nformat 1\nnode \"n1\"\n"))
            .unwrap();
        let error = open(dir.path(), 1).unwrap_err();
        assert!(matches!(error, WalError::Outdated { found: 1, .. }), "{error}");
        assert!(error.to_string().contains("empty it"), "{error}");
        write_sealed(&SystemDisk, &path, &format!("{IDENTITY_TITLE}\nformat 4\nnode \"n1\"\n"))
            .unwrap();
        let error = open(dir.path(), 1).unwrap_err();
        assert!(matches!(error, WalError::Version { found: 4, known: 3, .. }), "{error}");
    }

    #[test]
    fn nobody_else_may_read_and_planted_links_are_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let (path, victim) = (outer.path().join("d"), outer.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        make_dir(&SystemDisk, &path).unwrap();
        for name in ["identity.tmp", "starts.tmp"] {
            std::os::unix::fs::symlink(&victim, path.join(name)).unwrap();
        }
        let data = open(&path, 1).unwrap();
        use_log(&data);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        for (name, mode) in [("", 0o700), ("wal", 0o700), ("snapshots", 0o700)] {
            assert_eq!(mode_of(&path.join(name)), mode, "{name}");
        }
        for name in ["identity", "starts", "lock", "wal/format", "wal/0000000000000001.wal"] {
            assert_eq!(mode_of(&path.join(name)), 0o600, "{name}");
        }
        drop(data);
        std::fs::remove_file(path.join(LOCK_FILE)).unwrap();
        std::os::unix::fs::symlink(&victim, path.join(LOCK_FILE)).unwrap();
        assert!(matches!(open(&path, 2), Err(WalError::Io { .. })));
    }

    /// Faults, row D7: a directory of before, made by hand or by an earlier version.
    #[test]
    fn a_directory_that_others_could_read_is_taken_away_from_them() {
        let outer = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (outer.path().join("d"), outer.path().join("elsewhere"));
        use_log(&open(&path, 1).unwrap());
        // A log on another disk, by a link of our own.
        std::fs::rename(path.join("wal"), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, path.join("wal")).unwrap();
        let dirs = ["", "wal", "snapshots"];
        let files = ["identity", "starts", "lock", "wal/format", "wal/0000000000000001.wal"];
        let open_to_all = || {
            for name in dirs {
                set_mode(&path.join(name), 0o755);
            }
            for name in files {
                set_mode(&path.join(name), 0o644);
            }
        };
        open_to_all();
        let data = open(&path, 2).unwrap();
        use_log(&data);
        assert_eq!(data.session().number, 2);
        drop(data);
        for name in dirs {
            assert_eq!(mode_of(&path.join(name)), 0o700, "{name}");
        }
        for name in files {
            assert_eq!(mode_of(&path.join(name)), 0o600, "{name}");
        }

        // One that is not ours alone stays what it is to others.
        std::fs::write(path.join("letter"), "not ours").unwrap();
        set_mode(&path.join("letter"), 0o644);
        open_to_all();
        drop(open(&path, 3).unwrap());
        let modes = ["", "letter", "wal", "identity"].map(|name| mode_of(&path.join(name)));
        assert_eq!(modes, [0o755, 0o644, 0o700, 0o600]);

        // A link of somebody else's in the log's place.
        match std::os::unix::fs::lchown(path.join("wal"), Some(65_534), None) {
            Ok(()) => {
                let error = open(&path, 4).unwrap_err();
                assert!(error.to_string().contains("another user has made"), "{error}");
            }
            Err(_) => eprintln!("SKIPPED: only root can act another user"),
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }
}
