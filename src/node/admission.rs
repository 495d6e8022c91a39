//! Who is let into the cluster, and what meta's leader hears from its members.
//!
//! An empty directory takes the place of another under the same name once that one has been silent for a while and
//! meta has committed the change. Nothing here is safe or unsafe: a directory that is let in too early costs a copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::birth::ANSWER_PATIENCE;
use super::switchboard::{Gate, Switchboard};
use crate::ids::{Incarnation, NodeId};
use crate::meta::{Change, Cluster, JoinRequest};
use crate::raft::ReadRefused;
use crate::transport::{Message, Peers, Responder, Sender};

/// How long a directory must have been silent before another may take its place.
const SILENCE: Duration = Duration::from_secs(5);

/// Longest time between two looks that counts as silence of who was not there at either: a process that was stopped
/// has heard nobody.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// How long meta's leader may take to be confirmed: less than whoever asks to be let in waits for an answer.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);

const _: () = assert!(CONFIRM_PATIENCE.as_millis() < ANSWER_PATIENCE.as_millis());

/// For how long the directory of each member has been silent.
#[derive(Debug, Default)]
pub(super) struct Sightings(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last_look: Option<Instant>,
    silence: BTreeMap<Incarnation, Duration>,
}

impl Sightings {
    /// Notes who is connected now. To be called a few times a second; who is looked for for the first time is taken as
    /// just heard.
    pub(super) fn note(&self, cluster: &Cluster, peers: &Peers, now: Instant) {
        self.note_with(cluster, now, |node| {
            Some(peers.get(node)?.connected_identity()?.incarnation)
        });
    }

    fn note_with(
        &self,
        cluster: &Cluster,
        now: Instant,
        connected: impl Fn(NodeId) -> Option<Incarnation>,
    ) {
        let mut seen = self.0.lock();
        let since = seen.last_look.replace(now).map_or(Duration::ZERO, |last| now - last);
        seen.silence.retain(|incarnation, _| cluster.node_of(*incarnation).is_some());
        for (node, member) in cluster.members() {
            let silence = seen.silence.entry(member.incarnation).or_default();
            let is_there = connected(*node) == Some(member.incarnation);
            *silence = if is_there { Duration::ZERO } else { *silence + since.min(LOOK_MAX) };
        }
    }

    fn is_silent(&self, incarnation: Incarnation) -> bool {
        self.0.lock().silence.get(&incarnation).is_some_and(|silence| *silence >= SILENCE)
    }
}

/// Takes what strangers and members say to meta's leader. Elsewhere than there nothing is answered, and they ask the next.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) me: NodeId,
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) sightings: Arc<Sightings>,
}

impl Admission {
    /// What is decided about `sender`, who goes by `request.name`: a change, or why there is none, in a sentence.
    fn decide(&self, sender: Sender, request: &JoinRequest) -> Result<Change, String> {
        let Some(cluster) = self.switchboard.meta().applied() else {
            return Err("the cluster is being created".to_owned());
        };
        let node = NodeId::of_name(&request.name);
        let Some(member) = cluster.members().get(&node).filter(|_| node == sender.node) else {
            let names: Vec<_> =
                cluster.topology().nodes().values().map(|it| it.name.as_str()).collect();
            return Err(format!(
                "{} is no member of this cluster, which has {}",
                request.name,
                names.join(", ")
            ));
        };
        if member.incarnation == sender.incarnation {
            return Err("let in".to_owned());
        }
        if cluster.is_gone(sender.incarnation) {
            return Err("this directory was replaced for good: empty it".to_owned());
        }
        if request.level < cluster.level() {
            return Err("the program is too old for this cluster".to_owned());
        }
        let is_me = node == self.me;
        if is_me || !self.sightings.is_silent(member.incarnation) {
            return Err(format!(
                "the name {} is in use by another directory, or was until a moment ago",
                request.name
            ));
        }
        Ok(Change::Admit {
            node,
            replaces: member.incarnation,
            incarnation: sender.incarnation,
            session: sender.session,
            level: request.level,
        })
    }
}

impl Gate for Admission {
    fn join(&self, message: Message, responder: Responder) {
        if !self.switchboard.meta().leads() {
            return;
        }
        let Some(request) = JoinRequest::decode(&message.body) else { return };
        let (gate, from) = (self.clone(), message.from);
        if let Err(why) = gate.decide(from, &request) {
            return responder.send(why.into_bytes());
        }
        tokio::spawn(async move {
            // A leader without a majority must not even propose it: what it appends counts as soon as it has one again, and
            // that may be by the very directory that was missing.
            let meta = gate.switchboard.meta();
            match meta.confirm(Instant::now() + CONFIRM_PATIENCE).await {
                Ok(()) => {}
                // Another may, which is asked as well; and how many are missing the stranger sees for itself.
                Err(ReadRefused::NotLeader { .. } | ReadRefused::NoQuorum) => return,
                Err(refused @ ReadRefused::Behind) => {
                    return responder.send(format!("meta's leader is {refused}").into_bytes());
                }
            }
            let Ok(change) = gate.decide(from, &request) else { return };
            tracing::warn!(node = request.name, incarnation = %from.incarnation, "an empty directory takes the place of a lost one");
            if meta.append(change.encode()).await {
                responder.send(Bytes::from_static(b"being let in"));
            }
        });
    }

    fn propose(&self, message: Message, responder: Responder) {
        if !self.switchboard.meta().leads() {
            return;
        }
        let is_allowed = match Change::decode(&message.body) {
            Ok(Change::SetDoors { .. } | Change::Start { .. } | Change::Done { .. }) => true,
            // Said by the directory it lies in, of nobody else's.
            Ok(Change::Rebuild { group, replica }) => self
                .switchboard
                .cluster()
                .and_then(|cluster| {
                    let coming = cluster.step(group).map(|step| (step.add, step.holder));
                    cluster.replicas(group).chain(coming).find(|(id, _)| *id == replica)
                })
                .is_some_and(|(_, holder)| holder.incarnation == message.from.incarnation),
            // These are the leader's own to decide.
            Ok(
                Change::Create(_)
                | Change::Admit { .. }
                | Change::Step { .. }
                | Change::Joined { .. },
            )
            | Err(_) => false,
        };
        if !is_allowed {
            return tracing::warn!(from = %message.from.node, "refused a change of the cluster");
        }
        let meta = Arc::clone(self.switchboard.meta());
        tokio::spawn(async move {
            if meta.append(message.body).await {
                responder.send(Bytes::new());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::testing::{cluster, node, topology};

    /// A meta leader that was paused found the requests of a stranger in its sockets before it had looked for anybody.
    #[test]
    fn who_was_not_looked_for_was_not_silent() {
        let cluster = cluster(topology(1, 3, 1));
        let (sightings, start) = (Sightings::default(), Instant::now());
        let (there, lost) = (Incarnation(1), Incarnation(2));
        let look = |ms: u64| {
            let connected = |who| (who == node(1)).then_some(there);
            sightings.note_with(&cluster, start + Duration::from_millis(ms), connected);
        };
        look(0);
        look(60_000);
        assert!(!sightings.is_silent(lost), "one look was missing for a minute");
        (1..=45).for_each(|tick| look(60_000 + tick * 100));
        assert!(sightings.is_silent(lost) && !sightings.is_silent(there));
    }
}
