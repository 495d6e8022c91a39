//! Commands of streams.

mod id;
mod trim;

mod xadd;
mod xlen;
mod xrange;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] =
    &[&xadd::XADD, &xlen::XLEN, &xrange::XRANGE, &xrange::XREVRANGE];
