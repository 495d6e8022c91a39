//! Meta as this node sees it: what it knows of the cluster, and how it has it changed.
//!
//! Every node holds a [`Meta`]; some have a replica of the group behind it, which comes and goes. What is known of the
//! cluster comes from there or from whoever else has heard of it, and everybody above follows it by a watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_ok;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::change::Change;
use super::cluster::Cluster;
use super::kind;
use super::machine::ClusterMachine;
use crate::ids::{GroupId, Holder, NodeId, RaftId};
use crate::raft::{
    Group, GroupOptions, Leadership, ProposalFate, ReadRefused, Settled, StartError,
    TransferOutcome, TransferRefusal,
};
use crate::transport::{Message, PeerClient, Peers, Responder};

/// How long a change may take to be applied, and a peer to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The meta group on this node.
#[derive(Debug)]
pub struct Meta {
    /// The cluster as the replica here has it.
    machine: Arc<ClusterMachine>,
    /// This node's replica, while it has one.
    replica: RwLock<Option<Group<ClusterMachine>>>,
    /// The newest cluster this node has heard of, from whomever.
    known: watch::Sender<Option<Arc<Cluster>>>,
}

impl Default for Meta {
    fn default() -> Self {
        let (machine, replica) = (Arc::new(ClusterMachine::new()), RwLock::new(None));
        Self { machine, replica, known: watch::Sender::new(None) }
    }
}

impl Meta {
    fn replica(&self) -> Option<Group<ClusterMachine>> {
        self.replica.read().clone()
    }

    fn leading(&self) -> Option<Group<ClusterMachine>> {
        self.replica().filter(|replica| replica.leadership() == Leadership::Here)
    }

