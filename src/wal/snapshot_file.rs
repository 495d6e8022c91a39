//! Whole-file snapshots: chunks of bytes of one group, written once, complete or not there at all.
//!
//! A snapshot is written under a temporary name, synced, renamed and its directory synced: a file with
//! its final name is complete. Its number grows with every snapshot of the group; the newest is the one
//! that counts. Format version 1, numbers little-endian:
//!
//! | part | bytes | field |
//! | --- | --- | --- |
//! | header | 8 | `kvorumSN` |
//! | | 4 | format version |
//! | | 4 | group |
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

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;

use crate::ids::GroupId;
use crate::stdx::fs::{TEMPORARY_SUFFIX, rename_durably, sync_dir, temporary_path};

use super::error::WalError;
use super::limits::SNAPSHOT_CHUNK_BYTES_MAX;

const MAGIC: &[u8; 8] = b"kvorumSN";
const FORMAT_VERSION: u32 = 1;
const SUFFIX: &str = ".snapshot";
const BUFFER_BYTES: usize = 256 << 10;

/// A complete snapshot on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its number; a newer snapshot of the group has a higher one.
    pub sequence: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes a snapshot. Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotWriter {
    file: BufWriter<File>,
    path: PathBuf,
    sequence: u64,
    chunks: u64,
    checksums: Hasher,
    bytes: u64,
    is_finished: bool,
}

impl SnapshotWriter {
    /// Begins a snapshot of `group` in `dir`, which is created when missing; `meta` is opaque. Only one
    /// writer per group may be at work at a time: the later one replaces the earlier one's file.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] when `meta` is longer than [`SNAPSHOT_CHUNK_BYTES_MAX`], and
    /// [`WalError::Io`].
    pub fn create(dir: &Path, group: GroupId, meta: &[u8]) -> Result<Self, WalError> {
        let meta_bytes = checked_length(meta)?;
        std::fs::create_dir_all(dir).map_err(WalError::io("create", dir))?;
        let sequence = list(dir, group)?.last().map_or(1, |last| last.0.saturating_add(1));
        let path = snapshot_path(dir, group, sequence);
        let temporary = temporary_path(&path);
        let file = File::create(&temporary).map_err(WalError::io("create", &temporary))?;
        let mut writer = Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            path,
            sequence,
            chunks: 0,
            checksums: Hasher::new(),
            bytes: 0,
            is_finished: false,
        };
        let mut header = Vec::with_capacity(24 + meta.len());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&group.0.to_le_bytes());
        header.extend_from_slice(&meta_bytes.to_le_bytes());
        header.extend_from_slice(meta);
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends a chunk; an empty one is nothing.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] when it is longer than [`SNAPSHOT_CHUNK_BYTES_MAX`], and
    /// [`WalError::Io`]: then the snapshot cannot be finished any more.
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
        self.bytes
    }

    /// Ends the snapshot: on the disk, under its name, when this returns.
    ///
    /// # Errors
    /// [`WalError::Io`]: then there is no such snapshot.
    pub fn finish(mut self) -> Result<SnapshotFile, WalError> {
        let mut footer = Vec::with_capacity(20);
        footer.extend_from_slice(&[0; 4]);
        footer.extend_from_slice(&self.chunks.to_le_bytes());
        footer.extend_from_slice(&self.checksums.clone().finalize().to_le_bytes());
        footer.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
        self.write(&footer)?;
        let temporary = temporary_path(&self.path);
        self.file.flush().map_err(WalError::io("write", &temporary))?;
        self.file.get_ref().sync_all().map_err(WalError::io("sync", &temporary))?;
        rename_durably(&temporary, &self.path).map_err(WalError::io("rename", &temporary))?;
        self.is_finished = true;
        Ok(SnapshotFile { path: self.path.clone(), sequence: self.sequence, bytes: self.bytes })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let written = self.file.write_all(bytes);
        written.map_err(WalError::io("write", &temporary_path(&self.path)))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        // Should deleting fail too, `remove_strays` gets the file at the next start.
        if !self.is_finished && std::fs::remove_file(temporary_path(&self.path)).is_err() {
            tracing::warn!(path = %self.path.display(), "an unfinished snapshot stays behind");
        }
    }
}

