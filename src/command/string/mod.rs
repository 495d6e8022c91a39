//! Commands of strings.

mod expiry;
pub(super) mod limits;

mod append;
mod get;
mod getdel;
mod getex;
mod getrange;
mod getset;
mod incr;
mod incrbyfloat;
mod mget;
mod mset;
mod set;
mod setex;
mod setnx;
mod setrange;
mod strlen;

use super::apply::DataCommand;
use super::prelude::{Reply, Str};

/// The commands of this group.
pub(super) const COMMANDS: &[&DataCommand] = &[
    &append::APPEND,
    &get::GET,
    &getdel::GETDEL,
    &getex::GETEX,
    &getrange::GETRANGE,
    &getrange::SUBSTR,
    &getset::GETSET,
    &incr::DECR,
    &incr::DECRBY,
    &incr::INCR,
    &incr::INCRBY,
    &incrbyfloat::INCRBYFLOAT,
    &mget::MGET,
    &mset::MSET,
    &mset::MSETNX,
    &set::SET,
    &setex::PSETEX,
    &setex::SETEX,
    &setnx::SETNX,
    &setrange::SETRANGE,
    &strlen::STRLEN,
];

/// The reply that `string` is: a long one is lent.
#[inline]
fn reply_of(string: &Str) -> Reply<'_> {
    match string.lent() {
        Some(bytes) => Reply::lent(bytes),
        None => Reply::Bulk(string.as_bytes()),
    }
}
