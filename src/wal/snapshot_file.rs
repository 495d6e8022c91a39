//! Whole-file snapshots: chunks of bytes of one group, written once, complete or not there at all.
//!
//! A snapshot is written under a temporary name that no other writer has (created, never opened: two
//! writers cannot share an inode), completed and synced, and *published* later, by whoever knows that it
//! counts: renamed to its final name, the directory synced. What it covers orders the snapshots of a group,
//! in the name and in the header; no counter could say which of a built and a received one is the better.
//! Older ones are deleted by a call of its own, after a better one is published.
//!
//! Format version 2, numbers little-endian:
//!
//! | part | bytes | field |
//! | --- | --- | --- |
//! | header | 8 | `kvorumSN` |
//! | | 4 | format version |
//! | | 4 | group |
//! | | 8 + 8 | term and index of the last entry covered |
//! | | 4 | length `m` of the meta part |
//! | | m | meta, opaque |
//! | | 4 | CRC-32 of everything before |
//! | chunk (0 or more) | 4 | length `n`, 1…`SNAPSHOT_CHUNK_BYTES_MAX` |
//! | | n | opaque |
//! | | 4 | CRC-32 of length, bytes and the chunk's number (8 bytes) |
//! | footer | 4 | zero |
//! | | 8 | number of chunks |
//! | | 4 | CRC-32 of the chunks' CRCs (4 bytes each), in order |
//! | | 4 | CRC-32 of the 16 bytes before |

use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc32fast::Hasher;

use crate::ids::GroupId;
use crate::stdx::codec::{put_u32, put_u64};
use crate::stdx::disk::{Disk, DiskFile, Open, Sequential, TEMPORARY_SUFFIX};

use super::descriptors::patiently;
use super::error::WalError;
use super::limits::SNAPSHOT_CHUNK_BYTES_MAX;

const MAGIC: &[u8; 8] = b"kvorumSN";
const FORMAT_VERSION: u32 = 2;
const SUFFIX: &str = ".snapshot";
const BUFFER_BYTES: usize = 256 << 10;
/// Header bytes before the meta part.
const FIXED_HEADER_BYTES: usize = 36;

/// Tells the temporary files of this process apart; those of an earlier one are gone before the first is made.
static WRITERS: AtomicU64 = AtomicU64::new(0);

/// The directory that snapshots of all groups lie in. A clone is another handle of it.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

/// What a snapshot covers: all entries up to this one. A later one covers more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Covered {
    /// Term of the last entry covered.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// A published snapshot on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it covers.
    pub covered: Covered,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes a snapshot. Dropped before [`complete`](Self::complete), it leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotWriter {
    file: BufWriter<Sequential>,
    place: Unpublished,
    chunks: u64,
    checksums: Hasher,
}

/// A snapshot that is whole and synced under its temporary name. Dropped before
/// [`publish`](Self::publish), it leaves nothing behind.
#[derive(Debug)]
pub struct CompleteSnapshot {
    place: Unpublished,
}

/// A temporary file, deleted when dropped unless it got its final name.
#[derive(Debug)]
struct Unpublished {
    dir: SnapshotDir,
    temporary: PathBuf,
    path: PathBuf,
    covered: Covered,
    bytes: u64,
    is_renamed: bool,
}

impl SnapshotDir {
    /// The directory `path` of `disk`.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a snapshot of `group` in the directory, which is created when missing; `meta` is opaque. Any number
    /// of writers may be at work at a time, each on a file of its own.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] when `meta` is longer than [`SNAPSHOT_CHUNK_BYTES_MAX`], and
    /// [`WalError::Io`].
    pub fn create(
        &self,
        group: GroupId,
        covered: Covered,
        meta: &[u8],
    ) -> Result<SnapshotWriter, WalError> {
        let meta_bytes = checked_length(meta)?;
        self.disk.make_dir(&self.path).map_err(WalError::io("create", &self.path))?;
        let path = snapshot_path(&self.path, group, covered);
        let (file, temporary) = create_temporary(self.disk.as_ref(), &path)?;
        let dir = self.clone();
        let place = Unpublished { dir, temporary, path, covered, bytes: 0, is_renamed: false };
        let file = BufWriter::with_capacity(BUFFER_BYTES, Sequential::new(file));
        let mut writer = SnapshotWriter { file, place, chunks: 0, checksums: Hasher::new() };
        let mut header = Vec::with_capacity(FIXED_HEADER_BYTES + 4 + meta.len());
        header.extend_from_slice(MAGIC);
        put_u32(&mut header, FORMAT_VERSION);
        put_u32(&mut header, group.0);
        put_u64(&mut header, covered.term);
        put_u64(&mut header, covered.index);
        put_u32(&mut header, meta_bytes);
        header.extend_from_slice(meta);
        let checksum = crc32fast::hash(&header);
        put_u32(&mut header, checksum);
        writer.write(&header)?;
        Ok(writer)
    }

