//! The groups whose replicas lie in this node's directory, and the cluster as it is known here: what messages, the
//! clock and upkeep look things up in while replicas come and go.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::ids::{GroupId, Incarnation, NodeId, Session};
use crate::meta::{Cluster, ClusterMachine, Command};
use crate::raft::{Group, Leadership};
use crate::shard::Shard;
use crate::transport::{Handler, Message, Responder};

/// Who this process is: a name, a directory, a start of it.
#[derive(Clone, Debug)]
pub(super) struct Myself {
    pub(super) name: String,
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) session: Session,
}

/// What lives here. Shared by everyone in this room.
#[derive(Debug)]
pub(super) struct Hosted {
    /// The cluster as meta's replica here has it.
    machine: Arc<ClusterMachine>,
    meta: RwLock<Option<Group<ClusterMachine>>>,
    /// All shards of the cluster, with a replica here or not; set once the cluster is known.
    shards: OnceLock<Vec<Arc<Shard>>>,
    /// The newest cluster this node has heard of, from whomever.
    cluster: watch::Sender<Option<Arc<Cluster>>>,
    /// Takes what strangers and the founder say.
    gate: OnceLock<Arc<dyn Gate>>,
}

/// Answers messages about who belongs to the cluster.
pub(super) trait Gate: Send + Sync + std::fmt::Debug {
    /// A stranger asks to be let in.
    fn join(&self, message: Message, responder: Responder);
    /// A member has a command for meta's leader.
    fn propose(&self, message: Message, responder: Responder);
}

impl Hosted {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            machine: Arc::new(ClusterMachine::new()),
            meta: RwLock::new(None),
            shards: OnceLock::new(),
            cluster: watch::Sender::new(None),
            gate: OnceLock::new(),
        })
    }

    /// The state machine of meta's replica here, whether or not there is one.
    pub(super) fn machine(&self) -> &Arc<ClusterMachine> {
        &self.machine
    }

    /// Meta's replica here.
    pub(super) fn meta(&self) -> Option<Group<ClusterMachine>> {
        self.meta.read().clone()
    }

    /// Meta's replica here, when it leads.
    pub(super) fn leading_meta(&self) -> Option<Group<ClusterMachine>> {
        self.meta().filter(|meta| meta.leadership() == Leadership::Here)
    }

    pub(super) fn set_meta(&self, meta: Option<Group<ClusterMachine>>) {
        *self.meta.write() = meta;
    }

    /// All shards; none before the cluster is known.
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn shard(&self, group: GroupId) -> Option<&Arc<Shard>> {
        self.shards().get(group.shard()?.0 as usize)
    }

    pub(super) fn set_shards(&self, shards: Vec<Arc<Shard>>) {
        let is_first = self.shards.set(shards).is_ok();
        debug_assert!(is_first, "set once, while starting");
    }

    pub(super) fn set_gate(&self, gate: Arc<dyn Gate>) {
        let is_first = self.gate.set(gate).is_ok();
        debug_assert!(is_first, "set once, while starting");
    }

    /// The newest cluster this node knows of.
    pub(super) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.borrow().clone()
    }

    /// Follows the cluster.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Cluster>>> {
        self.cluster.subscribe()
    }

    /// Takes over what was heard of the cluster, when it is newer than what is known.
    pub(super) fn learn(&self, heard: &Arc<Cluster>) {
        self.cluster.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| known.version() < heard.version());
            if is_news {
                *known = Some(Arc::clone(heard));
            }
            is_news
        });
    }

    fn handle_meta(&self, message: Message, responder: Responder) {
        use crate::meta::kind;
        match message.kind {
            kind::FETCH => {
                // A replica that is being filled may lag behind what this node has heard.
                if let Some(cluster) = self.cluster() {
                    responder.send(Command::Create(Box::new((*cluster).clone())).encode());
                }
            }
            kind::JOIN | kind::PROPOSE => {
                // Unanswered before there is a cluster: the sender asks somebody else.
                let Some(gate) = self.gate.get() else { return };
                if message.kind == kind::JOIN {
                    gate.join(message, responder);
                } else {
                    gate.propose(message, responder);
                }
            }
            _ => match self.meta() {
                Some(meta) => meta.handle(message, responder),
                None => responder.unavailable(0),
            },
        }
    }
}

impl Handler for Hosted {
    fn handle(&self, message: Message, responder: Responder) {
        use crate::meta::kind;
        let is_gate =
            message.group == GroupId::META && [kind::FETCH, kind::JOIN].contains(&message.kind);
        if message.from.is_stranger && !is_gate {
            return tracing::warn!(from = %message.from.node, kind = %message.kind, "a stranger may only ask to be let in");
        }
        if message.group == GroupId::META {
            return self.handle_meta(message, responder);
        }
        // Before the shards are there nobody answers, and the sender tries again.
        if let Some(shard) = self.shard(message.group) {
            shard.handle(message, responder);
        }
    }
}
