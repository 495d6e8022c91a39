//! How a directory comes to belong to a cluster: by being there when it begins, or by being let in later.
//!
//! **Birth.** The first name of `cluster-nodes` founds: once every node listed is connected and has an empty
//! directory, it draws the cluster (id, directories, raft ids) and adopts it, which is final. The others see that it
//! belongs to a cluster now, fetch that, find their own directories in it and adopt it too; who has adopted passes it
//! on. The birth is *sealed* when every directory named has adopted it or is known to be lost, and those who adopted are
//! a majority. Only then does anybody give a group its first members, and nothing later ever does.
//!
//! There are never two clusters: drawing needs all to be empty, adopting is final, and who adopted is a majority.
//!
//! **Readmission.** A directory that is empty while the cluster exists asks to be let in; meta's leader decides.
//!
//! Source: `Change::Create` of the birth is what meta's first leader logs; replicas are given their first members as in
//! the Raft thesis §4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;

use super::error::NodeError;
use super::progress::Progress;
use super::switchboard::{Myself, Switchboard};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId, RaftId, Session};
use crate::meta::{self, Cluster, JoinRequest, Meta};
use crate::raft::on;
use crate::ring::{ListedNode, Topology};
use crate::stdx::entropy::Entropy;
use crate::stdx::hash_key::HashKey;
use crate::stdx::workers::{Work, Workers};
use crate::transport::{LocalIdentity, PeerClient, PeerIdentity, Peers};
use crate::wal::{DataDir, Wal};

/// Pause between two looks at the peers.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a peer may take to answer.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// The version of a cluster that nothing has happened to yet.
const AT_BIRTH: u64 = 1;

/// A directory that belongs to no cluster, and what it looks for one with.
pub(super) struct Newcomer<'a> {
    pub(super) myself: &'a Myself,
    /// The nodes of `cluster-nodes` by name, or this one alone.
    pub(super) listed: &'a [ListedNode],
    pub(super) peers: &'a Peers,
    pub(super) data_dir: &'a Arc<Mutex<DataDir>>,
    pub(super) wal: &'a Wal,
    pub(super) workers: &'a dyn Workers,
    /// The replicas that the log holds already: a death in the middle of an adoption leaves some.
    pub(super) held: &'a BTreeMap<GroupId, RaftId>,
    pub(super) switchboard: &'a Switchboard,
    pub(super) identity: &'a LocalIdentity,
    pub(super) progress: &'a Progress,
}

