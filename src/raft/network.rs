//! How a group reaches its replicas: openraft's network traits over the node's peer connections.
//!
//! All groups of a peer pair share one connection; a call is queued when it is made and everything short that is
//! queued leaves in one write, so pipelined entries and the heartbeats of many groups travel together.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, Either};
use futures::stream::{self, BoxStream, FuturesOrdered, Stream, StreamExt};
use futures::{FutureExt, TryFutureExt};
use openraft::EntryPayload;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use xxhash_rust::xxh3::Xxh3Default;

use super::acknowledgements::Acknowledgements;
use super::campaign::Ballot;
use super::codec::{self, MalformedMessage};
use super::holdback::Holdback;
use super::limits::{
    APPEND_PIPELINE_MAX, APPEND_TIMEOUT, APPEND_TIMEOUT_PER_MIB, COMMIT_LINGER,
    SNAPSHOT_CHUNK_TIMEOUT, SNAPSHOT_INSTALL_TIMEOUT, SNAPSHOT_WINDOW,
};
use super::linger::Linger;
use super::snapshot::{SnapshotHandle, SnapshotStore};
use super::snapshots::{Pause, Refusal};
use super::timekeeper::Timekeeper;
use super::type_config::{Entry, Snapshot, TypeConfig, Vote};
use super::workers::blocking;
use crate::ids::{GroupId, Holder, RaftId};
use crate::stdx::codec::{Sink, put_u64, take_u8};
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::workers::{Work, Workers};
use crate::transport::{
    Body, Call, Kind, LONG_BYTES_MIN, PeerClient, Peers, Responder, TransportError,
};

pub(super) use crate::transport::kinds::raft as kind;

type RpcError = RPCError<TypeConfig>;

/// Makes the network objects of one group.
#[derive(Clone, Debug)]
pub(super) struct GroupNetworkFactory {
    group: GroupId,
    peers: Peers,
    acknowledgements: Arc<Acknowledgements>,
    ballot: Arc<Ballot>,
    transfers: Arc<Transfers>,
    time: Arc<dyn Timekeeper>,
}

/// What is remembered of snapshots sent, over all the senders that openraft makes one after another.
#[derive(Debug)]
pub(super) struct Transfers {
    snapshots: SnapshotStore,
    holdback: Arc<Holdback>,
    workers: Arc<dyn Workers>,
    next_nonce: AtomicU64,
    /// Replicas that did not take the last one, with the time before the next try. At most one each.
    pauses: Mutex<BTreeMap<RaftId, Pause>>,
}

/// What a receiver says to a message of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotAnswer {
    /// Taken; send the next.
    GoOn,
    /// All of it is applied there; its vote.
    Installed(Vote),
    /// It has heard of another leader.
    HigherVote(Vote),
    /// Not taken; wait before the next try.
    Refused(Refusal),
}

impl SnapshotAnswer {
    /// Answers: `tag u8` 0 go on, 1 installed (vote), 2 higher vote (vote), 3 refused (code u8).
    pub(super) fn send(self, responder: Responder) {
        responder.send_with(|out| self.put(out));
    }

    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::GoOn => out.push(0),
            Self::Installed(vote) => {
                out.push(1);
                codec::put_vote(&vote, out);
            }
            Self::HigherVote(vote) => {
                out.push(2);
                codec::put_vote(&vote, out);
            }
            Self::Refused(refusal) => out.extend([3, refusal as u8]),
        }
    }

    fn take(mut body: &[u8]) -> Result<Self, MalformedMessage> {
        Ok(match take_u8(&mut body)? {
            0 => Self::GoOn,
            1 => Self::Installed(codec::take_vote(&mut body)?),
            2 => Self::HigherVote(codec::take_vote(&mut body)?),
            3 => Self::Refused(Refusal::of_code(take_u8(&mut body)?)),
            _ => return Err(MalformedMessage("unknown answer to a snapshot")),
        })
    }
}

impl Transfers {
    /// None yet. It is noted in `snapshots` which file could not be read, and in `holdback` to whom one is on its way; `workers`
    /// read them.
    pub(super) fn new(
        snapshots: SnapshotStore,
        holdback: Arc<Holdback>,
        workers: Arc<dyn Workers>,
    ) -> Self {
        let (next_nonce, pauses) = (AtomicU64::new(1), Mutex::default());
        Self { snapshots, holdback, workers, next_nonce, pauses }
    }
}