    /// Opens the snapshot at `path` and verifies its header.
    ///
    /// # Errors
    /// [`WalError::Corrupt`], [`WalError::Version`] and [`WalError::Io`].
    pub fn open(&self, path: &Path) -> Result<SnapshotReader, WalError> {
        SnapshotReader::open(self.disk.as_ref(), path)
    }

    /// The published snapshots of `group`, the best one first; none also when there is no such
    /// directory. Whether they can be read is another question.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn published(&self, group: GroupId) -> Result<Vec<SnapshotFile>, WalError> {
        let prefix = format!("{group}-");
        let mut all = Vec::new();
        for (name, path) in self.names()? {
            let digits = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
            let numbers = digits.and_then(|digits| digits.split_once('-'));
            let covered = numbers.and_then(|(term, index)| {
                Some(Covered { term: hex_number(term)?, index: hex_number(index)? })
            });
            if let Some(covered) = covered {
                let bytes = self.disk.stat(&path).map_err(WalError::io("look at", &path))?.bytes;
                all.push(SnapshotFile { path, covered, bytes });
            }
        }
        all.sort_unstable_by_key(|file| std::cmp::Reverse(file.covered));
        Ok(all)
    }

    /// Deletes the published snapshots of `group` that cover less than `kept`. Only once that one is
    /// published: the last good snapshot must never be missing.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn remove_older(&self, group: GroupId, kept: Covered) -> Result<(), WalError> {
        self.remove_if(group, |covered| covered < kept)
    }

    /// Deletes all published snapshots of `group`. Only once its replica here has ended.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn remove_all(&self, group: GroupId) -> Result<(), WalError> {
        self.remove_if(group, |_| true)
    }

    fn remove_if(&self, group: GroupId, goes: impl Fn(Covered) -> bool) -> Result<(), WalError> {
        let mut is_changed = false;
        for file in self.published(group)?.iter().filter(|file| goes(file.covered)) {
            self.disk.remove_file(&file.path).map_err(WalError::io("delete", &file.path))?;
            is_changed = true;
        }
        if is_changed { self.sync() } else { Ok(()) }
    }

    /// Deletes what unfinished snapshots left. Only at start, when none is being written.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn remove_strays(&self) -> Result<(), WalError> {
        for (name, path) in self.names()? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                self.disk.remove_file(&path).map_err(WalError::io("delete", &path))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<(String, PathBuf)>, WalError> {
        let names = match patiently(|| self.disk.list(&self.path)) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(WalError::Io { action: "list", path: self.path.clone(), source });
            }
        };
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        Ok(names.map(|name| (name.clone(), self.path.join(name))).collect())
    }

    fn sync(&self) -> Result<(), WalError> {
        let synced = patiently(|| self.disk.sync_dir(&self.path));
        synced.map_err(WalError::io("sync", &self.path))
    }
}

