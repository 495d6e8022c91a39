//! A data directory that was there before is taken away from everybody but its owner.
//!
//! What is made here is private from the beginning. An earlier version, `mkdir` or a copy may have left it open: then all
//! keys can be read, or a link put in the log's place. It is tightened rather than refused: whoever starts the node means
//! it to serve, and every new volume comes open to all. Three things are left as they are, with a warning or an error:
//!
//! - a directory that holds other things too (`--dir /tmp`): what is in it is ours, itself it is not;
//! - what another user owns, as a volume's root may be: its owner has the say;
//! - a symbolic link that another user made, in the place of something of ours: the node does not start. Links of its own
//!   user and of root are followed, to a log on a disk of its own for example.

use std::io;
use std::path::Path;

use super::error::WalError;
use super::loss::PARTS;
use crate::stdx::disk::{Disk, Privacy, TEMPORARY_SUFFIX};

/// What the root of a volume holds from the beginning.
const LOST_AND_FOUND: &str = "lost+found";

/// Takes what the data directory `dir` holds, and itself if it holds nothing else, away from all but its owner.
/// `is_ours` says which of the other names in it are.
///
/// # Errors
/// [`WalError::Io`], also for another user's link.
pub(super) fn tighten(
    disk: &dyn Disk,
    dir: &Path,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), WalError> {
    let mut tightened = 0_usize;
    let mut holds_others = false;
    let list = |dir: &Path| disk.list(dir).map_err(WalError::io("list", dir));
    let mut take = |path: &Path| {
        match disk.make_private(path) {
            Ok(Privacy::Private) => {}
            Ok(Privacy::Tightened) => tightened += 1,
            // A link that leads nowhere: whoever needs what should be there says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WalError::io("make private", path)(error)),
            Ok(Privacy::OfAnother) => {
                tracing::warn!(path = %path.display(), "other users can read or change it, and it is another user's: its owner should take their rights away");
            }
        }
        Ok(())
    };
    let mut inner = Vec::new();
    for name in list(dir)? {
        let text = name.to_string_lossy();
        if PARTS.contains(&&*text) || is_ours(&text) || text.ends_with(TEMPORARY_SUFFIX) {
            inner.push(dir.join(&name));
        } else {
            holds_others |= text != LOST_AND_FOUND;
        }
    }
    // Itself first: from then on nobody changes what is in it.
    if holds_others {
        tracing::debug!(path = %dir.display(), "the data directory holds other things too and keeps its mode");
    } else {
        // Behind a link, if it is one: the path was given by whoever starts the node.
        take(&dir.join("."))?;
    }
    for path in inner {
        take(&path)?;
        if disk.stat(&path).is_ok_and(|stat| stat.is_dir) {
            for name in list(&path)? {
                take(&path.join(name))?;
            }
        }
    }
    if tightened > 0 {
        tracing::warn!(path = %dir.display(), tightened, "other users could read or change the data directory: it is its owner's alone now");
    }
    Ok(())
}
