//! What must hold at every moment, seen from outside of the nodes.

use std::collections::BTreeMap;

use kvorum::ids::RaftId;
use kvorum::shard::{Shard, StateHash};

use crate::host::Host;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Invariants {
    /// Who led each shard in each term.
    leaders: BTreeMap<(usize, u64), RaftId>,
}

impl Invariants {
    /// Looks at all nodes that run now.
    ///
    /// # Errors
    /// Which invariant is broken.
    pub(crate) fn look(&mut self, hosts: &[Host], now: u64) -> Result<(), String> {
        let mut readable: BTreeMap<usize, &str> = BTreeMap::new();
        for host in hosts.iter().filter(|host| !host.is_paused(now)) {
            let seen = host.within(|node| {
                node.shards().iter().enumerate().try_for_each(|(number, shard)| {
                    self.elects_once(number, shard)?;
                    // Two leases at once, and one of them answers reads of what the other has changed (thesis 6.4.1).
                    if shard.may_read()
                        && let Some(other) = readable.insert(number, &host.name)
                    {
                        let name = &host.name;
                        return Err(format!("leases: {other} and {name} may read shard {number}"));
                    }
                    Ok(())
                })
            });
            seen.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// At most one replica leads in a term (thesis 3.2).
    fn elects_once(&mut self, number: usize, shard: &Shard) -> Result<(), String> {
        let (Some(status), Some(id)) = (shard.status(), shard.replica_id()) else { return Ok(()) };
        if status.role != "leader" {
            return Ok(());
        }
        let leader = *self.leaders.entry((number, status.term)).or_insert(id);
        if leader == id {
            Ok(())
        } else {
            let term = status.term;
            Err(format!("election: {leader:?} and {id:?} led shard {number} in term {term}"))
        }
    }

    /// How many leaders there were.
    pub(crate) fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// Replicas that have applied the same entries have the same state (thesis 3.6.3).
///
/// # Errors
/// Which have not.
pub(crate) fn states_agree(hosts: &[Host]) -> Result<(), String> {
    let mut states: BTreeMap<(usize, u64), (&str, StateHash)> = BTreeMap::new();
    for host in hosts {
        let hashes = host.within(|node| {
            let hash = |shard: &std::sync::Arc<Shard>| shard.state_hash().ok().flatten();
            node.shards().iter().map(hash).collect::<Vec<_>>()
        });
        for (number, hash) in hashes.unwrap_or_default().into_iter().enumerate() {
            let Some(hash) = hash else { continue };
            let (name, first) = *states.entry((number, hash.index)).or_insert((&host.name, hash));
            if first != hash {
                let this = &host.name;
                return Err(format!(
                    "state machine: shard {number} is {first:?} on {name} and {hash:?} on {this}"
                ));
            }
        }
    }
    Ok(())
}
