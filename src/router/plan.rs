//! One command over several shards becomes one command for each.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::merge::Merge;
use crate::command::{RequestPolicy, ResponsePolicy, Spec};
use crate::ids::ShardId;
use crate::ring::Topology;
use crate::slot::Slot;

/// A shard's part of a command.
#[derive(Debug)]
pub struct Piece<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The command with the words that concern the shard.
    pub argv: SmallVec<[&'a [u8]; 8]>,
}

/// A command cut into pieces, and how their replies become one.
#[derive(Debug)]
pub struct Plan<'a> {
    /// At most one piece per shard, by shard.
    pub pieces: Vec<Piece<'a>>,
    /// How to join the replies, given in the order of the pieces.
    pub merge: Merge,
}

/// Cuts `argv`, whose keys live in several shards; `None` when its spec does not say how.
pub fn cut<'a>(topology: &Topology, spec: &Spec, argv: &[&'a [u8]]) -> Option<Plan<'a>> {
    if spec.request_policy() != Some(RequestPolicy::MultiShard) {
        return None;
    }
    let range = spec.legacy_range();
    let step = usize::try_from(range.step).ok().filter(|step| *step > 0)?;
    let mut by_shard: BTreeMap<ShardId, (Piece<'a>, Vec<usize>)> = BTreeMap::new();
    for (ordinal, position) in spec.key_positions(argv).ok()?.into_iter().enumerate() {
        let shard = topology.shard_of(Slot::of(argv[position]));
        let (piece, ordinals) = by_shard.entry(shard).or_insert_with(|| {
            (Piece { shard, argv: SmallVec::from_slice(&argv[..1]) }, Vec::new())
        });
        // A key travels with what belongs to it, as the value in MSET. Too few words: the piece's own error says so.
        piece.argv.extend_from_slice(&argv[position..argv.len().min(position + step)]);
        ordinals.push(ordinal);
    }
    let (pieces, ordinals): (Vec<_>, Vec<_>) = by_shard.into_values().unzip();
    let merge = match spec.response_policy() {
        Some(ResponsePolicy::AggSum) => Merge::Sum,
        Some(ResponsePolicy::AllSucceeded) => Merge::AllSucceeded,
        None => Merge::InKeyOrder(ordinals),
        Some(_) => return None,
    };
    Some(Plan { pieces, merge })
}

/// A command for every shard.
pub fn everywhere<'a>(topology: &Topology, spec: &Spec, argv: &[&'a [u8]]) -> Option<Plan<'a>> {
    let merge = match spec.response_policy() {
        Some(ResponsePolicy::AggSum) => Merge::Sum,
        Some(ResponsePolicy::AllSucceeded) => Merge::AllSucceeded,
        // RANDOMKEY is the one data command for all shards whose policy is special.
        Some(ResponsePolicy::Special) => Merge::AnyPresent,
        None => Merge::Concatenation,
        Some(_) => return None,
    };
    let shards = (0..topology.shard_count()).map(ShardId);
    let pieces = shards.map(|shard| Piece { shard, argv: SmallVec::from_slice(argv) }).collect();
    Some(Plan { pieces, merge })
}
