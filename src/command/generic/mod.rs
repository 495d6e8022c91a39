//! Commands of keys whatever their type.

mod del;
mod exists;
mod expire;
mod keys;
mod persist;
mod randomkey;
mod scan;
mod ttl;
mod type_name;

use super::apply::DataCommand;

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[
    &del::DEL,
    &del::UNLINK,
    &exists::EXISTS,
    &exists::TOUCH,
    &expire::EXPIRE,
    &expire::EXPIREAT,
    &expire::PEXPIRE,
    &expire::PEXPIREAT,
    &keys::KEYS,
    &persist::PERSIST,
    &randomkey::RANDOMKEY,
    &scan::SCAN,
    &ttl::EXPIRETIME,
    &ttl::PEXPIRETIME,
    &ttl::PTTL,
    &ttl::TTL,
    &type_name::TYPE,
];
