//! Commands of sets.

mod sadd;
mod scard;
mod sismember;
mod smembers;
mod spop;
mod srem;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[
    &sadd::SADD,
    &scard::SCARD,
    &sismember::SISMEMBER,
    &smembers::SMEMBERS,
    &spop::SPOP,
    &srem::SREM,
];
