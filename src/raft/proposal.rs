//! A proposal on its way into the log, and its fate.

use bytes::Bytes;
use openraft::error::{ClientWriteError, ForwardToLeader};

use super::group::Group;
use super::state_machine::StateMachine;
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
    /// Proposes `proposal`; `done` learns its fate, once, on this group's runtime.
    ///
    /// # Errors
    /// [`Stopped`] when the replica has stopped; `done` has then been told that the fate is unknown.
    pub async fn propose(
        &self,
        proposal: Bytes,
        done: impl FnOnce(ProposalFate) + Send + 'static,
    ) -> Result<(), Stopped> {
        let mut answer = OnceAnswered(Some(done));
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
        let taken = self.shared.raft.client_write_ff(Proposal(proposal), Some(responder)).await;
        taken.map_err(|fatal| {
            tracing::debug!(group = %self.shared.group, %fatal, "the replica has stopped");
            Stopped
        })
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