impl SnapshotWriter {
    /// Appends a chunk; an empty one is nothing.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] when it is longer than [`SNAPSHOT_CHUNK_BYTES_MAX`], and
    /// [`WalError::Io`]: then the snapshot cannot be completed any more.
    pub fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), WalError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let length = checked_length(chunk)?.to_le_bytes();
        let checksum = chunk_checksum(self.chunks, length, chunk).to_le_bytes();
        self.write(&length)?;
        self.write(chunk)?;
        self.write(&checksum)?;
        self.checksums.update(&checksum);
        self.chunks += 1;
        Ok(())
    }

    /// Bytes written so far.
    pub const fn bytes(&self) -> u64 {
        self.place.bytes
    }

    /// Ends the snapshot: whole and on the disk when this returns, but not yet under its name.
    ///
    /// # Errors
    /// [`WalError::Io`]: then there is no such snapshot.
    pub fn complete(mut self) -> Result<CompleteSnapshot, WalError> {
        self.write(&footer(self.chunks, &self.checksums))?;
        let Self { mut file, place, .. } = self;
        file.flush().map_err(WalError::io("write", &place.temporary))?;
        file.get_ref().file().sync_all().map_err(WalError::io("sync", &place.temporary))?;
        Ok(CompleteSnapshot { place })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let written = self.file.write_all(bytes);
        written.map_err(WalError::io("write", &self.place.temporary))?;
        self.place.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl CompleteSnapshot {
    /// What it covers.
    pub const fn covered(&self) -> Covered {
        self.place.covered
    }

    /// Reads it back where it lies.
    ///
    /// # Errors
    /// As [`SnapshotDir::open`].
    pub fn reader(&self) -> Result<SnapshotReader, WalError> {
        let place = &self.place;
        place.dir.open(if place.is_renamed { &place.path } else { &place.temporary })
    }

    /// Gives it its final name, durably. May be tried again after an error.
    ///
    /// # Errors
    /// [`WalError::Io`]: whether it is published will be known when a later call succeeds.
    pub fn publish(&mut self) -> Result<SnapshotFile, WalError> {
        let place = &mut self.place;
        if !place.is_renamed {
            let renamed = place.dir.disk.rename(&place.temporary, &place.path);
            renamed.map_err(WalError::io("rename", &place.temporary))?;
            place.is_renamed = true;
        }
        place.dir.sync()?;
        Ok(SnapshotFile { path: place.path.clone(), covered: place.covered, bytes: place.bytes })
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // Should deleting fail too, `remove_strays` gets the file at the next start.
        if !self.is_renamed && self.dir.disk.remove_file(&self.temporary).is_err() {
            tracing::warn!(path = %self.temporary.display(), "an unfinished snapshot stays behind");
        }
    }
}

/// Reads a snapshot and verifies every byte it returns.
#[derive(Debug)]
pub struct SnapshotReader {
    file: BufReader<Sequential>,
    path: PathBuf,
    group: GroupId,
    covered: Covered,
    meta: Vec<u8>,
    offset: u64,
    bytes_left: u64,
    chunks: u64,
    checksums: Hasher,
    is_at_end: bool,
}

impl SnapshotReader {
    fn open(disk: &dyn Disk, path: &Path) -> Result<Self, WalError> {
        // At the start as well: a snapshot that cannot be read would be passed over, and an older one has no log behind it.
        let file = patiently(|| disk.open(path, Open::Read)).map_err(WalError::io("open", path))?;
        let bytes_left = file.bytes().map_err(WalError::io("look at", path))?;
        let mut reader = Self {
            file: BufReader::with_capacity(BUFFER_BYTES, Sequential::new(file)),
            path: path.to_owned(),
            group: GroupId::default(),
            covered: Covered::default(),
            meta: Vec::new(),
            offset: 0,
            bytes_left,
            chunks: 0,
            checksums: Hasher::new(),
            is_at_end: false,
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// The group it is of.
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// What it covers.
    pub const fn covered(&self) -> Covered {
        self.covered
    }

    /// The meta part given when it was written.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// The next chunk, or `None` once the footer has proven that there were no others.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] and [`WalError::Io`]. Chunks already returned are then still right, but the
    /// snapshot is not whole.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, WalError> {
        if self.is_at_end {
            return Ok(None);
        }
        let start = self.offset;
        let length_bytes: [u8; 4] = self.read_array()?;
        let length = self.checked_length(length_bytes, start)?;
        if length == 0 {
            self.read_footer(start)?;
            self.is_at_end = true;
            return Ok(None);
        }
        let chunk = self.read(length)?;
        let checksum: [u8; 4] = self.read_array()?;
        if u32::from_le_bytes(checksum) != chunk_checksum(self.chunks, length_bytes, &chunk) {
            return Err(self.corrupt(start, "a chunk's checksum does not match"));
        }
        self.checksums.update(&checksum);
        self.chunks += 1;
        Ok(Some(chunk))
    }

    fn read_header(&mut self) -> Result<(), WalError> {
        let fixed: [u8; FIXED_HEADER_BYTES] = self.read_array()?;
        let (magic, numbers) = fixed.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.corrupt(0, "not a snapshot"));
        }
        let [version, group, length] = [0, 4, 24].map(|at| le_bytes(&numbers[at..]));
        let [term, index] = [8, 16].map(|at| u64::from_le_bytes(le_bytes(&numbers[at..])));
        if u32::from_le_bytes(version) != FORMAT_VERSION {
            let (path, found) = (self.path.clone(), u32::from_le_bytes(version));
            return Err(WalError::Version { path, found, known: FORMAT_VERSION });
        }
        let length = self.checked_length(length, FIXED_HEADER_BYTES as u64 - 4)?;
        let meta = self.read(length)?;
        let checksum: [u8; 4] = self.read_array()?;
        let mut hasher = Hasher::new();
        hasher.update(&fixed);
        hasher.update(&meta);
        if u32::from_le_bytes(checksum) != hasher.finalize() {
            return Err(self.corrupt(0, "the header's checksum does not match"));
        }
        self.group = GroupId(u32::from_le_bytes(group));
        self.covered = Covered { term, index };
        self.meta = meta;
        Ok(())
    }

    /// Reads the footer, whose zero length was read already, at `start`.
    fn read_footer(&mut self, start: u64) -> Result<(), WalError> {
        let rest: [u8; 16] = self.read_array()?;
        if footer(self.chunks, &self.checksums)[4..] != rest {
            return Err(self.corrupt(start, "the footer does not match"));
        }
        if self.bytes_left > 0 {
            return Err(self.corrupt(self.offset, "there is something behind the footer"));
        }
        Ok(())
    }

    fn checked_length(&self, bytes: [u8; 4], offset: u64) -> Result<usize, WalError> {
        let length = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        if length > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(self.corrupt(offset, "a length is beyond the limit"));
        }
        Ok(length)
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], WalError> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, WalError> {
        // Before allocating: a damaged length must not ask for memory the file cannot fill.
        self.check_left(length)?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), WalError> {
        self.check_left(bytes.len())?;
        match self.file.read_exact(bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.corrupt(self.offset, "it ends too early"));
            }
            Err(e) => return Err(WalError::io("read", &self.path)(e)),
        }
        self.offset += bytes.len() as u64;
        self.bytes_left -= bytes.len() as u64;
        Ok(())
    }

    fn check_left(&self, length: usize) -> Result<(), WalError> {
        if length as u64 <= self.bytes_left {
            return Ok(());
        }
        Err(self.corrupt(self.offset, "it ends too early"))
    }

    fn corrupt(&self, offset: u64, what: &'static str) -> WalError {
        WalError::corrupt(&self.path, offset, what)
    }
}

