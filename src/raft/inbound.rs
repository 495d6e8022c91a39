//! Messages of peers, the twin of `network`: decoded, judged, handed to openraft, answered.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use tokio::time::Instant;

use super::census::Roll;
use super::codec;
use super::core::Shared;
use super::group::Group;
use super::network::{kind, take_meant};
use super::state_machine::{EntryPosition, StateMachine};
use super::timekeeper::Word;
use super::transfer::{DECLINED, TAKEN};
use super::type_config::{LogId, TypeConfig, is_voter};
use crate::stdx::planted::{Bug, is_planted};
use crate::transport::{Message, Responder};

/// A message could not be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum InboundError {
    /// It, or the answer, has no such form.
    #[error("malformed: {0}")]
    Malformed(#[from] postcard::Error),
    /// What it brought cannot be kept.
    #[error("{0}")]
    Disk(#[from] std::io::Error),
    /// The replica has stopped.
    #[error("the replica has stopped")]
    Stopped,
}

impl<S: StateMachine> Group<S> {
    /// Takes a message of this room from a peer. Returns at once; the answer follows.
    ///
    /// A message for another replica is not answered: that one's log may be lost, and this one must not vote or
    /// acknowledge in its place.
    pub fn handle(&self, message: Message, responder: Responder) {
        let Some((meant, body)) = take_meant(message.body) else { return };
        if meant != self.shared.id && !is_planted(Bug::StrangersMessage) {
            tracing::debug!(group = %self.shared.group, %meant, "a message for another replica");
            return;
        }
        match message.kind {
            kind::APPEND_ENTRIES => self.handle_append(Urgency::Entries, &body, responder),
            kind::HEARTBEAT => self.handle_append(Urgency::Heartbeat, &body, responder),
            kind::VOTE => self.handle_cold(body, responder, VoteKind::Vote),
            kind::PRE_VOTE => self.handle_cold(body, responder, VoteKind::PreVote),
            kind::TRANSFER_LEADER => self.handle_cold(body, responder, VoteKind::Transfer),
            // One that has stopped will not stand, however much it has: it counts as missing.
            kind::CENSUS if self.has_stopped() => {}
            kind::CENSUS => {
                if let Ok(standing) = postcard::to_stdvec(&self.shared.standing()) {
                    responder.send(standing);
                }
            }
            kind::FENCE => {
                let shared = Arc::clone(&self.shared);
                tokio::spawn(async move {
                    if let Some(index) = shared.build_fence().await {
                        responder.send(index.to_le_bytes().to_vec());
                    }
                });
            }
            kind::SNAPSHOT_BEGIN => self.handle_snapshot_begin(body, responder),
            kind::SNAPSHOT_CHUNK => self.handle_snapshot_chunk(body, responder),
            kind::SNAPSHOT_END => self.handle_snapshot_end(body, responder),
            // An unanswered responder tells the peer that nobody handles this.
            _ => drop(responder),
        }
    }

    fn handle_append(&self, urgency: Urgency, body: &Bytes, responder: Responder) {
        let (time, request) = match codec::take_append_entries(body) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(group = %self.shared.group, %error, "refused a message");
                return;
            }
        };
        if urgency == Urgency::Heartbeat && self.shared.follows(time, &request) {
            let answer = AppendEntriesResponse::Success;
            let room = self.shared.budget.room();
            responder.send_with(|out| codec::put_append_response(room, &answer, out));
            self.shared.learn_commit(request);
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Out of order, the core would answer Conflict to entries and the leader would send them again. In a box: a call of
        // openraft is kilobytes large, and tokio moves what it spawns seven times.
        begin(Box::pin(async move {
            if let Some(Ok(answer)) = shared.append(Some(time), request).await {
                let room = shared.budget.room();
                responder.send_with(|out| codec::put_append_response(room, &answer, out));
            }
        }));
    }

    fn handle_cold(&self, body: Bytes, responder: Responder, what: VoteKind) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let answer = match what {
                VoteKind::Vote => shared.answer_vote(&body).await,
                VoteKind::PreVote => shared.answer_pre_vote(&body),
                VoteKind::Transfer => shared.answer_transfer(&body).await,
            };
            match answer {
                Ok(answer) => responder.send(answer),
                Err(error) => {
                    tracing::warn!(group = %shared.group, %error, "refused a message");
                }
            }
        });
    }
}

