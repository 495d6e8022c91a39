//! Commands that Redis files under the server although they touch keys alone.

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[];
