//! How much configuration there may be.

/// Bytes of a configuration file. Ours has some 20 KB with all its comments.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of one text value; Redis allows as many for `requirepass`.
pub(super) const TEXT_BYTES_MAX: usize = 512;

/// Bytes of a path: Linux' `PATH_MAX` less its NUL.
pub(super) const PATH_BYTES_MAX: usize = 4095;

/// Addresses of `bind`, as in Redis.
pub(super) const ADDRESSES_MAX: usize = 16;

/// Bytes of a host name: the longest DNS name.
pub(super) const HOST_BYTES_MAX: usize = 255;

/// Names of `admin-hosts`.
pub(super) const HOSTNAMES_MAX: usize = 64;

/// Bytes of a node's name.
pub(super) const NODE_NAME_BYTES_MAX: usize = 64;

/// Bytes of `cluster-nodes`: room for 256 nodes with long names.
pub(super) const NODES_BYTES_MAX: usize = 128 * 1024;

/// Bytes of a wrong word that a message repeats.
pub(super) const QUOTED_BYTES_MAX: usize = 64;
