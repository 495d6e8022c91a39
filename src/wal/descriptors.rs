//! What the log and snapshots do when no file descriptor is left: they wait, as nothing is lost by that.
//!
//! A write or sync that failed is never tried again, for nobody knows what of it happened. A file that could not be opened
//! is another matter. Doors leave descriptors to the log (`server/descriptors.rs`), so the lack is that of the whole
//! machine, or a short one.

use std::io;

use super::limits::{DESCRIPTOR_PAUSE, DESCRIPTOR_RETRIES_MAX};
use crate::stdx::descriptors::is_lack;

/// Does `open`, again and again while the system has no descriptor for it; blocks meanwhile.
pub(super) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut retries = 0;
    loop {
        match open() {
            Err(error) if is_lack(&error) && retries < DESCRIPTOR_RETRIES_MAX => {
                if retries == 0 {
                    tracing::warn!(%error, "the log, or a snapshot, waits for a file descriptor");
                }
                retries += 1;
                std::thread::sleep(DESCRIPTOR_PAUSE);
            }
            outcome => return outcome,
        }
    }
}
