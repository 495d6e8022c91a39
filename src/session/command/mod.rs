//! Commands that concern the connection itself.

mod ping;

use super::table::Row;

pub(super) const COMMANDS: &[Row] = &[ping::PING];