/// Runs `work` here as far as its first wait, and the rest in a task: what it queues before that wait is queued in the order
/// of these calls, in whatever order tasks run.
///
/// The first poll has nobody to wake. Nothing is lost by that: a spawned task is polled at once, asked or not, and then
/// whatever `work` waits for is there, or learns whom to wake.
fn begin(mut work: Pin<Box<impl Future<Output = ()> + Send + 'static>>) {
    if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        tokio::spawn(work);
    }
}

/// As what AppendEntries arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// The log is to grow.
    Entries,
    /// The leader wants to know whether it is still followed.
    Heartbeat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VoteKind {
    Vote,
    PreVote,
    Transfer,
}

impl<S: StateMachine> Shared<S> {
    /// Whether a heartbeat can be answered at once, before the disk has what came before it: this replica follows
    /// that leader already, nobody else is being weighed, and its log reaches as far as the leader believes.
    ///
    /// The answer says no more than that: it renews the leader's lease, which is a promise not to elect anybody else and
    /// rests on no entry; and openraft takes a success of a heartbeat for a sign of life, not for progress of the log.
    /// Waiting for the disk would depose a leader whose followers' disks stall. A log that is too short goes the long
    /// way, for openraft to say so.
    fn follows(&self, time: u64, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        let is_known = {
            let metrics = self.metrics.borrow_watched();
            let previous = request.prev_log_id.map(|log_id| log_id.index);
            request.vote.is_committed()
                && request.entries.is_empty()
                && metrics.vote == request.vote
                && previous <= metrics.last_log_index
        };
        let now = Instant::now();
        let is_taken = is_known
            && !self.has_stopped()
            && self.pledge.with(|promise| {
                // Who has just voted against this leader, or is about to, must not renew its lease, and openraft's metrics
                // may not show it yet.
                let is_faithful = self.pledge.is_faithful(request.vote.leader_id().term);
                if is_faithful {
                    promise.take_word(request.vote.leader_id().term, now);
                }
                is_faithful
            });
        if is_taken {
            self.timer.lock().hear(now);
            self.time.hear(Word { term: request.vote.leader_id().term, micros: time });
        }
        is_taken
    }

    /// Tells openraft of a newer commit index that came with a heartbeat; one at a time, for it may wait for the disk.
    fn learn_commit(self: &Arc<Self>, request: AppendEntriesRequest<TypeConfig>) {
        let is_news = request.leader_commit > self.metrics.borrow_watched().cluster_committed;
        if !is_news || self.is_committing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        // In turn with entries: behind them, it would wait for them to get to the disk.
        begin(Box::pin(async move {
            drop(shared.append(None, request).await);
            shared.is_committing.store(false, Ordering::Release);
        }));
    }

    /// Hands `request` to openraft. `time` is what its leader said it was just now.
    async fn append(
        self: &Arc<Self>,
        time: Option<u64>,
        mut request: AppendEntriesRequest<TypeConfig>,
    ) -> Option<Result<AppendEntriesResponse<TypeConfig>, InboundError>> {
        if let Some(other) = lost(&request, self.applied.promised(), || self.log.voted_term()) {
            self.give_up_state(other);
            return None;
        }
        if is_planted(Bug::ApplyUncommitted)
            && let Some(last) = request.entries.last()
        {
            request.leader_commit = Some(last.log_id);
        }
        let now = Instant::now();
        let (term, is_leader) = (request.vote.leader_id().term, request.vote.is_committed());
        let decide = |promise: &mut super::pledge::Promise| {
            // The word of a leader counts from its arrival: what follows may wait for a slow disk, and that is no silence
            // of the leader. One that openraft will refuse, by a vote it was given just now, costs a lease at most.
            if is_leader && term >= self.metrics.borrow_watched().current_term {
                promise.take_word(term, now);
                self.timer.lock().hear(now);
                if let Some(micros) = time {
                    self.time.hear(Word { term, micros });
                }
            }
            true
        };
        let call = pin!(self.raft.append_entries(request));
        let answer = self.pledge.queue(decide, call).await?;
        let answer = answer.map_err(|_| InboundError::Stopped);
        if matches!(&answer, Ok(answer) if !matches!(answer, AppendEntriesResponse::HigherVote(_)))
        {
            self.timer.lock().hear(Instant::now());
        }
        Some(answer)
    }

