//! Commands of keys whatever their type.

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[];
