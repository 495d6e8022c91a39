//! What a data directory has lost, and how what remains of it makes way for a new one.

use std::path::Path;

use crate::ids::Incarnation;
use crate::stdx::disk::{Disk, TEMPORARY_SUFFIX};

use super::data_dir::{
    CLUSTER_FILE, IDENTITY_FILE, LOCK_FILE, SNAPSHOT_DIR, STARTS_FILE, WAL_DIR, is_dir, make_dir,
    sync_dir,
};
use super::error::WalError;
use super::recovery::{self, Presence};

/// How the directories begin that what remained of earlier ones was moved to.
pub(super) const SET_ASIDE_PREFIX: &str = "set-aside-";

/// Everything that belongs to one incarnation, in the order in which it is set aside: the identity first, so that what
/// is left never looks whole; `boot-epoch` is of an earlier version.
pub(super) const PARTS: [&str; 6] =
    [IDENTITY_FILE, STARTS_FILE, CLUSTER_FILE, WAL_DIR, SNAPSHOT_DIR, "boot-epoch"];

/// What is missing of the directory whose identity says `found`; `None` when it is whole, or when nothing lies there yet.
pub(super) fn what_is_lost(
    disk: &dyn Disk,
    dir: &Path,
    found: Option<Incarnation>,
) -> Result<Option<&'static str>, WalError> {
    let wal = dir.join(WAL_DIR);
    let log = if is_dir(disk, &wal) { recovery::presence(disk, &wal)? } else { Presence::Absent };
    let Some(incarnation) = found else {
        // A crash while the directory was being made leaves an empty log at most.
        let others = PARTS.iter().filter(|part| **part != WAL_DIR && **part != SNAPSHOT_DIR);
        let is_new = match log {
            Presence::Absent => !holds_files(disk, &wal)?,
            Presence::Empty(_) => true,
            Presence::Used(_) => false,
        } && !holds_files(disk, &dir.join(SNAPSHOT_DIR))?
            && others.clone().all(|part| !disk.exists(&dir.join(part)));
        return Ok((!is_new).then_some("its identity file"));
    };
    Ok(match log {
        Presence::Absent => Some("its log"),
        Presence::Empty(of) if of == incarnation => None,
        // A start is on the list before the log is opened.
        Presence::Used(of) if of == incarnation && !disk.exists(&dir.join(STARTS_FILE)) => {
            Some("its list of starts")
        }
        Presence::Used(of) if of == incarnation => None,
        Presence::Empty(_) | Presence::Used(_) => Some("its log, and has another directory's"),
    })
}

/// Whether the directory `path` is there and holds anything that may matter: a log that was never finished has at most
/// its lock and its format file.
fn holds_files(disk: &dyn Disk, path: &Path) -> Result<bool, WalError> {
    if !is_dir(disk, path) {
        return Ok(disk.exists(path));
    }
    for name in disk.list(path).map_err(WalError::io("list", path))? {
        let name = name.to_string_lossy();
        if name != LOCK_FILE && name != recovery::FORMAT_FILE && !name.ends_with(TEMPORARY_SUFFIX) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves what is left of the old directory out of the way, a part at a time and each durably: whatever the moment of a
/// crash, what remains still has lost something, and the next start goes on.
pub(super) fn set_aside(disk: &dyn Disk, dir: &Path, what: &'static str) -> Result<(), WalError> {
    let mut number = 0u32;
    for name in disk.list(dir).map_err(WalError::io("list", dir))? {
        let found =
            name.to_str().and_then(|name| name.strip_prefix(SET_ASIDE_PREFIX)?.parse().ok());
        number = number.max(found.unwrap_or(0));
    }
    let aside = dir.join(format!("{SET_ASIDE_PREFIX}{}", number.saturating_add(1)));
    make_dir(disk, &aside)?;
    sync_dir(disk, dir)?;
    tracing::warn!(
        path = %dir.display(),
        aside = %aside.display(),
        "the data directory has lost {what}: what remains is set aside, and this node begins anew as an empty one"
    );
    for part in PARTS {
        let (from, to) = (dir.join(part), aside.join(part));
        if disk.exists(&from) {
            disk.rename(&from, &to).map_err(WalError::io("move", &from))?;
            sync_dir(disk, &aside)?;
            sync_dir(disk, dir)?;
        }
    }
    Ok(())
}