/// Reads a snapshot and verifies every byte it returns.
#[derive(Debug)]
pub struct SnapshotReader {
    file: BufReader<File>,
    path: PathBuf,
    group: GroupId,
    meta: Vec<u8>,
    offset: u64,
    bytes_left: u64,
    chunks: u64,
    checksums: Hasher,
    is_at_end: bool,
}

impl SnapshotReader {
    /// Opens the snapshot at `path` and verifies its header.
    ///
    /// # Errors
    /// [`WalError::Corrupt`], [`WalError::Version`] and [`WalError::Io`].
    pub fn open(path: &Path) -> Result<Self, WalError> {
        let file = File::open(path).map_err(WalError::io("open", path))?;
        let bytes_left = file.metadata().map_err(WalError::io("look at", path))?.len();
        let mut reader = Self {
            file: BufReader::with_capacity(BUFFER_BYTES, file),
            path: path.to_owned(),
            group: GroupId::default(),
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
        let fixed: [u8; 20] = self.read_array()?;
        let (magic, numbers) = fixed.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.corrupt(0, "not a snapshot"));
        }
        let [version, group, length] = [0, 4, 8].map(|at| le_bytes(&numbers[at..]));
        if u32::from_le_bytes(version) != FORMAT_VERSION {
            let (path, found) = (self.path.clone(), u32::from_le_bytes(version));
            return Err(WalError::Version { path, found, known: FORMAT_VERSION });
        }
        let length = self.checked_length(length, 16)?;
        let meta = self.read(length)?;
        let checksum: [u8; 4] = self.read_array()?;
        let mut hasher = Hasher::new();
        hasher.update(&fixed);
        hasher.update(&meta);
        if u32::from_le_bytes(checksum) != hasher.finalize() {
            return Err(self.corrupt(0, "the header's checksum does not match"));
        }
        self.group = GroupId(u32::from_le_bytes(group));
        self.meta = meta;
        Ok(())
    }

    /// Reads the footer, whose zero length was read already, at `start`.
    fn read_footer(&mut self, start: u64) -> Result<(), WalError> {
        let rest: [u8; 16] = self.read_array()?;
        let mut expected = vec![0; 4];
        expected.extend_from_slice(&self.chunks.to_le_bytes());
        expected.extend_from_slice(&self.checksums.clone().finalize().to_le_bytes());
        expected.extend_from_slice(&crc32fast::hash(&expected).to_le_bytes());
        if expected[4..] != rest {
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

/// The newest complete snapshot of `group` in `dir`; `None` also when there is no such directory.
///
/// # Errors
/// [`WalError::Io`].
pub fn latest(dir: &Path, group: GroupId) -> Result<Option<SnapshotFile>, WalError> {
    let Some((sequence, path)) = list(dir, group)?.pop() else { return Ok(None) };
    let bytes = std::fs::metadata(&path).map_err(WalError::io("look at", &path))?.len();
    Ok(Some(SnapshotFile { path, sequence, bytes }))
}

/// Deletes all snapshots of `group` in `dir` but the newest `count`.
///
/// # Errors
/// [`WalError::Io`].
pub fn keep(dir: &Path, group: GroupId, count: usize) -> Result<(), WalError> {
    let mut all = list(dir, group)?;
    all.truncate(all.len().saturating_sub(count));
    for (_, path) in &all {
        std::fs::remove_file(path).map_err(WalError::io("delete", path))?;
    }
    if all.is_empty() { Ok(()) } else { sync_dir(dir).map_err(WalError::io("sync", dir)) }
}

/// Deletes what unfinished snapshots left in `dir`. Only at start, when none is being written.
///
/// # Errors
/// [`WalError::Io`].
pub fn remove_strays(dir: &Path) -> Result<(), WalError> {
    for (name, path) in names(dir)? {
        if name.ends_with(TEMPORARY_SUFFIX) {
            std::fs::remove_file(&path).map_err(WalError::io("delete", &path))?;
        }
    }
    Ok(())
}

fn snapshot_path(dir: &Path, group: GroupId, sequence: u64) -> PathBuf {
    dir.join(format!("{group}-{sequence:016x}{SUFFIX}"))
}

/// The complete snapshots of `group`, oldest first.
fn list(dir: &Path, group: GroupId) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let prefix = format!("{group}-");
    let mut all = Vec::new();
    for (name, path) in names(dir)? {
        let digits = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
        let sequence = digits.filter(|digits| digits.len() == 16);
        if let Some(sequence) = sequence.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            all.push((sequence, path));
        }
    }
    all.sort_unstable();
    Ok(all)
}

