//! A shard as this node sees it: submit commands, read applied state, and what drives both.
//!
//! Every node holds a [`Shard`] for every shard. Where the node is a replica, a Raft group stands behind it;
//! elsewhere all commands travel to one. Wherever they come from, commands for one shard become one packet
//! while earlier ones are under way, and the leader makes one log entry of all packets waiting.
//!
//! This file puts the parts together and decides nothing but which of them is to act: `seat` knows the replica and who
//! leads, `front` holds what waits, `proposer` makes entries, `forward` and `reads` ask the leader elsewhere, `upkeep`
//! does what is due.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::forward::Forward;
use super::front::Front;
use super::limits::{APPLY_WEIGHT_MAX, HASH_PAUSE, LOG_KEPT_BYTES, SNAPSHOT_LOG_BYTES};
use super::machine::{HashRefused, ShardMachine, StateHash};
use super::outbox::{Encoded, Lane};
use super::proposer::Proposer;
use super::reads::Reads;
use super::reply::ReplyCell;
use super::run::AppliedPackets;
use super::seat::{Replica, Seat};
use super::state::Gauges;
use super::time::ShardTime;
use super::upkeep::Upkeep;
use super::wire::kind;
use crate::ids::{DbIndex, Holder, Incarnation, NodeId, RaftId, Session, ShardId};
use crate::keyspace::{Key, Keyspace};
use crate::raft::{
    Group, GroupOptions, GroupStatus, Leadership, Settled, StartError, Timekeeper, TransferOutcome,
    TransferRefusal, on,
};
use crate::slot::Slot;
use crate::stdx::clock::{Clock, MonotonicMicros, UnixMillis};
use crate::stdx::hash_key::HashKey;
use crate::stdx::workers::{Work, Workers};
use crate::transport::{Message, Peers, Responder};

/// How a linearizable read makes sure that this node still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadConsistency {
    /// By its lease: no message. Rests on clocks whose rates differ by less than the lease's margin.
    Lease,
    /// By asking a quorum: one round for all reads waiting.
    Quorum,
}

/// Sizes that decide when and where a replica works, never what it does. A simulation makes them small, so that little data
/// meets all that much would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of log after which a snapshot is taken, unless the last one was larger.
    pub snapshot_log_bytes: u64,
    /// Bytes of log kept behind a snapshot.
    pub log_kept_bytes: u64,
    /// Words and elements that an entry, or the reads of a batch, may look at in place.
    pub weight_max: usize,
}

impl Sizes {
    /// Those of a real node.
    pub const DEFAULT: Self = Self {
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        log_kept_bytes: LOG_KEPT_BYTES,
        weight_max: APPLY_WEIGHT_MAX,
    };

    /// Whether they go together.
    pub const fn is_sound(&self) -> bool {
        // Else what is kept would make the next snapshot due.
        self.log_kept_bytes < self.snapshot_log_bytes
            // A command whose weight is not found out to the end is beyond that.
            && self.weight_max <= crate::command::WEIGHT_HEAVY
    }
}

const _: () = assert!(Sizes::DEFAULT.is_sound(), "the sizes of a shard contradict each other");

impl Default for Sizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a shard is made of on this node.
#[derive(Debug)]
pub struct ShardOptions {
    /// Which shard.
    pub shard: ShardId,
    /// Its slots.
    pub slots: RangeInclusive<u16>,
    /// The cluster's key for the hashes of keys.
    pub hash_key: HashKey,
    /// This node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Which start of it this is.
    pub session: Session,
    /// Its replicas, in preference order.
    pub replicas: Vec<NodeId>,
    /// How reads are vouched for.
    pub read_consistency: ReadConsistency,
    /// The ways to other nodes.
    pub peers: Peers,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// Who does what blocks.
    pub workers: Arc<dyn Workers>,
    /// When and where it works.
    pub sizes: Sizes,
    /// Random bits for the stamps' seeds.
    pub seed: u64,
}

