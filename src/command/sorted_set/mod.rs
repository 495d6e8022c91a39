//! Commands of sorted sets.

mod zadd;
mod zcard;
mod zpop;
mod zrank;
mod zrem;
mod zscore;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[
    &zadd::ZADD,
    &zcard::ZCARD,
    &zpop::ZPOPMAX,
    &zpop::ZPOPMIN,
    &zrank::ZRANK,
    &zrank::ZREVRANK,
    &zrem::ZREM,
    &zscore::ZSCORE,
];
