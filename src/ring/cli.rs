//! The texts of `kvorum ring …`: where a key lives, how shards are spread, what a change would move.
//!
//! Pure functions from a topology and arguments to text; printing is the caller's.

use std::fmt::Write;
use std::ops::RangeInclusive;

use crate::ids::{NodeId, ShardId};
use crate::ring::node_spec::{self, NodeSpecError};
use crate::ring::{Diff, LOAD_SLACK_PERCENT, ListedNode, Topology, TopologyError};
use crate::slot::Slot;

/// Moves that [`plan`] lists one by one; the rest is counted.
const MOVES_LISTED_MAX: usize = 64;

/// A change of the cluster that [`plan`] looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node joins.
    Add {
        /// Its name.
        name: String,
        /// Its weight.
        weight: u16,
        /// Its zone; empty when not given.
        zone: String,
    },
    /// The node with this name leaves.
    Remove(String),
}

impl Change {
    /// Parses the argument of `--add`: `ID[:weight[:zone]]`.
    ///
    /// # Errors
    /// When a field is malformed or out of range.
    pub fn parse_add(text: &str) -> Result<Self, NodeSpecError> {
        let (name, weight, zone) = node_spec::parse_newcomer(text)?;
        Ok(Self::Add { name, weight, zone })
    }
}

/// Why a change cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No node has this name.
    #[error("no node is called \"{0}\"")]
    UnknownName(String),
    /// The changed topology cannot be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// The text of `kvorum ring locate KEY`: slot, shard and replicas of `key`.
pub fn locate(topology: &Topology, key: &[u8]) -> String {
    let slot = Slot::of(key);
    let shard = topology.shard_of(slot);
    let placement = topology.placement(shard);
    let mut rows = vec![vec!["key".to_owned(), quoted(key)]];
    let tag = hash_tag(key).map_or_else(|| "none, the whole key is hashed".to_owned(), quoted);
    rows.push(vec!["hash tag".to_owned(), tag]);
    rows.push(vec!["slot".to_owned(), slot.to_string()]);
    rows.push(vec!["shard".to_owned(), shard.to_string()]);
    rows.push(vec!["slots".to_owned(), range(&topology.slots_of(shard))]);
    rows.push(vec!["leader".to_owned(), name_of(topology, placement.leader)]);
    let mut text = table(&rows, &[Align::Left, Align::Left]);
    let mut replicas = vec![header(&["replica", "node", "zone", "address"])];
    for (rank, &id) in placement.replicas.iter().enumerate() {
        let node = topology.node(id);
        let zone = node.map_or_else(String::new, |node| zone_of(node).to_owned());
        let address = node.map(address_of).unwrap_or_default();
        replicas.push(vec![(rank + 1).to_string(), name_of(topology, id), zone, address]);
    }
    text.push('\n');
    text.push_str(&table(&replicas, &[Align::Right, Align::Left, Align::Left, Align::Left]));
    text
}

/// The text of `kvorum ring show`: nodes, shards and balance.
pub fn show(topology: &Topology) -> String {
    let mut text = format!(
        "epoch {}, {} nodes, {} shards, replication factor {}, {} virtual nodes per weight\n\n",
        topology.epoch(),
        topology.nodes().len(),
        topology.shard_count(),
        topology.replication_factor(),
        topology.virtual_nodes(),
    );
    text.push_str(&nodes_table(topology));
    let _infallible = writeln!(text, "\n{}\n", balance(topology));
    text.push_str(&shards_table(topology));
    text
}

/// The text of `kvorum ring plan`: what `change` would move, against its fair share.
///
/// # Errors
/// When the node to remove is not there or is the last, or the one to add cannot be added.
pub fn plan(topology: &Topology, change: &Change) -> Result<String, PlanError> {
    let (what, id, changed) = match change {
        Change::Add { name, weight, zone } => {
            let node = newcomer(name, *weight, zone);
            let (id, what) =
                (node.id, format!("add {name} (weight {weight}, zone {})", zone_of(&node)));
            (what, id, topology.with_node(node)?)
        }
        Change::Remove(name) => {
            let node = topology.node_named(name);
            let id = node.ok_or_else(|| PlanError::UnknownName(name.clone()))?.id;
            (format!("remove {name}"), id, topology.without_node(id)?)
        }
    };
    let diff = Diff::between(topology, &changed);
    let holder = if changed.node(id).is_some() { &changed } else { topology };
    let share = holder.shares()[&id].hundredths();
    let rows = [
        ["change", &what],
        ["copies", &format!("{} of {} replicas", diff.copies(), replicas_of(&changed))],
        ["fair share", &hundredths(share)],
        ["ratio", &hundredths(ratio(diff.copies() * 100, share))],
        ["leaders", &format!("{} of {} move", diff.leaders.len(), changed.shard_count())],
        ["before", &balance(topology)],
        ["after", &balance(&changed)],
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|row| header(row)).collect();
    let mut text = table(&rows, &[Align::Left, Align::Left]);
    text.push('\n');
    text.push_str(&totals_table(topology, &changed, &diff));
    text.push('\n');
    text.push_str(&moves_table(topology, &changed, &diff));
    Ok(text)
}