/// A shard on this node; shared by connections of all threads.
pub struct Shard {
    id: ShardId,
    slots: RangeInclusive<u16>,
    pub(super) front: Arc<Front>,
    pub(super) machine: Arc<ShardMachine>,
    pub(super) seat: Arc<Seat>,
    time: Arc<ShardTime>,
    workers: Arc<dyn Workers>,
    pub(super) proposer: Arc<Proposer>,
    forward: Arc<Forward>,
    pub(super) reads: Arc<Reads>,
    upkeep: Arc<Upkeep>,
}

/// What all parts of a shard stand on.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) seat: Arc<Seat>,
    pub(super) front: Arc<Front>,
    pub(super) machine: Arc<ShardMachine>,
    pub(super) time: Arc<ShardTime>,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("shard", &self.id).finish_non_exhaustive()
    }
}

impl Shard {
    /// The shard without a replica on this node; see [`Self::start_replica`].
    pub fn new(options: ShardOptions) -> Arc<Self> {
        let front = Arc::new(Front::new(options.node, options.incarnation, options.session));
        let machine = ShardMachine::new(
            options.slots.clone(),
            options.hash_key,
            Arc::clone(&front) as Arc<dyn AppliedPackets>,
            Arc::clone(&options.workers),
        );
        let machine = Arc::new(machine.with_weight_max(options.sizes.weight_max));
        let time = Arc::new(ShardTime::new(Arc::clone(&options.clock)));
        let seat = Arc::new(Seat::new(&options, Arc::clone(&time)));
        let ground = Ground { seat, front, machine, time };
        let proposer = Arc::new(Proposer::new(&options, &ground));
        let forward = Arc::new(Forward::new(&options, &ground));
        let reads = Arc::new(Reads::new(&options, &ground));
        let upkeep = Upkeep::new(&options, &ground, Arc::clone(&proposer), Arc::clone(&reads));
        let Ground { seat, front, machine, time } = ground;
        Arc::new(Self {
            id: options.shard,
            slots: options.slots,
            front,
            machine,
            seat,
            time,
            workers: options.workers,
            proposer,
            forward,
            reads,
            upkeep: Arc::new(upkeep),
        })
    }

    /// Starts this node's replica on the current runtime, restored from disk.
    ///
    /// # Errors
    /// When its log or snapshot cannot be used.
    pub async fn start_replica(&self, options: GroupOptions) -> Result<(), StartError> {
        let wal = options.wal.clone();
        self.machine.open();
        let group = Group::start(options, Arc::clone(&self.machine)).await?;
        self.time.pass(self.machine.now());
        if self.seat.put(Some(Replica { group, wal })).is_some() {
            tracing::error!(shard = %self.id(), "a replica was started twice");
        }
        // Who waits for one elsewhere may find one here now.
        self.front.wake.notify_one();
        Ok(())
    }

    /// The shard's time, for its replica here.
    pub fn timekeeper(&self) -> Arc<dyn Timekeeper> {
        Arc::clone(&self.time) as Arc<dyn Timekeeper>
    }

    /// Ends this node's replica, when it has one, and forgets its state. What waits goes to the others.
    pub async fn end_replica(&self) {
        let Some(replica) = self.seat.put(None) else { return };
        replica.group.stop().await;
        // Whoever reads is waited for, and a whole state is freed.
        let machine = Arc::clone(&self.machine);
        if let Err(error) = on(&*self.workers, Work::State, move || machine.clear()).await {
            tracing::error!(shard = %self.id(), %error, "the state of a replica that has ended stays");
        }
        self.time.forget();
        self.front.wake.notify_one();
    }

    /// Which replica this node has.
    pub fn replica_id(&self) -> Option<RaftId> {
        self.seat.replica().map(|replica| replica.group.raft_id())
    }

    /// Whether this node's replica is to be replaced: see [`Group::must_be_rebuilt`].
    pub fn must_be_rebuilt(&self) -> bool {
        self.seat.replica().is_some_and(|replica| replica.group.must_be_rebuilt())
    }

