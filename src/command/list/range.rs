//! Indexes as clients write them: negative ones count from the end.

use std::ops::Range;

/// The index that `index` means in a list of `len` elements; `None` when it is before the first. It may be
/// behind the last.
pub(super) fn index_of(index: i64, len: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// The elements from `start` to `stop`, both included, of a list of `len` elements.
pub(super) fn range_of(start: i64, stop: i64, len: usize) -> Range<usize> {
    let start = index_of(start, len).unwrap_or(0);
    let end = index_of(stop, len).map_or(0, |stop| stop.saturating_add(1)).min(len);
    start.min(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_indexes_count_from_the_end() {
        let rows = [
            ((0, -1), 0..3),
            ((0, 0), 0..1),
            ((1, 1), 1..2),
            ((-2, -1), 1..3),
            ((-100, 100), 0..3),
            ((2, 1), 2..2),
            ((3, 5), 3..3),
            ((-1, -3), 1..1),
            ((i64::MIN, i64::MAX), 0..3),
            ((0, i64::MIN), 0..0),
            ((0, -4), 0..0),
        ];
        for ((start, stop), expected) in rows {
            assert_eq!(range_of(start, stop, 3), expected, "{start} {stop}");
        }
        assert_eq!(range_of(0, -1, 0), 0..0);
        assert_eq!((index_of(-3, 3), index_of(-4, 3), index_of(9, 3)), (Some(0), None, Some(9)));
    }
}
