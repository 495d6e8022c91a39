//! A run of a list: what goes into it, at which end, and what is taken out of it.

use super::End;
use crate::keyspace::packed::Packed;

/// The size of a run in bytes; an element that is larger has a run of its own.
pub(super) const CHUNK_BYTES_MAX: usize = 4096;

/// A run of `element` alone.
pub(super) fn of(element: &[u8]) -> Packed {
    let mut chunk = Packed::new();
    chunk.push_back(element);
    chunk
}

/// The same, with room for others before it: it is filled from its end toward its beginning.
pub(super) fn growing_forward(element: &[u8]) -> Packed {
    let mut chunk = Packed::new();
    chunk.push_front(element);
    chunk
}

/// Adds `element` at the tail; whether there was room.
pub(super) fn push_back(chunk: &mut Packed, element: &[u8]) -> bool {
    let cost = Packed::cost(element);
    if chunk.reach_bytes() + cost > CHUNK_BYTES_MAX {
        // The end of the allocation is reached. Moving pays only where half of it became free.
        if chunk.used_bytes() + cost > CHUNK_BYTES_MAX / 2 {
            return false;
        }
        chunk.move_to_front();
    }
    chunk.push_back(element);
    true
}

/// Adds `element` at the head; whether there was room. A run that grew at its tail has none, and making it moves the run:
/// that pays only for a short one.
pub(super) fn push_front(chunk: &mut Packed, element: &[u8]) -> bool {
    let cost = Packed::cost(element);
    let (used, is_free) = (chunk.used_bytes(), cost <= chunk.free_front_bytes());
    if used + cost > CHUNK_BYTES_MAX || !(is_free || used <= CHUNK_BYTES_MAX / 2) {
        return false;
    }
    chunk.push_front(element);
    true
}

/// Removes elements equal to `element`, at most `limit` of them, beginning at `from`. Returns how many were removed; the
/// run may be empty then.
pub(super) fn remove_equal(chunk: &mut Packed, element: &[u8], limit: usize, from: End) -> usize {
    // One pass finds, one pass copies: removing one by one would be quadratic in the run.
    let is_equal = |(_, other): &(usize, &[u8])| *other == element;
    let mut places: Vec<usize> = match from {
        End::Left => {
            chunk.iter().enumerate().filter(is_equal).take(limit).map(|(at, _)| at).collect()
        }
        End::Right => {
            chunk.iter().enumerate().rev().filter(is_equal).take(limit).map(|(at, _)| at).collect()
        }
    };
    if places.is_empty() {
        return 0;
    }
    places.sort_unstable();
    let mut kept = Packed::new();
    for (at, other) in chunk.iter().enumerate() {
        if places.binary_search(&at).is_err() {
            kept.push_back(other);
        }
    }
    *chunk = kept;
    places.len()
}
