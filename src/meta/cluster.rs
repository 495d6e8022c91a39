//! The cluster as meta replicates it: the topology, whose directory each name stands for, and which replica of which
//! group lies in which directory.
//!
//! A value, never changed in place. Meta *plans*: what a group's members are is said by that group's own log; a
//! [`Step`] here is an order that the group's leader carries out and reports. So this value may lag or repeat itself
//! without harm.
//!
//! **Invariants**, kept by every change and proven again when decoded: a raft id is given out once and never again;
//! a directory that is gone stays gone, an ended id stays ended; every group has at most one step under way, whose
//! replica to remove is one it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, GroupId, Holder, Incarnation, NodeId, RaftId, Session, ShardId};
use crate::ring::{Doors, Topology};
use crate::stdx::hash_key::HashKey;
use crate::stdx::planted::{Bug, is_planted};

/// The version of the encoded form; another is refused.
const FORMAT: u16 = 2;

/// Voters of the meta group at most: more would only slow its few decisions.
pub const META_VOTERS_MAX: usize = 5;

/// Replicas that may be copied into one directory at once: more would only share its disk and its link.
pub const COPIES_MAX: usize = 2;

/// The newest behaviour this program knows: what entries it may meet in logs, see [`Cluster::level`].
pub const LEVEL: u16 = 1;

/// How far a directory has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Admitted; its replicas are being filled.
    Joining,
    /// It holds what the topology places on it.
    Member,
}

/// The directory that a node's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The directory.
    pub incarnation: Incarnation,
    /// Its latest start that was recorded.
    pub session: Session,
    /// How far it has come.
    pub standing: Standing,
    /// The newest behaviour its program knows.
    pub level: u16,
}

/// An order to a group: take one replica in and let another go, in one change of membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The id of the new replica.
    pub add: RaftId,
    /// Who holds it.
    pub holder: Holder,
    /// The replica that goes.
    pub remove: RaftId,
}

/// The replicas of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its voters, as of the last step done.
    pub replicas: BTreeMap<RaftId, Holder>,
    /// The step under way.
    pub step: Option<Step>,
}

/// Everything the meta group replicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Encoded", try_from = "Encoded")]
pub struct Cluster {
    version: u64,
    level: u16,
    topology: Arc<Topology>,
    members: BTreeMap<NodeId, Member>,
    groups: BTreeMap<GroupId, Assignment>,
    gone: BTreeSet<Incarnation>,
    ended: BTreeSet<RaftId>,
    next_raft_id: u64,
    hash_key: HashKey,
}

/// A cluster as it travels and lies on disk; the order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct Encoded {
    format: u16,
    version: u64,
    level: u16,
    topology: Topology,
    members: BTreeMap<NodeId, Member>,
    groups: BTreeMap<GroupId, Assignment>,
    gone: BTreeSet<Incarnation>,
    ended: BTreeSet<RaftId>,
    next_raft_id: u64,
    hash_key: [u64; 2],
}

/// Bytes that do not describe a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The bytes are of a format this version does not know.
    #[error("cluster format {0} is not known here (known: {FORMAT})")]
    UnknownFormat(u16),
    /// The bytes break an invariant.
    #[error("a broken description of a cluster: {0}")]
    Broken(&'static str),
}

impl Cluster {
    /// A cluster that begins now: `topology` on the directories in `holders`, which must name every node of it, with
    /// keys hashed under `hash_key`.
    ///
    /// Raft ids are given out in the order of groups and placements, so the same input makes the same cluster.
    ///
    /// # Errors
    /// [`ClusterError::Broken`] when a node of the topology has no directory.
    pub fn begin(
        topology: Topology,
        holders: &BTreeMap<NodeId, (Incarnation, Session)>,
        hash_key: HashKey,
    ) -> Result<Self, ClusterError> {
        let member = |node: &NodeId| {
            let (incarnation, session) = holders
                .get(node)
                .copied()
                .ok_or(ClusterError::Broken("a node without a directory"))?;
            let standing = Standing::Member;
            Ok((*node, Member { incarnation, session, standing, level: LEVEL }))
        };
        let members = topology.nodes().keys().map(member).collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut cluster = Self {
            version: 1,
            level: LEVEL,
            topology: Arc::new(topology),
            members,
            groups: BTreeMap::new(),
            gone: BTreeSet::new(),
            ended: BTreeSet::new(),
            next_raft_id: 1,
            hash_key,
        };
        let mut homes = vec![(GroupId::META, cluster.first_meta_voters())];
        let placements = cluster.topology.placements();
        homes.extend(placements.map(|(shard, it)| (GroupId::of_shard(shard), it.replicas.clone())));
        for (group, nodes) in homes {
            let mut assignment = Assignment::default();
            for node in nodes {
                let incarnation = cluster.members[&node].incarnation;
                assignment.replicas.insert(cluster.draw_id(), Holder { node, incarnation });
            }
            cluster.groups.insert(group, assignment);
        }
        cluster.validate()?;
        Ok(cluster)
    }

