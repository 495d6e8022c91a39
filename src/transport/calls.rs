//! The table of calls that wait for an answer.
//!
//! A slab: a request id is (generation, index), so finding a call takes no hashing and a late answer to a call that has
//! timed out never meets another call.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::TransportError;
use super::limits::CALL_TIMEOUT_MAX;

/// Where an answer goes.
pub(super) type Caller = oneshot::Sender<Result<Bytes, TransportError>>;

/// The open calls of one client.
#[derive(Debug)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    /// Indexes of empty slots.
    free: Vec<u32>,
    count_max: usize,
    /// No open call has an earlier deadline. It may be too early: calls end without updating it.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    call: Option<OpenCall>,
}

#[derive(Debug)]
struct OpenCall {
    caller: Caller,
    deadline: Instant,
}

impl Calls {
    pub(super) const fn new(count_max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), count_max, earliest: None }
    }

    /// How many calls are open.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a call that times out `timeout` after `now` and returns its request id; `None` when the table is full.
    pub(super) fn insert(
        &mut self,
        caller: Caller,
        now: Instant,
        timeout: Duration,
    ) -> Option<u64> {
        let index = self.free_slot()?;
        let deadline = now + timeout.min(CALL_TIMEOUT_MAX);
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        let slot = &mut self.slots[usize::try_from(index).ok()?];
        slot.generation = slot.generation.wrapping_add(1);
        slot.call = Some(OpenCall { caller, deadline });
        Some((u64::from(slot.generation) << 32) | u64::from(index))
    }

    /// Takes a call out; `None` when it has ended before.
    pub(super) fn remove(&mut self, request: u64) -> Option<Caller> {
        let index = u32::try_from(request & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get_mut(usize::try_from(index).ok()?)?;
        let call = slot.call.take_if(|_| u64::from(slot.generation) == request >> 32)?;
        self.free.push(index);
        Some(call.caller)
    }

    /// Takes out every call, in no particular order.
    pub(super) fn remove_all(&mut self) -> Vec<Caller> {
        self.remove_where(|_| true)
    }

    /// Takes out the calls whose deadline has passed.
    ///
    /// Looks at every slot, but only when the earliest deadline has passed: at most once per shortest timeout.
    pub(super) fn remove_expired(&mut self, now: Instant) -> Vec<Caller> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        self.remove_where(|call| call.deadline <= now)
    }

    /// No deadline passes before this; `None` when no call is open.
    pub(super) const fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        if self.slots.len() >= self.count_max {
            return None;
        }
        self.slots.push(Slot { generation: 0, call: None });
        Some(index)
    }

    fn remove_where(&mut self, is_over: impl Fn(&OpenCall) -> bool) -> Vec<Caller> {
        let mut removed = Vec::new();
        self.earliest = None;
        for (index, slot) in (0u32..).zip(&mut self.slots) {
            if let Some(call) = slot.call.take_if(|call| is_over(call)) {
                self.free.push(index);
                removed.push(call.caller);
            } else if let Some(call) = &slot.call {
                let deadline = call.deadline;
                self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn caller() -> Caller {
        oneshot::channel().0
    }

    #[tokio::test]
    async fn a_late_answer_never_meets_another_call() {
        let mut calls = Calls::new(10);
        let now = Instant::now();
        let first = calls.insert(caller(), now, SECOND).unwrap();
        assert!(calls.remove(first).is_some());
        let second = calls.insert(caller(), now, SECOND).unwrap();
        assert_ne!(first, second);
        assert!(calls.remove(first).is_none());
        assert!(calls.remove(u64::MAX).is_none());
        assert!(calls.remove(second).is_some());
        assert_eq!(calls.len(), 0);
    }

    #[tokio::test]
    async fn the_table_has_a_limit() {
        let mut calls = Calls::new(2);
        let now = Instant::now();
        let first = calls.insert(caller(), now, SECOND).unwrap();
        assert!(calls.insert(caller(), now, SECOND).is_some());
        assert!(calls.insert(caller(), now, SECOND).is_none());
        assert!(calls.remove(first).is_some());
        assert!(calls.insert(caller(), now, SECOND).is_some());
    }

    #[tokio::test]
    async fn only_expired_calls_are_taken_out() {
        let mut calls = Calls::new(10);
        let now = Instant::now();
        for seconds in [3, 1, 2] {
            calls.insert(caller(), now, SECOND * seconds).unwrap();
        }
        assert_eq!(calls.earliest_deadline(), Some(now + SECOND));
        assert_eq!(calls.remove_expired(now).len(), 0);
        assert_eq!(calls.remove_expired(now + SECOND * 2).len(), 2);
        assert_eq!(calls.earliest_deadline(), Some(now + SECOND * 3));
        assert_eq!(calls.remove_all().len(), 1);
        assert_eq!((calls.len(), calls.earliest_deadline()), (0, None));
    }

    #[tokio::test]
    async fn an_endless_timeout_is_cut() {
        let mut calls = Calls::new(1);
        assert!(calls.insert(caller(), Instant::now(), Duration::MAX).is_some());
    }
}