    pub(super) async fn answer_vote(&self, body: &[u8]) -> Result<Vec<u8>, InboundError> {
        let (mut request, roll): (VoteRequest<TypeConfig>, Roll) = postcard::from_bytes(body)?;
        // The leader itself asked its target to stand: it has let go of its lease before.
        let is_handed_over = request.leadership_transfer;
        // What is admitted here, openraft's longer lease shall not refuse: see `pledge`.
        request.leadership_transfer = true;
        let term = request.vote.leader_id().term;
        let now = Instant::now();
        let open = self.pledge.open_vote();
        let decide = |promise: &mut super::pledge::Promise| {
            let is_free = is_handed_over
                || (!promise.is_bound(now, self.timing.lease) && !self.leads_with_quorum())
                || is_planted(Bug::VoteUnderLease);
            self.has_a_say_in(&roll) && now >= self.votes_from && is_free
        };
        let call = pin!(self.raft.vote(request));
        let Some(answer) = self.pledge.queue(decide, call).await else {
            return refusal(self);
        };
        let answer = answer.map_err(|_| InboundError::Stopped)?;
        if answer.vote_granted {
            // Before the vote is no longer open.
            self.pledge.voted(term);
            // The candidate is given its time to become leader.
            self.timer.lock().hear(Instant::now());
        }
        drop(open);
        Ok(postcard::to_stdvec(&answer)?)
    }

    /// Whether this replica would vote for a candidate, by its promises and its log. Whatever the terms: a candidate
    /// whose term is behind learns so from the vote that follows, and would never learn otherwise.
    pub(super) fn answer_pre_vote(&self, body: &[u8]) -> Result<Vec<u8>, InboundError> {
        let (request, roll): (VoteRequest<TypeConfig>, Roll) = postcard::from_bytes(body)?;
        let last = self.log.last_log_id();
        let is_free = self.may_elect(Instant::now(), &roll) && !self.leads_with_quorum();
        let would_vote =
            (is_free || is_planted(Bug::VoteUnderLease)) && request.last_log_id >= last;
        let vote = self.metrics.borrow_watched().vote;
        let answer: VoteResponse<TypeConfig> = VoteResponse::new(vote, last, would_vote);
        Ok(postcard::to_stdvec(&(answer, self.time.estimate()))?)
    }

    /// Stands for election, if this replica may, as its leader asks it to.
    async fn answer_transfer(&self, body: &[u8]) -> Result<Vec<u8>, InboundError> {
        let request: TransferLeaderRequest<TypeConfig> = postcard::from_bytes(body)?;
        let has_a_say = self.has_a_say();
        let others = {
            let metrics = self.metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let is_voter = is_voter(membership.get_joint_config(), self.id)
                || is_planted(Bug::TransferToLearner);
            if !is_voter || !has_a_say || metrics.vote != *request.from_leader() {
                return Ok(vec![DECLINED]);
            }
            membership.voter_ids().filter(|voter| *voter != self.id).collect()
        };
        self.pledge.voted(request.from_leader().leader_id().term.saturating_add(1));
        // openraft would wait for the log to get to the disk for as long as a vote may take, and the leader would no
        // longer. It has seen that it is there.
        let standing = self.raft.handle_transfer_leader(request);
        let Ok(standing) = tokio::time::timeout(self.timing.heartbeat, standing).await else {
            return Ok(vec![DECLINED]);
        };
        if standing.map_err(|_| InboundError::Stopped)?.is_err() {
            return Ok(vec![DECLINED]);
        }
        self.ballot.open(others, Instant::now());
        Ok(vec![TAKEN])
    }
}