    /// Whether the shard has a leader that works, as far as this node can tell; where it has no replica it cannot.
    pub fn is_served(&self) -> bool {
        self.seat.working_replica().is_none_or(|replica| replica.group.is_served())
    }

    /// Looks whether the members are `target`, and does as leader the next thing to make them so; see
    /// [`Group::settle`]. `None` without a replica here.
    pub fn settle(
        &self,
        target: &BTreeMap<RaftId, Holder>,
        joining: Option<RaftId>,
    ) -> Option<Settled> {
        self.seat.replica().map(|replica| replica.group.settle(target, joining))
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Its slots.
    pub fn slots(&self) -> RangeInclusive<u16> {
        self.slots.clone()
    }

    /// Its replicas, in preference order.
    pub fn replicas(&self) -> &[NodeId] {
        self.seat.replicas()
    }

    /// Gives the group its first members if it has no history: at once where it `begins`, elsewhere only
    /// when nobody else has within `patience`. All give it the same ones, so it does not matter who comes first.
    pub async fn begin(&self, members: BTreeMap<RaftId, Holder>, begins: bool, patience: Duration) {
        let Some(replica) = self.seat.replica() else { return };
        replica.group.begin(members, begins, patience).await;
    }

    /// Hands leadership to `target`, when this node leads; see [`Group::transfer_leader`].
    pub async fn hand_over(&self, target: NodeId) -> TransferOutcome {
        match self.seat.replica() {
            Some(replica) => replica.group.transfer_leader(target).await,
            None => TransferOutcome::Refused(TransferRefusal::NotLeading),
        }
    }

    /// Whether this node leads and could hand over to `target` right now.
    pub fn could_hand_over(&self, target: NodeId) -> bool {
        self.seat.replica().is_some_and(|replica| replica.group.could_hand_over(target))
    }

    /// The nodes that could take over from this one right now, the best first; none when it does not lead.
    pub fn successors(&self) -> Vec<NodeId> {
        self.seat.replica().map_or_else(Vec::new, |replica| replica.group.successors())
    }

    /// Campaigns now instead of waiting for the election timer.
    pub fn campaign(&self) {
        if let Some(replica) = self.seat.replica() {
            replica.group.campaign();
        }
    }

    /// Lets the group do what its clock says is due; see [`Group::tick`].
    pub async fn keep_time(&self) {
        if let Some(replica) = self.seat.replica() {
            replica.group.tick().await;
        }
    }

    /// Stops this node's replica.
    pub async fn stop(&self) {
        if let Some(replica) = self.seat.replica() {
            replica.group.stop().await;
        }
    }

    /// Who leads the shard, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.seat.leader()
    }

    /// Queues commands (encoded by [`put_command`](super::put_command)); `cell` gets their replies, or one error for all.
    pub fn submit(&self, lane: Lane, commands: Encoded<'_>, count: u32, cell: &Arc<ReplyCell>) {
        match lane {
            Lane::Stale => self.reads.run_stale(commands.bytes(), count, cell),
            Lane::Read | Lane::Write => self.front.submit(lane, commands, count, cell),
        }
    }

    /// Whether this node's applied state may answer linearizable reads right now, without asking anyone.
    /// Asked after the requests arrived, once for all reads of a pipeline; otherwise they go to [`Lane::Read`].
    pub fn may_read(&self) -> bool {
        self.seat.may_read()
    }

    /// Runs `read` on this node's applied state, whatever it is worth: see [`Self::may_read`]. The time it is given is the
    /// shard's at `clock`, which must not be later than what vouches for the read: see `time`. `None` while an entry or
    /// reads of great weight have the state: then [`Lane::Read`] waits for them.
    pub fn read<R>(
        &self,
        clock: MonotonicMicros,
        read: impl FnOnce(&Keyspace, UnixMillis) -> R,
    ) -> Option<R> {
        self.machine.read(self.time.for_read(clock), read)
    }

    /// The memory that the nodes of the shard's replicas have left, the least of them, in bytes, as far as is known here.
    /// Whoever wants more is refused before it enters the log: see [`OUT_OF_MEMORY`](crate::resp::ErrorReply::OUT_OF_MEMORY).
    pub fn room(&self) -> u64 {
        self.front.room()
    }

