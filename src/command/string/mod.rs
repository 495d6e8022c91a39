//! Commands of strings.

mod get;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[&get::GET];
