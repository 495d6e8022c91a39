//! Small text files with a title, a version, and a last line that proves them whole.

use std::path::Path;

use crate::stdx::disk::{self, Disk, write_durably};

use super::error::WalError;

/// The version of a data directory's layout and of each of its small files.
pub(super) const FORMAT_VERSION: u32 = 3;

/// Writes a small text with a last line that proves it whole.
pub(super) fn write_sealed(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), WalError> {
    let sealed = format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()));
    write_durably(disk, path, sealed.as_bytes()).map_err(WalError::io("write", path))
}

/// The text [`write_sealed`] wrote; `None` when there is no file.
pub(super) fn read_sealed(disk: &dyn Disk, path: &Path) -> Result<Option<String>, WalError> {
    let sealed = match disk::read(disk, path) {
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

/// The lines of a small file behind its title and its version, both of which must be ours.
pub(super) fn lines_after_title<'a>(
    path: &Path,
    text: &'a str,
    title: &str,
) -> Result<std::str::Lines<'a>, WalError> {
    let mut lines = text.lines();
    let is_ours = lines.next() == Some(title);
    let version = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
    match version {
        Some(FORMAT_VERSION) if is_ours => Ok(lines),
        Some(found) if is_ours => {
            Err(WalError::Version { path: path.to_owned(), found, known: FORMAT_VERSION })
        }
        Some(_) | None => Err(WalError::corrupt(path, 0, "another kind of file")),
    }
}
