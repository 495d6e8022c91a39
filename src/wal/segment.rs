//! Segment files: their names, and reading them in pieces.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::stdx::disk::{Disk, DiskFile, Open};

use super::descriptors::patiently;
use super::error::WalError;
use super::limits::WINDOW_BYTES;
use super::record::{Head, RECORD_HEAD_BYTES, Salt, is_intact};

const SEGMENT_SUFFIX: &str = ".wal";
const SPARE_SUFFIX: &str = ".spare";

/// One file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) salt: Salt,
    pub(super) path: PathBuf,
    /// Records may fill the file up to this byte.
    pub(super) bytes: u64,
    /// A purged file that is to become this one.
    spare: Option<PathBuf>,
    file: OnceLock<Box<dyn DiskFile>>,
}

impl Segment {
    /// A segment whose file, of `bytes`, is made by whoever writes to it first: that may block, and records get their places
    /// where nobody may wait for a disk.
    pub(super) fn to_be_made(
        dir: &Path,
        (sequence, salt): (u64, Salt),
        bytes: u64,
        spare: Option<PathBuf>,
    ) -> Self {
        let path = segment_path(dir, sequence);
        Self { sequence, salt, path, bytes, spare, file: OnceLock::new() }
    }

    /// Opens or creates the file of a segment.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        (sequence, salt): (u64, Salt),
        bytes: u64,
    ) -> Result<Self, WalError> {
        let file = disk.open(path, Open::Write).map_err(WalError::io("open", path))?;
        let (path, file) = (path.to_owned(), OnceLock::from(file));
        Ok(Self { sequence, salt, path, bytes, spare: None, file })
    }

    /// Whether its file is there.
    pub(super) fn is_made(&self) -> bool {
        self.file.get().is_some()
    }

    /// Its file. An error only of a log that has failed: whoever reads waits until there is something to read.
    pub(super) fn file(&self) -> Result<&dyn DiskFile, WalError> {
        let file = self.file.get().map(AsRef::as_ref);
        file.ok_or_else(|| WalError::io("open", &self.path)(io::ErrorKind::NotFound.into()))
    }

    /// Its file, which is made with its room reserved when it is not there yet. Only one may write at a time.
    pub(super) fn made(&self, disk: &dyn Disk) -> Result<&dyn DiskFile, WalError> {
        if let Some(file) = self.file.get() {
            return Ok(file.as_ref());
        }
        let path = &self.path;
        if let Some(spare) = &self.spare {
            disk.rename(spare, path).map_err(WalError::io("rename", spare))?;
        }
        let file = patiently(|| disk.open(path, Open::Write));
        let file = file.map_err(WalError::io("open", path))?;
        file.allocate(self.bytes).map_err(WalError::io("reserve room for", path))?;
        Ok(self.file.get_or_init(|| file).as_ref())
    }
}

/// The path of segment `sequence` in `dir`.
pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}{SEGMENT_SUFFIX}"))
}

/// The path a purged segment waits under until it is used again.
pub(super) fn spare_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}{SPARE_SUFFIX}"))
}

/// The segments and the spare files in `dir`, each in the order of their numbers.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<(Vec<u64>, Vec<PathBuf>), WalError> {
    let mut segments = Vec::new();
    let mut spares = Vec::new();
    for name in disk.list(dir).map_err(WalError::io("list", dir))? {
        let Some(name) = name.to_str() else { continue };
        if let Some(digits) = name.strip_suffix(SEGMENT_SUFFIX) {
            segments.extend(sequence_of(digits));
        } else if name.strip_suffix(SPARE_SUFFIX).and_then(sequence_of).is_some() {
            spares.push(dir.join(name));
        }
    }
    segments.sort_unstable();
    spares.sort_unstable();
    Ok((segments, spares))
}

/// The sequence number in the name of a segment file; `None` for any other file.
pub(super) fn sequence_of_name(name: &str) -> Option<u64> {
    sequence_of(name.strip_suffix(SEGMENT_SUFFIX)?)
}

fn sequence_of(digits: &str) -> Option<u64> {
    let is_ours = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Walks through one segment with few reads, holding one piece of it in memory.
#[derive(Debug)]
pub(super) struct Window {
    segment: Arc<Segment>,
    file_bytes: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    /// A window on `segment` as long as its file is now.
    pub(super) fn open(segment: Arc<Segment>) -> Result<Self, WalError> {
        let file_bytes = segment.file()?.bytes().map_err(WalError::io("look at", &segment.path))?;
        Ok(Self { segment, file_bytes, start: 0, buffer: Vec::new() })
    }

    /// The length of the file, in bytes.
    pub(super) const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// `length` bytes at `offset`; `None` when the file ends before.
    pub(super) fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, WalError> {
        let left = usize::try_from(self.file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        if left < length {
            return Ok(None);
        }
        let held = offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip.saturating_add(length) <= self.buffer.len());
        if let Some(skip) = held {
            return Ok(Some(&self.buffer[skip..skip + length]));
        }
        // An error must not leave half a piece that a later call would take for the file's bytes.
        self.buffer.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(left.min(WINDOW_BYTES.max(length)), 0);
        let segment = &self.segment;
        let read = segment.file()?.read_exact_at(&mut buffer, offset);
        read.map_err(WalError::io("read", &segment.path))?;
        self.start = offset;
        self.buffer = buffer;
        Ok(Some(&self.buffer[..length]))
    }

    /// The head of the record at `offset`, unverified; `None` when there cannot be one.
    pub(super) fn head(&mut self, offset: u64) -> Result<Option<Head>, WalError> {
        Ok(self.bytes(offset, RECORD_HEAD_BYTES)?.and_then(Head::decode))
    }

    /// The record at `offset` and its payload; `None` when the bytes there are no intact record.
    pub(super) fn record(&mut self, offset: u64) -> Result<Option<(Head, &[u8])>, WalError> {
        let Some(head) = self.head(offset)? else { return Ok(None) };
        let salt = self.segment.salt;
        let record = self.bytes(offset, head.record_bytes())?;
        Ok(record.filter(|record| is_intact(record, salt)).map(|record| {
            (head, &record[RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + head.payload_bytes])
        }))
    }
}