    /// The newest cluster this node knows of.
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.known.borrow().clone()
    }

    /// Follows the newest cluster this node knows of.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Cluster>>> {
        self.known.subscribe()
    }

    /// Takes over what was heard of the cluster, when it is newer than what is known.
    pub fn learn(&self, heard: &Arc<Cluster>) {
        self.known.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| known.version() < heard.version());
            if is_news {
                *known = Some(Arc::clone(heard));
            }
            is_news
        });
    }

    /// The cluster as the replica here has applied it: what a leader decides on.
    pub fn applied(&self) -> Option<Arc<Cluster>> {
        self.machine.latest()
    }

    /// Follows what the replica here applies.
    pub fn watch_applied(&self) -> watch::Receiver<Option<Arc<Cluster>>> {
        self.machine.watch()
    }

    /// The cluster as `peer` knows it.
    pub async fn fetch(peer: &PeerClient) -> Option<Arc<Cluster>> {
        let answer = peer.call(GroupId::META, kind::FETCH, Bytes::new(), TIMEOUT).await.ok()?;
        Cluster::decode(&answer).map(Arc::new)
    }

    /// Has `change` made, by whoever leads; true when it surely was. Said once: who looks again and misses it says it again.
    pub async fn propose(&self, change: &Change, peers: &Peers) -> bool {
        let leaders = match self.leadership() {
            Some(Leadership::Here) => return self.append(change.encode()).await,
            Some(Leadership::There(leader)) => peers.get(leader).into_iter().collect(),
            // Whoever does not lead does not answer: one of them does.
            Some(Leadership::Unknown) | None => peers.all(),
        };
        let body = change.encode();
        // All at once: one that hangs holds up nobody, and a change that comes twice does nothing.
        let calls = leaders
            .iter()
            .map(|peer| Box::pin(peer.call(GroupId::META, kind::PROPOSE, body.clone(), TIMEOUT)));
        let calls: Vec<_> = calls.collect();
        if calls.is_empty() {
            return false;
        }
        match select_ok(calls).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "no peer made a change of the cluster");
                false
            }
        }
    }

    /// Has an encoded change made, where this node leads; true when it is applied here.
    pub async fn append(&self, change: Bytes) -> bool {
        let Some(replica) = self.leading() else { return false };
        let (done, fate) = tokio::sync::oneshot::channel();
        let report = move |fate| {
            // Nobody waits any more when the node is stopping.
            let _unheard = done.send(fate);
        };
        if replica.propose(change, report).await.is_err() {
            return false;
        }
        matches!(tokio::time::timeout(TIMEOUT, fate).await, Ok(Ok(ProposalFate::Applied)))
    }

    /// Takes what another node says to the group itself, or asks of the cluster.
    pub fn handle(&self, message: Message, responder: Responder) {
        if message.kind == kind::FETCH {
            // A replica that is being filled may lag behind what this node has heard.
            if let Some(cluster) = self.cluster() {
                responder.send(cluster.encode());
            }
            return;
        }
        match self.replica() {
            Some(replica) => replica.handle(message, responder),
            None => responder.unavailable(0),
        }
    }

    /// Starts this node's replica on the current runtime, restored from disk.
    ///
    /// # Errors
    /// When its log or snapshot cannot be used.
    pub async fn start_replica(&self, options: GroupOptions) -> Result<(), StartError> {
        let replica = Group::start(options, Arc::clone(&self.machine)).await?;
        *self.replica.write() = Some(replica);
        Ok(())
    }

    /// Ends this node's replica, when it has one, and forgets its state; what is known of the cluster stays.
    pub async fn end_replica(&self) {
        let Some(replica) = self.replica() else { return };
        replica.stop().await;
        *self.replica.write() = None;
        self.machine.clear();
    }

    /// Stops this node's replica.
    pub async fn stop(&self) {
        if let Some(replica) = self.replica() {
            replica.stop().await;
        }
    }

    /// Which replica this node has.
    pub fn replica_id(&self) -> Option<RaftId> {
        self.replica().map(|replica| replica.raft_id())
    }

    /// Whether this node's replica is to be replaced: see [`Group::must_be_rebuilt`].
    pub fn must_be_rebuilt(&self) -> bool {
        self.replica().is_some_and(|replica| replica.must_be_rebuilt())
    }

    /// Why this node's replica has stopped for good, when it has.
    pub fn stopped(&self) -> Option<String> {
        self.replica()?.status().stopped
    }

    /// Who leads, as this node's replica sees it; `None` where it has none.
    pub fn leadership(&self) -> Option<Leadership> {
        self.replica().map(|replica| replica.leadership())
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.leadership() == Some(Leadership::Here)
    }

    /// Whether there is a leader that works, as this node's replica sees it.
    pub fn is_served(&self) -> bool {
        self.replica().is_some_and(|replica| replica.is_served())
    }

    /// Whether this node leads, a majority has just said so, and what was committed is applied here: by `deadline`.
    ///
    /// # Errors
    /// Which of it is not so.
    pub async fn confirm(&self, deadline: Instant) -> Result<(), ReadRefused> {
        match self.leading() {
            Some(replica) => replica.read_index(deadline).await,
            None => Err(ReadRefused::NotLeader { leader: None }),
        }
    }

    /// Gives the group its first members if it has no history, see [`Group::begin`], and returns once this node leads.
    /// At once without a replica here.
    pub async fn begin(&self, members: BTreeMap<RaftId, Holder>, begins: bool, patience: Duration) {
        let Some(replica) = self.replica() else { return };
        replica.begin(members, begins, patience).await;
        replica.wait_for_leadership(|leadership| leadership == Leadership::Here).await;
    }

    /// Looks whether the members are `target`, and does as leader the next thing to make them so; see
    /// [`Group::settle`]. `None` without a replica here.
    pub fn settle(
        &self,
        target: &BTreeMap<RaftId, Holder>,
        joining: Option<RaftId>,
    ) -> Option<Settled> {
        self.replica().map(|replica| replica.settle(target, joining))
    }

    /// Lets the group do what its clock says is due; see [`Group::tick`].
    pub async fn keep_time(&self) {
        if let Some(replica) = self.replica() {
            replica.tick().await;
        }
    }

    /// Campaigns now, when `gone` leads, instead of waiting for the election timer.
    pub fn take_over_from(&self, gone: NodeId) {
        if let Some(replica) = self.replica()
            && replica.leadership() == Leadership::There(gone)
        {
            replica.campaign();
        }
    }

    /// The nodes that could take over from this one right now, the best first; none when it does not lead.
    pub fn successors(&self) -> Vec<NodeId> {
        self.replica().map_or_else(Vec::new, |replica| replica.successors())
    }

    /// Hands leadership to `target`, when this node leads; see [`Group::transfer_leader`].
    pub async fn hand_over(&self, target: NodeId) -> TransferOutcome {
        match self.replica() {
            Some(replica) => replica.transfer_leader(target).await,
            None => TransferOutcome::Refused(TransferRefusal::NotLeading),
        }
    }

    /// Lets go of the log that keeps the node's oldest segment alive; see [`Group::release_log`].
    pub async fn release_log(&self) {
        if let Some(replica) = self.replica() {
            replica.release_log().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cluster, first_session, topology};
    use super::*;
    use crate::ids::Incarnation;

    #[test]
    fn older_news_change_nothing() {
        let meta = Meta::default();
        let mut news = meta.watch();
        let first = Arc::new(cluster(topology(1, 3, 2)));
        let later = first
            .with_start(
                Incarnation(1),
                crate::ids::Session { number: 2, random: 1 },
                &[first_session()],
                1,
            )
            .map(Arc::new)
            .unwrap();
        meta.learn(&later);
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        meta.learn(&first);
        assert!(!news.has_changed().unwrap());
        assert_eq!(meta.cluster().unwrap().version(), later.version());
    }

    #[tokio::test]
    async fn without_a_replica_and_peers_nothing_is_changed() {
        let meta = Meta::default();
        let change = Change::Joined { incarnation: Incarnation(1) };
        assert!(!meta.propose(&change, &Peers::new()).await);
        assert!(!meta.append(change.encode()).await);
        let confirmed = meta.confirm(Instant::now()).await;
        assert_eq!(confirmed, Err(ReadRefused::NotLeader { leader: None }));
        assert!(!meta.leads() && !meta.is_served() && meta.applied().is_none());
    }
}
