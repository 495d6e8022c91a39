//! Encoded replies on their way back: from apply to the connection that waits.
//!
//! What is long of them is never copied: a long value is lent to its reply, other long text from where it was encoded, and
//! what comes from another node from the message in which it came ([`Rope`]).

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::resp::ErrorReply;
use crate::stdx::codec::{self, Sink};
use crate::stdx::rope::Rope;

/// Encoded replies of several commands, and where each ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    /// The replies' bytes, one after the other.
    pub bytes: Rope,
    /// End offset of each reply in `bytes`.
    pub ends: Vec<u32>,
    /// For each submission that is done, how many replies there are up to its end. Few fit without memory of their own.
    submissions: SmallVec<[u32; 4]>,
}

impl Replies {
    /// Marks the end of a reply just appended to `bytes`.
    ///
    /// # Panics
    /// When there are more than 4 GiB of replies, which no packet within its limits asks for.
    pub fn end(&mut self) {
        let end = u32::try_from(self.bytes.len()).expect("the replies of a packet are below 4 GiB");
        self.ends.push(end);
    }

    /// Marks the end of a submission, with the replies since the last one. They may be fewer than its commands: the rest of
    /// these was not run, and is to be sent again.
    pub(super) fn end_submission(&mut self) {
        let count =
            u32::try_from(self.ends.len()).expect("the commands of a packet are below 4 Gi");
        self.submissions.push(count);
    }

    /// The submissions that are done, by their place in the packet.
    pub(super) fn submissions(&self) -> Range<usize> {
        0..self.submissions.len()
    }

    /// Which replies are those of a submission; `None` when it is not done.
    fn of_submission(&self, place: usize) -> Option<Range<usize>> {
        let end = *self.submissions.get(place)? as usize;
        let start = if place == 0 { 0 } else { self.submissions[place - 1] as usize };
        Some(start..end)
    }

    /// How each submission's end is told in a stream: see [`Self::encode`].
    pub(super) fn submission_ends(&self) -> &[u32] {
        &self.submissions
    }

    /// Puts together what came as a stream; `None` when it does not fit together.
    pub(super) fn from_parts(bytes: Rope, ends: Vec<u32>, submissions: &[u32]) -> Option<Self> {
        let count = u32::try_from(ends.len()).ok()?;
        let is_whole = ends.is_sorted()
            && ends.last().copied().unwrap_or(0) as usize == bytes.len()
            && submissions.is_sorted()
            && submissions.last().copied().unwrap_or(0) == count;
        let submissions = SmallVec::from_slice(submissions);
        is_whole.then_some(Self { bytes, ends, submissions })
    }

    /// Where in `bytes` the `count` replies from the `from`-th on are; `None` when there are not so many.
    pub fn run(&self, from: usize, count: usize) -> Option<Range<usize>> {
        let end = *self.ends.get((from + count).checked_sub(1)?)? as usize;
        let start = if from == 0 { 0 } else { self.ends[from - 1] as usize };
        (start <= end && end <= self.bytes.len()).then_some(start..end)
    }

