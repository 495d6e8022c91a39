//! Bounds of what a client may make its connection remember.

/// Bytes of a client's name, and of the name and version of its library: they stay as long as the client does.
pub(super) const NAME_BYTES_MAX: usize = 1024;