impl Newcomer<'_> {
    /// Waits until this directory belongs to a cluster. `draw` makes the topology of a cluster that begins now, when
    /// this node is to found it.
    pub(super) async fn enter(
        &self,
        draw: impl Fn(ClusterId) -> Result<Topology, NodeError>,
        entropy: &mut Entropy,
    ) -> Result<Arc<Cluster>, NodeError> {
        loop {
            match self.heard_of().await {
                Some(cluster) if cluster.node_of(self.myself.incarnation).is_some() => {
                    self.adopt_named(&cluster).await?;
                }
                Some(cluster) => self.ask_to_be_let_in(&cluster).await,
                None if self.is_founder() => {
                    if let Some(holders) = self.empty_directories() {
                        let id = ClusterId(entropy.draw().max(1));
                        // No draw tells of another: whoever sees the id does not know the key.
                        let key = HashKey::new([entropy.draw(), entropy.draw()]);
                        let cluster = Cluster::begin(draw(id)?, &holders, key)?;
                        self.adopt(&Arc::new(cluster)).await?;
                    }
                }
                None => {
                    let founder = &self.listed[0];
                    let founder = with_refusal(&founder.name, self.peers.get(founder.id).as_ref());
                    self.progress.say(&format!("a new cluster: waiting for {founder} to found it"));
                }
            }
            if let Some(cluster) = self.switchboard.cluster() {
                return Ok(cluster);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_founder(&self) -> bool {
        self.listed.first().is_some_and(|first| first.id == self.myself.node)
    }

    fn others(&self) -> impl Iterator<Item = (&ListedNode, Option<PeerIdentity>)> {
        let others = self.listed.iter().filter(|listed| listed.id != self.myself.node);
        others.map(|listed| {
            let identity = self.peers.get(listed.id).and_then(|peer| peer.connected_identity());
            (listed, identity)
        })
    }

    /// A cluster that a peer belongs to: one that names this directory, or else the newest.
    async fn heard_of(&self) -> Option<Arc<Cluster>> {
        let mut found: Option<Arc<Cluster>> = None;
        let members = self.peers.all().into_iter().filter(|peer| {
            peer.connected_identity().is_some_and(|identity| identity.cluster != ClusterId::NONE)
        });
        let heard = join_all(members.map(|peer| async move { Meta::fetch(&peer).await })).await;
        for cluster in heard.into_iter().flatten() {
            if cluster.node_of(self.myself.incarnation).is_some() {
                return Some(cluster);
            }
            if found.as_ref().is_none_or(|known| known.version() < cluster.version()) {
                found = Some(cluster);
            }
        }
        found
    }

    /// Who the listed nodes are, when all of them are there and their directories are empty.
    fn empty_directories(&self) -> Option<BTreeMap<NodeId, (Incarnation, Session)>> {
        let mut holders = BTreeMap::new();
        holders.insert(self.myself.node, (self.myself.incarnation, self.myself.session));
        let mut missing = Vec::new();
        for (listed, identity) in self.others() {
            match identity {
                Some(identity) if identity.cluster == ClusterId::NONE => {
                    holders.insert(listed.id, (identity.incarnation, identity.session));
                }
                // One that belongs to a cluster already will say to which.
                Some(_) | None => {
                    missing.push(with_refusal(&listed.name, self.peers.get(listed.id).as_ref()));
                }
            }
        }
        if missing.is_empty() {
            return Some(holders);
        }
        self.progress.say(&format!("a new cluster: waiting for {}", missing.join(", ")));
        None
    }

    /// Adopts a cluster that names this directory, or says why it must not.
    async fn adopt_named(&self, cluster: &Arc<Cluster>) -> Result<(), NodeError> {
        if cluster.version() == AT_BIRTH {
            let names = |nodes: &mut dyn Iterator<Item = &ListedNode>| {
                let mut names: Vec<_> = nodes.map(|node| node.name.clone()).collect();
                names.sort_unstable();
                names.join(" ")
            };
            let theirs = names(&mut cluster.topology().nodes().values());
            let own = names(&mut self.listed.iter());
            if theirs != own {
                self.progress.say(&format!(
                    "a new cluster: its founder lists the nodes {theirs}, this node lists {own}; make cluster-nodes the same everywhere"
                ));
                return Ok(());
            }
        } else {
            let holds = |group: &GroupId| {
                cluster.replicas(*group).any(|(_, it)| it.incarnation == self.myself.incarnation)
            };
            if cluster.groups().keys().any(holds) {
                return Err(NodeError::LostReplicas);
            }
        }
        self.adopt(cluster).await
    }

    /// Makes this directory one of `cluster`, for good.
    ///
    /// The replicas it has from birth are noted first. A death in between leaves a log with replicas and no cluster, and
    /// the next start adopts again. Should the cluster be drawn otherwise by then, the ids in this log may be those of
    /// other directories, and must never speak: this one has to be emptied.
    async fn adopt(&self, cluster: &Arc<Cluster>) -> Result<(), NodeError> {
        let assigned = if cluster.version() == AT_BIRTH {
            cluster.assigned_to(self.myself.incarnation)
        } else {
            BTreeMap::new()
        };
        if self.held.iter().any(|(group, id)| assigned.get(group) != Some(id)) {
            return Err(NodeError::StrayReplicas);
        }
        for (group, id) in assigned {
            self.wal.born(group, id).await.map_err(NodeError::Log)?;
        }
        let record = cluster.encode();
        let data_dir = Arc::clone(self.data_dir);
        let adopt = move || data_dir.lock().adopt(&record);
        let adopted = on(self.workers, Work::Disk, adopt).await;
        adopted.map_err(|_| NodeError::Runtime)??;
        tracing::info!(cluster = %cluster.id(), "this directory belongs to a cluster now");
        self.switchboard.meta().learn(cluster);
        self.identity.set(PeerIdentity { cluster: cluster.id(), ..self.identity.get() });
        Ok(())
    }

    /// Asks the members of a cluster that exists to let this empty directory take the place of the one that its name
    /// stood for.
    async fn ask_to_be_let_in(&self, cluster: &Cluster) {
        let request = JoinRequest { name: self.myself.name.clone(), level: meta::LEVEL }.encode();
        let peers = self.peers.all();
        let asked = peers.iter().map(|peer| {
            peer.call(GroupId::META, meta::kind::JOIN, request.clone(), ANSWER_PATIENCE)
        });
        let answer = join_all(asked).await.into_iter().flatten().next();
        let why = answer.map(|answer| String::from_utf8_lossy(&answer).into_owned());
        let why = why.or_else(|| why_nobody_decides(cluster, self.myself, self.peers));
        let why = why.unwrap_or_else(|| "waiting for a leader of the meta group".to_owned());
        self.progress.say(&format!("readmission: {why}"));
    }
}

/// The name of a node that is waited for, and what stands between it and this one, where it is more than silence.
fn with_refusal(name: &str, peer: Option<&PeerClient>) -> String {
    match peer.and_then(PeerClient::refusal) {
        Some(refusal) => format!("{name} ({refusal})"),
        None => name.to_owned(),
    }
}

/// Why meta can have no leader, as far as this node sees it: too few of its voters are left. `None` when they are not.
pub(super) fn why_nobody_decides(
    cluster: &Cluster,
    myself: &Myself,
    peers: &Peers,
) -> Option<String> {
    let voters: Vec<_> = cluster.replicas(GroupId::META).map(|(_, holder)| holder).collect();
    let name_of = |node: NodeId| {
        cluster.topology().node(node).map_or_else(|| node.to_string(), |node| node.name.clone())
    };
    // An empty directory under the name of one of them is none of them.
    let is_one = voters.iter().any(|voter| voter.incarnation == myself.incarnation);
    let too = if is_one { "" } else { " too" };
    let mut left = usize::from(is_one);
    let mut absent = Vec::new();
    for voter in voters.iter().filter(|voter| voter.node != myself.node) {
        let identity = peers.get(voter.node).and_then(|peer| peer.connected_identity());
        match identity {
            Some(it) if it.incarnation == voter.incarnation => left += 1,
            Some(_) => absent.push(format!("{} (its disk is empty{too})", name_of(voter.node))),
            None => absent.push(with_refusal(&name_of(voter.node), peers.get(voter.node).as_ref())),
        }
    }
    let needed = voters.len() / 2 + 1;
    (left < needed).then(|| {
        format!(
            "{left} of {} left and {needed} are needed: bring a disk back; waiting for {}",
            voters.len(),
            absent.join(", ")
        )
    })
}

/// The cluster that a directory has adopted.
///
/// # Errors
/// When the record is not one that this version writes.
pub(super) fn adopted(record: &[u8]) -> Result<Arc<Cluster>, NodeError> {
    Cluster::decode(record).map(Arc::new).ok_or(NodeError::Record)
}

/// Waits until the birth of `cluster` is sealed, or until it is clear that it has been: then the groups of this node may
/// be given their first members.
pub(super) async fn sealed(
    cluster: &Cluster,
    myself: &Myself,
    switchboard: &Switchboard,
    peers: &Peers,
    progress: &Progress,
) {
    loop {
        if switchboard.cluster().is_some_and(|now| now.version() > AT_BIRTH) {
            return; // Meta has a leader, so others saw it sealed.
        }
        let mut adopters = 1;
        let mut waits_for = Vec::new();
        for (node, member) in cluster.members().iter().filter(|(node, _)| **node != myself.node) {
            let name =
                || cluster.topology().node(*node).map_or_else(String::new, |it| it.name.clone());
            match peers.get(*node).and_then(|peer| peer.connected_identity()) {
                Some(it) if it.incarnation == member.incarnation && it.cluster == cluster.id() => {
                    adopters += 1;
                }
                Some(it)
                    if it.incarnation != member.incarnation && it.cluster == ClusterId::NONE => {}
                Some(it) if it.cluster != ClusterId::NONE && it.cluster != cluster.id() => {
                    waits_for.push(format!(
                        "{} (its directory is of another new cluster: empty it)",
                        name()
                    ));
                }
                Some(_) | None => {
                    waits_for.push(with_refusal(&name(), peers.get(*node).as_ref()));
                }
            }
        }
        if waits_for.is_empty() && adopters * 2 > cluster.members().len() {
            return;
        }
        if waits_for.is_empty() {
            progress.say("a new cluster: too few directories of it are left; empty them all");
        } else {
            progress.say(&format!("a new cluster: waiting for {}", waits_for.join(", ")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether `cluster` is as it was drawn: who adopted it so was there from the beginning.
pub(super) fn is_at_birth(cluster: &Cluster) -> bool {
    cluster.version() == AT_BIRTH
}