fn names(dir: &Path) -> Result<Vec<(String, PathBuf)>, WalError> {
    let items = match std::fs::read_dir(dir) {
        Ok(items) => items,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(WalError::Io { action: "list", path: dir.to_owned(), source });
        }
    };
    let mut names = Vec::new();
    for item in items {
        let item = item.map_err(WalError::io("list", dir))?;
        names.extend(item.file_name().into_string().ok().map(|name| (name, item.path())));
    }
    Ok(names)
}

fn checked_length(bytes: &[u8]) -> Result<u32, WalError> {
    let limit = SNAPSHOT_CHUNK_BYTES_MAX;
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= limit);
    length.ok_or(WalError::TooLarge { bytes: bytes.len(), limit })
}

fn chunk_checksum(number: u64, length: [u8; 4], chunk: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&length);
    hasher.update(chunk);
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

/// The first four bytes of `bytes`.
fn le_bytes(bytes: &[u8]) -> [u8; 4] {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[..4]);
    four
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn write(dir: &Path, chunks: &[&[u8]]) -> SnapshotFile {
        let mut writer = SnapshotWriter::create(dir, GROUP, b"meta").unwrap();
        for chunk in chunks {
            writer.write_chunk(chunk).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(path: &Path) -> Result<(Vec<u8>, Vec<Vec<u8>>), WalError> {
        let mut reader = SnapshotReader::open(path)?;
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            chunks.push(chunk);
        }
        assert!(reader.next_chunk()?.is_none());
        assert_eq!(reader.group(), GROUP);
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
    fn the_bytes_are_those_of_format_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), &[b"abc"]);
        let bytes = std::fs::read(file.path).unwrap();
        let hex = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "6b766f72756d534e0100000003000000040000006d657461f5032239",
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
        let first = 28;
        bytes[first..first + 24].rotate_left(12);
        std::fs::write(&file.path, bytes).unwrap();
        assert!(matches!(read(&file.path), Err(WalError::Corrupt { offset: 28, .. })));
    }

    #[test]
    fn the_newest_counts_and_older_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("snapshots");
        assert_eq!(latest(&place, GROUP).unwrap(), None);
        let files: Vec<_> = (0..4).map(|_| write(&place, &[b"x"])).collect();
        let mut other = SnapshotWriter::create(&place, GroupId(30), b"").unwrap();
        other.write_chunk(b"y").unwrap();
        let other = other.finish().unwrap();
        assert_eq!(latest(&place, GROUP).unwrap().as_ref(), files.last());
        keep(&place, GROUP, 2).unwrap();
        let left: Vec<_> = files.iter().map(|file| file.path.exists()).collect();
        assert_eq!(left, [false, false, true, true]);
        assert_eq!(latest(&place, GroupId(30)).unwrap(), Some(other));
        assert!(write(&place, &[]).sequence > files[3].sequence);
    }

    #[test]
    fn an_unfinished_snapshot_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let count = || std::fs::read_dir(dir.path()).unwrap().count();
        let mut writer = SnapshotWriter::create(dir.path(), GROUP, b"meta").unwrap();
        writer.write_chunk(b"half").unwrap();
        assert_eq!((count(), latest(dir.path(), GROUP).unwrap()), (1, None));
        drop(writer);
        assert_eq!(count(), 0);
        // A killed process could not clean up.
        std::mem::forget(SnapshotWriter::create(dir.path(), GROUP, b"meta").unwrap());
        assert_eq!(count(), 1);
        remove_strays(dir.path()).unwrap();
        assert_eq!(count(), 0);
    }
}
