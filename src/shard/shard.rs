//! A shard as this node sees it: submit commands, read applied state, and the proposer that drives both.
//!
//! Every node holds a [`Shard`] for every shard. Where the node is a replica, a Raft group stands behind it;
//! elsewhere all commands travel to one. Wherever they come from, commands for one shard become one packet
//! while earlier ones are under way, and the leader makes one log entry of all packets waiting.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::front::{Attempt, Departure, Front, Lane, ReadDeparture};
use super::limits::{
    ENTRIES_IN_FLIGHT_MAX, FORWARD_TIMEOUT, FORWARD_TIMEOUT_PER_MIB, HASH_PAUSE,
    LEADER_LOOK_INTERVAL, LINGER_TURNS, LOG_KEPT_BYTES, PACKET_BYTES_SOFT_MAX,
    PACKETS_IN_FLIGHT_MAX, PURGE_KEYS_MAX, READ_LEADERS_LOST_MAX, RETRY_PAUSE, SNAPSHOT_LOG_BYTES,
    TIGHT_BYTES,
};
use super::machine::{self, HashRefused, ShardMachine, StateHash};
use super::proposal::{self, PacketId, Stamp};
use super::reply::{Replies, ReplyCell};
use super::session::SessionsSize;
use super::time::{ShardTime, Stamps};
use super::wire::{self, Answer, kind};
use crate::ids::{DbIndex, GroupId, Holder, Incarnation, NodeId, RaftId, Session, ShardId};
use crate::keyspace::{DueKeys, Keyspace};
use crate::raft::{
    Group, GroupOptions, GroupStatus, Leadership, ProposalFate, Settled, StartError, Stopped,
    Timekeeper, TransferOutcome, TransferRefusal,
};
use crate::resp::ErrorReply;
use crate::slot::Slot;
use crate::stdx::clock::{Clock, MonotonicMicros, UnixMillis};
use crate::stdx::hash_key::HashKey;
use crate::stdx::memory::Budget;
use crate::stdx::prng::SplitMix64;
use crate::transport::{Message, PeerClient, Peers, Responder, Sender};
use crate::wal::Wal;

/// How a linearizable read makes sure that this node still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadConsistency {
    /// By its lease: no message. Rests on clocks whose rates differ by less than the lease's margin.
    Lease,
    /// By asking a quorum: one round for all reads waiting.
    Quorum,
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
    /// What memory this node may take.
    pub budget: Arc<Budget>,
    /// Random bits for the stamps' seeds.
    pub seed: u64,
}

/// A shard on this node; shared by connections of all threads.
pub struct Shard {
    options: ShardOptions,
    front: Arc<Front>,
    machine: Arc<ShardMachine>,
    /// This node's replica, where it has one.
    replica: ReplicaPlace,
    entries_in_flight: AtomicUsize,
    /// Bytes that they may add to what is stored.
    growth_in_flight: AtomicU64,
    /// An entry that closes sessions is under way.
    is_closing: AtomicBool,
    is_asking_for_room: AtomicBool,
    /// Keys past their deadline are being removed.
    is_purging: AtomicBool,
    reads_in_flight: AtomicUsize,
    time: Arc<ShardTime>,
    stamps: Stamps,
    random: Mutex<SplitMix64>,
    /// The last leader heard of through an answer, see [`Self::note_hint`]; for nodes without a working replica.
    hint: Mutex<Option<NodeId>>,
}

struct Replica {
    group: Group<ShardMachine>,
    wal: Wal,
}

/// Where this node's replica of the shard is while it has one: replicas come and go.
#[derive(Default)]
struct ReplicaPlace(RwLock<Option<Arc<Replica>>>);

impl ReplicaPlace {
    fn get(&self) -> Option<Arc<Replica>> {
        self.0.read().clone()
    }

    fn put(&self, replica: Option<Arc<Replica>>) -> Option<Arc<Replica>> {
        std::mem::replace(&mut *self.0.write(), replica)
    }
}

/// Whose packets an entry carries.
#[derive(Debug, Default)]
struct Carried {
    stamp: UnixMillis,
    /// Bytes that it may add to what is stored, where that is asked for.
    growth: u64,
    own: Option<Attempt>,
    /// By name, and the number it was proposed under.
    foreign: Vec<(PacketId, u64)>,
    /// Or it closes sessions.
    closes: bool,
    /// Or it purges: who purges waits for this to go.
    #[expect(dead_code, reason = "only its end is waited for")]
    done: Option<oneshot::Sender<()>>,
}

/// Why a try at reads has no replies.
#[derive(Debug)]
enum Unread {
    /// The node asked does not lead, or could not be asked; maybe this one does.
    TurnedAway(Option<NodeId>),
    /// The node asked has not answered, and perhaps has ended over the question.
    Silent,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("shard", &self.options.shard).finish_non_exhaustive()
    }
}

impl Shard {
    /// The shard without a replica on this node; see [`Self::start_replica`].
    pub fn new(options: ShardOptions) -> Arc<Self> {
        let front = Arc::new(Front::new(options.node, options.incarnation, options.session));
        let machine = Arc::new(ShardMachine::new(
            options.slots.clone(),
            options.hash_key,
            Arc::clone(&front) as Arc<dyn machine::AppliedPackets>,
        ));
        Arc::new(Self {
            front,
            machine,
            replica: ReplicaPlace::default(),
            entries_in_flight: AtomicUsize::new(0),
            growth_in_flight: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            is_asking_for_room: AtomicBool::new(false),
            is_purging: AtomicBool::new(false),
            reads_in_flight: AtomicUsize::new(0),
            time: Arc::new(ShardTime::new(Arc::clone(&options.clock))),
            stamps: Stamps::default(),
            random: Mutex::new(SplitMix64::new(options.seed)),
            hint: Mutex::new(None),
            options,
        })
    }