fn nodes_table(topology: &Topology) -> String {
    let (caps, shares) = (topology.caps(), topology.shares());
    let (replicas, leaders) = (topology.replica_totals(), topology.leader_totals());
    let mut rows = vec![header(&[
        "node",
        "weight",
        "zone",
        "vnodes",
        "replicas",
        "share",
        "cap",
        "leaders",
        "slots held",
    ])];
    for node in by_name(topology) {
        let tokens = u32::from(node.weight) * u32::from(topology.virtual_nodes());
        let slots = slots_held(topology, node.id);
        let percent = ratio(slots, u64::from(Slot::COUNT));
        rows.push(vec![
            node.name.clone(),
            node.weight.to_string(),
            zone_of(node).to_owned(),
            tokens.to_string(),
            replicas[&node.id].to_string(),
            hundredths(shares[&node.id].hundredths()),
            caps[&node.id].to_string(),
            leaders[&node.id].to_string(),
            format!("{slots} ({percent}%)"),
        ]);
    }
    let (left, right) = (Align::Left, Align::Right);
    table(&rows, &[left, right, left, right, right, right, right, right, right])
}

fn shards_table(topology: &Topology) -> String {
    let mut rows = vec![header(&["shard", "slots", "leader", "replicas"])];
    for (shard, placement) in topology.placements() {
        let names: Vec<String> =
            placement.replicas.iter().map(|&id| name_of(topology, id)).collect();
        rows.push(vec![
            shard.to_string(),
            range(&topology.slots_of(shard)),
            name_of(topology, placement.leader),
            names.join(" "),
        ]);
    }
    table(&rows, &[Align::Left; 4])
}

fn totals_table(old: &Topology, new: &Topology, diff: &Diff) -> String {
    let (before, after) = (old.replica_totals(), new.replica_totals());
    let count = |number: Option<&u64>| number.map_or_else(|| "-".to_owned(), u64::to_string);
    let mut rows: Vec<Vec<String>> = diff
        .totals
        .iter()
        .map(|(id, totals)| {
            vec![
                name_of_either(old, new, *id),
                count(before.get(id)),
                format!("-{}", totals.lost),
                format!("+{}", totals.gained),
                count(after.get(id)),
            ]
        })
        .collect();
    rows.sort_unstable();
    rows.insert(0, header(&["node", "before", "lost", "gained", "after"]));
    table(&rows, &[Align::Left, Align::Right, Align::Right, Align::Right, Align::Right])
}

fn moves_table(old: &Topology, new: &Topology, diff: &Diff) -> String {
    let mut rows = vec![header(&["shard", "from", "to"])];
    for step in diff.moves.iter().take(MOVES_LISTED_MAX) {
        let name = |id: Option<NodeId>| {
            id.map_or_else(|| "-".to_owned(), |id| name_of_either(old, new, id))
        };
        rows.push(vec![step.shard.to_string(), name(step.from), name(step.to)]);
    }
    let mut text = table(&rows, &[Align::Left; 3]);
    if let Some(more) = diff.moves.len().checked_sub(MOVES_LISTED_MAX).filter(|&more| more > 0) {
        let _infallible = writeln!(text, "… and {more} more");
    }
    text
}

/// The heaviest node's load against its fair share, which is the mean where weights are equal.
fn balance(topology: &Topology) -> String {
    let shares = topology.shares();
    let worst = topology
        .replica_totals()
        .iter()
        .map(|(id, &total)| ratio(total * 100, shares[id].hundredths()))
        .max()
        .unwrap_or(0);
    let leaders = topology.leader_totals();
    let least = leaders.values().min().copied().unwrap_or(0);
    let most = leaders.values().max().copied().unwrap_or(0);
    format!(
        "replicas max/fair {} (bound {}, rounded up), leaders {least}..{most} per node",
        hundredths(worst),
        hundredths(100 + u64::from(LOAD_SLACK_PERCENT)),
    )
}

/// `part / whole` in hundredths, rounded to the nearest; 0 when there is no whole.
fn ratio(part: u64, whole: u64) -> u64 {
    (part * 100 + whole / 2).checked_div(whole).unwrap_or(0)
}

fn newcomer(name: &str, weight: u16, zone: &str) -> ListedNode {
    ListedNode {
        id: NodeId::of_name(name),
        name: name.to_owned(),
        // A plan opens no connection, so any address will do.
        host: "planned".to_owned(),
        peer_port: 1,
        weight,
        zone: zone.to_owned(),
        doors: None,
    }
}