/// The entry that shows that a leader's log lacks what is applied here, or about to be, up to `applied`; `None` when nothing
/// does.
///
/// A leader holds all that was ever committed (Raft thesis §3.6.3), unless too many disks lost it and a census elected. Such
/// a leader's log has another entry where the last applied one stands, or one of a later term before that place. openraft
/// would not see it: it takes everything up to its commit index for its own, and goes on from there with another state.
///
/// A leader that was deposed may lack what its successor committed. So one of an earlier term than `voted_term` says
/// nothing; that is asked after `applied` was looked at, and a vote is saved before anything its leader sent is applied.
fn lost(
    request: &AppendEntriesRequest<TypeConfig>,
    applied: Option<EntryPosition>,
    voted_term: impl FnOnce() -> u64,
) -> Option<LogId> {
    let applied = applied?;
    let ids = request.prev_log_id.into_iter().chain(request.entries.iter().map(|it| it.log_id));
    let contradicts = |id: &LogId| {
        let term = id.leader_id.term;
        term > applied.term || (id.index == applied.index && term != applied.term)
    };
    let found = ids.take_while(|id| id.index <= applied.index).find(contradicts)?;
    (request.vote.is_committed() && request.vote.leader_id().term >= voted_term()).then_some(found)
}

impl<S: StateMachine> Shared<S> {
    /// Stops the replica, whose state is not that of its group any more: the leader has `other` where that does not fit.
    pub(super) fn give_up_state(self: &Arc<Self>, other: LogId) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(
            group = %self.group, applied = ?self.applied.promised(), %other,
            "the group has lost entries that are applied here, acknowledged writes among them: this replica stops, to be \
             made anew"
        );
        self.applied.note_lost();
        self.desk.lock().stop();
        let raft = self.raft.clone();
        tokio::spawn(async move { raft.shutdown().await });
    }
}

/// No vote, and nothing that a candidate would learn from.
fn refusal<S: StateMachine>(shared: &Shared<S>) -> Result<Vec<u8>, InboundError> {
    let vote = shared.metrics.borrow_watched().vote;
    let answer: VoteResponse<TypeConfig> = VoteResponse::new(vote, None, false);
    Ok(postcard::to_stdvec(&answer)?)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::super::type_config::{Entry, Vote};
    use super::*;
    use crate::ids::RaftId;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    /// What a leader of `term` sends: entries of the terms given, from `from` on, behind one of term 5.
    fn request(term: u64, from: u64, terms: &[u64]) -> AppendEntriesRequest<TypeConfig> {
        let entry = |(at, term): (u64, &u64)| Entry {
            log_id: id(*term, from + at),
            payload: EntryPayload::Blank,
        };
        AppendEntriesRequest {
            vote: Vote::new_committed(term, RaftId(2)),
            prev_log_id: Some(id(5, from - 1)),
            entries: (0..).zip(terms).map(entry).collect(),
            leader_commit: None,
        }
    }

    /// A census elected a leader without what is applied here. openraft took its entries for those it had.
    #[test]
    fn a_log_without_what_is_applied_is_told_from_every_other() {
        let applied = Some(EntryPosition { term: 5, index: 100 });
        let lost = |request: &_, voted| lost(request, applied, || voted);
        assert_eq!(lost(&request(6, 96, &[5, 5, 5, 6, 6, 6]), 5), Some(id(6, 99)));
        assert_eq!(lost(&request(6, 100, &[6]), 6), Some(id(6, 100)));
        assert_eq!(lost(&request(7, 99, &[5, 4]), 5), Some(id(4, 100)), "an older end came back");
        assert_eq!(lost(&request(6, 101, &[6]), 5), None, "it goes on behind");
        assert_eq!(lost(&request(6, 96, &[5, 5, 5, 5, 5, 6]), 5), None);
        assert_eq!(lost(&request(6, 96, &[5, 5]), 5), None, "nothing is known yet");
        assert_eq!(lost(&request(6, 100, &[6]), 7), None, "it is no leader any more");
        assert_eq!(super::lost(&request(6, 100, &[6]), None, || 5), None);
    }
}