fn snapshot_path(dir: &Path, group: GroupId, covered: Covered) -> PathBuf {
    dir.join(format!("{group}-{:016x}-{:016x}{SUFFIX}", covered.term, covered.index))
}

fn hex_number(digits: &str) -> Option<u64> {
    if digits.len() == 16 { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// A new file beside `path`, and its name.
fn create_temporary(
    disk: &dyn Disk,
    path: &Path,
) -> Result<(Box<dyn DiskFile>, PathBuf), WalError> {
    let number = WRITERS.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:x}{TEMPORARY_SUFFIX}"));
    let temporary = PathBuf::from(name);
    // A file of that name is an error, and the next try has another name: whoever made it may still write to it.
    let file = patiently(|| disk.open(&temporary, Open::New));
    Ok((file.map_err(WalError::io("create", &temporary))?, temporary))
}

fn checked_length(bytes: &[u8]) -> Result<u32, WalError> {
    let limit = SNAPSHOT_CHUNK_BYTES_MAX;
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= limit);
    length.ok_or(WalError::TooLarge { bytes: bytes.len(), limit })
}

/// The last bytes of a snapshot of so many `chunks` with these `checksums`.
fn footer(chunks: u64, checksums: &Hasher) -> Vec<u8> {
    let mut footer = vec![0; 4];
    put_u64(&mut footer, chunks);
    put_u32(&mut footer, checksums.clone().finalize());
    let checksum = crc32fast::hash(&footer);
    put_u32(&mut footer, checksum);
    footer
}

