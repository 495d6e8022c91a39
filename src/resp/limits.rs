//! How much a client may send in one request.
//!
//! Source: Redis 7, `networking.c` and `proto-max-bulk-len`; where we differ, it is said.

/// Arguments of one request. Redis allows 2^31; a million is past any honest request and bounds what one may cost.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;

/// Bytes of one argument: the most that `proto-max-bulk-len` allows, 512 MiB, Redis' default.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of one request with its framing: the default of `client-query-buffer-limit`, 1 GiB.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes of one inline request, and of one line that announces a length, without its line end.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Arguments of one request before authentication.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;

/// Bytes of one argument before authentication.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// Aggregates inside one another in a reply frame; what kvorum and Redis send stays below ten.
pub const FRAME_DEPTH_MAX: usize = 32;

/// Arguments whose places a decoder keeps room for between requests; what a larger request took is given back.
pub const ARGUMENTS_KEPT_MAX: usize = 1024;

/// What one connection may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arguments of one request, at most [`ARGUMENTS_MAX`] in ordinary use.
    pub arguments_max: usize,
    /// Bytes of one argument (`proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// Bytes of one request with its framing (`client-query-buffer-limit`).
    pub request_bytes_max: usize,
    /// Whether the tighter limits of a client that has yet to authenticate apply as well.
    pub standing: Standing,
}

/// What a connection has shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A password is required and was not yet given: [`UNAUTHENTICATED_ARGUMENTS_MAX`] and
    /// [`UNAUTHENTICATED_BULK_BYTES_MAX`] apply.
    Unauthenticated,
    /// Only the limits of [`Limits`] apply.
    Authenticated,
}

impl Limits {
    /// The defaults of a client that need not authenticate, or has.
    pub const AUTHENTICATED: Self = Self {
        arguments_max: ARGUMENTS_MAX,
        bulk_bytes_max: BULK_BYTES_MAX,
        request_bytes_max: REQUEST_BYTES_MAX,
        standing: Standing::Authenticated,
    };

    /// The defaults of a client that has yet to authenticate.
    pub const UNAUTHENTICATED: Self =
        Self { standing: Standing::Unauthenticated, ..Self::AUTHENTICATED };
}

impl Default for Limits {
    fn default() -> Self {
        Self::AUTHENTICATED
    }
}
