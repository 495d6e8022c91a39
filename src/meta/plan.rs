//! What meta's leader decides next: a pure function of the cluster and of who is silent.
//!
//! One decision at a time, each a [`Change`] that says what it rests on. A leader that dies between two leaves
//! nothing behind but the state, from which the next one goes on.

use super::change::Change;
use super::cluster::{COPIES_MAX, Cluster, Standing};
use crate::ids::{GroupId, Incarnation};

/// The next decision about directories that replace lost ones; `None` when there is nothing to decide.
///
/// Meta's own group comes first: it is copied in milliseconds, and without it one more death during hours of copying
/// would stop the planner. Then the groups by number, two at a time for each directory.
pub fn next_plan(cluster: &Cluster) -> Option<Change> {
    let joining = cluster.members().iter().filter(|(_, it)| it.standing == Standing::Joining);
    for (node, member) in joining {
        if !cluster.is_awaited(*node) {
            return Some(Change::Joined { incarnation: member.incarnation });
        }
        let lost = cluster.orphans().find(|(group, _, holder)| {
            holder.node == *node
                && cluster.step(*group).is_none()
                && is_next(cluster, *group, member.incarnation)
        });
        if let Some((group, remove, _)) = lost {
            return Some(Change::Step { group, remove, incarnation: member.incarnation });
        }
    }
    None
}

/// Whether `group` may be copied into `incarnation` now.
fn is_next(cluster: &Cluster, group: GroupId, incarnation: Incarnation) -> bool {
    let under_way: Vec<GroupId> = cluster.copies_into(incarnation).collect();
    under_way.len() < COPIES_MAX && (group == GroupId::META || !under_way.contains(&GroupId::META))
}