fn chunk_checksum(number: u64, length: [u8; 4], chunk: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&length);
    hasher.update(chunk);
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

/// The first bytes of `bytes`.
fn le_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&bytes[..N]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fs::SystemDisk;
    use crate::stdx::memory_disk::MemoryDisk;

    const GROUP: GroupId = GroupId(3);
    const COVERED: Covered = Covered { term: 2, index: 500 };

    fn at(path: &Path) -> SnapshotDir {
        SnapshotDir::new(SystemDisk::shared(), path.to_owned())
    }

    fn write_covering(dir: &Path, covered: Covered, chunks: &[&[u8]]) -> SnapshotFile {
        let mut writer = at(dir).create(GROUP, covered, b"meta").unwrap();
        for chunk in chunks {
            writer.write_chunk(chunk).unwrap();
        }
        writer.complete().unwrap().publish().unwrap()
    }

    fn write(dir: &Path, chunks: &[&[u8]]) -> SnapshotFile {
        write_covering(dir, COVERED, chunks)
    }

    fn read(path: &Path) -> Result<(Vec<u8>, Vec<Vec<u8>>), WalError> {
        let mut reader = at(path.parent().unwrap()).open(path)?;
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            chunks.push(chunk);
        }
        assert!(reader.next_chunk()?.is_none());
        assert_eq!((reader.group(), reader.covered()), (GROUP, COVERED));
        Ok((reader.meta().to_vec(), chunks))
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let big = vec![9; 700_000];
        for chunks in [&[][..], &[&b"one"[..], b"", b"three"], &[&big[..], b"x"]] {
            let file = write(dir.path(), chunks);
            assert_eq!(file.bytes, std::fs::metadata(&file.path).unwrap().len());
            let (meta, found) = read(&file.path).unwrap();
            assert_eq!(meta, b"meta");
            let full: Vec<_> = chunks.iter().filter(|chunk| !chunk.is_empty()).collect();
            assert!(found.iter().eq(full));
        }
    }

    #[test]
    fn the_bytes_are_those_of_format_version_2() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), &[b"abc"]);
        let bytes = std::fs::read(file.path).unwrap();
        let hex = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "6b766f72756d534e02000000030000000200000000000000f401000000000000040000006d657461ee91bdb7",
        "030000006162634a4908e7000000000100000000000000d92c115c6270112c"
    );

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), &[b"first", b"second chunk"]);
        let good = std::fs::read(&file.path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file.path, &bad).unwrap();
            let error = read(&file.path).unwrap_err();
            let names_it = matches!(error, WalError::Corrupt { .. })
                || matches!(error, WalError::Version { .. });
            assert!(names_it, "bit {bit}: {error}");
        }
        for length in 0..good.len() {
            std::fs::write(&file.path, &good[..length]).unwrap();
            assert!(matches!(read(&file.path), Err(WalError::Corrupt { .. })), "{length} bytes");
        }
        let longer = [&good[..], b"x"].concat();
        std::fs::write(&file.path, longer).unwrap();
        assert!(matches!(read(&file.path), Err(WalError::Corrupt { offset, .. })
            if offset == good.len() as u64));
    }

    #[test]
    fn chunks_out_of_order_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), &[b"aaaa", b"bbbb"]);
        let mut bytes = std::fs::read(&file.path).unwrap();
        let first = 44;
        bytes[first..first + 24].rotate_left(12);
        std::fs::write(&file.path, bytes).unwrap();
        assert!(matches!(read(&file.path), Err(WalError::Corrupt { offset: 44, .. })));
    }

    /// Faults R5 and R7: the order they were written in says nothing.
    #[test]
    fn what_it_covers_orders_snapshots_and_older_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("snapshots");
        assert_eq!(at(&place).published(GROUP).unwrap(), []);
        let [third, first, second] = [(2, 7), (1, 900), (2, 6)]
            .map(|(term, index)| write_covering(&place, Covered { term, index }, &[b"x"]));
        let mut other = at(&place).create(GroupId(30), COVERED, b"").unwrap();
        other.write_chunk(b"y").unwrap();
        let other = other.complete().unwrap().publish().unwrap();
        assert_eq!(
            at(&place).published(GROUP).unwrap(),
            [&third, &second, &first].map(Clone::clone)
        );
        at(&place).remove_older(GROUP, second.covered).unwrap();
        assert_eq!(at(&place).published(GROUP).unwrap(), [third, second]);
        assert_eq!(at(&place).published(GroupId(30)).unwrap(), [other]);
    }

    /// Fault R5: a build and an incoming snapshot wrote one inode. Fault R6: dropping one deleted the other's file.
    #[test]
    fn writers_of_one_position_have_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let create = || at(dir.path()).create(GROUP, COVERED, b"meta").unwrap();
        let (mut one, mut other) = (create(), create());
        one.write_chunk(b"one").unwrap();
        other.write_chunk(b"other").unwrap();
        drop(one);
        let file = other.complete().unwrap().publish().unwrap();
        assert_eq!(read(&file.path).unwrap().1, [b"other"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Fault R7: a file was the newest before anybody had accepted it.
    #[test]
    fn a_complete_snapshot_counts_only_once_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let good = write_covering(dir.path(), Covered { term: 1, index: 1 }, &[b"good"]);
        let mut complete = {
            let mut writer = at(dir.path()).create(GROUP, COVERED, b"meta").unwrap();
            writer.write_chunk(b"better").unwrap();
            writer.complete().unwrap()
        };
        assert_eq!(at(dir.path()).published(GROUP).unwrap(), std::slice::from_ref(&good));
        assert_eq!(complete.reader().unwrap().next_chunk().unwrap().unwrap(), b"better");
        let better = complete.publish().unwrap();
        assert_eq!(complete.publish().unwrap(), better, "may be tried again");
        drop(complete);
        assert_eq!(at(dir.path()).published(GROUP).unwrap(), [better, good]);
    }

    /// Faults, row D1: it was given up, and one that a start looked for was passed over.
    #[test]
    fn a_snapshot_without_a_descriptor_waits_for_one() {
        let disk = MemoryDisk::new();
        let dir = SnapshotDir::new(Arc::new(disk.clone()), PathBuf::from("/snapshots"));
        let lacking = || disk.lack_descriptors(2);
        lacking();
        let mut writer = dir.create(GROUP, COVERED, b"meta").unwrap();
        writer.write_chunk(b"chunk").unwrap();
        let mut complete = writer.complete().unwrap();
        lacking();
        let published = complete.publish().unwrap();
        lacking();
        assert_eq!(dir.published(GROUP).unwrap(), std::slice::from_ref(&published));
        lacking();
        let mut reader = dir.open(&published.path).unwrap();
        assert_eq!(reader.next_chunk().unwrap().unwrap(), b"chunk");
        assert_eq!(disk.lacks_descriptors(), 0);
    }

    #[test]
    fn an_unfinished_snapshot_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let count = || std::fs::read_dir(dir.path()).unwrap().count();
        let create = || at(dir.path()).create(GROUP, COVERED, b"meta").unwrap();
        let mut writer = create();
        writer.write_chunk(b"half").unwrap();
        assert_eq!((count(), at(dir.path()).published(GROUP).unwrap()), (1, Vec::new()));
        drop(writer);
        assert_eq!(count(), 0);
        drop(create().complete().unwrap());
        assert_eq!(count(), 0);
        // A killed process could not clean up.
        std::mem::forget(create());
        assert_eq!(count(), 1);
        at(dir.path()).remove_strays().unwrap();
        assert_eq!(count(), 0);
    }
}
