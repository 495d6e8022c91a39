//! The commands of one socket read, on their way to shards, and their replies in request order.
//!
//! Replies known at once are encoded at once. The others leave a mark where they belong; their commands
//! gather per shard and leave together, so that a pipeline costs one submission and one wake-up per shard.
//!
//! Large replies of other nodes come in parts: what is in is written out before the rest is asked for. What is long of a reply
//! is lent to it and goes on to the socket so, see [`Rope`].

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::limits::{BATCH_QUEUED_BYTES_MAX, BYTES_KEPT_MAX, LENT_BYTES_MIN};
use super::state::ClientState;
use crate::command;
use crate::ids::{DbIndex, ShardId};
use crate::resp::{ErrorReply, Protocol, Reply, encode};
use crate::router::{Merge, continue_scan, merge};
use crate::shard::{
    Commands, Encoded, Lane, REPLY_BYTES_MAX, Replies, ReplyCell, Shard, put_command,
};
use crate::stdx::rope::Rope;

/// Where a reply comes from.
#[derive(Debug)]
enum Part {
    /// From `ready`, up to this offset.
    Ready(usize),
    /// The next so many of a shard.
    Shard(ShardId, usize),
    /// The next ones of several shards, joined.
    Merged { how: Merge, shards: SmallVec<[ShardId; 8]>, protocol: Protocol },
    /// The next one of a shard, a SCAN that goes on in another shard when it is finished there.
    Scan { shard: ShardId, next: Option<u64> },
}

/// How far the replies of a batch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All are there.
    Done,
    /// More are to be asked for, once these are written out.
    More,
}

/// What goes to one shard.
#[derive(Debug)]
struct Queue {
    lane: Lane,
    commands: Vec<u8>,
    /// All of them, from when they are sent, if they are many. Empty otherwise.
    lent: Bytes,
    /// Where those begin that have no reply yet, how many they are, and how many of them were asked for.
    from: usize,
    count: u32,
    asked: u32,
    cell: Arc<ReplyCell>,
    replies: Replies,
    outcome: Result<(), ErrorReply>,
    taken: usize,
}

impl Queue {
    fn new() -> Self {
        Self {
            lane: Lane::Read,
            commands: Vec::new(),
            lent: Bytes::new(),
            from: 0,
            count: 0,
            asked: 0,
            cell: ReplyCell::new(),
            replies: Replies::default(),
            outcome: Ok(()),
            taken: 0,
        }
    }

    /// Makes room for `bytes` of commands at once, while there are none: whoever grows copies what it has, again and again.
    fn make_room(&mut self, bytes: usize) {
        if self.commands.capacity() < bytes {
            self.commands = Vec::with_capacity(bytes);
        }
    }

    /// Sends what has no reply yet.
    fn submit(&mut self, shard: &Shard) {
        if self.commands.len() >= LENT_BYTES_MIN {
            let mut commands = std::mem::take(&mut self.commands);
            // What lends them counts their length, and they hold all that was made for them.
            if commands.capacity() / 2 > commands.len() {
                commands.shrink_to_fit();
            }
            self.lent = commands.into();
        }
        let all = if self.lent.is_empty() { &self.commands[..] } else { &self.lent[..] };
        let answered = self.replies.ends.len();
        let mut commands = Commands::new(&all[self.from..]);
        let stepped = commands.by_ref().take(answered).count();
        self.from = all.len() - commands.rest().len();
        self.count = self.count.saturating_sub(u32::try_from(stepped).unwrap_or(u32::MAX));
        self.taken = 0;
        // The cell has this memory next.
        self.replies.clear();
        self.replies.bytes.shrink_to(BYTES_KEPT_MAX);
        let (mut lane, mut asked, mut end) = (self.lane, self.count, all.len());
        if self.asked > 0 && lane == Lane::Write {
            // The log did not take the first of the rest: a read whose reply is large. It goes by itself.
            let mut reads = Commands::new(&all[self.from..]);
            let mut leading = 0;
            while let Some(Ok(command)) = reads.next()
                && command::lookup(command.argv[0]).is_some_and(|found| !found.is_write())
            {
                leading += 1;
                end = all.len() - reads.rest().len();
            }
            if leading > 0 {
                (lane, asked) = (Lane::Read, leading);
            } else {
                end = all.len();
            }
        }
        self.asked = asked;
        let commands = if self.lent.is_empty() {
            Encoded::Copied(&self.commands[self.from..end])
        } else {
            Encoded::Lent(self.lent.slice(self.from..end))
        };
        shard.submit(lane, commands, asked, &self.cell);
    }