    /// The nodes whose directories hold meta when the cluster begins: the first by name.
    fn first_meta_voters(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.topology.nodes().values().collect();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        nodes.iter().take(META_VOTERS_MAX).map(|node| node.id).collect()
    }

    fn draw_id(&mut self) -> RaftId {
        let id = RaftId(self.next_raft_id);
        self.next_raft_id += 1;
        id
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Which cluster.
    pub fn id(&self) -> ClusterId {
        ClusterId(self.topology.cluster_id())
    }

    /// The key under which the shards hash their keys: the same on every replica, since the order of SCAN comes from it,
    /// and a secret from clients. Drawn when the cluster begins, and never changed.
    pub fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    /// The behaviour every member knows: only entries of this level may be proposed.
    pub fn level(&self) -> u16 {
        self.level
    }

    /// Nodes and the placement of shards on them.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The directory each node's name stands for.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The replicas of every group.
    pub fn groups(&self) -> &BTreeMap<GroupId, Assignment> {
        &self.groups
    }

    /// The replicas of `group`; none of a group that does not exist.
    pub fn replicas(&self, group: GroupId) -> impl Iterator<Item = (RaftId, Holder)> + '_ {
        let assignment = self.groups.get(&group).into_iter();
        assignment.flat_map(|it| it.replicas.iter().map(|(id, holder)| (*id, *holder)))
    }

    /// The step that `group` is to take.
    pub fn step(&self, group: GroupId) -> Option<Step> {
        self.groups.get(&group)?.step
    }

    /// Whether `incarnation` was replaced for good.
    pub fn is_gone(&self, incarnation: Incarnation) -> bool {
        self.gone.contains(&incarnation)
    }

    /// The number of the last session of `incarnation` that has ended for good: all of a directory that is gone, those
    /// before the recorded one of a member. `None` when none is known to have ended.
    pub fn last_ended_session(&self, incarnation: Incarnation) -> Option<u64> {
        if self.is_gone(incarnation) {
            return Some(u64::MAX);
        }
        let member = self.members.values().find(|member| member.incarnation == incarnation)?;
        member.session.number.checked_sub(1)
    }

    /// Whether the replica `id` was let go for good.
    pub fn is_ended(&self, id: RaftId) -> bool {
        self.ended.contains(&id)
    }

    /// The node that works with `incarnation`, while it is the one its name stands for.
    pub fn node_of(&self, incarnation: Incarnation) -> Option<NodeId> {
        let found = self.members.iter().find(|(_, member)| member.incarnation == incarnation);
        found.map(|(node, _)| *node)
    }

