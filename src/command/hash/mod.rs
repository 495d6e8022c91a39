//! Commands of hashes.

mod hdel;
mod hexists;
mod hget;
mod hgetall;
mod hlen;
mod hset;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[
    &hdel::HDEL,
    &hexists::HEXISTS,
    &hget::HGET,
    &hgetall::HGETALL,
    &hlen::HLEN,
    &hset::HMSET,
    &hset::HSET,
];