    /// Replies that are in and not taken.
    fn left(&self) -> usize {
        self.replies.ends.len() - self.taken
    }

    /// Whether the next reply is yet to be asked for.
    fn must_ask(&self) -> bool {
        let answered = u32::try_from(self.replies.ends.len()).unwrap_or(u32::MAX);
        self.outcome.is_ok() && self.left() == 0 && answered < self.count
    }

    /// The next `count` replies, or the error that answers them all.
    fn next_run(&mut self, count: usize) -> Result<(&Rope, Range<usize>), ErrorReply> {
        if let Err(error) = &self.outcome {
            return Err(error.clone());
        }
        let from = self.taken;
        self.taken += count;
        let run = self.replies.run(from, count).ok_or(ErrorReply::INTERNAL)?;
        Ok((&self.replies.bytes, run))
    }

    /// Forgets the last batch but keeps its memory, unless one huge batch made it grow.
    fn reset(&mut self) {
        self.lent = Bytes::new();
        self.commands.clear();
        self.commands.shrink_to(BYTES_KEPT_MAX);
        self.replies.clear();
        self.replies.bytes.shrink_to(BYTES_KEPT_MAX);
        self.from = 0;
        self.count = 0;
        self.asked = 0;
        self.taken = 0;
        self.lane = Lane::Read;
        self.outcome = Ok(());
    }
}

/// One socket read's worth of commands. Lives as long as its connection; its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Replies known at once.
    pub(super) ready: Rope,
    parts: VecDeque<Part>,
    /// How much of `ready` the parts cover.
    marked: usize,
    /// How much of `ready` was written out already.
    copied: usize,
    queues: Vec<Option<Box<Queue>>>,
    active: SmallVec<[ShardId; 8]>,
    /// Per shard: whether its local state may answer reads, asked once per batch.
    readable: Vec<Option<bool>>,
    /// What the reads weigh that were run here at once, see [`Shard::read_weight_max`].
    pub(super) weight: usize,
    commands: usize,
    queued_bytes: usize,
    /// About the bytes of the commands that are still to come.
    pub(super) bytes_ahead: usize,
    has_made_room: bool,
}

impl Batch {
    /// Commands since the last [`Self::finish`].
    pub(super) fn len(&self) -> usize {
        self.commands
    }

    /// Bytes of commands that wait to be sent.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Counts a command.
    pub(super) fn count(&mut self) {
        self.commands += 1;
    }

    /// Whether commands of this batch wait to be sent to `shard`: then a read must join them.
    pub(super) fn is_queued(&self, shard: ShardId) -> bool {
        self.active.contains(&shard)
    }

    /// Whether `shard`'s state on this node may answer reads; asks once per batch.
    pub(super) fn may_read(&mut self, shard: &Shard) -> bool {
        let index = shard.id().0 as usize;
        if self.readable.len() <= index {
            self.readable.resize(index + 1, None);
        }
        *self.readable[index].get_or_insert_with(|| shard.may_read())
    }

    /// Has it that `shard`'s state here may answer no reads, for tests: as where another node leads.
    #[cfg(test)]
    pub(super) fn deny_reads(&mut self, shard: ShardId) {
        let index = shard.0 as usize;
        self.readable.resize(self.readable.len().max(index + 1), None);
        self.readable[index] = Some(false);
    }

    /// Which way what is queued for `shard` goes, for tests.
    #[cfg(test)]
    pub(super) fn lane(&self, shard: ShardId) -> Option<Lane> {
        let is_active = self.active.contains(&shard);
        self.queues.get(shard.0 as usize)?.as_ref().filter(|_| is_active).map(|queue| queue.lane)
    }

    /// Sends `argv` to `shard` with the batch; its reply belongs here.
    pub(super) fn push(
        &mut self,
        shard: ShardId,
        lane: Lane,
        protocol: Protocol,
        db: DbIndex,
        argv: &[&[u8]],
    ) {
        self.queue(shard, lane, protocol, db, argv);
        // A pipeline mostly speaks to one shard: its replies are one run, copied as one.
        if self.ready.len() == self.marked
            && let Some(Part::Shard(last, count)) = self.parts.back_mut()
            && *last == shard
        {
            *count += 1;
        } else {
            self.mark(Part::Shard(shard, 1));
        }
    }

