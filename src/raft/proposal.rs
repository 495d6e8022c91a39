//! A proposal on its way into the log, and its fate.

use std::pin::pin;

use bytes::Bytes;
use openraft::error::{ClientWriteError, ForwardToLeader};
use tokio::time::{Instant, timeout_at};

use super::group::Group;
use super::state_machine::StateMachine;
use super::status::Leadership;
use super::type_config::{Callback, Proposal, TypeConfig, WriteResponder};
use crate::ids::NodeId;

/// The fate of a proposal, as far as this replica can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalFate {
    /// Committed and applied here.
    Applied,
    /// Refused before it entered any log: it may be proposed elsewhere freely.
    NotAppended {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// It was in a log that changed hands: it may or may not be committed.
    Unknown {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
}

/// The replica has stopped for good and takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica has stopped")]
pub struct Stopped;

impl<S: StateMachine> Group<S> {
    /// Proposes `proposal`; `done` learns its fate, once, on this group's runtime. While leadership is being handed over
    /// it waits for the outcome of that.
    ///
    /// # Errors
    /// [`Stopped`] when the replica has stopped; `done` has then been told that the fate is unknown.
    pub async fn propose(
        &self,
        proposal: Bytes,
        done: impl FnOnce(ProposalFate) + Send + 'static,
    ) -> Result<(), Stopped> {
        let mut answer = OnceAnswered(Some(done));
        if !self.may_propose().await {
            // openraft would take it for as long as its own lease, and its fate would be unknown. Here nobody has it yet.
            answer.answer(ProposalFate::NotAppended { leader: None });
            return Ok(());
        }
        let responder: WriteResponder = Callback::new(move |result| {
            answer.answer(match result {
                Ok(_) => ProposalFate::Applied,
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    let leader = node_of(&forward);
                    ProposalFate::NotAppended { leader }
                }
                Err(ClientWriteError::LogEntryDiscarded(forward)) => {
                    let leader = node_of(&forward);
                    ProposalFate::Unknown { leader }
                }
                // Only membership changes and conditional writes can answer anything else.
                Err(_) => ProposalFate::Unknown { leader: None },
            });
        });
        // A replica that has stopped drops the responder, which then answers "unknown".
        let call = pin!(self.shared.raft.client_write_ff(Proposal(proposal), Some(responder)));
        let taken = self.shared.pledge.queue_proposal(call).await;
        taken.map_err(|fatal| {
            tracing::debug!(group = %self.shared.group, %fatal, "the replica has stopped");
            Stopped
        })
    }
}

impl<S: StateMachine> Group<S> {
    /// Waits for a quorum's word, for at most one lease, if this replica leads. Never answers no at once: the caller would
    /// try again at once.
    async fn may_propose(&self) -> bool {
        let shared = &self.shared;
        // Nearly always.
        if shared.leads_with_quorum() {
            return true;
        }
        let mut deadline = None;
        loop {
            let changed = shared.acknowledgements.changed();
            if shared.leads_with_quorum() || self.leadership() != Leadership::Here {
                return true;
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + shared.timing.lease);
            if timeout_at(until, changed).await.is_err() {
                return false;
            }
        }
    }
}

/// The node that a refusal names as the leader's.
fn node_of(forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
    forward.leader_node.map(|holder| holder.node)
}

/// Answers once, at the latest when it is dropped: a stopped replica drops what it will never answer.
struct OnceAnswered<F: FnOnce(ProposalFate)>(Option<F>);

impl<F: FnOnce(ProposalFate)> OnceAnswered<F> {
    fn answer(&mut self, fate: ProposalFate) {
        if let Some(done) = self.0.take() {
            done(fate);
        }
    }
}

impl<F: FnOnce(ProposalFate)> Drop for OnceAnswered<F> {
    fn drop(&mut self) {
        self.answer(ProposalFate::Unknown { leader: None });
    }
}
