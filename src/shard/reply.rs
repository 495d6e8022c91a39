//! Encoded replies on their way back: from apply to the connection that waits.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::resp::ErrorReply;

/// Encoded replies of several commands, and where each ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    /// The replies' bytes, one after the other.
    pub bytes: Vec<u8>,
    /// End offset of each reply in `bytes`.
    pub ends: Vec<u32>,
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

    /// The `index`-th reply's bytes.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.run(index, 1)
    }

    /// The bytes of `count` replies from the `from`-th on; `None` when there are not so many.
    pub fn run(&self, from: usize, count: usize) -> Option<&[u8]> {
        let end = *self.ends.get((from + count).checked_sub(1)?)? as usize;
        let start = if from == 0 { 0 } else { self.ends[from - 1] as usize };
        self.bytes.get(start..end)
    }

    /// Appends their bytes: `ends u32 | ends × u32 | length u64 | bytes`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let count =
            u32::try_from(self.ends.len()).expect("the commands of a packet are below 4 Gi");
        out.extend_from_slice(&count.to_le_bytes());
        for end in &self.ends {
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    /// The replies at the front of `bytes`; `None` when they are malformed.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (count, mut rest) = bytes.split_first_chunk()?;
        let count = u32::from_le_bytes(*count) as usize;
        if rest.len() < count.checked_mul(4)? {
            return None;
        }
        let mut ends = Vec::with_capacity(count);
        let mut previous = 0;
        for _ in 0..count {
            let (end, tail) = rest.split_first_chunk()?;
            let end = u32::from_le_bytes(*end);
            if end < previous {
                return None;
            }
            previous = end;
            ends.push(end);
            rest = tail;
        }
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        if rest.len() < length || length != previous as usize {
            return None;
        }
        let (body, tail) = rest.split_at(length);
        *bytes = tail;
        Some(Self { bytes: body.to_vec(), ends })
    }
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

    /// Fills the cell with replies `from..from + count` of `all` and wakes the connection.
    pub(super) fn complete(&self, all: &Replies, from: usize, count: usize) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let start = if from == 0 { 0 } else { all.ends[from - 1] };
        let ends = &all.ends[from..from + count];
        let end = ends.last().copied().unwrap_or(start);
        state.replies.bytes.extend_from_slice(&all.bytes[start as usize..end as usize]);
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
            replies.bytes.clear();
            replies.ends.clear();
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

    fn three() -> Replies {
        let mut replies = Replies::default();
        for text in ["+OK\r\n", ":1\r\n", "$-1\r\n"] {
            replies.bytes.extend_from_slice(text.as_bytes());
            replies.end();
        }
        replies
    }

    #[test]
    fn replies_know_their_ends() {
        let replies = three();
        assert_eq!(replies.get(1), Some(&b":1\r\n"[..]));
        assert_eq!(replies.get(3), None);
    }

    #[test]
    fn replies_round_trip_and_refuse_cuts() {
        let mut bytes = Vec::new();
        three().encode(&mut bytes);
        assert_eq!(Replies::decode(&mut bytes.as_slice()), Some(three()));
        for length in 0..bytes.len() {
            assert_eq!(Replies::decode(&mut &bytes[..length]), None, "{length}");
        }
    }

    #[tokio::test]
    async fn a_cell_takes_its_part_and_can_be_used_again() {
        let cell = ReplyCell::new();
        let mut out = Replies::default();
        cell.complete(&three(), 1, 2);
        assert_eq!(cell.take(&mut out).await, Ok(()));
        assert_eq!((out.get(0), out.get(1)), (Some(&b":1\r\n"[..]), Some(&b"$-1\r\n"[..])));
        cell.complete(&three(), 0, 1);
        assert_eq!(cell.take(&mut out).await, Ok(()));
        assert_eq!(out.bytes, b"+OK\r\n");
    }
}
