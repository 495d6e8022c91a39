//! Commands that Redis files under the server although they touch keys alone.

mod dbsize;
mod flush;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[&dbsize::DBSIZE, &flush::FLUSHALL, &flush::FLUSHDB];
