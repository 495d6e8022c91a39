//! A node's seat at a shard: its replica while it has one, and who leads as far as it knows.
//!
//! Replicas come and go under a running node, so nobody keeps one: whoever needs it asks for it each time.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::machine::ShardMachine;
use super::shard::{ReadConsistency, ShardOptions};
use super::time::ShardTime;
use crate::ids::NodeId;
use crate::raft::{Group, Leadership};
use crate::resp::ErrorReply;
use crate::stdx::prng::SplitMix64;
use crate::wal::Wal;

/// This node's replica of the shard.
pub(super) struct Replica {
    pub(super) group: Group<ShardMachine>,
    pub(super) wal: Wal,
}

/// Where one node stands toward one shard.
pub(super) struct Seat {
    /// This node.
    node: NodeId,
    /// The shard's replicas, in preference order.
    replicas: Vec<NodeId>,
    read_consistency: ReadConsistency,
    time: Arc<ShardTime>,
    /// This node's replica, where it has one.
    replica: RwLock<Option<Arc<Replica>>>,
    /// The last leader heard of through an answer, see [`Self::note_hint`]; for nodes without a working replica.
    hint: Mutex<Option<NodeId>>,
    /// Which of the others is asked first.
    random: Mutex<SplitMix64>,
}

impl Seat {
    /// This node's seat, at first without a replica.
    pub(super) fn new(options: &ShardOptions, time: Arc<ShardTime>) -> Self {
        Self {
            node: options.node,
            replicas: options.replicas.clone(),
            read_consistency: options.read_consistency,
            time,
            replica: RwLock::default(),
            hint: Mutex::default(),
            random: Mutex::new(SplitMix64::new(options.seed)),
        }
    }

    /// This node.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// The shard's replicas, in preference order.
    pub(super) fn replicas(&self) -> &[NodeId] {
        &self.replicas
    }

    /// Whether there are no other replicas than this node's.
    pub(super) fn is_sole(&self) -> bool {
        self.replicas == [self.node]
    }

    /// Gives the seat a replica, or none. The one it had.
    pub(super) fn put(&self, replica: Option<Replica>) -> Option<Arc<Replica>> {
        std::mem::replace(&mut *self.replica.write(), replica.map(Arc::new))
    }

    /// This node's replica, where it has one.
    #[inline]
    pub(super) fn replica(&self) -> Option<Arc<Replica>> {
        self.replica.read().clone()
    }

    /// This node's replica, unless there is none or it has stopped for good.
    pub(super) fn working_replica(&self) -> Option<Arc<Replica>> {
        self.replica().filter(|replica| !replica.group.has_stopped())
    }

    /// What clients are told when nobody is left who could answer: this node holds the only replica, and that has stopped.
    pub(super) fn lost(&self) -> Option<ErrorReply> {
        let replica = self.replica().filter(|_| self.is_sole())?;
        let is_leaving = replica.group.was_asked_to_stop();
        let told = if is_leaving { ErrorReply::NO_QUORUM } else { ErrorReply::WRITES_STOPPED };
        replica.group.has_stopped().then_some(told)
    }

    /// Whether this node leads, or who else.
    pub(super) fn leadership(&self) -> Leadership {
        match self.working_replica() {
            Some(replica) => replica.group.leadership(),
            None => self.hint().map_or(Leadership::Unknown, Leadership::There),
        }
    }

    /// Whether this node leads, as far as it knows.
    pub(super) fn leads(&self) -> bool {
        self.leadership() == Leadership::Here
    }

    /// Who leads, as far as this node knows.
    pub(super) fn leader(&self) -> Option<NodeId> {
        match self.leadership() {
            Leadership::Here => Some(self.node),
            Leadership::There(node) => Some(node),
            Leadership::Unknown => None,
        }
    }

    /// Who was last said to lead.
    pub(super) fn hint(&self) -> Option<NodeId> {
        *self.hint.lock()
    }

    /// Remembers who is said to lead. Never this node: the hint is asked for only while no replica works here, and
    /// others go on believing for a while that one does which is stopping.
    pub(super) fn note_hint(&self, leader: Option<NodeId>) {
        *self.hint.lock() = leader.filter(|leader| *leader != self.node);
    }

    /// One of the replicas elsewhere, by chance.
    pub(super) fn any_replica(&self) -> NodeId {
        let elsewhere: Vec<NodeId> =
            self.replicas.iter().copied().filter(|replica| *replica != self.node).collect();
        let random = self.random.lock().below(elsewhere.len() as u64);
        let chosen = usize::try_from(random).ok().and_then(|at| elsewhere.get(at));
        chosen.copied().unwrap_or(self.node)
    }

    /// Whether this node's applied state may answer linearizable reads right now, without asking anyone.
    #[inline]
    pub(super) fn may_read(&self) -> bool {
        self.read_consistency == ReadConsistency::Lease
            && self.time.is_known()
            // Under the lock, without a handle of its own: for each read it would be counted up and down again.
            && self.replica.read().as_ref().is_some_and(|replica| replica.group.may_read())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::options;
    use super::*;
    use crate::transport::Peers;

    const HERE: NodeId = NodeId(1);
    const FIRST: NodeId = NodeId(2);
    const SECOND: NodeId = NodeId(3);

    fn seat(replicas: &[NodeId]) -> Seat {
        let options =
            ShardOptions { node: HERE, replicas: replicas.to_vec(), ..options(Peers::new()) };
        let time = Arc::new(ShardTime::new(Arc::clone(&options.clock)));
        Seat::new(&options, time)
    }

    #[test]
    fn without_a_replica_the_leader_is_who_was_said_to_lead() {
        let seat = seat(&[FIRST, SECOND]);
        assert_eq!(seat.leadership(), Leadership::Unknown);
        seat.note_hint(Some(SECOND));
        assert_eq!(seat.leadership(), Leadership::There(SECOND));
        assert_eq!(seat.leader(), Some(SECOND));
        seat.note_hint(Some(HERE));
        assert_eq!(seat.leader(), None, "a node without a replica never leads");
    }

    #[test]
    fn every_other_replica_is_asked_by_chance_and_this_node_never() {
        let seat = seat(&[FIRST, HERE, SECOND]);
        let asked: BTreeSet<NodeId> = (0..100).map(|_| seat.any_replica()).collect();
        assert_eq!(asked, BTreeSet::from([FIRST, SECOND]));
    }

    #[test]
    fn without_a_replica_nothing_is_read_and_nothing_is_lost() {
        let seat = seat(&[HERE]);
        assert!(!seat.may_read());
        assert_eq!(seat.lost(), None, "it may yet be started");
        assert!(seat.is_sole());
    }
}
