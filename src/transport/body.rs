//! What a message says, in the pieces it comes in: words that are spelled for it, and long bytes that lie elsewhere and are
//! lent instead of copied.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;

use super::limits::LONG_BYTES_MIN;
use crate::stdx::codec::Sink;

/// The body of a message on its way out. Words are put at its end as into any [`Sink`]; what [`Sink::put_shared`] is given
/// is lent when it is long.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// All but the words at the end.
    pieces: VecDeque<Bytes>,
    words: Vec<u8>,
    bytes: usize,
}

impl Body {
    /// A body that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its length in bytes.
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it says nothing.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn lend(&mut self, bytes: Bytes) {
        self.end_words();
        self.bytes += bytes.len();
        self.pieces.push_back(bytes);
    }

    fn end_words(&mut self) {
        if !self.words.is_empty() {
            self.pieces.push_back(mem::take(&mut self.words).into());
        }
    }

    /// Appends all of it to `out`.
    pub(super) fn copy_to(&self, out: &mut Vec<u8>) {
        self.pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        out.extend_from_slice(&self.words);
    }

    /// Moves at most `bytes_max` bytes from its front to `taken` and returns how many.
    pub(super) fn take(&mut self, bytes_max: usize, taken: &mut Vec<Bytes>) -> usize {
        self.end_words();
        let before = self.bytes;
        let mut left = bytes_max.min(self.bytes);
        self.bytes -= left;
        while left > 0
            && let Some(mut piece) = self.pieces.pop_front()
        {
            if piece.len() > left {
                self.pieces.push_front(piece.split_off(left));
            }
            left -= piece.len();
            taken.push(piece);
        }
        before - self.bytes
    }
}

impl Sink for Body {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.words.extend_from_slice(bytes);
    }

    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < LONG_BYTES_MIN { self.put(bytes) } else { self.lend(bytes.clone()) }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let mut body = Self::default();
        body.lend(bytes);
        body
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from(text).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::codec::put_u32;

    #[test]
    fn whatever_is_taken_at_once_it_is_the_same_bytes() {
        let (short, long) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; LONG_BYTES_MIN]));
        let mut body = Body::new();
        for bytes in [&short, &long, &long, &short] {
            put_u32(&mut body, 7);
            body.put_shared(bytes);
        }
        let mut expected = Vec::new();
        body.copy_to(&mut expected);
        assert_eq!(expected.len(), body.len());
        for at_most in [1, 13, LONG_BYTES_MIN - 1, LONG_BYTES_MIN, usize::MAX] {
            let (mut rest, mut pieces) = (body.clone(), Vec::new());
            while !rest.is_empty() {
                let taken = pieces.len();
                let bytes = rest.take(at_most, &mut pieces);
                assert!((1..=at_most).contains(&bytes));
                assert_eq!(pieces[taken..].iter().map(Bytes::len).sum::<usize>(), bytes);
            }
            assert_eq!(pieces.concat(), expected, "{at_most} at a time");
        }
    }

    #[test]
    fn what_is_long_is_lent() {
        let long = Bytes::from(vec![2; LONG_BYTES_MIN]);
        let mut body = Body::new();
        put_u32(&mut body, 7);
        body.put_shared(&long);
        let mut pieces = Vec::new();
        body.take(usize::MAX, &mut pieces);
        assert_eq!(pieces[1].as_ptr(), long.as_ptr());
    }
}
