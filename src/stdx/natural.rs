//! mimalloc, asked in its shortest way.
//!
//! The crate's own allocator passes each layout's alignment on, and whenever the page at hand has no block ready mimalloc
//! then takes a longer block than was asked for and aligns within it, though every block is aligned to a word. One in
//! eight allocations of a SET went that way, and the rest paid for the question.
#![expect(unsafe_code, reason = "an allocator is unsafe code; this one forwards all")]

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// Every block of mimalloc is aligned to this many bytes, however small it is: its size classes are multiples of a word, and
/// the first block of a page lies at a multiple of its class (`mi_bin` and `mi_arenas_page_alloc_fresh` in its source).
const ALIGNED: usize = size_of::<usize>();

/// mimalloc. To be the global allocator.
#[derive(Clone, Copy, Debug)]
pub struct Natural;

// SAFETY: every call goes to mimalloc. What `mi_malloc` and `mi_zalloc` hand out may be given back to `mi_free` and to
// `mi_realloc_aligned`, which the crate's allocator calls, and is aligned as asked for.
unsafe impl GlobalAlloc for Natural {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: any size may be asked for.
            unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast()
        } else {
            // SAFETY: the caller's promises are its demands.
            unsafe { MiMalloc.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: any size may be asked for.
            unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast()
        } else {
            // SAFETY: the caller's promises are its demands.
            unsafe { MiMalloc.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are its demands.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are its demands.
        unsafe { MiMalloc.realloc(memory, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each size class up to the large ones, more than fill a page, each aligned, zeroed where asked for, and its own.
    #[test]
    fn blocks_of_every_size_are_aligned_and_apart() {
        for align in [1, 2, 4, 8, 16, 64] {
            for size in (1..=256).chain((257..20_000).step_by(977)) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let mut blocks = Vec::new();
                for number in 0..40_u8 {
                    // SAFETY: the size is not 0.
                    let block = unsafe {
                        if number % 2 == 0 {
                            Natural.alloc(layout)
                        } else {
                            Natural.alloc_zeroed(layout)
                        }
                    };
                    assert!(!block.is_null());
                    assert_eq!(block.addr() % align, 0, "{layout:?}");
                    // SAFETY: the block is `size` bytes long and ours.
                    let bytes = unsafe {
                        if number % 2 == 0 {
                            block.write_bytes(number, size);
                        }
                        std::slice::from_raw_parts_mut(block, size)
                    };
                    let expected = if number % 2 == 0 { number } else { 0 };
                    assert!(bytes.iter().all(|byte| *byte == expected), "{layout:?}");
                    bytes.fill(number);
                    blocks.push(block);
                }
                for (number, block) in (0_u8..).zip(blocks) {
                    // SAFETY: it was handed out above for this layout, and goes back once.
                    unsafe {
                        let block = Natural.realloc(block, layout, size + 1);
                        assert!(!block.is_null());
                        assert_eq!(block.addr() % align, 0);
                        assert!((0..size).all(|at| block.add(at).read() == number), "{layout:?}");
                        Natural.dealloc(block, Layout::from_size_align(size + 1, align).unwrap());
                    }
                }
            }
        }
    }
}
