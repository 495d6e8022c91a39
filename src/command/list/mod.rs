//! Commands of lists.

mod range;

mod lindex;
mod llen;
mod lpop;
mod lpush;
mod lpushx;
mod lrange;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[
    &lindex::LINDEX,
    &llen::LLEN,
    &lpop::LPOP,
    &lpop::RPOP,
    &lpush::LPUSH,
    &lpush::RPUSH,
    &lpushx::LPUSHX,
    &lpushx::RPUSHX,
    &lrange::LRANGE,
];