impl GroupNetworkFactory {
    /// The network of `group` over `peers`, which notes in `acknowledgements` who answered what as a leader's follower,
    /// and in `ballot` which voters have answered a candidate; it tells them the `time`.
    pub(super) fn new(
        group: GroupId,
        peers: Peers,
        acknowledgements: Arc<Acknowledgements>,
        ballot: Arc<Ballot>,
        transfers: Transfers,
        time: Arc<dyn Timekeeper>,
    ) -> Self {
        Self { group, peers, acknowledgements, ballot, transfers: Arc::new(transfers), time }
    }

    fn network(&self, target: RaftId, holder: Holder, append_kind: Kind) -> GroupNetwork {
        GroupNetwork {
            group: self.group,
            target,
            holder,
            append_kind,
            peers: self.peers.clone(),
            acknowledgements: Arc::clone(&self.acknowledgements),
            ballot: Arc::clone(&self.ballot),
            transfers: Arc::clone(&self.transfers),
            time: Arc::clone(&self.time),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetworkFactory {
    type Network = GroupNetwork;

    async fn new_client(&mut self, target: RaftId, node: &Holder) -> GroupNetwork {
        self.network(target, *node, kind::APPEND_ENTRIES)
    }

    async fn new_heartbeat_client(&mut self, target: RaftId, node: &Holder) -> GroupNetwork {
        self.network(target, *node, kind::HEARTBEAT)
    }
}

/// One group's way to one replica.
#[derive(Clone, Debug)]
pub(super) struct GroupNetwork {
    group: GroupId,
    target: RaftId,
    holder: Holder,
    /// As what AppendEntries are sent.
    append_kind: Kind,
    peers: Peers,
    acknowledgements: Arc<Acknowledgements>,
    ballot: Arc<Ballot>,
    transfers: Arc<Transfers>,
    time: Arc<dyn Timekeeper>,
}

impl GroupNetwork {
    fn peer(&self) -> Result<PeerClient, RpcError> {
        self.peers.get(self.holder.node).ok_or_else(|| {
            let error = io::Error::other(format!("no address is known for {}", self.holder));
            RpcError::Unreachable(Unreachable::new(&error))
        })
    }

    /// Calls the replica with a short body written by `put`. Every message says which replica it means: another one of the
    /// group may lie there by now, which must not answer for it.
    fn call_with(
        &self,
        peer: &PeerClient,
        kind: Kind,
        timeout: Duration,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> Call {
        peer.call_with(self.group, kind, timeout, |out| {
            put_meant(self.target, out);
            put(out);
        })
    }

    /// As [`Self::call_with`], with a body that may be long.
    fn call_long(
        &self,
        peer: &PeerClient,
        kind: Kind,
        timeout: Duration,
        put: impl FnOnce(&mut Body),
    ) -> Call {
        let mut body = Body::new();
        put_meant(self.target, &mut body);
        put(&mut body);
        peer.call(self.group, kind, body, timeout)
    }

    /// Calls with a postcard body and answer, as the cold messages do.
    async fn call_cold<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
        &self,
        kind: Kind,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RpcError> {
        let body = postcard::to_stdvec(request).map_err(|error| network_error(&error))?;
        let answer = self
            .call_with(&self.peer()?, kind, option.hard_ttl(), |out| out.extend_from_slice(&body))
            .await
            .map_err(rpc_error)?;
        postcard::from_bytes(&answer).map_err(|error| network_error(&error))
    }

    fn append(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> impl Future<Output = Result<AppendEntriesResponse<TypeConfig>, RpcError>> + Send + use<>
    {
        let peer = match self.peer() {
            Ok(peer) => peer,
            Err(error) => return Either::Left(future::ready(Err(error))),
        };
        // Read before the message is queued: what the answer proves begins no earlier than that.
        let sent = self.acknowledgements.now();
        let term = request.vote.leader_id().term;
        // Only a leader says this.
        let time = || self.time.tell(term);
        let answer = if entries_bytes(&request.entries) < LONG_BYTES_MIN {
            self.call_with(&peer, self.append_kind, timeout, |out| {
                codec::put_append_entries(time(), request, out);
            })
        } else {
            self.call_long(&peer, self.append_kind, timeout, |out| {
                codec::put_append_entries(time(), request, out);
            })
        };
        let target = self.target;
        let acknowledgements = Arc::clone(&self.acknowledgements);
        Either::Right(answer.map_err(rpc_error).map(move |answer| {
            let (room, answer) =
                codec::take_append_response(&answer?).map_err(|error| network_error(&error))?;
            acknowledgements.note_room(target, room, sent);
            match answer {
                // Whatever became of the entries, the replica took this leader's word and so renewed its promise.
                AppendEntriesResponse::Success
                | AppendEntriesResponse::PartialSuccess(_)
                | AppendEntriesResponse::Conflict => {
                    let is_late = is_planted(Bug::LeaseFromAnswer);
                    let sent = if is_late { acknowledgements.now() } else { sent };
                    acknowledgements.note(target, term, sent);
                }
                AppendEntriesResponse::HigherVote(_) => {}
            }
            Ok(answer)
        }))
    }

    /// Sends a snapshot, not before the pause that a failed try left is over.
    ///
    /// openraft tries again at once, or after a quarter of a second at most: a replica that cannot take the snapshot
    /// would get hundreds of megabytes every few seconds.
    async fn send_in_turn(
        &self,
        vote: &Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let until = self.transfers.pauses.lock().get(&self.target).and_then(Pause::until);
        if let Some(until) = until {
            sleep_until(until).await;
        }
        let covered = snapshot.meta.last_log_id.map_or(0, |log_id| log_id.index);
        let held = self.transfers.holdback.begin(self.target, covered);
        let sent = self.send_snapshot(vote, snapshot).await;
        let mut pauses = self.transfers.pauses.lock();
        match &sent {
            Ok(_) => {
                held.arrived();
                pauses.remove(&self.target);
            }
            // Nobody is there: asking again costs nothing, and who comes back is not kept waiting.
            Err(StreamingError::Unreachable(_)) if !pauses.contains_key(&self.target) => {}
            Err(_) => pauses.entry(self.target).or_default().fail(Instant::now()),
        }
        sent
    }

    async fn send_snapshot(
        &self,
        vote: &Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Snapshot { meta, snapshot: handle } = snapshot;
        let peer = self.peer()?;
        let leader = vote.leader_id();
        let nonce = self.transfers.next_nonce.fetch_add(1, Ordering::Relaxed);
        let call = |kind, timeout, head: &[u8], chunk: Bytes| {
            let answer = self.call_long(&peer, kind, timeout, |out| {
                for number in [leader.term, leader.voted_for.0, nonce] {
                    put_u64(out, number);
                }
                out.put(head);
                out.put_shared(&chunk);
            });
            answer.map(|answer| {
                let answer = answer.map_err(rpc_error)?;
                SnapshotAnswer::take(&answer).map_err(|error| network_error(&error))
            })
        };
        let local = |error: io::Error| StreamingError::from(network_error(&error));
        let cold = |error: postcard::Error| local(io::Error::other(error));

        let begin = postcard::to_stdvec(&(vote, &meta)).map_err(cold)?;
        if let Some(vote) =
            ended(call(kind::SNAPSHOT_BEGIN, SNAPSHOT_CHUNK_TIMEOUT, &begin, Bytes::new()).await?)?
        {
            return Ok(SnapshotResponse::new(vote));
        }
        let read_error = |error| {
            self.transfers.snapshots.note_damage(&handle);
            tracing::error!(group = %self.group, %error, "the snapshot to be sent cannot be read");
            local(error)
        };
        let workers = &*self.transfers.workers;
        let (snapshots, to_open) = (self.transfers.snapshots.clone(), handle.clone());
        let opened = blocking(workers, Work::Disk, move || snapshots.chunks(&to_open));
        let mut chunks = opened.await.map_err(read_error)?;
        let mut in_flight = FuturesOrdered::new();
        let (mut sent, mut hash) = (0_u64, Xxh3Default::new());
        loop {
            // File reads leave this runtime: commands go on while a replica is brought up to date.
            let next;
            (next, chunks, hash) = blocking(workers, Work::Disk, move || {
                let next = chunks.next().transpose()?;
                if let Some(chunk) = &next {
                    hash.update(chunk);
                }
                Ok((next, chunks, hash))
            })
            .await
            .map_err(read_error)?;
            let Some(chunk) = next else { break };
            let head = sent.to_le_bytes();
            in_flight.push_back(call(kind::SNAPSHOT_CHUNK, SNAPSHOT_CHUNK_TIMEOUT, &head, chunk));
            sent += 1;
            if in_flight.len() >= SNAPSHOT_WINDOW
                && let Some(answer) = in_flight.next().await
                && let Some(vote) = ended(answer?)?
            {
                return Ok(SnapshotResponse::new(vote));
            }
        }
        while let Some(answer) = in_flight.next().await {
            if let Some(vote) = ended(answer?)? {
                return Ok(SnapshotResponse::new(vote));
            }
        }
        let end = postcard::to_stdvec(&(sent, hash.digest(), vote)).map_err(cold)?;
        let answer = call(kind::SNAPSHOT_END, SNAPSHOT_INSTALL_TIMEOUT, &end, Bytes::new()).await?;
        match ended(answer)? {
            Some(vote) => Ok(SnapshotResponse::new(vote)),
            None => Err(network_error(&MalformedMessage("an end that is not the end")).into()),
        }
    }
}

/// The vote with which a transfer is over, `None` when it goes on.
fn ended(answer: SnapshotAnswer) -> Result<Option<Vote>, RpcError> {
    match answer {
        SnapshotAnswer::GoOn => Ok(None),
        SnapshotAnswer::Installed(vote) | SnapshotAnswer::HigherVote(vote) => Ok(Some(vote)),
        SnapshotAnswer::Refused(refusal) => {
            let error = io::Error::other(format!("the snapshot was refused: {refusal:?}"));
            Err(network_error(&error))
        }
    }
}

/// How long a follower may take for `entries`. openraft gives every message one heartbeat interval, after which it would
/// send the same entries again: a follower that needs longer for its disk, or for a value of hundreds of MiB on the
/// wire, would never get past them.
fn append_timeout(entries: &[Entry], option: &RPCOption) -> Duration {
    const MIB: usize = 1024 * 1024;
    if entries.is_empty() {
        return option.hard_ttl();
    }
    let mib = entries_bytes(entries) / MIB;
    APPEND_TIMEOUT + APPEND_TIMEOUT_PER_MIB * u32::try_from(mib).unwrap_or(u32::MAX)
}

/// How much `entries` propose.
fn entries_bytes(entries: &[Entry]) -> usize {
    let proposal_bytes = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    entries.iter().map(proposal_bytes).sum()
}

/// Lets requests with entries pass at once, and holds one that carries nothing but a newer commit index for at most
/// [`COMMIT_LINGER`], for a later request to take its place. While writes keep coming, the next entries carry the commit
/// index of those before, and about half of all messages are never sent.
///
/// What gives way is not missed. The later request comes from the same stream, so it has at least the same commit index
/// and the same or a later previous entry. openraft counts the one never sent as answered with the next that is; its
/// reckoning of time is not what a lease rests on, see [`Acknowledgements`].
fn without_lone_commits<S>(input: S) -> impl Stream<Item = S::Item> + Send
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin,
{
    stream::unfold((input.fuse(), Linger::default()), |(mut input, mut linger)| async move {
        let mut request = input.next().await?;
        if request.entries.is_empty() {
            let until = Instant::now() + COMMIT_LINGER;
            while let Some(Some(later)) = linger.wait(until, input.next()).await {
                request = later;
                if !request.entries.is_empty() {
                    break;
                }
            }
        }
        Some((request, (input, linger)))
    })
}

fn network_error<E: std::error::Error + 'static>(error: &E) -> RpcError {
    RpcError::Network(NetworkError::new(error))
}

/// Not sent: back off before the next try. Sent or lost: try again at once.
fn rpc_error(error: TransportError) -> RpcError {
    if error.was_sent() {
        network_error(&error)
    } else {
        RpcError::Unreachable(Unreachable::new(&error))
    }
}

impl RaftNetworkV2<TypeConfig> for GroupNetwork {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        self.append(&request, option.hard_ttl()).await
    }

    /// Pipelined (thesis §10.2.1): a request is queued as soon as openraft makes it, and the
    /// answers are awaited in order; but see [`without_lone_commits`]. Each has a deadline, see [`append_timeout`]; a
    /// connection that breaks or falls silent ends the stream before that.
    ///
    /// openraft's heartbeats come this way too, and not through `append_entries`: each as a stream of one request, whose
    /// end follows at once and lets it pass unheld.
    fn stream_append<S>(
        &mut self,
        input: S,
        option: RPCOption,
    ) -> future::BoxFuture<
        '_,
        Result<BoxStream<'_, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let network = self.clone();
        let mut deadline = Instant::now();
        let answers = without_lone_commits(input)
            .map(move |request| {
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(previous);
                let now = Instant::now();
                // A follower says success only when all it has accepted before is on its disk. So a request without
                // entries waits as long as the entries ahead of it, or it would end a stream that is merely slow.
                deadline = deadline.max(now + append_timeout(&request.entries, &option));
                let answer = network.append(&request, deadline - now);
                async move { Ok(answer.await?.into_stream_result(previous, last)) }
            })
            .buffered(APPEND_PIPELINE_MAX);
        future::ready(Ok(answers.boxed())).boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let answered = Answered { ballot: &self.ballot, voter: self.target };
        let request = (request, self.ballot.roll());
        let answer = self.call_cold(kind::VOTE, &request, &option).await;
        drop(answered);
        answer
    }

    async fn pre_vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        // Never asked, see `campaign`; and by openraft's own word unanswered would be granted.
        Err(network_error(&io::Error::from(io::ErrorKind::Unsupported)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = std::pin::pin!(self.send_in_turn(&vote, snapshot));
        let cancelled = std::pin::pin!(cancel);
        match future::select(sending, cancelled).await {
            Either::Left((result, _)) => result,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        // Never asked by openraft, see `transfer`.
        Err(network_error(&io::Error::from(io::ErrorKind::Unsupported)))
    }
}

/// Begins a message to the replica `meant`: `raft id u64`.
pub(super) fn put_meant(meant: RaftId, out: &mut impl Sink) {
    put_u64(out, meant.0);
}

/// Splits a message into the replica it means and the rest.
pub(super) fn take_meant(mut body: Bytes) -> Option<(RaftId, Bytes)> {
    use bytes::Buf;
    let meant = RaftId(body.try_get_u64_le().ok()?);
    Some((meant, body))
}

/// A vote that was asked for; when it goes, it was answered, or openraft no longer waits.
struct Answered<'a> {
    ballot: &'a Ballot,
    voter: RaftId,
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.ballot.answered(self.voter);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::mpsc;

    use super::super::timekeeper::Timeless;
    use super::super::type_config::{LogId, Proposal};
    use super::super::workers::BlockingPool;
    use super::*;
    use crate::ids::{ClusterId, Incarnation, NodeId, Session};
    use crate::stdx::clock::{Clock, ManualClock, MonotonicMicros};
    use crate::transport::{
        Credentials, Door, Handler, Meant, Message, PeerIdentity, PeerOptions, PeerServer,
        Responder,
    };

    /// The ids of "n1" and "n2", as [`door`] checks.
    const LEADER_NODE: NodeId = NodeId(0xd733_a26d_d4b4_9b94);
    const FOLLOWER_NODE: NodeId = NodeId(0xaf4e_4bf6_ccbf_4e82);
    const LEADER: RaftId = RaftId(11);
    const FOLLOWER: RaftId = RaftId(22);
    const TERM: u64 = 4;
    /// Longer than any test should take: reaching it is a failure.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn door(name: &str, node: NodeId) -> Door {
        let session = Session { number: 1, random: 1 };
        let identity = PeerIdentity::new(ClusterId(77), name, Incarnation::NONE, session);
        assert_eq!(identity.node, node);
        Door::new(identity, Credentials::new(b"", [0; 32]))
    }

    /// Leaves each request to the test.
    struct Follower(mpsc::UnboundedSender<(Message, Responder)>);

    impl Handler for Follower {
        fn handle(&self, message: Message, responder: Responder) {
            self.0.send((message, responder)).unwrap();
        }
    }

    /// A leader's way to a follower, and what arrives there.
    struct Pair {
        network: GroupNetwork,
        clock: Arc<ManualClock>,
        arriving: mpsc::UnboundedReceiver<(Message, Responder)>,
        _server: PeerServer,
    }

    impl Pair {
        async fn connected() -> Self {
            let (arrived, arriving) = mpsc::unbounded_channel();
            let door_there = door("n2", FOLLOWER_NODE);
            let handler = Arc::new(Follower(arrived));
            let server = PeerServer::bind("127.0.0.1:0", door_there, handler).await.unwrap();
            let client = PeerClient::new(PeerOptions {
                door: door("n1", LEADER_NODE),
                meant: Meant { node: FOLLOWER_NODE, incarnation: Incarnation::NONE },
                addresses: vec![server.local_addr().to_string()],
            });
            let mut connected = client.connected();
            let connects = connected.wait_for(|connected| *connected);
            drop(tokio::time::timeout(PATIENCE, connects).await.unwrap().unwrap());
            let peers = Peers::new();
            peers.insert(client);
            let clock = Arc::new(ManualClock::default());
            let acknowledgements =
                Arc::new(Acknowledgements::by(Arc::clone(&clock) as Arc<dyn Clock>));
            let snapshots = SnapshotStore::new(
                crate::wal::SnapshotDir::new(
                    crate::stdx::fs::SystemDisk::shared(),
                    std::path::PathBuf::new(),
                ),
                GroupId(1),
            );
            let mut factory = GroupNetworkFactory::new(
                GroupId(1),
                peers,
                acknowledgements,
                Arc::default(),
                Transfers::new(snapshots, Arc::default(), BlockingPool::shared()),
                Arc::new(Timeless),
            );
            let network = {
                let holder = Holder { node: FOLLOWER_NODE, incarnation: Incarnation(2) };
                factory.new_client(FOLLOWER, &holder).await
            };
            Self { network, clock, arriving, _server: server }
        }

        fn append(
            &self,
        ) -> impl Future<Output = Result<AppendEntriesResponse<TypeConfig>, RpcError>> + use<>
        {
            self.network.append(&commit(1), PATIENCE)
        }

        /// The next request's way back.
        async fn arrival(&mut self) -> Responder {
            let (message, responder) =
                tokio::time::timeout(PATIENCE, self.arriving.recv()).await.unwrap().unwrap();
            assert_eq!(message.kind, kind::APPEND_ENTRIES);
            let (meant, _) = take_meant(message.body).unwrap();
            assert_eq!(meant, FOLLOWER, "a message names the replica it means");
            responder
        }

        /// A time after all before it.
        fn later(&self) -> MonotonicMicros {
            self.clock.advance(Duration::from_micros(1));
            self.clock.monotonic()
        }

        fn has_quorum_since(&self, since: MonotonicMicros) -> bool {
            let voters = BTreeSet::from([LEADER, FOLLOWER]);
            self.network.acknowledgements.has_quorum_since(TERM, since, &[voters], LEADER)
        }
    }

    /// A request that carries nothing but a commit index.
    fn commit(index: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(TERM, LEADER),
            prev_log_id: Some(LogId::new_term_index(TERM, 9)),
            leader_commit: Some(LogId::new_term_index(TERM, index)),
            entries: Vec::new(),
        }
    }

    /// A request that carries the entry after all commits' and a commit index.
    fn entries(bytes: usize, commit_index: u64) -> AppendEntriesRequest<TypeConfig> {
        let payload = EntryPayload::Normal(Proposal(Bytes::from(vec![0; bytes])));
        let entry = Entry { log_id: LogId::new_term_index(TERM, 10), payload };
        AppendEntriesRequest { entries: vec![entry], ..commit(commit_index) }
    }

    /// Commit index and number of entries.
    fn shape(request: &AppendEntriesRequest<TypeConfig>) -> (Option<u64>, usize) {
        (request.leader_commit.map(|log_id| log_id.index), request.entries.len())
    }

    fn answer(responder: Responder, response: &AppendEntriesResponse<TypeConfig>) {
        responder.send_with(|out| codec::put_append_response(u64::MAX, response, out));
    }

    /// The two requests look alike, as a heartbeat does to the one before it: only the calls tell them apart.
    #[tokio::test]
    async fn an_answer_vouches_for_its_own_request_alone() {
        let mut pair = Pair::connected().await;
        let before = pair.later();
        let first = pair.append();
        let between = pair.later();
        let second = pair.append();
        let to_first = pair.arrival().await;
        let to_second = pair.arrival().await;
        answer(to_first, &AppendEntriesResponse::Success);
        first.await.unwrap();
        assert!(pair.has_quorum_since(before));
        assert!(!pair.has_quorum_since(between));
        answer(to_second, &AppendEntriesResponse::Conflict);
        second.await.unwrap();
        assert!(pair.has_quorum_since(between), "a conflict is an answer to this leader too");
    }

    #[tokio::test]
    async fn a_higher_vote_and_silence_vouch_for_nothing() {
        let mut pair = Pair::connected().await;
        let before = pair.later();
        let refused = pair.append();
        let higher = Vote::new(TERM + 1, FOLLOWER);
        answer(pair.arrival().await, &AppendEntriesResponse::HigherVote(higher));
        refused.await.unwrap();
        let unanswered = pair.append();
        drop(pair.arrival().await);
        unanswered.await.unwrap_err();
        assert!(!pair.has_quorum_since(before));
    }

    #[tokio::test]
    async fn a_lone_commit_gives_way_to_what_follows() {
        let input = stream::iter([commit(1), commit(2), entries(1, 3), commit(4), commit(5)]);
        let sent: Vec<_> =
            without_lone_commits(input).map(|request| shape(&request)).collect().await;
        assert_eq!(sent, [(Some(3), 1), (Some(5), 0)]);
    }

    #[tokio::test]
    async fn entries_and_heartbeats_are_not_held() {
        let (requests, input) = futures::channel::mpsc::unbounded();
        let mut sent = Box::pin(without_lone_commits(input));
        requests.unbounded_send(entries(1, 1)).unwrap();
        let passed = sent.next().now_or_never().flatten();
        assert_eq!(passed.as_ref().map(shape), Some((Some(1), 1)));

        let mut heartbeat = Box::pin(without_lone_commits(stream::iter([commit(2)])));
        let passed = heartbeat.next().now_or_never().flatten();
        assert_eq!(passed.as_ref().map(shape), Some((Some(2), 0)));
    }

    #[tokio::test]
    async fn a_lone_commit_is_sent_when_nothing_follows() {
        let (requests, input) = futures::channel::mpsc::unbounded();
        let mut sent = Box::pin(without_lone_commits(input));
        requests.unbounded_send(commit(1)).unwrap();
        assert!(sent.next().now_or_never().is_none(), "it is held");
        let passed = tokio::time::timeout(PATIENCE, sent.next()).await.unwrap();
        assert_eq!(passed.as_ref().map(shape), Some((Some(1), 0)));
        requests.unbounded_send(entries(1, 2)).unwrap();
        let passed = tokio::time::timeout(PATIENCE, sent.next()).await.unwrap();
        assert_eq!(passed.as_ref().map(shape), Some((Some(2), 1)), "the stream goes on");
    }

    #[test]
    fn entries_have_time_by_their_size() {
        let option = RPCOption::new(Duration::from_millis(200));
        let timeout = |request: AppendEntriesRequest<TypeConfig>| {
            append_timeout(&request.entries, &option).as_millis()
        };
        assert_eq!(timeout(commit(1)), 200);
        assert_eq!(timeout(entries(1, 1)), 5000);
        assert_eq!(timeout(entries(3 << 20, 1)), 5300);
    }

    /// A request with a short timeout behind one with a long one: the follower's disk delays both.
    #[tokio::test]
    async fn a_commit_behind_slow_entries_waits_for_them() {
        let mut pair = Pair::connected().await;
        let input = stream::iter([entries(1, 1), commit(2)]);
        // As good as no time at all: the transport looks at its deadlines every 20 ms.
        let option = RPCOption::new(Duration::from_millis(1));
        let mut network = pair.network.clone();
        let mut answers = network.stream_append(input, option).await.unwrap();
        let slow = async {
            let to_entries = pair.arrival().await;
            let to_commit = pair.arrival().await;
            // What another call with the short timeout takes to fail, the commit has outlived.
            let timed_out = pair.network.append(&commit(3), Duration::from_millis(1));
            let unanswered = pair.arrival().await;
            timed_out.await.unwrap_err();
            answer(to_entries, &AppendEntriesResponse::Success);
            answer(to_commit, &AppendEntriesResponse::Success);
            drop(unanswered);
        };
        let both = async { (answers.next().await, answers.next().await) };
        let ((first, second), ()) = future::join(both, slow).await;
        assert!(matches!(first, Some(Ok(Ok(_)))), "{first:?}");
        assert!(matches!(second, Some(Ok(Ok(_)))), "{second:?}");
    }
}
