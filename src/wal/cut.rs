//! What a power cut would leave: a log cut back to its last sync.

use std::fs::OpenOptions;
use std::path::Path;

use crate::stdx::disk::Disk as _;
use crate::stdx::fs::SystemDisk;

use super::data_dir::lock_dir;
use super::error::WalError;
use super::segment::{list, segment_path, sequence_of_name};
use super::syncer::SYNC_MARK_FILE;

/// Cuts the closed (or killed) log in `dir` back to its last completed sync, as the file `synced`
/// says, which a log opened with `sync_mark` writes. Returns the number of bytes taken away, unused
/// room at the end of the last segment not counted among what is kept.
///
/// For tests and offline tools: this is the worst that a power cut may do.
///
/// # Errors
/// [`WalError::InUse`] while the log is open, [`WalError::NoSyncMark`] without a readable `synced`
/// file, [`WalError::Io`].
pub fn cut_to_last_sync(dir: &Path) -> Result<u64, WalError> {
    let _lock = lock_dir(&SystemDisk, dir)?;
    let text = std::fs::read_to_string(dir.join(SYNC_MARK_FILE)).unwrap_or_default();
    let no_mark = || WalError::NoSyncMark { path: dir.to_owned() };
    let (last, end) = parse(&text).ok_or_else(no_mark)?;
    let (sequences, _) = list(&SystemDisk, dir)?;
    let mut bytes_cut = 0;
    for sequence in sequences.into_iter().rev().filter(|&sequence| sequence >= last) {
        let path = segment_path(dir, sequence);
        let file =
            OpenOptions::new().write(true).open(&path).map_err(WalError::io("open", &path))?;
        let bytes = file.metadata().map_err(WalError::io("look at", &path))?.len();
        if sequence > last {
            bytes_cut += bytes;
            std::fs::remove_file(&path).map_err(WalError::io("delete", &path))?;
        } else if bytes > end {
            bytes_cut += bytes - end;
            file.set_len(end).map_err(WalError::io("shorten", &path))?;
            file.sync_all().map_err(WalError::io("sync", &path))?;
        }
    }
    SystemDisk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    Ok(bytes_cut)
}

fn parse(text: &str) -> Option<(u64, u64)> {
    let (name, offset) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((sequence_of_name(name)?, offset.parse().ok()?))
}
