//! As leader: makes log entries of packets, its own and other nodes', and has them proposed.
//!
//! Owns what is between the packets and the log: how many entries are on their way, and what these may add to what is
//! stored. All packets waiting become one entry with one stamp, which every replica applies alike.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admission;
use super::front::{Departure, Front};
use super::limits::{ENTRIES_IN_FLIGHT_MAX, LINGER_TURNS, PACKET_BYTES_SOFT_MAX};
use super::outbox::Attempt;
use super::proposal::{self, Packet, PacketId, Stamp};
use super::seat::{Replica, Seat};
use super::shard::{Ground, ShardOptions};
use super::time::ShardTime;
use super::wire;
use crate::ids::{NodeId, ShardId};
use crate::raft::{Leadership, ProposalFate, Stopped};
use crate::resp::ErrorReply;
use crate::stdx::clock::UnixMillis;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::prng::SplitMix64;
use crate::transport::{Message, Responder, Sender};

/// What proposes the entries of one shard while this node leads it.
pub(super) struct Proposer {
    shard: ShardId,
    slots: RangeInclusive<u16>,
    seat: Arc<Seat>,
    front: Arc<Front>,
    time: Arc<ShardTime>,
    /// The random bits of stamps.
    random: Mutex<SplitMix64>,
    entries_in_flight: AtomicUsize,
    /// Bytes that they may add to what is stored.
    growth_in_flight: AtomicU64,
}

/// What an entry carries that somebody waits for.
#[derive(Debug, Default)]
struct Carried {
    stamp: UnixMillis,
    /// Bytes that it may add to what is stored, where that is asked for.
    growth: u64,
    own: Option<Attempt>,
    /// By name, and the number it was proposed under.
    foreign: Vec<(PacketId, u64)>,
    /// Or it is none of packets: who proposed it waits for this to go.
    #[expect(dead_code, reason = "only its end is waited for")]
    done: Option<oneshot::Sender<()>>,
}

impl Proposer {
    /// A proposer with nothing on its way.
    pub(super) fn new(options: &ShardOptions, ground: &Ground) -> Self {
        let Ground { seat, front, time, .. } = ground.clone();
        Self {
            shard: options.shard,
            slots: options.slots.clone(),
            seat,
            front,
            time,
            random: Mutex::new(SplitMix64::new(options.seed)),
            entries_in_flight: AtomicUsize::new(0),
            growth_in_flight: AtomicU64::new(0),
        }
    }

