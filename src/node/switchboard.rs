//! The groups whose replicas lie in this node's directory, and the cluster as it is known here: what messages, the
//! clock and upkeep look things up in while replicas come and go.

use std::sync::{Arc, OnceLock};

use crate::ids::{GroupId, Incarnation, NodeId, Session};
use crate::meta::{Cluster, Meta};
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
pub(super) struct Switchboard {
    /// What is known of the cluster, and the group that knows it.
    meta: Arc<Meta>,
    /// All shards of the cluster, with a replica here or not; set once the cluster is known.
    shards: OnceLock<Vec<Arc<Shard>>>,
    /// Takes what strangers and the founder say.
    gate: OnceLock<Arc<dyn Gate>>,
}

/// Answers messages about who belongs to the cluster.
pub(super) trait Gate: Send + Sync + std::fmt::Debug {
    /// A stranger asks to be let in.
    fn join(&self, message: Message, responder: Responder);
    /// A member asks meta's leader for a change of the cluster.
    fn propose(&self, message: Message, responder: Responder);
}

impl Switchboard {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { meta: Arc::default(), shards: OnceLock::new(), gate: OnceLock::new() })
    }

    /// The meta group, with a replica here or not.
    pub(super) fn meta(&self) -> &Arc<Meta> {
        &self.meta
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
        self.meta.cluster()
    }

    fn handle_meta(&self, message: Message, responder: Responder) {
        use crate::meta::kind;
        match message.kind {
            kind::JOIN | kind::PROPOSE => {
                // Unanswered before there is a cluster: the sender asks somebody else.
                let Some(gate) = self.gate.get() else { return };
                if message.kind == kind::JOIN {
                    gate.join(message, responder);
                } else {
                    gate.propose(message, responder);
                }
            }
            _ => self.meta.handle(message, responder),
        }
    }
}

impl Handler for Switchboard {
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