    /// Forgets all but its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.submissions.clear();
    }

    /// Appends their bytes: `ends u32 | ends × u32 | submissions u32 | submissions × u32 (replies up to its end) |
    /// length u64 | bytes`.
    pub(super) fn encode(&self, out: &mut impl Sink) {
        for numbers in [&self.ends[..], &self.submissions] {
            codec::put_length_u32(out, numbers.len());
            for number in numbers {
                codec::put_u32(out, *number);
            }
        }
        codec::put_u64(out, self.bytes.len() as u64);
        self.bytes.put_to(0..self.bytes.len(), out);
    }

    /// The replies at the front of `message`; `None` when they are malformed.
    pub(super) fn decode(message: &Bytes) -> Option<Self> {
        let mut rest = &message[..];
        let ends = take_numbers(&mut rest)?;
        let submissions = take_numbers(&mut rest)?;
        let length = usize::try_from(codec::take_u64(&mut rest).ok()?).ok()?;
        let text = codec::take_slice(&mut rest, length).ok()?;
        Self::from_parts(Rope::from(message.slice_ref(text)), ends, &submissions)
    }

    /// A copy of the `index`-th reply.
    #[cfg(test)]
    pub(super) fn get(&self, index: usize) -> Option<Vec<u8>> {
        Some(self.bytes.bytes(self.run(index, 1)?).into_owned())
    }

    /// Replies to submissions with these texts.
    #[cfg(test)]
    pub(super) fn of(submissions: &[&[&str]]) -> Self {
        let mut replies = Self::default();
        for submission in submissions {
            for text in *submission {
                replies.bytes.put(text.as_bytes());
                replies.end();
            }
            replies.end_submission();
        }
        replies
    }
}

fn take_numbers(rest: &mut &[u8]) -> Option<Vec<u32>> {
    let bytes = codec::take_length_u32(rest).ok()?.checked_mul(4)?;
    let (numbers, _) = codec::take_slice(rest, bytes).ok()?.as_chunks();
    Some(numbers.iter().map(|number| u32::from_le_bytes(*number)).collect())
}

/// Where a connection waits for the replies of one submission. Reused from batch to batch: the buffers
/// keep their memory.
#[derive(Debug, Default)]
pub struct ReplyCell {
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
struct CellState {
    done: bool,
    replies: Replies,
    failed: Option<ErrorReply>,
    waker: Option<Waker>,
}

impl ReplyCell {
    /// An empty cell.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Fills the cell with the replies of one submission of `count` commands and wakes the connection. Fewer answer the first
    /// of these; more are an error, which only a damaged or foreign packet has.
    pub(super) fn complete(&self, all: &Replies, submission: usize, count: usize) {
        let Some(own) = all.of_submission(submission).filter(|own| own.len() <= count) else {
            return self.fail(ErrorReply::INTERNAL);
        };
        let mut state = self.state.lock();
        let state = &mut *state;
        let start = if own.start == 0 { 0 } else { all.ends[own.start - 1] };
        let ends = &all.ends[own];
        let end = ends.last().copied().unwrap_or(start);
        all.bytes.put_to(start as usize..end as usize, &mut state.replies.bytes);
        state.replies.ends.extend(ends.iter().map(|end| end - start));
        state.finish();
    }

    /// Lets every command of the submission answer `error` and wakes the connection.
    pub(super) fn fail(&self, error: ErrorReply) {
        let mut state = self.state.lock();
        state.failed = Some(error);
        state.finish();
    }

    /// Waits for the outcome and moves it to `replies`, whose memory the cell keeps for the next time.
    ///
    /// # Errors
    /// The error that answers every command of the submission.
    pub async fn take(&self, replies: &mut Replies) -> Result<(), ErrorReply> {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if !state.done {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            state.done = false;
            replies.clear();
            std::mem::swap(&mut state.replies, replies);
            Poll::Ready(state.failed.take().map_or(Ok(()), Err))
        })
        .await
    }
}

