//! Which shards a command's keys live in.

use crate::command::{DataCommand, RequestPolicy};
use crate::ids::ShardId;
use crate::ring::Topology;
use crate::slot::Slot;

/// Where a command goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// All its keys live in one shard; of a single key it says which that is, and its slot.
    One(ShardId, Option<(Slot, &'a [u8])>),
    /// Its keys live in several: cut it with [`super::cut`].
    Many,
    /// It concerns every shard.
    All,
    /// It walks the shards one after another, by cursor (SCAN).
    Cursor,
    /// Its arguments do not say where its keys are; the command's own syntax error is the answer, which any shard gives.
    Anywhere,
}

/// The route of `command` with `argv`, of whose only key `slot` is known, if any is.
pub fn route<'a>(
    topology: &Topology,
    command: &DataCommand,
    argv: &[&'a [u8]],
    slot: Option<Slot>,
) -> Route<'a> {
    // Most commands have one key, right after their name.
    if let Some(position) = command.spec.only_key_position() {
        return match argv.get(position) {
            Some(&key) => {
                let slot = slot.unwrap_or_else(|| Slot::of(key));
                Route::One(topology.shard_of(slot), Some((slot, key)))
            }
            None => Route::Anywhere,
        };
    }
    match command.spec.request_policy() {
        Some(RequestPolicy::AllShards | RequestPolicy::AllNodes) => return Route::All,
        // SCAN is the one data command whose policy is special.
        Some(RequestPolicy::Special) => return Route::Cursor,
        Some(RequestPolicy::MultiShard) | None => {}
    }
    if command.spec.is_cut_short(argv) {
        return Route::Anywhere;
    }
    let Ok(positions) = command.spec.key_positions(argv) else { return Route::Anywhere };
    let mut shards = positions.iter().map(|&position| topology.shard_of(Slot::of(argv[position])));
    let Some(first) = shards.next() else { return Route::Anywhere };
    if shards.all(|shard| shard == first) { Route::One(first, None) } else { Route::Many }
}