    /// Groups of which a replica is to be copied into `incarnation`.
    pub fn copies_into(&self, incarnation: Incarnation) -> impl Iterator<Item = GroupId> + '_ {
        let steps = self.groups.iter().filter_map(|(group, it)| Some((*group, it.step?)));
        steps.filter(move |(_, step)| step.holder.incarnation == incarnation).map(|it| it.0)
    }

    /// The replicas that are to lie in `incarnation`: those it holds and those it is to be filled with. Of a group it is
    /// one: what it is to be filled with, where that replaces what it holds.
    pub fn assigned_to(&self, incarnation: Incarnation) -> BTreeMap<GroupId, RaftId> {
        let mut assigned = BTreeMap::new();
        for (group, it) in &self.groups {
            let held = it.replicas.iter().map(|(id, holder)| (*id, *holder));
            let coming = it.step.iter().map(|step| (step.add, step.holder));
            let own = coming.chain(held).find(|(_, holder)| holder.incarnation == incarnation);
            assigned.extend(own.map(|(id, _)| (*group, id)));
        }
        assigned
    }

    /// Replicas in directories that are gone, whose places the present directories of those nodes are to take.
    pub fn orphans(&self) -> impl Iterator<Item = (GroupId, RaftId, Holder)> + '_ {
        self.groups.iter().flat_map(|(group, it)| {
            let lost =
                it.replicas.iter().filter(|(_, holder)| self.gone.contains(&holder.incarnation));
            lost.map(|(id, holder)| (*group, *id, *holder))
        })
    }

    fn changed(&self) -> Self {
        Self { version: self.version + 1, ..self.clone() }
    }

    /// After the node announced `doors`; `None` when nothing changes.
    pub(super) fn with_doors(&self, node: NodeId, doors: Doors) -> Option<Self> {
        let topology = self.topology.with_doors(node, doors).ok()?;
        if topology.epoch() == self.topology.epoch() {
            return None;
        }
        Some(Self { topology: Arc::new(topology), ..self.changed() })
    }

    /// After a start of `incarnation` was recorded: `session`, whose directory remembers `starts`, all since the last
    /// that it knows to be recorded. Accepted when the recorded one is among them: then no other copy of the directory
    /// has started since, and a start that never came to be recorded locks nobody out.
    pub(super) fn with_start(
        &self,
        incarnation: Incarnation,
        session: Session,
        starts: &[Session],
        level: u16,
    ) -> Option<Self> {
        let node = self.node_of(incarnation)?;
        let member = self.members[&node];
        let is_later = starts.contains(&member.session) || is_planted(Bug::CopyAccepted);
        if member.session == session || !is_later {
            return None;
        }
        let mut next = self.changed();
        next.members.insert(node, Member { session, level, ..member });
        let known = next.members.values().map(|member| member.level).min().unwrap_or(LEVEL);
        next.level = next.level.max(known);
        Some(next)
    }

    /// After the empty directory `incarnation` took the place of `replaces` under the name of `node`.
    pub(super) fn with_admitted(
        &self,
        node: NodeId,
        replaces: Incarnation,
        incarnation: Incarnation,
        session: Session,
        level: u16,
    ) -> Option<Self> {
        let member = self.members.get(&node)?;
        let is_new = incarnation != Incarnation::NONE
            && !self.gone.contains(&incarnation)
            && self.node_of(incarnation).is_none();
        if member.incarnation != replaces || !is_new || level < self.level {
            return None;
        }
        let mut next = self.changed();
        next.gone.insert(replaces);
        next.members
            .insert(node, Member { incarnation, session, standing: Standing::Joining, level });
        // What was to fill the directory that is gone now is given up: the replica to be removed is still the old
        // one, and a new order will say by whom it is replaced. The id that was drawn for it is never used.
        for assignment in next.groups.values_mut() {
            if let Some(step) = assignment.step.take_if(|step| step.holder.incarnation == replaces)
            {
                next.ended.insert(step.add);
            }
        }
        Some(next)
    }

    /// After `group` was ordered to replace the orphan `remove` by a new replica in `incarnation`.
    pub(super) fn with_step(
        &self,
        group: GroupId,
        remove: RaftId,
        incarnation: Incarnation,
    ) -> Option<Self> {
        let node = self.node_of(incarnation)?;
        let assignment = self.groups.get(&group)?;
        let lost = assignment.replicas.get(&remove)?;
        let holds = assignment.replicas.values().any(|holder| holder.incarnation == incarnation);
        if assignment.step.is_some() || holds || !self.gone.contains(&lost.incarnation) {
            return None;
        }
        let mut next = self.changed();
        let add = if is_planted(Bug::IdReused) { remove } else { next.draw_id() };
        let step = Step { add, holder: Holder { node, incarnation }, remove };
        next.groups.entry(group).or_default().step = Some(step);
        Some(next)
    }

    /// After the directory of `replica`, one of `group`, reported that this has stopped for good. At most as many at once
    /// as may be copied into one directory; who still has one tells again.
    pub(super) fn with_rebuilt(&self, group: GroupId, replica: RaftId) -> Option<Self> {
        let assignment = self.groups.get(&group)?;
        if let Some(step) = assignment.step.filter(|step| step.add == replica) {
            // It was to come in, and another comes in its place.
            let mut next = self.changed();
            let add = next.draw_id();
            next.ended.insert(replica);
            next.groups.entry(group).or_default().step = Some(Step { add, ..step });
            return Some(next);
        }
        let holder = *assignment.replicas.get(&replica)?;
        let is_held = self.node_of(holder.incarnation) == Some(holder.node);
        // Meta's is small, and waits for no copy.
        let is_full =
            group != GroupId::META && self.copies_into(holder.incarnation).count() >= COPIES_MAX;
        if assignment.step.is_some() || !is_held || is_full {
            return None;
        }
        let mut next = self.changed();
        let add = next.draw_id();
        let step = Step { add, holder, remove: replica };
        next.groups.entry(group).or_default().step = Some(step);
        Some(next)
    }

    /// After `group` reported a committed membership with `add` and without the replica it replaces.
    pub(super) fn with_done(&self, group: GroupId, add: RaftId) -> Option<Self> {
        let step = self.step(group).filter(|step| step.add == add)?;
        let mut next = self.changed();
        let assignment = next.groups.entry(group).or_default();
        assignment.step = None;
        assignment.replicas.remove(&step.remove);
        assignment.replicas.insert(step.add, step.holder);
        next.ended.insert(step.remove);
        Some(next)
    }

    /// After `incarnation` was filled with all it is to hold.
    pub(super) fn with_joined(&self, incarnation: Incarnation) -> Option<Self> {
        let node = self.node_of(incarnation)?;
        let member = self.members[&node];
        if member.standing == Standing::Member || self.is_awaited(node) {
            return None;
        }
        let mut next = self.changed();
        next.members.insert(node, Member { standing: Standing::Member, ..member });
        Some(next)
    }

    /// Whether a group has yet to take a replica of the present directory of `node`.
    pub fn is_awaited(&self, node: NodeId) -> bool {
        let is_coming = self.groups.values().filter_map(|it| it.step);
        is_coming.map(|step| step.holder.node).any(|coming| coming == node)
            || self.orphans().any(|(_, _, holder)| holder.node == node)
    }

    fn validate(&self) -> Result<(), ClusterError> {
        let broken = |what| Err(ClusterError::Broken(what));
        if !self.members.keys().eq(self.topology.nodes().keys()) {
            return broken("members and topology name different nodes");
        }
        let directories: BTreeSet<_> =
            self.members.values().map(|member| member.incarnation).collect();
        if directories.len() != self.members.len() || directories.contains(&Incarnation::NONE) {
            return broken("two nodes share a directory");
        }
        if !self.gone.is_disjoint(&directories) {
            return broken("a member is gone");
        }
        let shards =
            (0..self.topology.shard_count()).map(|shard| GroupId::of_shard(ShardId(shard)));
        if !self.groups.keys().copied().eq(std::iter::once(GroupId::META).chain(shards)) {
            return broken("groups and shards differ");
        }
        let mut ids: Vec<RaftId> = self.ended.iter().copied().collect();
        for assignment in self.groups.values() {
            if assignment.replicas.is_empty() {
                return broken("a group without replicas");
            }
            ids.extend(assignment.replicas.keys());
            if let Some(step) = assignment.step {
                if !assignment.replicas.contains_key(&step.remove) {
                    return broken("a step removes no replica");
                }
                ids.push(step.add);
            }
        }
        let distinct: BTreeSet<_> = ids.iter().collect();
        if distinct.len() != ids.len()
            || ids.iter().any(|id| id.0 == 0 || id.0 >= self.next_raft_id)
        {
            return broken("a raft id that was not given out, or twice");
        }
        Ok(())
    }
}