fn replicas_of(topology: &Topology) -> u64 {
    u64::from(topology.shard_count()) * topology.replica_count() as u64
}

fn slots_held(topology: &Topology, id: NodeId) -> u64 {
    let holds = |shard: ShardId| topology.placement(shard).replicas.contains(&id);
    let shards = (0..topology.shard_count()).map(ShardId).filter(|&shard| holds(shard));
    shards.map(|shard| topology.slots_of(shard).len() as u64).sum()
}

fn by_name(topology: &Topology) -> Vec<&ListedNode> {
    let mut nodes: Vec<&ListedNode> = topology.nodes().values().collect();
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    nodes
}

fn name_of(topology: &Topology, id: NodeId) -> String {
    topology.node(id).map_or_else(|| id.to_string(), |node| node.name.clone())
}

fn name_of_either(old: &Topology, new: &Topology, id: NodeId) -> String {
    name_of(if new.node(id).is_some() { new } else { old }, id)
}

fn zone_of(node: &ListedNode) -> &str {
    if node.zone.is_empty() { "-" } else { &node.zone }
}

fn address_of(node: &ListedNode) -> String {
    if node.host.contains(':') {
        format!("[{}]:{}", node.host, node.peer_port)
    } else {
        format!("{}:{}", node.host, node.peer_port)
    }
}

fn range(slots: &RangeInclusive<u16>) -> String {
    format!("{}-{}", slots.start(), slots.end())
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// The part of `key` that is hashed instead of all of it (Redis cluster specification, "Hash tags").
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let after = &key[open + 1..];
    let length = after.iter().position(|&byte| byte == b'}')?;
    Some(&after[..length]).filter(|tag| !tag.is_empty())
}

/// Which side of its column a cell stands on.
#[derive(Clone, Copy, Debug)]
enum Align {
    Left,
    Right,
}

fn header(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|&title| title.to_owned()).collect()
}

/// `rows` in columns two blanks apart, without blanks at the end of a line.
fn table(rows: &[Vec<String>], aligns: &[Align]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..aligns.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells =
            row.iter().zip(aligns).zip(&widths).map(|((cell, align), &width)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::{golden, topology};

    fn five() -> Topology {
        topology(
            16,
            3,
            &[("n1", 1, "a"), ("n2", 1, "a"), ("n3", 1, "b"), ("n4", 2, "b"), ("n5", 1, "c")],
        )
    }

    fn flat() -> Topology {
        topology(12, 3, &[("n1", 1, ""), ("n2", 1, ""), ("n3", 1, ""), ("n4", 1, "")])
    }

    #[test]
    fn locate_is_golden() {
        let keys: [&[u8]; 4] = [b"foo", b"{user1000}.following", b"foo{}{bar}", b"\xff \"\n"];
        let text = keys.map(|key| locate(&five(), key)).join("\n");
        golden!("locate.txt", text);
    }

    #[test]
    fn show_is_golden() {
        golden!("show.txt", [show(&five()), show(&flat())].join("\n"));
    }

    #[test]
    fn plan_is_golden() {
        let plans = [
            plan(&flat(), &Change::parse_add("n5").unwrap()).unwrap(),
            plan(&five(), &Change::parse_add("n6:2:c").unwrap()).unwrap(),
            plan(&flat(), &Change::Remove("n2".to_owned())).unwrap(),
        ];
        golden!("plan.txt", plans.join("\n"));
    }

    #[test]
    fn long_plans_count_the_rest() {
        let topology =
            topology(300, 3, &[("n1", 1, ""), ("n2", 1, ""), ("n3", 1, ""), ("n4", 1, "")]);
        let text = plan(&topology, &Change::parse_add("n5").unwrap()).unwrap();
        assert!(text.ends_with("… and 116 more\n"), "{text}");
    }

    #[test]
    fn impossible_plans_say_why() {
        let error = |change: &Change| plan(&flat(), change).unwrap_err().to_string();
        assert_eq!(error(&Change::Remove("n9".to_owned())), "no node is called \"n9\"");
        assert_eq!(error(&Change::parse_add("n1").unwrap()), "node \"n1\" is named twice");
        assert!(Change::parse_add("n1:200").is_err());
    }

    #[test]
    fn hash_tags_agree_with_slots() {
        let keys: [&[u8]; 7] = [b"", b"a", b"{a}b", b"{}a", b"a{b", b"x{{y}}", b"x{a}{b}"];
        for key in keys {
            assert_eq!(Slot::of(hash_tag(key).unwrap_or(key)), Slot::of(key), "{key:?}");
        }
    }
}