impl CellState {
    fn finish(&mut self) {
        self.done = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::rope::LENT_BYTES_MIN;

    /// Three replies, of two submissions.
    fn three() -> Replies {
        Replies::of(&[&["+OK\r\n"], &[":1\r\n", "$-1\r\n"]])
    }

    #[test]
    fn replies_know_their_ends() {
        let replies = three();
        assert_eq!(replies.get(1), Some(b":1\r\n".to_vec()));
        assert_eq!(replies.get(3), None);
    }

    #[test]
    fn replies_round_trip_and_refuse_cuts() {
        let mut bytes = Vec::new();
        three().encode(&mut bytes);
        let bytes = Bytes::from(bytes);
        assert_eq!(Replies::decode(&bytes), Some(three()));
        for length in 0..bytes.len() {
            assert_eq!(Replies::decode(&bytes.slice(..length)), None, "{length}");
        }
    }

    /// A reply of 128 MiB was copied out of the message in which it came, and again for each who it was passed to.
    #[tokio::test]
    async fn what_is_long_is_lent_from_where_it_came_to_who_waits_for_it() {
        let mut replies = Replies::default();
        for length in [10, 2 * LENT_BYTES_MIN, LENT_BYTES_MIN - 1] {
            replies.bytes.put(&vec![b'x'; length]);
            replies.end();
            replies.end_submission();
        }
        let mut message = vec![0];
        replies.encode(&mut message);
        let message = Bytes::from(message);
        let came = Replies::decode(&message.slice(1..)).unwrap();
        assert!(came == replies);
        for (submission, is_lent) in [(0, false), (1, true), (2, false)] {
            let (cell, mut own) = (ReplyCell::new(), Replies::default());
            cell.complete(&came, submission, 1);
            cell.take(&mut own).await.unwrap();
            assert_eq!(own.get(0), replies.get(submission));
            let place = own.bytes.run_at(0).as_ptr();
            assert_eq!(message.as_ptr_range().contains(&place), is_lent, "{submission}");
        }
    }

    #[test]
    fn what_is_lent_is_lent_to_the_message() {
        let value = Bytes::from(vec![b'x'; LENT_BYTES_MIN]);
        let mut replies = three();
        replies.bytes.put_shared(&value);
        replies.end();
        let mut message = Rope::new();
        replies.encode(&mut message);
        assert!(message.runs().any(|run| run.as_ptr() == value.as_ptr()));
        let mut copy = Vec::new();
        replies.encode(&mut copy);
        assert!(message.to_vec() == copy);
    }

    #[test]
    fn replies_that_do_not_fit_together_are_refused() {
        let Replies { bytes, ends, submissions } = three();
        let with = |ends: &[u32], submissions: &[u32]| {
            Replies::from_parts(bytes.clone(), ends.to_vec(), submissions)
        };
        assert_eq!(with(&ends, &submissions), Some(three()));
        assert_eq!(with(&ends[..2], &submissions), None, "bytes without an end");
        assert_eq!(with(&[9, 5, 14], &submissions), None, "an end before its begin");
        for marks in [&[][..], &[1], &[1, 4], &[2, 1, 3]] {
            assert_eq!(with(&ends, marks), None, "{marks:?}");
        }
        assert!(Replies::from_parts(Rope::new(), Vec::new(), &[]).is_some(), "of no commands");
    }

    #[tokio::test]
    async fn a_cell_takes_what_there_is_of_a_submission() {
        let mut all = three();
        all.end_submission();
        let cell = ReplyCell::new();
        for (submission, count, expected) in [(0, 1, 1), (1, 5, 2), (2, 3, 0)] {
            let mut out = Replies::default();
            cell.complete(&all, submission, count);
            assert_eq!(cell.take(&mut out).await, Ok(()));
            assert_eq!(out.ends.len(), expected);
        }
    }

    #[tokio::test]
    async fn a_cell_takes_its_part_and_can_be_used_again() {
        let cell = ReplyCell::new();
        let mut out = Replies::default();
        cell.complete(&three(), 1, 2);
        assert_eq!(cell.take(&mut out).await, Ok(()));
        assert_eq!(out.bytes.to_vec(), b":1\r\n$-1\r\n");
        assert_eq!(out.ends, [4, 9]);
        cell.complete(&three(), 0, 1);
        assert_eq!(cell.take(&mut out).await, Ok(()));
        assert_eq!(out.bytes.to_vec(), b"+OK\r\n");
        for (submission, count) in [(0, 0), (1, 1), (2, 1)] {
            cell.complete(&three(), submission, count);
            assert_eq!(cell.take(&mut out).await, Err(ErrorReply::INTERNAL));
        }
    }
}