    /// Starts this node's replica on the current runtime, restored from disk.
    ///
    /// # Errors
    /// When its log or snapshot cannot be used.
    pub async fn start_replica(&self, options: GroupOptions) -> Result<(), StartError> {
        let wal = options.wal.clone();
        let group = Group::start(options, Arc::clone(&self.machine)).await?;
        self.time.pass(self.machine.now());
        if self.replica.put(Some(Arc::new(Replica { group, wal }))).is_some() {
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
        let Some(replica) = self.replica.put(None) else { return };
        replica.group.stop().await;
        self.machine.clear();
        self.time.forget();
        self.front.wake.notify_one();
    }

    /// Which replica this node has.
    pub fn replica_id(&self) -> Option<RaftId> {
        self.replica.get().map(|replica| replica.group.raft_id())
    }

    /// Whether this node's replica is to be replaced: see [`Group::must_be_rebuilt`].
    pub fn must_be_rebuilt(&self) -> bool {
        self.replica.get().is_some_and(|replica| replica.group.must_be_rebuilt())
    }

    /// Whether the shard has a leader that works, as far as this node can tell; where it has no replica it cannot.
    pub fn is_served(&self) -> bool {
        self.working_replica().is_none_or(|replica| replica.group.is_served())
    }

    /// Looks whether the members are `target`, and does as leader the next thing to make them so; see
    /// [`Group::settle`]. `None` without a replica here.
    pub fn settle(
        &self,
        target: &BTreeMap<RaftId, Holder>,
        joining: Option<RaftId>,
    ) -> Option<Settled> {
        self.replica.get().map(|replica| replica.group.settle(target, joining))
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.options.shard
    }

    /// Its slots.
    pub fn slots(&self) -> RangeInclusive<u16> {
        self.options.slots.clone()
    }

    /// Its replicas, in preference order.
    pub fn replicas(&self) -> &[NodeId] {
        &self.options.replicas
    }

    /// Gives the group its first members if it has no history: at once where it `begins`, elsewhere only
    /// when nobody else has within `patience`. All give it the same ones, so it does not matter who comes first.
    pub async fn begin(&self, members: BTreeMap<RaftId, Holder>, begins: bool, patience: Duration) {
        let Some(replica) = self.replica.get() else { return };
        replica.group.begin(members, begins, patience).await;
    }

    /// Hands leadership to `target`, when this node leads; see [`Group::transfer_leader`].
    pub async fn hand_over(&self, target: NodeId) -> TransferOutcome {
        match self.replica.get() {
            Some(replica) => replica.group.transfer_leader(target).await,
            None => TransferOutcome::Refused(TransferRefusal::NotLeading),
        }
    }

    /// Whether this node leads and could hand over to `target` right now.
    pub fn could_hand_over(&self, target: NodeId) -> bool {
        self.replica.get().is_some_and(|replica| replica.group.could_hand_over(target))
    }

    /// The nodes that could take over from this one right now, the best first; none when it does not lead.
    pub fn successors(&self) -> Vec<NodeId> {
        self.replica.get().map_or_else(Vec::new, |replica| replica.group.successors())
    }

    /// Campaigns now instead of waiting for the election timer.
    pub fn campaign(&self) {
        if let Some(replica) = self.replica.get() {
            replica.group.campaign();
        }
    }

    /// Lets the group do what its clock says is due; see [`Group::tick`].
    pub async fn keep_time(&self) {
        if let Some(replica) = self.replica.get() {
            replica.group.tick().await;
        }
    }

    /// Stops this node's replica.
    pub async fn stop(&self) {
        if let Some(replica) = self.replica.get() {
            replica.group.stop().await;
        }
    }

    /// Who leads the shard, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        match self.leadership() {
            Leadership::Here => Some(self.options.node),
            Leadership::There(node) => Some(node),
            Leadership::Unknown => None,
        }
    }

    fn leadership(&self) -> Leadership {
        match self.working_replica() {
            Some(replica) => replica.group.leadership(),
            None => self.hint.lock().map_or(Leadership::Unknown, Leadership::There),
        }
    }

    /// Remembers who is said to lead. Never this node: the hint is asked for only while no replica works here, and
    /// others go on believing for a while that one does which is stopping.
    fn note_hint(&self, leader: Option<NodeId>) {
        *self.hint.lock() = leader.filter(|leader| *leader != self.options.node);
    }

    /// This node's replica, unless there is none or it has stopped for good.
    fn working_replica(&self) -> Option<Arc<Replica>> {
        self.replica.get().filter(|replica| !replica.group.has_stopped())
    }

    /// Whether nobody is left who could answer: this node holds the only replica, and that has stopped.
    fn is_lost(&self) -> bool {
        self.options.replicas == [self.options.node]
            && self.replica.get().is_some_and(|replica| replica.group.has_stopped())
    }

    /// Queues commands (encoded by [`proposal::put_command`]); `cell` gets their replies, or one error for all.
    pub fn submit(&self, lane: Lane, commands: &[u8], count: u32, cell: &Arc<ReplyCell>) {
        self.front.submit(lane, commands, count, cell);
    }

    /// Whether this node's applied state may answer linearizable reads right now, without asking anyone.
    /// Asked after the requests arrived, once for all reads of a pipeline; otherwise they go to [`Lane::Read`].
    pub fn may_read(&self) -> bool {
        self.options.read_consistency == ReadConsistency::Lease
            && self.time.is_known()
            && self.replica.get().is_some_and(|replica| replica.group.may_read())
    }

    /// Runs `read` on this node's applied state, whatever it is worth: see [`Self::may_read`]. The time it is given is the
    /// shard's at `clock`, which must not be later than what vouches for the read: see `time`.
    pub fn read<R>(
        &self,
        clock: MonotonicMicros,
        read: impl FnOnce(&Keyspace, UnixMillis) -> R,
    ) -> R {
        let time = self.time.at(clock);
        self.machine.read(time.min(self.stamps.oldest()), read)
    }

    /// The memory that the nodes of the shard's replicas have left, the least of them, in bytes, as far as is known here.
    /// Whoever wants more is refused before it enters the log: see [`ErrorReply::OUT_OF_MEMORY`].
    pub fn room(&self) -> u64 {
        self.front.room()
    }

    /// A client of this node was refused for want of it.
    pub fn note_refusal(&self) {
        self.front.note_refusal();
    }

    /// Looks anew how much that is, where that can be seen: at the leader.
    fn look_for_room(&self, replica: &Replica) -> u64 {
        let room =
            replica.group.room().saturating_sub(self.growth_in_flight.load(Ordering::Relaxed));
        self.front.note_room(room);
        room
    }

    /// Whether the shard holds so many keys that [`Self::look_ahead`] is worth its while.
    pub fn is_large(&self) -> bool {
        self.machine.is_large()
    }

    /// Lets `keys` be fetched together, before reads of them by [`Self::read`].
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = (DbIndex, Slot, &'k [u8])>) {
        self.machine.look_ahead(keys);
    }

    /// Whether this node holds a replica.
    pub fn is_replica(&self) -> bool {
        self.replica.get().is_some()
    }

    /// This replica's state for operators.
    pub fn status(&self) -> Option<GroupStatus> {
        self.replica.get().map(|replica| replica.group.status())
    }

    /// How much is kept here for retries of front ends.
    pub fn sessions_size(&self) -> SessionsSize {
        self.machine.sessions_size()
    }

    /// Hashes of this replica's state; walks all keys, step by step, and sleeps between the steps: not on a runtime.
    /// `None` without a replica.
    ///
    /// # Errors
    /// [`HashRefused`] when a snapshot or another hash was under way for too long.
    pub fn state_hash(&self) -> Result<Option<StateHash>, HashRefused> {
        let hash = self.replica.get().map(|_| self.machine.hash(|| thread::sleep(HASH_PAUSE)));
        hash.transpose()
    }

    /// Takes a message about this shard from a peer.
    pub fn handle(self: &Arc<Self>, message: Message, responder: Responder) {
        match message.kind {
            kind::SUBMIT => self.handle_submit(message, responder),
            kind::READ => self.handle_read(message, responder),
            _ => match self.replica.get() {
                Some(replica) => replica.group.handle(message, responder),
                None => drop(responder),
            },
        }
    }

    fn handle_submit(&self, message: Message, responder: Responder) {
        match wire::take_packet(message.body) {
            Ok(packet) if is_senders_own(packet.id, message.from) => {
                if let Err(error) = machine::admit(&packet, &self.options.slots) {
                    let (from, shard) = (message.from.node, self.id());
                    tracing::warn!(%from, %shard, %error, "refused a packet");
                    return responder.send_with(wire::put_refused);
                }
                if let Some(room) = self.lacks_room(&packet) {
                    return responder.send_with(|out| wire::put_full(room, out));
                }
                if let Err(responder) = self.front.receive(packet, responder) {
                    responder.send_with(|out| wire::put_not_leader(None, out));
                }
            }
            Ok(_) => {
                tracing::warn!(from = %message.from.node, "refused a packet in another node's name");
                responder.send_with(wire::put_refused);
            }
            Err(error) => {
                tracing::warn!(from = %message.from.node, %error, "refused a packet");
                responder.send_with(wire::put_refused);
            }
        }
    }

    /// The room that the shard has left, when that is less than the packet may need and this node leads.
    fn lacks_room(&self, packet: &proposal::Packet) -> Option<u64> {
        let replica = self.working_replica()?;
        if replica.group.leadership() != Leadership::Here {
            return None;
        }
        let room = self.look_for_room(&replica);
        if self.front.is_proposed(packet.id) {
            return None;
        }
        (room < u64::MAX && machine::growth(&packet.body) > room).then_some(room)
    }

    fn handle_read(self: &Arc<Self>, message: Message, responder: Responder) {
        let arrived = self.time.monotonic();
        if self.may_read() {
            let replies = self.run_reads(arrived, &message.body);
            return responder.send_with(|out| wire::put_applied(self.room(), &replies, out));
        }
        let shard = Arc::clone(self);
        tokio::spawn(async move {
            match shard.confirmed_reads(&message.body).await {
                Ok(replies) => {
                    responder.send_with(|out| wire::put_applied(shard.room(), &replies, out));
                }
                Err(leader) => responder.send_with(|out| wire::put_not_leader(leader, out)),
            }
        });
    }

    fn run_reads(&self, clock: MonotonicMicros, body: &[u8]) -> Replies {
        let seed = self.random.lock().next_u64();
        self.read(clock, |keyspace, now| machine::run_reads(keyspace, now, seed, body))
    }

    /// Reads vouched for by a quorum, or by whoever leads.
    async fn confirmed_reads(&self, body: &[u8]) -> Result<Replies, Option<NodeId>> {
        let Some(replica) = self.replica.get() else { return Err(*self.hint.lock()) };
        let asked = self.time.monotonic();
        match replica.group.leadership() {
            Leadership::Here => {}
            Leadership::There(leader) => return Err(Some(leader)),
            Leadership::Unknown => return Err(None),
        }
        if !self.may_read() {
            use crate::raft::ReadRefused;
            replica.group.read_index().await.map_err(|refused| match refused {
                ReadRefused::NotLeader { leader } => leader,
                ReadRefused::NoQuorum => None,
            })?;
            self.time.lead();
        }
        Ok(self.run_reads(asked, body))
    }

    /// Sends and proposes what gathers, until the task is aborted. One per shard, on the shard's runtime.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.front.wake.notified().await;
            self.linger().await;
            self.step().await;
        }
    }

    /// Lets whoever has something to say now be heard first, so that it goes along: a message to another node has its
    /// price, whatever it holds, and so has a sync. On an idle node these are a few looks at the sockets. A replica
    /// alone that does not wait for its disk has no such price to share, and its clients would only be made to
    /// march in step with it.
    async fn linger(&self) {
        let is_alone = self.options.replicas == [self.options.node];
        let waits_for_disk = self.replica.get().is_some_and(|replica| replica.wal.syncs_appends());
        if !is_alone || waits_for_disk {
            for _ in 0..LINGER_TURNS {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Moves everything that can move.
    async fn step(self: &Arc<Self>) {
        self.send_reads();
        match self.leadership() {
            Leadership::Here => {
                self.front.follow(self.options.node);
                self.propose_waiting().await;
            }
            Leadership::There(leader) => {
                self.front.follow(leader);
                self.turn_away(Some(leader));
                self.forward_waiting(leader);
            }
            Leadership::Unknown => {
                self.turn_away(None);
                if self.is_lost() {
                    self.front.fail_all(&ErrorReply::WRITES_STOPPED);
                } else if self.working_replica().is_none() {
                    self.ask_any_replica();
                } else if self.front.has_departures() {
                    self.wake_later();
                }
            }
        }
    }

    /// Asks again in a moment.
    fn wake_later(self: &Arc<Self>) {
        let shard = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_PAUSE).await;
            shard.front.wake.notify_one();
        });
    }

    /// Tells other nodes that this one does not lead.
    fn turn_away(&self, leader: Option<NodeId>) {
        for (_, responder) in self.front.take_inbox(usize::MAX, Instant::now()) {
            responder.send_with(|out| wire::put_not_leader(leader, out));
        }
    }

    /// As leader: makes entries of all packets waiting.
    async fn propose_waiting(self: &Arc<Self>) {
        while self
            .front
            .may_send(self.entries_in_flight.load(Ordering::Acquire), ENTRIES_IN_FLIGHT_MAX)
        {
            let mut foreign = self.front.take_inbox(PACKET_BYTES_SOFT_MAX, Instant::now());
            // Packets of other nodes and this one's take turns rather than make one entry that is too large.
            let foreign_bytes: usize = foreign.iter().map(|(packet, _)| packet.body.len()).sum();
            let own = self.front.depart(foreign_bytes);
            if own.is_none() && foreign.is_empty() {
                return;
            }
            let mut carried = Carried::default();
            let own = self.admit_growth(own, &mut foreign, &mut carried);
            if own.is_none() && foreign.is_empty() {
                // Clients may ask again as fast as they are refused.
                tokio::task::yield_now().await;
                continue;
            }
            carried.foreign.reserve(foreign.len());
            let mut packets = Vec::with_capacity(foreign.len() + 1);
            for (packet, responder) in foreign {
                if let Some(proposal) = self.front.await_apply(packet.id, responder) {
                    carried.foreign.push((packet.id, proposal));
                    packets.push(packet);
                }
            }
            if own.is_none() && packets.is_empty() {
                // All of it is proposed already.
                continue;
            }
            let stamp = self.next_stamp();
            carried.stamp = stamp.now;
            let entry = match own {
                Some(Departure { id, attempt, floor, framed, .. }) if packets.is_empty() => {
                    carried.own = Some(attempt);
                    let (framed, entry) = framed.into_batch(id, floor, stamp);
                    self.front.keep(id.sequence, framed);
                    entry
                }
                Some(Departure { id, attempt, floor, framed, .. }) => {
                    carried.own = Some(attempt);
                    packets.push(framed.packet(id, floor));
                    self.front.keep(id.sequence, framed);
                    proposal::encode_batch(stamp, &packets)
                }
                None => proposal::encode_batch(stamp, &packets),
            };
            // A stopped replica refuses at once, again and again: what came back goes elsewhere, later.
            if self.propose(entry, carried).await.is_err() {
                return;
            }
        }
    }

    /// Notes what an entry of these packets may add to what is stored, and turns away those for which there is no room:
    /// other nodes' were judged when they came, but others came before them.
    fn admit_growth(
        &self,
        own: Option<Departure>,
        foreign: &mut Vec<(proposal::Packet, Responder)>,
        carried: &mut Carried,
    ) -> Option<Departure> {
        let room = self.replica.get().map_or(u64::MAX, |replica| self.look_for_room(&replica));
        if room == u64::MAX {
            return own;
        }
        let mut fits = |growth: u64| {
            let whole = carried.growth.saturating_add(growth);
            let fits = growth == 0 || whole <= room;
            if fits {
                carried.growth = whole;
            }
            fits
        };
        let packets = std::mem::take(foreign).into_iter();
        for (packet, responder) in packets {
            if self.front.is_proposed(packet.id) || fits(machine::growth(&packet.body)) {
                foreign.push((packet, responder));
            } else {
                responder.send_with(|out| wire::put_full(room, out));
            }
        }
        let departure = own?;
        // What may be in the log already is not kept out of it.
        if departure.may_be_applied || fits(machine::growth(&departure.framed.body())) {
            return Some(departure);
        }
        self.front.refuse(departure.attempt, &ErrorReply::OUT_OF_MEMORY);
        None
    }

    async fn propose(
        self: &Arc<Self>,
        entry: bytes::Bytes,
        carried: Carried,
    ) -> Result<(), Stopped> {
        self.growth_in_flight.fetch_add(carried.growth, Ordering::Relaxed);
        let Some(replica) = self.replica.get() else {
            self.learn_fate(ProposalFate::NotAppended { leader: None }, &carried);
            return Err(Stopped);
        };
        self.entries_in_flight.fetch_add(1, Ordering::AcqRel);
        let shard = Arc::clone(self);
        replica
            .group
            .propose(entry, move |fate| {
                shard.entries_in_flight.fetch_sub(1, Ordering::AcqRel);
                shard.learn_fate(fate, &carried);
            })
            .await
    }

    fn learn_fate(self: &Arc<Self>, fate: ProposalFate, carried: &Carried) {
        self.stamps.settle(carried.stamp);
        self.growth_in_flight.fetch_sub(carried.growth, Ordering::Relaxed);
        if carried.closes {
            self.is_closing.store(false, Ordering::Release);
        }
        let (leader, may_be_applied) = match fate {
            // Apply has answered everybody already.
            ProposalFate::Applied => return self.front.wake.notify_one(),
            ProposalFate::NotAppended { leader } => (leader, false),
            ProposalFate::Unknown { leader } => (leader, true),
        };
        if let Some(attempt) = carried.own {
            self.front.come_back(attempt, may_be_applied);
        }
        for (id, proposal) in &carried.foreign {
            if let Some(responder) = self.front.forget_apply(*id, *proposal) {
                responder.send_with(|out| {
                    if may_be_applied {
                        wire::put_unknown(out);
                    } else {
                        wire::put_not_leader(leader, out);
                    }
                });
            }
        }
        self.wake_later();
    }

    /// The stamp of an entry that is proposed next, whose fate settles it.
    fn next_stamp(&self) -> Stamp {
        self.time.lead();
        Stamp { now: self.stamps.issue(&self.time), seed: self.random.lock().next_u64() }
    }

    /// As follower or bystander: sends what waits to the leader.
    fn forward_waiting(self: &Arc<Self>, leader: NodeId) {
        let Some(peer) = self.options.peers.get(leader) else {
            // Nothing departs for a node that cannot be reached: it would come back at once and depart again, for
            // ever, on the one thread that could change anything about it. Who was hinted at wrongly is not asked again.
            self.note_hint(None);
            if self.front.has_departures() {
                self.wake_later();
            }
            return;
        };
        while self.front.may_send(self.front.flights_under_way(), PACKETS_IN_FLIGHT_MAX) {
            let Some(departure) = self.front.depart(0) else { return };
            self.forward(&peer, departure);
        }
    }

    fn forward(self: &Arc<Self>, peer: &PeerClient, departure: Departure) {
        let Departure { id, attempt, floor, framed, .. } = departure;
        let packet = framed.packet(id, floor);
        self.front.keep(id.sequence, framed);
        let group = GroupId::of_shard(self.options.shard);
        let timeout = forward_timeout(packet.body.len());
        let answer =
            peer.call_with(group, kind::SUBMIT, timeout, |out| wire::put_packet(&packet, out));
        let shard = Arc::clone(self);
        tokio::spawn(async move {
            let may_be_applied = match answer.await {
                Ok(body) => match wire::take_answer(body) {
                    Some(Answer::Applied(room, replies)) => {
                        shard.front.note_room(room);
                        shard.front.complete(id.sequence, replies.submissions(), &replies);
                        return shard.front.wake.notify_one();
                    }
                    Some(Answer::NotLeader(leader)) => {
                        shard.note_hint(leader);
                        false
                    }
                    Some(Answer::Stale) => {
                        shard.front.give_up(id.sequence, &ErrorReply::SESSION_ENDED);
                        return shard.front.wake.notify_one();
                    }
                    Some(Answer::Refused) => {
                        shard.front.give_up(id.sequence, &ErrorReply::PACKET_REFUSED);
                        return shard.front.wake.notify_one();
                    }
                    Some(Answer::Full(room)) => {
                        shard.front.note_room(room);
                        if shard.front.refuse(attempt, &ErrorReply::OUT_OF_MEMORY) {
                            return shard.wake_later();
                        }
                        return shard.front.wake.notify_one();
                    }
                    Some(Answer::Unknown) | None => true,
                },
                Err(error) => {
                    shard.note_hint(None);
                    error.was_sent()
                }
            };
            shard.front.come_back(attempt, may_be_applied);
            shard.wake_later();
        });
    }

    /// Without a replica and without a hint: any replica either leads or knows who does.
    fn ask_any_replica(self: &Arc<Self>) {
        if !self.front.has_departures() {
            return;
        }
        self.forward_waiting(self.any_replica());
    }

    /// One of the replicas elsewhere, by chance.
    fn any_replica(&self) -> NodeId {
        let node = self.options.node;
        let elsewhere: Vec<NodeId> =
            self.options.replicas.iter().copied().filter(|replica| *replica != node).collect();
        let random = self.random.lock().below(elsewhere.len() as u64);
        let chosen = usize::try_from(random).ok().and_then(|at| elsewhere.get(at));
        chosen.copied().unwrap_or(node)
    }

    /// Sends what reads have gathered, each batch in a task of its own that follows the leader.
    fn send_reads(self: &Arc<Self>) {
        while self.reads_in_flight.load(Ordering::Acquire) < PACKETS_IN_FLIGHT_MAX {
            let Some(reads) = self.front.depart_reads() else { return };
            self.reads_in_flight.fetch_add(1, Ordering::AcqRel);
            let shard = Arc::clone(self);
            tokio::spawn(async move {
                shard.answer_reads(reads).await;
                shard.reads_in_flight.fetch_sub(1, Ordering::AcqRel);
                if shard.front.has_reads() {
                    shard.front.wake.notify_one();
                }
            });
        }
    }

    async fn answer_reads(&self, mut reads: ReadDeparture) {
        let body = reads.framed.body();
        let mut asked = None;
        let mut lost = Vec::new();
        while reads.expire(Instant::now()).is_some() {
            let leader = match (self.leadership(), asked.take()) {
                (Leadership::Here, _) => self.options.node,
                (Leadership::There(leader), _) | (Leadership::Unknown, Some(leader)) => leader,
                (Leadership::Unknown, None) if self.is_lost() => {
                    return reads.fail(&ErrorReply::WRITES_STOPPED);
                }
                (Leadership::Unknown, None) if self.working_replica().is_none() => {
                    self.any_replica()
                }
                (Leadership::Unknown, None) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            match self.ask_reads(leader, &body, &mut reads).await {
                Ok(replies) => return reads.complete(&replies),
                Err(Unread::TurnedAway(leader)) => {
                    asked = leader.filter(|leader| *leader != self.options.node);
                    self.note_hint(leader);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(Unread::Silent) => {
                    if !lost.contains(&leader) {
                        lost.push(leader);
                    }
                    if lost.len() >= READ_LEADERS_LOST_MAX {
                        return reads.fail(&ErrorReply::READ_UNANSWERED);
                    }
                    if self.leader() == Some(leader) {
                        self.note_hint(None);
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Asks `leader` for `reads`, until it answers, or nobody waits for them any more, or another node leads: the old
    /// one may be silent for long, and reads can be asked twice.
    async fn ask_reads(
        &self,
        leader: NodeId,
        body: &bytes::Bytes,
        reads: &mut ReadDeparture,
    ) -> Result<Replies, Unread> {
        let answer = async {
            if leader == self.options.node {
                self.confirmed_reads(body).await.map_err(Unread::TurnedAway)
            } else {
                self.forward_reads(leader, body).await
            }
        };
        let mut answer = std::pin::pin!(answer);
        while let Some(deadline) = reads.expire(Instant::now()) {
            let look = deadline.min(Instant::now() + LEADER_LOOK_INTERVAL);
            if let Ok(answer) = tokio::time::timeout_at(look, &mut answer).await {
                return answer;
            }
            if self.leader().is_some_and(|leads| leads != leader) {
                break;
            }
        }
        Err(Unread::Silent)
    }

    async fn forward_reads(&self, leader: NodeId, body: &bytes::Bytes) -> Result<Replies, Unread> {
        let Some(peer) = self.options.peers.get(leader) else {
            return Err(Unread::TurnedAway(None));
        };
        let group = GroupId::of_shard(self.options.shard);
        let timeout = forward_timeout(body.len());
        match peer.call(group, kind::READ, body.clone(), timeout).await {
            Ok(answer) => match wire::take_answer(answer) {
                Some(Answer::Applied(room, replies)) => {
                    self.front.note_room(room);
                    Ok(replies)
                }
                Some(Answer::NotLeader(leader)) => Err(Unread::TurnedAway(leader)),
                Some(Answer::Unknown | Answer::Stale | Answer::Refused | Answer::Full(_))
                | None => Err(Unread::TurnedAway(None)),
            },
            Err(error) if error.was_sent() => Err(Unread::Silent),
            Err(_) => Err(Unread::TurnedAway(None)),
        }
    }

    /// What is due regularly, some ten times a second: overdue answers, the course of time, keys past their deadline.
    pub fn tick(self: &Arc<Self>) {
        let now = Instant::now();
        self.front.expire(now);
        if self.front.confirm(now) {
            self.front.wake.notify_one();
        }
        if self.leader().is_some_and(|leader| self.front.must_follow(leader)) {
            // Whoever waits for the old leader would wake nobody.
            self.front.wake.notify_one();
        }
        self.ask_for_room();
        let Some(replica) = self.replica.get() else { return };
        self.time.pass(self.machine.now());
        if replica.group.leadership() == Leadership::Here {
            self.look_for_room(&replica);
            self.time.lead();
            // Who is cut off from its followers would lead them astray.
            if replica.group.is_served() {
                self.time.steer();
            }
            self.purge_due_keys();
        }
    }

    /// Elsewhere than at the leader: asks it for the room that is left while that is little, by reads of nothing. Commands
    /// are refused meanwhile, so no answer to one would tell.
    fn ask_for_room(self: &Arc<Self>) {
        let is_due = self.front.take_refusal() || self.room() < TIGHT_BYTES;
        if !is_due || self.leadership() == Leadership::Here {
            return;
        }
        if self.is_asking_for_room.swap(true, Ordering::AcqRel) {
            return;
        }
        let leader = self.leader().unwrap_or_else(|| self.any_replica());
        let shard = Arc::clone(self);
        tokio::spawn(async move {
            match shard.forward_reads(leader, &bytes::Bytes::new()).await {
                Ok(_) => {}
                Err(Unread::TurnedAway(leader)) => shard.note_hint(leader),
                Err(Unread::Silent) => shard.note_hint(None),
            }
            shard.is_asking_for_room.store(false, Ordering::Release);
        });
    }

    /// As leader: begins to remove keys past their deadline, unless that is under way.
    fn purge_due_keys(self: &Arc<Self>) {
        if self.is_purging.load(Ordering::Acquire) {
            return;
        }
        let due = self.look_for_due_keys();
        if due.is_all && due.keys.is_empty() {
            return;
        }
        self.is_purging.store(true, Ordering::Release);
        let shard = Arc::clone(self);
        tokio::spawn(async move {
            shard.purge(due).await;
            shard.is_purging.store(false, Ordering::Release);
        });
    }

    /// Removes what is `due`, and what else is, until a sweep has been everywhere: at whatever rate keys expire, as long
    /// as the log takes their removal. One purge is under way at a time, beside the entries of clients: its keys are
    /// many, so that a wait for the disk is worth it, and few enough to be applied between two heartbeats.
    async fn purge(self: &Arc<Self>, mut due: DueKeys) {
        loop {
            if !due.keys.is_empty() {
                let stamp = self.next_stamp();
                let purge = proposal::encode_purge(stamp, &due.keys);
                let (done, is_done) = oneshot::channel();
                let carried = Carried { stamp: stamp.now, done: Some(done), ..Carried::default() };
                if self.propose(purge, carried).await.is_err() {
                    tracing::debug!(shard = %self.id(), "nothing is purged by a stopped replica");
                    return;
                }
                // Nothing is ever sent: its other end goes with the proposal.
                drop(is_done.await);
            }
            if due.is_all || self.leadership() != Leadership::Here {
                return;
            }
            tokio::task::yield_now().await;
            due = self.look_for_due_keys();
        }
    }

    fn look_for_due_keys(&self) -> DueKeys {
        let now = self.time.now().max(self.machine.now());
        self.machine.due_keys(now, PURGE_KEYS_MAX)
    }

    /// As leader: has the shard close the sessions that have ended for good. `last_ended` knows the number of a directory's
    /// last one that has, or `None`. Looked at again and again until the entry is applied; one is under way at a time.
    pub async fn close_sessions(
        self: &Arc<Self>,
        last_ended: impl Fn(Incarnation) -> Option<u64> + Send,
    ) {
        let leads = self.leadership() == Leadership::Here;
        if !leads || self.is_closing.load(Ordering::Acquire) {
            return;
        }
        let open = self.machine.open_sessions().into_iter();
        let ended: Vec<(Incarnation, u64)> = open
            .filter_map(|(incarnation, session)| {
                let upto = last_ended(incarnation).filter(|upto| session.number <= *upto)?;
                Some((incarnation, upto))
            })
            .collect();
        if !ended.is_empty() {
            tracing::info!(shard = %self.id(), sessions = ended.len(), "closes sessions that have ended");
            let stamp = self.next_stamp();
            let close = proposal::encode_close(stamp, &ended);
            self.is_closing.store(true, Ordering::Release);
            let carried = Carried { stamp: stamp.now, closes: true, ..Carried::default() };
            if self.propose(close, carried).await.is_err() {
                tracing::debug!(shard = %self.id(), "nothing is closed by a stopped replica");
            }
        }
    }

    /// Starts a snapshot when the log since the last one has outgrown it, or when this shard's log alone keeps
    /// the node's oldest log segment alive; purges what a snapshot covers, but for its last part.
    pub async fn snapshot_if_due(&self, log_bytes_max: u64) {
        let Some(replica) = self.working_replica() else { return };
        let (group, wal) = (replica.group.id(), &replica.wal);
        let covered = replica.group.snapshot_covers();
        let log_bytes = wal.group_bytes_after(group, covered);
        // First: under endless writes the next snapshot is always due.
        if let Some(upto) = wal.purgeable(group, covered, LOG_KEPT_BYTES) {
            replica.group.purge(upto).await;
        }
        if log_bytes > SNAPSHOT_LOG_BYTES.max(replica.group.snapshot_bytes())
            || replica.group.is_snapshot_damaged()
        {
            replica.group.snapshot().await;
        } else if wal.live_bytes() > log_bytes_max && wal.pinned_by() == Some(group) {
            replica.group.release_log().await;
        }
    }
}

/// How long one try with `bytes` may take: a large packet is long on its way, and long in the log.
fn forward_timeout(bytes: usize) -> Duration {
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    FORWARD_TIMEOUT.saturating_add(FORWARD_TIMEOUT_PER_MIB.saturating_mul(mib))
}

/// Whether a packet is of the very session that sends it: nobody else may number packets in its name.
fn is_senders_own(id: PacketId, sender: Sender) -> bool {
    (id.incarnation, id.session) == (sender.incarnation, sender.session)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;

    use bytes::Bytes;
    use tokio::sync::Notify;

    use super::super::proposal::{Packet, PacketBuffer, put_command};
    use super::*;
    use crate::ids::{ClusterId, DbIndex, Incarnation, Session};
    use crate::raft::{EntryPosition, Origin, StateMachine};
    use crate::resp::Protocol;
    use crate::stdx::clock::SystemClock;
    use crate::transport::{
        Credentials, Door, Handler, Meant, PeerIdentity, PeerOptions, PeerServer,
    };

    /// The ids of "n1", "n2" and "n3", as [`door`] checks.
    const HERE: NodeId = NodeId(0xd733_a26d_d4b4_9b94);
    const ELSEWHERE: NodeId = NodeId(0xaf4e_4bf6_ccbf_4e82);
    const STRANGER: NodeId = NodeId(0xe91f_540c_bd1c_ac73);

    fn door(name: &str, node: NodeId) -> Door {
        let session = Session { number: 1, random: 1 };
        let identity = PeerIdentity::new(ClusterId(77), name, Incarnation::NONE, session);
        assert_eq!(identity.node, node);
        Door::new(identity, Credentials::new(b"", [0; 32]))
    }

    const KEYS: u32 = 200;
    /// Longer than the test should take: reaching it is a failure.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A node that first believes in another leader, and then leads itself.
    struct OtherNode {
        believes_in: NodeId,
        was_asked: AtomicBool,
    }

    impl Handler for OtherNode {
        fn handle(&self, message: Message, responder: Responder) {
            assert_eq!((message.from.node, message.kind), (HERE, kind::SUBMIT));
            if !self.was_asked.swap(true, Ordering::AcqRel) {
                return responder
                    .send_with(|out| wire::put_not_leader(Some(self.believes_in), out));
            }
            let replies = Replies::of(&[&["+OK\r\n"]]);
            responder.send_with(|out| wire::put_applied(u64::MAX, &replies, out));
        }
    }

    fn shard_elsewhere(peers: Peers) -> Arc<Shard> {
        Shard::new(ShardOptions {
            shard: ShardId(0),
            slots: 0..=16383,
            hash_key: HashKey::new([1, 2]),
            node: HERE,
            incarnation: Incarnation(1),
            session: Session { number: 1, random: 1 },
            replicas: vec![ELSEWHERE],
            read_consistency: ReadConsistency::Lease,
            peers,
            clock: Arc::new(SystemClock::new()),
            budget: Arc::new(Budget::of(0)),
            seed: 1,
        })
    }

    /// The body of a packet of one submission.
    fn submission(commands: &[u8]) -> Bytes {
        let mut buffer = PacketBuffer::new();
        buffer.push(commands, 0);
        buffer.frame().body()
    }

    /// The reads of one packet as this node answers them.
    fn random_key(shard: &Shard) -> Vec<u8> {
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"RANDOMKEY"], &mut commands);
        shard.run_reads(MonotonicMicros(0), &commands).bytes
    }

    /// Fault R18: forwarded reads drew the same key again and again.
    #[test]
    fn each_request_draws_its_own_random_key() {
        let shard = shard_elsewhere(Peers::new());
        let mut body = Vec::new();
        for key in 0..KEYS {
            put_command(
                Protocol::Resp2,
                DbIndex(0),
                &[b"SET", key.to_string().as_bytes(), b"v"],
                &mut body,
            );
        }
        let session = Session { number: 1, random: 1 };
        let id = PacketId { incarnation: Incarnation(1), session, sequence: 1 };
        let packet = Packet { id, floor: 1, commands: KEYS, body: submission(&body) };
        let stamp = Stamp { now: UnixMillis(1), seed: 1 };
        let entry = proposal::encode_batch(stamp, &[packet]);
        shard.machine.apply(EntryPosition { term: 1, index: 1 }, Origin::Here, &entry).unwrap();
        let keys: BTreeSet<Vec<u8>> = (0..KEYS).map(|_| random_key(&shard)).collect();
        // One key in 200 draws was seen; 126 distinct ones are to be expected.
        assert!(keys.len() > 50, "{} different keys", keys.len());
    }

    /// The leader's half of a shard behind a door of its own, without a group: the test is its log.
    struct Leader {
        shard: Arc<Shard>,
        proposed: Mutex<Vec<Option<u64>>>,
        heard: Notify,
    }

    impl Handler for Leader {
        fn handle(&self, message: Message, responder: Responder) {
            let packet = wire::take_packet(message.body).unwrap();
            let mut proposed = self.proposed.lock();
            proposed.push(self.shard.front.await_apply(packet.id, responder));
            self.heard.notify_one();
        }
    }

    async fn leader() -> (Arc<Leader>, PeerServer, PeerClient) {
        let shard = shard_elsewhere(Peers::new());
        let (proposed, heard) = (Mutex::default(), Notify::new());
        let leader = Arc::new(Leader { shard, proposed, heard });
        let handler = Arc::clone(&leader) as Arc<dyn Handler>;
        let server = PeerServer::bind("127.0.0.1:0", door("n2", ELSEWHERE), handler).await.unwrap();
        let peer = PeerClient::new(PeerOptions {
            door: door("n1", HERE),
            meant: Meant { node: ELSEWHERE, incarnation: Incarnation::NONE },
            addresses: vec![server.local_addr().to_string()],
        });
        peer.connected().wait_for(|connected| *connected).await.unwrap();
        (leader, server, peer)
    }

    /// A packet of a front end elsewhere, in its `number`-th session.
    fn foreign_packet(number: u64) -> Packet {
        let mut body = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"INCR", b"key"], &mut body);
        let session = Session { number, random: number };
        let id = PacketId { incarnation: Incarnation(9), session, sequence: 1 };
        Packet { id, floor: 1, commands: 1, body: submission(&body) }
    }

    fn apply(shard: &Shard, index: u64, packet: &Packet) {
        let stamp = Stamp { now: UnixMillis(1), seed: 1 };
        let entry = proposal::encode_batch(stamp, std::slice::from_ref(packet));
        shard.machine.apply(EntryPosition { term: 1, index }, Origin::Here, &entry).unwrap();
    }

    async fn send(peer: &PeerClient, packet: &Packet) -> Answer {
        let group = GroupId::of_shard(ShardId(0));
        let answer =
            peer.call_with(group, kind::SUBMIT, PATIENCE, |out| wire::put_packet(packet, out));
        wire::take_answer(answer.await.unwrap()).unwrap()
    }

    /// faults.md R20: each try of a packet that was long under way was an entry of its own.
    #[tokio::test]
    async fn a_packet_that_comes_three_times_enters_the_log_once() {
        let (leader, _server, peer) = leader().await;
        let packet = foreign_packet(1);
        let answers = async {
            tokio::join!(send(&peer, &packet), send(&peer, &packet), send(&peer, &packet))
        };
        let log = async {
            while leader.proposed.lock().len() < 3 {
                leader.heard.notified().await;
            }
            assert_eq!(*leader.proposed.lock(), [Some(1), None, None]);
            apply(&leader.shard, 1, &packet);
        };
        let (answers, ()) = tokio::join!(answers, log);
        assert!(
            matches!(answers, (Answer::Unknown, Answer::Unknown, Answer::Applied(..))),
            "the latest call is answered: {answers:?}"
        );
    }

    /// The end of an entry that was long given up took the caller from a later one.
    #[tokio::test]
    async fn the_fate_of_an_older_proposal_does_not_speak_for_a_newer_one() {
        let (leader, _server, peer) = leader().await;
        let packet = foreign_packet(1);
        let log = async {
            leader.heard.notified().await;
            apply(&leader.shard, 1, &packet);
            leader.heard.notified().await;
            let carried = Carried { foreign: vec![(packet.id, 1)], ..Carried::default() };
            leader.shard.learn_fate(ProposalFate::Unknown { leader: None }, &carried);
            apply(&leader.shard, 2, &packet);
        };
        let calls = async { (send(&peer, &packet).await, send(&peer, &packet).await) };
        let (answers, ()) = tokio::join!(calls, log);
        assert!(matches!(answers, (Answer::Applied(..), Answer::Applied(..))), "{answers:?}");
    }

    /// faults.md R1: its caller was never told.
    #[tokio::test]
    async fn a_packet_of_an_older_session_is_answered_when_it_is_left_out() {
        let (leader, _server, peer) = leader().await;
        apply(&leader.shard, 1, &foreign_packet(2));
        let packet = foreign_packet(1);
        let log = async {
            leader.heard.notified().await;
            apply(&leader.shard, 2, &packet);
        };
        let (answer, ()) = tokio::join!(send(&peer, &packet), log);
        assert!(matches!(answer, Answer::Stale), "{answer:?}");
    }

    /// faults.md R17: over what a front end says when it has nothing else to say, a retry is as safe as ever.
    #[tokio::test]
    async fn a_retry_is_applied_once_before_and_after_its_replies_are_confirmed() {
        let (leader, _server, peer) = leader().await;
        let packet = foreign_packet(1);
        let confirmation = Packet {
            id: PacketId { sequence: 2, ..packet.id },
            floor: 2,
            commands: 0,
            body: Bytes::new(),
        };
        let log = async {
            for (index, packet) in
                [&packet, &packet, &confirmation, &packet].into_iter().enumerate()
            {
                leader.heard.notified().await;
                apply(&leader.shard, index as u64 + 1, packet);
            }
        };
        let calls = async {
            let first = send(&peer, &packet).await;
            let again = send(&peer, &packet).await;
            let kept = leader.shard.sessions_size();
            let confirmed = send(&peer, &confirmation).await;
            (first, again, kept, confirmed, send(&peer, &packet).await)
        };
        let ((first, again, kept, confirmed, late), ()) = tokio::join!(calls, log);
        let is_one =
            |answer: &Answer| matches!(answer, Answer::Applied(_, it) if it.bytes == b":1\r\n");
        assert!(is_one(&first) && is_one(&again), "{first:?}, {again:?}");
        assert_eq!(kept.bytes, 4);
        assert!(matches!(confirmed, Answer::Applied(..)), "{confirmed:?}");
        assert!(matches!(late, Answer::Stale), "{late:?}");
        assert_eq!(leader.shard.sessions_size().bytes, 0);
    }

    /// The door of a shard, as it stands at every node.
    struct ShardDoor(Arc<Shard>);

    impl Handler for ShardDoor {
        fn handle(&self, message: Message, responder: Responder) {
            self.0.handle(message, responder);
        }
    }

    /// faults.md R14: in the log it would stop every replica that does not know it.
    #[tokio::test]
    async fn a_packet_that_replicas_could_not_apply_is_refused_with_an_answer() {
        let peers = Peers::new();
        let handler = Arc::new(ShardDoor(shard_elsewhere(Peers::new())));
        let _server = serve("n2", ELSEWHERE, &peers, handler).await;
        let peer = peers.get(ELSEWHERE).unwrap();
        peer.connected().wait_for(|connected| *connected).await.unwrap();
        let mut body = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"NOSUCH", b"key"], &mut body);
        let session = Session { number: 1, random: 1 };
        let own = PacketId { incarnation: Incarnation::NONE, session, sequence: 1 };
        let unknown = Packet { id: own, floor: 1, commands: 1, body: submission(&body) };
        assert!(matches!(send(&peer, &unknown).await, Answer::Refused));
        let malformed = Packet { body: Bytes::from_static(b"\x02\0\x09"), ..unknown.clone() };
        assert!(matches!(send(&peer, &malformed).await, Answer::Refused));
        assert!(matches!(send(&peer, &foreign_packet(1)).await, Answer::Refused), "of another");
    }

    /// A leader that lets nothing in.
    struct RefusingNode;

    impl Handler for RefusingNode {
        fn handle(&self, _: Message, responder: Responder) {
            responder.send_with(wire::put_refused);
        }
    }

    #[tokio::test]
    async fn clients_of_a_refused_packet_are_told_at_once() {
        let peers = Peers::new();
        let _server = serve("n2", ELSEWHERE, &peers, Arc::new(RefusingNode)).await;
        let shard = shard_elsewhere(peers);
        let running = tokio::spawn(Arc::clone(&shard).run());
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"key", b"v"], &mut commands);
        shard.submit(Lane::Write, &commands, 1, &cell);
        let taken = cell.take(&mut Replies::default()).await;
        assert_eq!(taken, Err(ErrorReply::PACKET_REFUSED));
        running.abort();
    }

    #[test]
    fn a_large_packet_is_given_the_time_it_takes() {
        assert_eq!(forward_timeout(4096), FORWARD_TIMEOUT);
        assert_eq!(forward_timeout(512 << 20), FORWARD_TIMEOUT + Duration::from_millis(51_200));
    }

    /// A node that takes reads and says nothing.
    #[derive(Default)]
    struct SilentNode {
        asked: Mutex<Vec<Responder>>,
        heard: Notify,
    }

    impl Handler for SilentNode {
        fn handle(&self, message: Message, responder: Responder) {
            assert_eq!(message.kind, kind::READ);
            self.asked.lock().push(responder);
            self.heard.notify_one();
        }
    }

    struct AnsweringNode;

    impl Handler for AnsweringNode {
        fn handle(&self, _: Message, responder: Responder) {
            let replies = Replies::of(&[&["+OK\r\n"]]);
            responder.send_with(|out| wire::put_applied(u64::MAX, &replies, out));
        }
    }

    async fn serve(
        name: &str,
        node: NodeId,
        peers: &Peers,
        handler: Arc<dyn Handler>,
    ) -> PeerServer {
        let server = PeerServer::bind("127.0.0.1:0", door(name, node), handler).await.unwrap();
        peers.insert(PeerClient::new(PeerOptions {
            door: door("n1", HERE),
            meant: Meant { node, incarnation: Incarnation::NONE },
            addresses: vec![server.local_addr().to_string()],
        }));
        server
    }

    fn submit_read(shard: &Shard) -> Arc<ReplyCell> {
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"GET", b"key"], &mut commands);
        shard.submit(Lane::Read, &commands, 1, &cell);
        cell
    }

    /// faults.md R15: they waited for the silent node's whole timeout, and all later reads behind them.
    #[tokio::test]
    async fn reads_leave_a_silent_leader_for_a_new_one_at_once() {
        let peers = Peers::new();
        let silent = Arc::new(SilentNode::default());
        let handler = Arc::clone(&silent) as Arc<dyn Handler>;
        let _old = serve("n2", ELSEWHERE, &peers, handler).await;
        let _new = serve("n3", STRANGER, &peers, Arc::new(AnsweringNode)).await;
        let shard = shard_elsewhere(peers);
        shard.note_hint(Some(ELSEWHERE));
        let running = tokio::spawn(Arc::clone(&shard).run());
        let mut cells = Vec::new();
        for _ in 0..PACKETS_IN_FLIGHT_MAX {
            cells.push(submit_read(&shard));
            silent.heard.notified().await;
        }
        cells.push(submit_read(&shard));
        let moved = Instant::now();
        shard.note_hint(Some(STRANGER));
        for cell in cells {
            let mut replies = Replies::default();
            cell.take(&mut replies).await.unwrap();
            assert_eq!(replies.bytes, b"+OK\r\n");
        }
        assert!(moved.elapsed() < FORWARD_TIMEOUT / 2, "{:?}", moved.elapsed());
        running.abort();
    }

    /// A read that ends whoever runs it must not be taken from node to node.
    #[tokio::test]
    async fn a_read_is_not_tried_at_ever_further_leaders() {
        let peers = Peers::new();
        let (first, second) = (Arc::new(SilentNode::default()), Arc::new(SilentNode::default()));
        let _first = serve("n2", ELSEWHERE, &peers, Arc::clone(&first) as Arc<dyn Handler>).await;
        let _second = serve("n3", STRANGER, &peers, Arc::clone(&second) as Arc<dyn Handler>).await;
        let shard = shard_elsewhere(peers);
        shard.note_hint(Some(ELSEWHERE));
        let running = tokio::spawn(Arc::clone(&shard).run());
        let cell = submit_read(&shard);
        first.heard.notified().await;
        shard.note_hint(Some(STRANGER));
        second.heard.notified().await;
        shard.note_hint(Some(ELSEWHERE));
        let taken = cell.take(&mut Replies::default()).await;
        assert_eq!(taken, Err(ErrorReply::READ_UNANSWERED));
        assert_eq!(first.asked.lock().len(), 1, "it was not asked again");
        running.abort();
    }

    async fn submit_while_it_believes_in(leader: NodeId) -> Vec<u8> {
        let other = OtherNode { believes_in: leader, was_asked: AtomicBool::new(false) };
        let door_there = door("n2", ELSEWHERE);
        let server = PeerServer::bind("127.0.0.1:0", door_there, Arc::new(other)).await.unwrap();
        let peers = Peers::new();
        peers.insert(PeerClient::new(PeerOptions {
            door: door("n1", HERE),
            meant: Meant { node: ELSEWHERE, incarnation: Incarnation::NONE },
            addresses: vec![server.local_addr().to_string()],
        }));
        let shard = shard_elsewhere(peers);
        let running = tokio::spawn(Arc::clone(&shard).run());
        let cell = ReplyCell::new();
        let mut commands = Vec::new();
        put_command(Protocol::Resp2, DbIndex(0), &[b"SET", b"key", b"value"], &mut commands);
        shard.submit(Lane::Write, &commands, 1, &cell);
        let mut replies = Replies::default();
        cell.take(&mut replies).await.unwrap();
        running.abort();
        replies.bytes
    }

    /// On a thread of its own: a runtime that spins never comes to the end of its own timeout.
    fn replies_while_it_believes_in(leader: NodeId) -> Vec<u8> {
        let (done, replies) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            done.send(runtime.unwrap().block_on(submit_while_it_believes_in(leader))).unwrap();
        });
        replies.recv_timeout(PATIENCE).expect("the shard answers in time")
    }

    #[test]
    fn being_taken_for_the_leader_does_not_spin_the_node() {
        assert_eq!(replies_while_it_believes_in(HERE), b"+OK\r\n");
    }

    #[test]
    fn a_hint_at_a_node_that_is_no_peer_is_dropped() {
        assert_eq!(replies_while_it_believes_in(STRANGER), b"+OK\r\n");
    }
}
