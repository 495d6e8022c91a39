//! Runs the commands of an entry on the state, and reads beside the log.
//!
//! **Invariant:** what comes out depends on the state and the entry alone. How far a run comes before it pauses is nobody's
//! business but its thread's: it goes on with the same commands, seeds and replies.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::limits::{REPLIES_SOFT_MAX, REPLY_BYTES_MAX};
use super::proposal::{Commands, Packet, PacketId, Proposal, Stamp};
use super::reply::Replies;
use super::session::Admission;
use super::state::State;
use super::window::{Ready, Window};
use crate::command::{self, Context, Invocation};
use crate::keyspace::{At, KEYS_AHEAD_MAX, Keyspace};
use crate::resp::{self, ErrorReply, Reply};
use crate::stdx::clock::UnixMillis;
use crate::stdx::codec::Sink as _;
use crate::stdx::planted::{Bug, is_planted};
use crate::stdx::rope::Rope;

/// From one command's seed to the next one's (the increment of `SplitMix64`). Part of what replicas agree on.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Who wants to know which packets were applied.
pub(super) trait AppliedPackets: Send + Sync {
    /// The `submissions` of packet `id`, by their places in it, have `replies`. Called once per time it meets apply, so a
    /// retried packet may come twice.
    fn applied(&self, id: PacketId, submissions: Range<usize>, replies: &Arc<Replies>);

    /// Packet `id` has met apply and was left out, as it will be from now on: its session has ended, or has given it up.
    fn stale(&self, id: PacketId);
}

/// Begins to apply an entry: does all of it but to run the commands of its packets.
pub(super) fn begin_entry(
    state: &mut State,
    index: u64,
    bytes: &Bytes,
    (stamp, proposal): (Stamp, Proposal),
) -> Run {
    state.is_unfit = true;
    state.index = index;
    state.history = xxh3_64_with_seed(bytes, state.history);
    state.now = if is_planted(Bug::StampNotClamped) { stamp.now } else { state.now.max(stamp.now) };
    let stamp = Stamp { now: state.now, ..stamp };
    state.sessions.pass_time(stamp.now);
    let packets = match proposal {
        Proposal::Packets(packets) => packets,
        Proposal::Purge(keys) => {
            for (db, key) in keys {
                state.keyspace.purge(db, &key, stamp.now);
            }
            Vec::new()
        }
        Proposal::Close(sessions) => {
            for (incarnation, upto) in sessions {
                state.sessions.close(incarnation, upto, stamp.now);
            }
            Vec::new()
        }
    };
    Run { packets: packets.into_iter(), ordinal: 0, stamp, open: None }
}

/// The packets of an entry, which were checked, as far as they are applied.
pub(super) struct Run {
    packets: std::vec::IntoIter<Packet>,
    /// How many have been begun.
    ordinal: u64,
    stamp: Stamp,
    /// The one that is applied in part.
    open: Option<OpenPacket>,
}

/// A packet that is being applied.
struct OpenPacket {
    packet: Packet,
    /// Bytes of its commands that have been run.
    done: usize,
    /// Each command of an entry draws its own random numbers: ordinals of packets and commands name it.
    seed: u64,
    replies: Replies,
    /// From the first command on that the replies have no room for, nothing is run any more, on any replica: the
    /// front end sends it again, and reads by themselves.
    is_over: bool,
    is_first: bool,
}

/// Whether there is more to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Ended,
    /// The next command weighs more than was left.
    Paused,
}

impl Run {
    /// Applies commands until all have been, or what they weigh exceeds `weight_left`: before the one that is too much.
    /// Where there is no limit nothing is weighed.
    pub(super) fn go_on(
        &mut self,
        state: &mut State,
        mut weight_left: Option<usize>,
        listener: &dyn AppliedPackets,
    ) -> Progress {
        loop {
            let open = match self.open.take() {
                Some(open) => open,
                None => match self.open_next(state, listener) {
                    Some(open) => open,
                    None => return Progress::Ended,
                },
            };
            match open.go_on(state, self.stamp.now, &mut weight_left) {
                Ok((id, replies)) => {
                    state.history = hash(&replies.bytes, state.history);
                    let replies = Arc::new(replies);
                    state.sessions.record(id, Arc::clone(&replies));
                    listener.applied(id, replies.submissions(), &replies);
                }
                Err(paused) => {
                    self.open = Some(*paused);
                    return Progress::Paused;
                }
            }
        }
    }

    /// Begins the next packet that is new.
    fn open_next(
        &mut self,
        state: &mut State,
        listener: &dyn AppliedPackets,
    ) -> Option<OpenPacket> {
        loop {
            let packet = self.packets.next()?;
            let seed = self.stamp.seed ^ self.ordinal.rotate_left(32);
            self.ordinal += 1;
            match state.sessions.admit(packet.id, packet.floor, self.stamp.now) {
                Admission::New => {
                    let mut replies = Replies::default();
                    replies.ends.reserve(packet.commands as usize);
                    replies.bytes.reserve(packet.commands as usize * 8);
                    let (is_over, is_first) = (false, true);
                    return Some(OpenPacket { packet, done: 0, seed, replies, is_over, is_first });
                }
                Admission::Duplicate(replies) => {
                    listener.applied(packet.id, replies.submissions(), &replies);
                }
                Admission::Stale => listener.stale(packet.id),
            }
        }
    }
}

