//! Messages of peers, the twin of `network`: decoded, judged, handed to openraft, answered.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::AppendEntriesResponse;
use tokio::time::Instant;

use super::codec;
use super::group::Group;
use super::network::{kind, take_meant};
use super::state_machine::StateMachine;
use crate::transport::{Message, Responder};

impl<S: StateMachine> Group<S> {
    /// Takes a message of this room from a peer. Returns at once; the answer follows.
    ///
    /// A message for another replica is not answered: that one's log may be lost, and this one must not vote or
    /// acknowledge in its place.
    pub fn handle(&self, message: Message, responder: Responder) {
        let Some((meant, body)) = take_meant(message.body) else { return };
        if meant != self.shared.id {
            tracing::debug!(group = %self.shared.group, %meant, "a message for another replica");
            return;
        }
        match message.kind {
            kind::APPEND_ENTRIES => self.handle_append(body, responder),
            kind::VOTE => self.handle_cold(body, responder, VoteKind::Vote),
            kind::PRE_VOTE => self.handle_cold(body, responder, VoteKind::PreVote),
            kind::TRANSFER_LEADER => self.handle_cold(body, responder, VoteKind::Transfer),
            kind::SNAPSHOT_BEGIN => self.handle_snapshot_begin(body, responder),
            kind::SNAPSHOT_CHUNK => self.handle_snapshot_chunk(body, responder),
            kind::SNAPSHOT_END => self.handle_snapshot_end(body, responder),
            // An unanswered responder tells the peer that nobody handles this.
            _ => drop(responder),
        }
    }

    fn handle_append(&self, body: Bytes, responder: Responder) {
        let request = match codec::take_append_entries(body) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "refused a message");
                return;
            }
        };
        let shared = Arc::clone(&self.shared);
        if shared.metrics.borrow_watched().vote == request.vote {
            // The word of the leader it follows counts from its arrival: what follows may wait for a slow disk, and
            // that is no silence of the leader.
            shared.timer.lock().heard = Instant::now();
        }
        // Tasks of a runtime start in the order they were spawned, so entries reach the core in order; were
        // they not to, the core would answer Conflict and the leader would send them again.
        tokio::spawn(async move {
            if let Ok(answer) = shared.raft.append_entries(request).await {
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    shared.timer.lock().heard = Instant::now();
                }
                responder.send_with(|out| codec::put_append_response(&answer, out));
            }
        });
    }

    fn handle_cold(&self, body: Bytes, responder: Responder, what: VoteKind) {
        if what != VoteKind::Transfer && Instant::now() < self.shared.votes_from {
            return; // Not answering is refusing: see `votes_from`.
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let raft = &shared.raft;
            let answer = match what {
                VoteKind::Vote => match postcard::from_bytes(&body) {
                    Ok(request) => {
                        let answer = raft.vote(request).await;
                        if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                            // The candidate is given its time to become leader.
                            shared.timer.lock().heard = Instant::now();
                        }
                        encode(answer)
                    }
                    Err(error) => Err(error.to_string()),
                },
                VoteKind::PreVote => match postcard::from_bytes(&body) {
                    Ok(request) => encode(raft.pre_vote(request).await),
                    Err(error) => Err(error.to_string()),
                },
                VoteKind::Transfer => match postcard::from_bytes(&body) {
                    Ok(request) => encode(raft.handle_transfer_leader(request).await),
                    Err(error) => Err(error.to_string()),
                },
            };
            match answer {
                Ok(answer) => responder.send(answer),
                Err(error) => tracing::warn!(group = %shared.group, error, "refused a message"),
            }
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VoteKind {
    Vote,
    PreVote,
    Transfer,
}

/// An answer of openraft as a postcard body.
pub(super) fn encode<A: serde::Serialize, E: fmt::Display>(
    answer: Result<A, E>,
) -> Result<Vec<u8>, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    postcard::to_stdvec(&answer).map_err(|error| error.to_string())
}
