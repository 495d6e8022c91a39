//! How much memory this process has been given, by the truth of its allocator, and how much it may have.
//!
//! What counts is what was asked for and not given back, in bytes: not the pages behind it, which an allocator keeps for a
//! while and rounds up, by some 10 %.
#![expect(unsafe_code, reason = "an allocator can only be watched by being one; it forwards all")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// An allocator whose bytes are counted: see [`used`]. To be the global one.
///
/// Cost: eight instructions each time memory is asked for or given back, none of which another processor hears of, but for
/// the threads that come when `OWN_STRIPES` have.
#[derive(Debug)]
pub struct Counted<A>(pub A);

/// Threads that have a place to count at of their own, the first to ask: an atomic addition takes longer than all else here.
/// Those that come later share one. Any number is right.
const OWN_STRIPES: usize = 63;

/// Bytes of memory that processors hand about as one, twice: they fetch in pairs.
#[repr(align(128))]
struct Stripe(AtomicI64);

static COUNTS: [Stripe; OWN_STRIPES + 1] = [const { Stripe(AtomicI64::new(0)) }; OWN_STRIPES + 1];
static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Where this thread counts, once it has. Needs no memory and no destructor, so that the allocator may look at it at
    /// any time.
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn count(bytes: i64) {
    let stripe = STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT_STRIPE.fetch_add(1, Ordering::Relaxed).min(OWN_STRIPES));
        }
        stripe.get()
    });
    let count = &COUNTS[stripe].0;
    if stripe < OWN_STRIPES {
        // Nobody else writes it.
        count.store(count.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    } else {
        count.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A layout's size fits: it is at most `isize::MAX`.
fn size(layout: Layout) -> i64 {
    layout.size().cast_signed() as i64
}

// Never inline: there are some ten thousand places where memory is given back, and with all of this at each of them the
// program has half a megabyte more of code, and is slower by what then no longer stays in the processor's caches.
//
// SAFETY: every call goes to the allocator inside unchanged; counting neither allocates nor panics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are its demands.
        let memory = unsafe { self.0.alloc(layout) };
        if !memory.is_null() {
            count(size(layout));
        }
        memory
    }

    #[inline(never)]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: the caller's promises are its demands.
        unsafe { self.0.dealloc(memory, layout) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are its demands.
        let memory = unsafe { self.0.alloc_zeroed(layout) };
        if !memory.is_null() {
            count(size(layout));
        }
        memory
    }

    #[inline(never)]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are its demands.
        let moved = unsafe { self.0.realloc(memory, layout, new_size) };
        if !moved.is_null() {
            count(new_size.cast_signed() as i64 - size(layout));
        }
        moved
    }
}

/// Bytes that the process has been given and has not given back; 0 where its allocator is not [`Counted`].
pub fn used() -> u64 {
    let sum: i64 = COUNTS.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or(0)
}

/// How much memory the process may take for what its clients store.
pub struct Budget {
    /// In bytes; 0: no limit.
    limit: AtomicU64,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("room", &self.room()).finish()
    }
}

impl Budget {
    /// A budget of `bytes`; 0: no limit.
    pub fn of(bytes: u64) -> Self {
        Self { limit: AtomicU64::new(bytes) }
    }

    /// It is `bytes` from now on.
    pub fn set(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that are left; `u64::MAX` without a limit.
    pub fn room(&self) -> u64 {
        match self.limit.load(Ordering::Relaxed) {
            0 => u64::MAX,
            limit => limit.saturating_sub(used()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::thread;

    use parking_lot::Mutex;

    use super::*;

    /// There is one count, of everything in the process.
    static COUNTING: Mutex<()> = Mutex::new(());

    /// Not the allocator of this process: what it counts is what this test asks it for.
    #[test]
    fn what_is_given_and_given_back_is_counted_over_threads() {
        let _alone = COUNTING.lock();
        let allocator = Counted(System);
        let before = used();
        let layout = Layout::from_size_align(1 << 20, 16).unwrap();
        // SAFETY: the layout has a size, and what is freed below was made by the same allocator.
        let address = unsafe { allocator.alloc_zeroed(layout) } as usize;
        assert_eq!(used() - before, 1 << 20);
        thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: as above; the block is this thread's alone.
                let moved = unsafe { allocator.realloc(address as *mut u8, layout, 3 << 20) };
                assert_eq!(used() - before, 3 << 20);
                let layout = Layout::from_size_align(3 << 20, 16).unwrap();
                // SAFETY: as above.
                unsafe { allocator.dealloc(moved, layout) };
            });
        });
        assert_eq!(used(), before);
    }

    #[test]
    fn threads_without_a_place_of_their_own_are_counted() {
        let _alone = COUNTING.lock();
        let allocator = Counted(System);
        let layout = Layout::from_size_align(1 << 10, 16).unwrap();
        let before = used();
        thread::scope(|scope| {
            for _ in 0..2 * OWN_STRIPES {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        // SAFETY: the layout has a size, and what is freed was made by the same allocator.
                        unsafe {
                            let memory = allocator.alloc(layout);
                            allocator.dealloc(memory, layout);
                        }
                    }
                    // SAFETY: as above; it is kept.
                    assert!(!unsafe { allocator.alloc(layout) }.is_null());
                });
            }
        });
        assert_eq!(used() - before, 2048 * OWN_STRIPES as u64);
    }

    #[test]
    fn a_budget_has_room_up_to_its_limit() {
        let budget = Budget::of(0);
        assert_eq!(budget.room(), u64::MAX);
        budget.set(1 << 60);
        assert!(budget.room() <= 1 << 60);
    }
}