impl OpenPacket {
    /// Runs the commands that are left, or those that weigh no more than `weight_left`. The replies of all, or what is to
    /// go on.
    fn go_on(
        mut self,
        state: &mut State,
        now: UnixMillis,
        weight_left: &mut Option<usize>,
    ) -> Result<(PacketId, Replies), Box<Self>> {
        let ahead_max = if state.keyspace.is_large() { KEYS_AHEAD_MAX } else { 1 };
        let body = self.packet.body.clone();
        let mut commands = Commands::new(&body[self.done..]);
        let mut window = Window::default();
        let mut is_too_heavy = false;
        while !is_too_heavy {
            window.clear();
            while window.len() < ahead_max {
                let Some(ready) = window.take(&mut commands, &state.keyspace) else { break };
                // What is not run weighs nothing.
                if let (Some(left), false) = (&mut *weight_left, self.is_over) {
                    let (invocation, at) = (&ready.invocation, ready.at(now));
                    let weight = command::weight(invocation, &state.keyspace, at);
                    is_too_heavy = weight > *left;
                    if is_too_heavy {
                        window.give_back();
                        break;
                    }
                    *left -= weight;
                }
                self.done = body.len() - commands.rest().len();
            }
            if window.len() == 0 {
                break;
            }
            window.look_ahead(&state.keyspace);
            for command in window.iter() {
                if command.begins() && !std::mem::take(&mut self.is_first) {
                    self.replies.end_submission();
                }
                // Also for what is not run, so that each command's place names its random numbers.
                self.seed = self.seed.wrapping_add(SEED_STEP);
                self.is_over |= self.replies.bytes.len() >= REPLIES_SOFT_MAX;
                if self.is_over {
                    continue;
                }
                let context = Context::new(command.at(now), self.seed);
                self.is_over = !run(&mut state.keyspace, command, &context, &mut self.replies);
            }
        }
        if is_too_heavy {
            return Err(Box::new(self));
        }
        if !self.is_first {
            self.replies.end_submission();
        }
        self.replies.bytes.freeze();
        Ok((self.packet.id, self.replies))
    }
}

/// The hash of `replies`, the same whatever of them is lent.
fn hash(replies: &Rope, seed: u64) -> u64 {
    if let Some(together) = replies.as_slice() {
        return xxh3_64_with_seed(together, seed);
    }
    let mut hasher = Xxh3::with_seed(seed);
    replies.runs().for_each(|run| hasher.update(run));
    hasher.digest()
}

/// Runs a command of a packet and appends its reply. False when it is a read whose reply the packet has no room for: then
/// that was as if it had not been run.
pub(super) fn run(
    keyspace: &mut Keyspace,
    command: Ready<'_>,
    context: &Context,
    replies: &mut Replies,
) -> bool {
    let reply = command::run(&command.invocation, keyspace, context);
    if command.invocation.command.is_write() {
        put_reply(&reply, command.protocol(), replies);
        return true;
    }
    let left = REPLIES_SOFT_MAX.saturating_sub(replies.bytes.len());
    let is_put = resp::encode_within(&reply, command.protocol(), left, &mut replies.bytes).is_ok();
    if is_put {
        replies.end();
    }
    is_put
}

/// Appends `reply`, or an error in its place when it is longer than any may be.
fn put_reply(reply: &Reply<'_>, protocol: resp::Protocol, replies: &mut Replies) {
    let put = resp::encode_within(reply, protocol, REPLY_BYTES_MAX, &mut replies.bytes);
    if put.is_err() {
        let error = Reply::Error(ErrorReply::REPLY_TOO_LARGE);
        resp::encode(&error, protocol, &mut replies.bytes);
    }
    replies.end();
}

/// Runs the reads of a packet on the applied state, each with random bits of its own out of `seed`, until there are
/// [`REPLIES_SOFT_MAX`] of replies: the rest has none, and is asked for again. A write among them answers an error: it
/// would bypass the log. `None` as soon as they weigh more than `weight_left`, where that is limited, or are not wanted any
/// more.
pub(super) fn run_reads(
    keyspace: &Keyspace,
    now: UnixMillis,
    mut seed: u64,
    body: &[u8],
    mut weight_left: Option<usize>,
    is_wanted: impl Fn() -> bool,
) -> Option<Replies> {
    let mut replies = Replies::default();
    let mut is_first = true;
    for command in Commands::new(body) {
        let Ok(command) = command else { break };
        if command.begins && !std::mem::take(&mut is_first) {
            replies.end_submission();
        }
        if replies.bytes.len() >= REPLIES_SOFT_MAX {
            continue;
        }
        if !is_wanted() {
            return None;
        }
        seed = seed.wrapping_add(SEED_STEP);
        let context = Context::new(At::new(command.db, now), seed);
        let reply = match command::lookup(command.argv[0]) {
            Some(found) if !found.is_write() => {
                let invocation = Invocation::located(found, &command.argv, keyspace);
                if let Some(left) = &mut weight_left {
                    let weight = command::weight(&invocation, keyspace, context.at);
                    *left = left.checked_sub(weight)?;
                }
                command::run_read(&invocation, keyspace, &context)
            }
            Some(_) | None => {
                Reply::Error(ErrorReply::unknown_command(command.argv.iter().copied()))
            }
        };
        put_reply(&reply, command.protocol, &mut replies);
    }
    if !is_first {
        replies.end_submission();
    }
    replies.bytes.freeze();
    Some(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::rope::LENT_BYTES_MIN;

    /// Replicas compare it, and may keep the same replies in different ways.
    #[test]
    fn a_history_is_the_same_whatever_is_lent() {
        let mut replies = Rope::new();
        for length in [3, LENT_BYTES_MIN, 200, 3 * LENT_BYTES_MIN + 5] {
            replies.put_shared(&Bytes::from(vec![b'x'; length]));
            replies.put(b"\r\n");
            assert_eq!(replies.as_slice().is_some(), length == 3);
            for seed in [0, 7, u64::MAX] {
                let copied = xxh3_64_with_seed(&replies.to_vec(), seed);
                assert_eq!(hash(&replies, seed), copied, "{length}");
            }
        }
    }
}
