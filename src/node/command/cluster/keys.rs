//! CLUSTER KEYSLOT, COUNTKEYSINSLOT and GETKEYSINSLOT: which keys a slot has.

use super::BASE;
use crate::command::{Arg, Arity, Spec, Tip, parse_i64};
use crate::ids::DbIndex;
use crate::node::command::Outcome;
use crate::node::{Client, Node};
use crate::resp::{ErrorReply, Reply};
use crate::slot::Slot;

/// Keys that GETKEYSINSLOT returns at most, whatever it is asked for: its reply is built at once.
const KEYS_IN_SLOT_MAX: usize = 1024 * 1024;

pub(super) const COUNTKEYSINSLOT: Spec = Spec {
    name: "cluster|countkeysinslot",
    summary: "Returns how many keys of a slot are on this node.",
    arity: Arity::Exactly(3),
    args: &[Arg::integer("slot")],
    ..BASE
};

pub(super) const GETKEYSINSLOT: Spec = Spec {
    name: "cluster|getkeysinslot",
    summary: "Returns names of keys of a slot that are on this node.",
    complexity: "O(N) for N names asked for",
    arity: Arity::Exactly(4),
    tips: &[Tip::NondeterministicOutput],
    args: &[Arg::integer("slot"), Arg::integer("count")],
    ..BASE
};

pub(super) const KEYSLOT: Spec = Spec {
    name: "cluster|keyslot",
    summary: "Returns the slot of a key.",
    complexity: "O(N) for N bytes of the key",
    arity: Arity::Exactly(3),
    args: &[Arg::string("key")],
    ..BASE
};

pub(super) fn keyslot(_node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    Ok(Reply::Integer(Slot::of(argv[2]).number().into()))
}

/// As in Redis only this node's keys count, of which it has none where it holds no replica of the shard.
pub(super) fn countkeysinslot(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let number = parse_i64(argv[2])?;
    let slot = slot(number).ok_or_else(|| ErrorReply::new("ERR", "Invalid slot"))?;
    let shard = node.shard(node.topology().shard_of(slot));
    let count =
        shard.read(node.clock().monotonic(), |keys, _| keys.count_in_slot(DbIndex(0), slot));
    count.map(Reply::count).ok_or(ErrorReply::SHARD_BUSY)
}

pub(super) fn getkeysinslot(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let invalid = || ErrorReply::new("ERR", "Invalid slot or number of keys");
    let (number, count) = (parse_i64(argv[2])?, parse_i64(argv[3])?);
    let slot = slot(number).ok_or_else(invalid)?;
    let count = usize::try_from(count).map_err(|_| invalid())?.min(KEYS_IN_SLOT_MAX);
    let shard = node.shard(node.topology().shard_of(slot));
    let found = shard.read(node.clock().monotonic(), |keys, _| {
        let keys = keys.keys_in_slot(DbIndex(0), slot, count);
        Reply::bulks(keys.into_iter().map(<[u8]>::to_vec))
    });
    found.ok_or(ErrorReply::SHARD_BUSY)
}

fn slot(number: i64) -> Option<Slot> {
    u16::try_from(number).ok().and_then(Slot::new)
}