    /// Lets whoever has something to say now be heard first, so that it goes along: a message to another node has its
    /// price, whatever it holds, and so has a sync. On an idle node these are a few looks at the sockets. A replica
    /// alone that does not wait for its disk has no such price to share, and its clients would only be made to
    /// march in step with it.
    pub(super) async fn linger(&self) {
        let waits_for_disk = self.seat.replica().is_some_and(|replica| replica.wal.syncs_appends());
        if !self.seat.is_sole() || waits_for_disk {
            for _ in 0..LINGER_TURNS {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes a packet that another node sends here as to the leader.
    pub(super) fn receive(&self, message: Message, responder: Responder) {
        match wire::take_packet(message.body) {
            Ok(packet) if is_senders_own(packet.id, message.from) => {
                if let Err(error) = admission::admit(&packet, &self.slots) {
                    let (from, shard) = (message.from.node, self.shard);
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
    fn lacks_room(&self, packet: &Packet) -> Option<u64> {
        let replica = self.seat.working_replica()?;
        if replica.group.leadership() != Leadership::Here {
            return None;
        }
        let room = self.look_for_room(&replica);
        if self.front.is_proposed(packet.id) {
            return None;
        }
        (room < u64::MAX && admission::growth(&packet.body) > room).then_some(room)
    }

    /// Looks anew how much memory the replicas have left beside what is on its way, where that can be seen: at the leader.
    pub(super) fn look_for_room(&self, replica: &Replica) -> u64 {
        let room =
            replica.group.room().saturating_sub(self.growth_in_flight.load(Ordering::Relaxed));
        self.front.note_room(room);
        room
    }

    /// Tells other nodes that this one does not lead.
    pub(super) fn turn_away(&self, leader: Option<NodeId>) {
        for (_, responder) in self.front.take_inbox(usize::MAX, Instant::now()) {
            responder.send_with(|out| wire::put_not_leader(leader, out));
        }
    }

    /// As leader: makes entries of all packets waiting.
    pub(super) async fn propose_waiting(self: &Arc<Self>) {
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
            // Mostly there are none of others, and a list of none is none.
            let mut packets =
                if foreign.is_empty() { Vec::new() } else { Vec::with_capacity(foreign.len() + 1) };
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
                Some(departure) if packets.is_empty() => {
                    let (attempt, entry) = departure.into_entry(stamp);
                    carried.own = Some(attempt);
                    entry
                }
                Some(departure) => {
                    let (attempt, packet) = departure.into_packet();
                    carried.own = Some(attempt);
                    packets.push(packet);
                    proposal::encode_packets(stamp, &packets)
                }
                None => proposal::encode_packets(stamp, &packets),
            };
            // A stopped replica refuses at once, again and again: what came back goes elsewhere, later.
            if self.propose(entry, carried).await.is_err() {
                return;
            }
        }
    }

    /// Notes what an entry of these packets may add to what is stored, and turns away those for which there is no room:
    /// other nodes' were judged when they came, but others came before them.
    fn admit_growth<'f>(
        &self,
        own: Option<Departure<'f>>,
        foreign: &mut Vec<(Packet, Responder)>,
        carried: &mut Carried,
    ) -> Option<Departure<'f>> {
        let room = self.seat.replica().map_or(u64::MAX, |replica| self.look_for_room(&replica));
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
            if self.front.is_proposed(packet.id) || fits(admission::growth(&packet.body)) {
                foreign.push((packet, responder));
            } else {
                responder.send_with(|out| wire::put_full(room, out));
            }
        }
        let departure = own?;
        // What may be in the log already is not kept out of it.
        if departure.may_be_applied() || fits(departure.growth()) {
            return Some(departure);
        }
        departure.refuse(&ErrorReply::OUT_OF_MEMORY);
        None
    }

    /// Proposes an entry that carries no packets, and waits until it is applied here or its fate is known otherwise.
    ///
    /// # Errors
    /// When this node's replica has stopped.
    pub(super) async fn propose_apart(
        self: &Arc<Self>,
        encode: impl FnOnce(Stamp) -> Bytes,
    ) -> Result<(), Stopped> {
        let stamp = self.next_stamp();
        let (done, is_done) = oneshot::channel();
        let carried = Carried { stamp: stamp.now, done: Some(done), ..Carried::default() };
        self.propose(encode(stamp), carried).await?;
        // Nothing is ever sent: its other end goes with the proposal.
        drop(is_done.await);
        Ok(())
    }

    async fn propose(self: &Arc<Self>, entry: Bytes, carried: Carried) -> Result<(), Stopped> {
        self.growth_in_flight.fetch_add(carried.growth, Ordering::Relaxed);
        let Some(replica) = self.seat.replica() else {
            self.learn_fate(ProposalFate::NotAppended { leader: None }, &carried);
            return Err(Stopped);
        };
        self.entries_in_flight.fetch_add(1, Ordering::AcqRel);
        let proposer = Arc::clone(self);
        replica
            .group
            .propose(entry, move |fate| {
                proposer.entries_in_flight.fetch_sub(1, Ordering::AcqRel);
                proposer.learn_fate(fate, &carried);
            })
            .await
    }

    fn learn_fate(&self, fate: ProposalFate, carried: &Carried) {
        self.time.settle(carried.stamp);
        self.growth_in_flight.fetch_sub(carried.growth, Ordering::Relaxed);
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
        self.front.wake_later();
    }

    /// As if an entry with one packet of another node, proposed under `proposal`, had been given up.
    #[cfg(test)]
    pub(super) fn lose(&self, packet: PacketId, proposal: u64) {
        let carried = Carried { foreign: vec![(packet, proposal)], ..Carried::default() };
        self.learn_fate(ProposalFate::Unknown { leader: None }, &carried);
    }

    /// The stamp of an entry that is proposed next, whose fate settles it.
    fn next_stamp(&self) -> Stamp {
        Stamp { now: self.time.stamp(), seed: self.random.lock().next_u64() }
    }
}

/// Whether a packet is of the very session that sends it: nobody else may number packets in its name.
fn is_senders_own(id: PacketId, sender: Sender) -> bool {
    (id.incarnation, id.session) == (sender.incarnation, sender.session)
        || is_planted(Bug::SessionByName)
}