    /// Sends a SCAN to `shard`; when the shard is finished the cursor becomes `next`.
    pub(super) fn push_scan(
        &mut self,
        shard: ShardId,
        next: Option<u64>,
        protocol: Protocol,
        db: DbIndex,
        argv: &[&[u8]],
    ) {
        self.queue(shard, Lane::Read, protocol, db, argv);
        self.mark(Part::Scan { shard, next });
    }

    /// Queues a piece of a command over several shards; [`Self::push_merged`] marks where its reply belongs.
    pub(super) fn queue(
        &mut self,
        shard: ShardId,
        lane: Lane,
        protocol: Protocol,
        db: DbIndex,
        argv: &[&[u8]],
    ) {
        let index = shard.0 as usize;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, || None);
        }
        let queue = self.queues[index].get_or_insert_with(|| Box::new(Queue::new()));
        if queue.count == 0 {
            self.active.push(shard);
            queue.lane = lane;
            // For one shard, which mostly is the only one; and a single command that is longer finds its own room.
            if (LENT_BYTES_MIN..BATCH_QUEUED_BYTES_MAX).contains(&self.bytes_ahead)
                && !std::mem::replace(&mut self.has_made_room, true)
            {
                queue.make_room(self.bytes_ahead);
            }
        }
        // Reads queued before a write come along: they must not see it, nor be overtaken by it.
        queue.lane = queue.lane.max(lane);
        let before = queue.commands.len();
        put_command(protocol, db, argv, &mut queue.commands);
        self.queued_bytes += queue.commands.len() - before;
        queue.count += 1;
    }

    /// The replies of the pieces just queued at `shards` make one reply, here.
    pub(super) fn push_merged(
        &mut self,
        how: Merge,
        shards: SmallVec<[ShardId; 8]>,
        protocol: Protocol,
    ) {
        self.mark(Part::Merged { how, shards, protocol });
    }

    fn mark(&mut self, part: Part) {
        if self.ready.len() > self.marked {
            self.marked = self.ready.len();
            self.parts.push_back(Part::Ready(self.marked));
        }
        self.parts.push_back(part);
    }

    /// Sends what has gathered, waits for it, and appends the replies to `out` in request order. When that is not all of
    /// them, they are to be written out, and this is to be called again.
    pub(super) async fn finish(&mut self, state: &mut ClientState, out: &mut Rope) -> Progress {
        state.node.counters().count_commands(self.commands);
        self.commands = 0;
        self.queued_bytes = 0;
        self.has_made_room = false;
        self.readable.clear();
        self.weight = 0;
        if self.parts.is_empty() {
            // Not copied once more, if it can be helped.
            if out.is_empty() {
                std::mem::swap(out, &mut self.ready);
            } else {
                out.append(&mut self.ready);
            }
            self.ready.shrink_to(BYTES_KEPT_MAX);
            self.marked = 0;
            return Progress::Done;
        }
        let mut asked = SmallVec::<[ShardId; 8]>::new();
        for shard in &self.active {
            let Some(queue) = &mut self.queues[shard.0 as usize] else { continue };
            if queue.asked == 0 || queue.must_ask() {
                queue.submit(state.node.shard(*shard));
                asked.push(*shard);
            }
        }
        for shard in asked {
            let Some(queue) = &mut self.queues[shard.0 as usize] else { continue };
            queue.outcome = queue.cell.take(&mut queue.replies).await;
        }
        self.ready.freeze();
        if self.assemble(state.protocol, state.random(), out) == Progress::More {
            return Progress::More;
        }
        for shard in self.active.drain(..) {
            if let Some(queue) = &mut self.queues[shard.0 as usize] {
                queue.reset();
            }
        }
        Progress::Done
    }

    fn assemble(&mut self, protocol: Protocol, random: u64, out: &mut Rope) -> Progress {
        while let Some(part) = self.parts.pop_front() {
            if self.lacks_a_reply(&part) {
                self.parts.push_front(part);
                return Progress::More;
            }
            match part {
                Part::Ready(end) => {
                    self.ready.put_to(self.copied..end, out);
                    self.copied = end;
                }
                Part::Shard(shard, count) => {
                    let here = self.come_of(shard, count);
                    match self.next_run(shard, here) {
                        Ok((replies, run)) => replies.put_to(run, out),
                        Err(error) => {
                            (0..here)
                                .for_each(|_| encode(&Reply::Error(error.clone()), protocol, out));
                        }
                    }
                    if here < count {
                        self.parts.push_front(Part::Shard(shard, count - here));
                    }
                }
                Part::Scan { shard, next } => match self.next(shard) {
                    Ok(reply) => continue_scan(&reply, next, out),
                    Err(error) => encode(&Reply::Error(error), protocol, out),
                },
                Part::Merged { how, shards, protocol } => {
                    let whole: usize = shards.iter().map(|shard| self.next_length(*shard)).sum();
                    if whole > REPLY_BYTES_MAX {
                        for shard in &shards {
                            let _taken = self.next(*shard).is_ok();
                        }
                        encode(&Reply::Error(ErrorReply::REPLY_TOO_LARGE), protocol, out);
                        continue;
                    }
                    let pieces: Vec<Rope> = shards
                        .iter()
                        .map(|&shard| {
                            self.next(shard).unwrap_or_else(|error| {
                                let mut encoded = Rope::new();
                                encode(&Reply::Error(error), protocol, &mut encoded);
                                encoded
                            })
                        })
                        .collect();
                    merge(&how, &pieces, protocol, random, out);
                }
            }
        }
        self.ready.put_to(self.copied..self.ready.len(), out);
        self.ready.clear();
        self.ready.shrink_to(BYTES_KEPT_MAX);
        self.marked = 0;
        self.copied = 0;
        Progress::Done
    }

    /// How long the next reply of `shard` is.
    fn next_length(&self, shard: ShardId) -> usize {
        let queue = self.queues[shard.0 as usize].as_ref();
        queue.and_then(|queue| queue.replies.run(queue.taken, 1)).map_or(0, |run| run.len())
    }

    /// Whether the next reply to `part` is yet to be asked for.
    fn lacks_a_reply(&self, part: &Part) -> bool {
        let lacks = |shard: &ShardId| {
            self.queues[shard.0 as usize].as_ref().is_some_and(|queue| queue.must_ask())
        };
        match part {
            Part::Ready(_) => false,
            Part::Shard(shard, _) | Part::Scan { shard, .. } => lacks(shard),
            Part::Merged { shards, .. } => shards.iter().any(lacks),
        }
    }

    /// How many of the next `count` replies of `shard` can be written out: fewer when the rest is yet to be asked for.
    fn come_of(&self, shard: ShardId, count: usize) -> usize {
        match &self.queues[shard.0 as usize] {
            Some(queue) if queue.outcome.is_ok() => count.min(queue.left()),
            Some(_) | None => count,
        }
    }

    fn next_run(
        &mut self,
        shard: ShardId,
        count: usize,
    ) -> Result<(&Rope, Range<usize>), ErrorReply> {
        match &mut self.queues[shard.0 as usize] {
            Some(queue) => queue.next_run(count),
            None => Err(ErrorReply::INTERNAL),
        }
    }

    fn next(&mut self, shard: ShardId) -> Result<Rope, ErrorReply> {
        self.next_run(shard, 1).map(|(replies, run)| replies.part(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the queues of `batch` have allocated for commands.
    fn made(batch: &Batch) -> usize {
        batch.queues.iter().flatten().map(|queue| queue.commands.capacity()).sum()
    }

    /// An MSET over 64 shards made room for all of it 64 times, and an idle connection kept 16 KiB of each.
    #[test]
    fn room_for_what_is_ahead_is_made_once() {
        let value = [b'x'; 1000];
        let mut batch = Batch { bytes_ahead: 1000 * 1000, ..Batch::default() };
        for _ in 0..4 {
            for shard in 0..64 {
                let argv: [&[u8]; 3] = [b"SET", b"key", &value];
                batch.queue(ShardId(shard), Lane::Write, Protocol::Resp2, DbIndex(0), &argv);
            }
        }
        assert!(made(&batch) >= batch.bytes_ahead);
        assert!(made(&batch) <= batch.bytes_ahead + 2 * batch.queued_bytes, "{}", made(&batch));
    }

    /// It was given a mebibyte, which it outgrew by its envelope, and held twice as much.
    #[test]
    fn a_long_command_finds_its_own_room() {
        let value = vec![b'x'; BATCH_QUEUED_BYTES_MAX];
        let mut batch = Batch { bytes_ahead: value.len() + 40, ..Batch::default() };
        let argv: [&[u8]; 3] = [b"SET", b"key", &value];
        batch.queue(ShardId(0), Lane::Write, Protocol::Resp2, DbIndex(0), &argv);
        assert!(made(&batch) < value.len() + 1000, "{}", made(&batch));
    }
}