    /// A client of this node was refused for want of it.
    pub fn note_refusal(&self) {
        self.front.note_refusal();
    }

    /// Whether the shard holds so many keys that [`Self::look_ahead`] is worth its while.
    pub fn is_large(&self) -> bool {
        self.machine.is_large()
    }

    /// The key that `bytes` are, which lies in `slot`, to be looked up by [`Self::read`].
    pub fn key<'k>(&self, slot: Slot, bytes: &'k [u8]) -> Key<'k> {
        self.machine.key(slot, bytes)
    }

    /// Lets `keys` be fetched together, before reads of them by [`Self::read`].
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = (DbIndex, Key<'k>)>) {
        self.machine.look_ahead(keys);
    }

    /// What reads run by [`Self::read`] may weigh together, in a batch: what is heavier holds up the hearts of all shards.
    pub fn read_weight_max(&self) -> usize {
        self.machine.weight_max()
    }

    /// Whether this node holds a replica.
    pub fn is_replica(&self) -> bool {
        self.seat.replica().is_some()
    }

    /// This replica's state for operators.
    pub fn status(&self) -> Option<GroupStatus> {
        self.seat.replica().map(|replica| replica.group.status())
    }

    /// How much this node's replica holds; while an entry or reads of great weight have the state, how much it held when
    /// somebody asked last.
    pub fn gauges(&self) -> Gauges {
        self.machine.gauges()
    }

    /// Hashes of this replica's state; walks all keys, step by step, and sleeps between the steps: not on a runtime.
    /// `None` without a replica.
    ///
    /// # Errors
    /// [`HashRefused`] when a snapshot or another hash was under way for too long.
    pub fn state_hash(&self) -> Result<Option<StateHash>, HashRefused> {
        let hash = self.seat.replica().map(|_| self.machine.hash(|| thread::sleep(HASH_PAUSE)));
        hash.transpose()
    }

    /// Takes a message about this shard from a peer.
    pub fn handle(&self, message: Message, responder: Responder) {
        match message.kind {
            kind::SUBMIT => self.proposer.receive(message, responder),
            kind::READ => self.reads.handle(message, responder),
            _ => match self.seat.replica() {
                Some(replica) => replica.group.handle(message, responder),
                None => drop(responder),
            },
        }
    }

    /// Sends and proposes what gathers, until the task is aborted. One per shard, on the shard's runtime.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.front.wake.notified().await;
            self.proposer.linger().await;
            self.step().await;
        }
    }

    /// Moves everything that can move.
    async fn step(&self) {
        self.reads.send_waiting();
        match self.seat.leadership() {
            Leadership::Here => {
                self.front.follow(self.seat.node());
                self.proposer.propose_waiting().await;
            }
            Leadership::There(leader) => {
                self.front.follow(leader);
                self.proposer.turn_away(Some(leader));
                self.forward.send_waiting(leader);
            }
            Leadership::Unknown => {
                self.proposer.turn_away(None);
                if let Some(told) = self.seat.lost() {
                    self.front.fail_all(&told);
                } else if self.seat.working_replica().is_none() {
                    self.forward.ask_any_replica();
                } else if self.front.has_departures() {
                    self.front.wake_later();
                }
            }
        }
    }

    /// What is due regularly, some ten times a second.
    pub fn tick(&self) {
        self.upkeep.tick();
    }

    /// As leader: has the shard close the sessions that have ended for good. `last_ended` knows the number of a directory's
    /// last one that has, or `None`.
    pub fn close_sessions(&self, last_ended: impl Fn(Incarnation) -> Option<u64>) {
        self.upkeep.close_sessions(last_ended);
    }

    /// Starts a snapshot when one is due, and purges what the last one covers; `log_bytes_max` is what the node's whole log
    /// should stay below.
    pub async fn snapshot_if_due(&self, log_bytes_max: u64) {
        self.upkeep.snapshot_if_due(log_bytes_max).await;
    }
}