impl From<Cluster> for Encoded {
    fn from(cluster: Cluster) -> Self {
        Self {
            format: FORMAT,
            version: cluster.version,
            level: cluster.level,
            topology: Arc::unwrap_or_clone(cluster.topology),
            members: cluster.members,
            groups: cluster.groups,
            gone: cluster.gone,
            ended: cluster.ended,
            next_raft_id: cluster.next_raft_id,
            hash_key: cluster.hash_key.words(),
        }
    }
}

impl TryFrom<Encoded> for Cluster {
    type Error = ClusterError;

    fn try_from(encoded: Encoded) -> Result<Self, ClusterError> {
        if encoded.format != FORMAT {
            return Err(ClusterError::UnknownFormat(encoded.format));
        }
        let cluster = Self {
            version: encoded.version,
            level: encoded.level,
            topology: Arc::new(encoded.topology),
            members: encoded.members,
            groups: encoded.groups,
            gone: encoded.gone,
            ended: encoded.ended,
            next_raft_id: encoded.next_raft_id,
            hash_key: HashKey::new(encoded.hash_key),
        };
        cluster.validate()?;
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::change::Change;
    use super::super::plan::next_plan;
    use super::super::testing::{cluster, first_session, node, topology};
    use super::*;

    const LOST: Incarnation = Incarnation(2);
    const NEW: Incarnation = Incarnation(20);

    fn admitted() -> Cluster {
        let begun = cluster(topology(1, 3, 2));
        begun.with_admitted(node(2), LOST, NEW, first_session(), LEVEL).unwrap()
    }

    /// Carries a decision out as the machine does.
    fn decided(cluster: &Cluster, change: Change) -> Cluster {
        match change {
            Change::Step { group, remove, incarnation } => {
                cluster.with_step(group, remove, incarnation)
            }
            Change::Joined { incarnation } => cluster.with_joined(incarnation),
            other @ (Change::Create(_)
            | Change::SetDoors { .. }
            | Change::Start { .. }
            | Change::Admit { .. }
            | Change::Done { .. }
            | Change::Rebuild { .. }) => panic!("{other:?} is nothing that a leader decides"),
        }
        .expect("a decision fits the state it was made from")
    }

    #[test]
    fn the_same_directories_begin_the_same_cluster() {
        let begun = cluster(topology(1, 3, 2));
        assert_eq!(begun, cluster(topology(1, 3, 2)));
        let ids: Vec<_> = begun.groups().values().flat_map(|it| it.replicas.keys()).collect();
        assert_eq!(ids.len(), 9);
        assert_eq!(begun.assigned_to(Incarnation(1)).len(), 3, "meta and two shards");
    }

    /// Another key would be another order of SCAN on the node that read it.
    #[test]
    fn the_hash_key_stays_through_changes_and_the_record() {
        let changed = admitted();
        let record = Change::Create(Box::new(changed.clone())).encode();
        let read = Change::decode(&record).unwrap().created().unwrap();
        assert_eq!(read, changed);
        assert_eq!(read.hash_key(), HashKey::new([3, 4]));
        assert!(!format!("{read:?}").contains("[3, 4]"), "a secret is not shown");
    }

    #[test]
    fn a_lost_directory_is_replaced_meta_first_then_two_at_a_time() {
        let mut now = cluster(topology(1, 3, 8));
        assert_eq!(next_plan(&now), None);
        now = now.with_admitted(node(2), LOST, NEW, first_session(), LEVEL).unwrap();
        assert!(now.is_gone(LOST) && now.is_awaited(node(2)));
        let mut order = Vec::new();
        let mut under_way: Vec<GroupId> = Vec::new();
        for _ in 0..100 {
            match next_plan(&now) {
                Some(Change::Joined { incarnation }) => {
                    now = now.with_joined(incarnation).unwrap();
                    break;
                }
                Some(change) => {
                    let Change::Step { group, .. } = change else { panic!("{change:?}") };
                    now = decided(&now, change);
                    under_way.push(group);
                    order.push(group);
                    assert!(under_way.len() <= 2);
                    assert!(under_way.len() == 1 || !under_way.contains(&GroupId::META));
                }
                None => {
                    let group = under_way.remove(0);
                    let step = now.step(group).unwrap();
                    now = now.with_done(group, step.add).unwrap();
                    assert!(now.is_ended(step.remove) && !now.is_ended(step.add));
                }
            }
        }
        assert_eq!(order, (0..=8).map(GroupId).collect::<Vec<_>>());
        assert_eq!(now.members()[&node(2)].standing, Standing::Member);
        assert_eq!((now.orphans().count(), next_plan(&now)), (0, None));
        assert_eq!(now.assigned_to(NEW).len(), 9);
        assert_eq!(now.assigned_to(LOST).len(), 0);
    }

    #[test]
    fn a_directory_lost_during_its_own_readmission_is_replaced_again() {
        let now = admitted();
        let now = decided(&now, next_plan(&now).unwrap());
        let step = now.step(GroupId::META).unwrap();
        let newer = Incarnation(21);
        let now = now.with_admitted(node(2), NEW, newer, first_session(), LEVEL).unwrap();
        assert_eq!(now.step(GroupId::META), None, "nobody fills what is gone");
        assert!(now.is_ended(step.add), "its id is never used");
        assert!(now.with_done(GroupId::META, step.add).is_none());
        let again = decided(&now, next_plan(&now).unwrap()).step(GroupId::META).unwrap();
        assert_eq!(again.remove, step.remove);
        assert!(again.add > step.add && again.holder.incarnation == newer);
    }

    #[test]
    fn a_replica_that_stopped_for_good_is_replaced_in_its_place() {
        let begun = cluster(topology(1, 3, 4));
        let of = |shard| GroupId::of_shard(ShardId(shard));
        let own = begun.assigned_to(LOST);
        let now = begun.with_rebuilt(of(0), own[&of(0)]).unwrap();
        let step = now.step(of(0)).unwrap();
        assert_eq!((step.remove, step.holder.incarnation), (own[&of(0)], LOST));
        assert_eq!(now.assigned_to(LOST)[&of(0)], step.add, "the new one, no longer the old one");
        assert!(now.with_rebuilt(of(0), own[&of(0)]).is_none(), "it is under way");
        assert!(now.with_rebuilt(of(1), own[&of(0)]).is_none(), "another group's");
        let two = now.with_rebuilt(of(1), own[&of(1)]).unwrap();
        assert!(two.with_rebuilt(of(2), own[&of(2)]).is_none(), "two at once");
        assert!(two.with_rebuilt(GroupId::META, own[&GroupId::META]).is_some(), "it is small");
        let other = now.with_rebuilt(of(0), step.add).unwrap();
        let again = other.step(of(0)).unwrap();
        assert!(other.is_ended(step.add) && again.add > step.add && again.remove == step.remove);
        let done = now.with_done(of(0), step.add).unwrap();
        assert!(done.is_ended(step.remove));
        assert_eq!(done.groups()[&of(0)].replicas.len(), 3);
        // The directory is lost meanwhile: who comes instead gets both by the usual way.
        let gone = now.with_admitted(node(2), LOST, NEW, first_session(), LEVEL).unwrap();
        assert!(gone.step(of(0)).is_none() && gone.with_rebuilt(of(0), step.remove).is_none());
        assert!(gone.orphans().any(|(_, id, _)| id == step.remove));
    }

    #[test]
    fn what_no_longer_fits_is_ignored() {
        let begun = cluster(topology(1, 3, 2));
        let session = first_session();
        // Replaces a directory that is not the present one.
        assert!(begun.with_admitted(node(2), NEW, Incarnation(9), session, LEVEL).is_none());
        // Is another node's directory.
        assert!(begun.with_admitted(node(2), LOST, Incarnation(1), session, LEVEL).is_none());
        assert!(begun.with_admitted(node(9), LOST, NEW, session, LEVEL).is_none());
        assert!(begun.with_admitted(node(2), LOST, NEW, session, LEVEL - 1).is_none(), "too old");
        let now = admitted();
        // Gone is for ever.
        assert!(now.with_admitted(node(2), NEW, LOST, session, LEVEL).is_none());
        let healthy = now.groups()[&GroupId::META].replicas.iter();
        let (healthy, _) = healthy.clone().find(|(_, it)| it.incarnation != LOST).unwrap();
        assert!(now.with_step(GroupId::META, *healthy, NEW).is_none(), "nothing is lost there");
        let (lost, _) = now.orphans().map(|(_, id, holder)| (id, holder)).next().unwrap();
        assert!(now.with_step(GroupId::META, lost, Incarnation(1)).is_none(), "holds one already");
        assert!(now.with_joined(NEW).is_none(), "it holds nothing yet");
    }

    /// Of two copies of a directory one wins; the other's start no longer finds the recorded one among its own.
    #[test]
    fn of_two_copies_of_a_directory_one_is_recorded() {
        let begun = cluster(topology(1, 3, 2));
        let start = |number, random| Session { number, random };
        let (first, mine, its) = (first_session(), start(2, 1), start(2, 2));
        let now = begun.with_start(Incarnation(1), mine, &[first, mine], LEVEL).unwrap();
        assert_eq!(now.members()[&node(1)].session, mine);
        assert!(now.with_start(Incarnation(1), its, &[first, its], LEVEL).is_none());
        // A start that was never recorded locks nobody out.
        let third = start(3, 5);
        assert!(
            now.with_start(Incarnation(1), third, &[mine, start(4, 4), third], LEVEL).is_some()
        );
        assert!(now.with_start(LOST, mine, &[mine], LEVEL).is_none(), "not its chain");
    }

    #[test]
    fn sessions_end_with_the_next_start_and_with_their_directory() {
        let start = |number, random| Session { number, random };
        let begun = cluster(topology(1, 3, 2));
        let (first, second) = (begun.members[&node(1)].session, start(9, 9));
        assert_eq!(begun.last_ended_session(Incarnation(1)), Some(first.number - 1));
        let now = begun.with_start(Incarnation(1), second, &[first, second], LEVEL).unwrap();
        assert_eq!(now.last_ended_session(Incarnation(1)), Some(8));
        assert_eq!(now.last_ended_session(NEW), None, "nothing is known of it");
        let now = now.with_admitted(node(2), LOST, NEW, first_session(), LEVEL).unwrap();
        assert_eq!(now.last_ended_session(LOST), Some(u64::MAX));
    }

    #[test]
    fn the_level_rises_once_every_member_knows_it() {
        let mut now = cluster(topology(1, 3, 2));
        let session = |number| Session { number, random: 7 };
        for (number, expected) in [(1_u64, LEVEL), (2, LEVEL), (3, LEVEL + 1)] {
            let incarnation = Incarnation(u128::from(number));
            let starts = [first_session(), session(2)];
            now = now.with_start(incarnation, session(2), &starts, LEVEL + 1).unwrap();
            assert_eq!(now.level(), expected);
        }
        assert!(now.with_admitted(node(2), LOST, NEW, first_session(), LEVEL).is_none());
    }

    #[test]
    fn it_survives_its_encoding_and_broken_bytes_are_refused() {
        let now = admitted();
        let now = decided(&now, next_plan(&now).unwrap());
        let bytes = postcard::to_stdvec(&now).unwrap();
        assert_eq!(postcard::from_bytes::<Cluster>(&bytes).unwrap(), now);
        for byte in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[byte] ^= 1 << bit;
                if let Ok(cluster) = postcard::from_bytes::<Cluster>(&bad) {
                    cluster.validate().unwrap();
                }
            }
            assert!(postcard::from_bytes::<Cluster>(&bytes[..byte]).is_err());
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Wipe(u64),
        Decide,
        Report(usize),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => (1_u64..=4).prop_map(Event::Wipe),
            4 => Just(Event::Decide),
            4 => (0_usize..9).prop_map(Event::Report),
        ]
    }

    proptest! {
        /// Whatever is lost and reported in whatever order, no id is given out twice, every group keeps its number of
        /// replicas, and once nothing more is lost all is filled again.
        #[test]
        fn lost_directories_are_always_replaced(events in proptest::collection::vec(any_event(), 0..60)) {
            let mut now = cluster(topology(1, 4, 4));
            let sizes: Vec<_> = now.groups().values().map(|it| it.replicas.len()).collect();
            let mut next_incarnation = 100_u128;
            let report = |now: &Cluster, at: usize| {
                let steps: Vec<_> = now.groups().iter().filter_map(|(g, it)| Some((*g, it.step?))).collect();
                let (group, step) = steps.get(at % steps.len().max(1))?;
                now.with_done(*group, step.add)
            };
            for event in events {
                let next = match event {
                    Event::Wipe(number) => {
                        next_incarnation += 1;
                        let lost = now.members()[&node(number)].incarnation;
                        let new = Incarnation(next_incarnation);
                        now.with_admitted(node(number), lost, new, first_session(), LEVEL)
                    }
                    Event::Decide => next_plan(&now).map(|change| decided(&now, change)),
                    Event::Report(at) => report(&now, at),
                };
                if let Some(next) = next {
                    next.validate().unwrap();
                    prop_assert!(next.version() == now.version() + 1 && next.next_raft_id >= now.next_raft_id);
                    prop_assert!(next.ended.is_superset(&now.ended) && next.gone.is_superset(&now.gone));
                    now = next;
                }
                let after: Vec<_> = now.groups().values().map(|it| it.replicas.len()).collect();
                prop_assert_eq!(&after, &sizes);
            }
            for _ in 0..200 {
                now = match next_plan(&now) {
                    Some(change) => decided(&now, change),
                    None => match report(&now, 0) { Some(next) => next, None => break },
                };
            }
            prop_assert_eq!(now.orphans().count(), 0);
            prop_assert!(now.members().values().all(|it| it.standing == Standing::Member));
        }
    }
}
