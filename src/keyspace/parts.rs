//! Writing a value part by part.
//!
//! An entry is spelled as a head and the elements of its value, one after the other. A [`Cursor`] says how much of
//! that is written, to the byte; whoever writes goes on from there as often as he likes. It holds places, not
//! references, and is good as long as the value does not change.
//!
//! The same words, in another [`Spelling`], make the digest of an entry.

use xxhash_rust::xxh3::Xxh3;

use crate::stdx::codec::Sink;

use super::StreamId;

/// What an entry is spelled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// To be read again: with the form of the value.
    Snapshot,
    /// To be compared: strings that say the same are spelled the same.
    Digest,
}

/// Where elements go.
pub(super) trait Elements: Sink {
    /// The next element begins, of which `written` bytes were written before. `false` when there is no room for any.
    fn begin(&mut self, written: usize) -> bool;

    /// How many bytes of the element are written by now, unless that is all of it.
    fn cut(&self) -> Option<usize>;
}

impl Sink for Xxh3 {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

/// A hash has room for everything.
impl Elements for Xxh3 {
    fn begin(&mut self, _written: usize) -> bool {
        true
    }

    fn cut(&self) -> Option<usize> {
        None
    }
}

/// A sink that takes so many bytes and no more.
#[derive(Debug)]
pub(super) struct Window<'a, S> {
    sink: &'a mut S,
    room: usize,
    /// How much of what is put was written before.
    skip: usize,
    /// How many bytes of the element are written, by others before included.
    written: usize,
    is_cut: bool,
}

impl<'a, S: Sink> Window<'a, S> {
    /// Takes at most `room` bytes into `sink`.
    pub(super) fn new(sink: &'a mut S, room: usize) -> Self {
        Self { sink, room, skip: 0, written: 0, is_cut: false }
    }

    /// How much room is left.
    pub(super) fn room(&self) -> usize {
        self.room
    }
}

impl<S: Sink> Sink for Window<'_, S> {
    fn put(&mut self, bytes: &[u8]) {
        let Some(bytes) = bytes.get(self.skip..) else {
            self.skip -= bytes.len();
            return;
        };
        self.skip = 0;
        let fits = bytes.len().min(self.room);
        self.sink.put(&bytes[..fits]);
        self.room -= fits;
        self.written += fits;
        self.is_cut |= fits < bytes.len();
    }
}

impl<S: Sink> Elements for Window<'_, S> {
    fn begin(&mut self, written: usize) -> bool {
        (self.skip, self.written, self.is_cut) = (written, written, false);
        self.room > 0
    }

    fn cut(&self) -> Option<usize> {
        self.is_cut.then_some(self.written)
    }
}

/// How much of an entry is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    has_head: bool,
    /// The run of a list that comes next.
    pub(super) run: usize,
    /// The block of a stream that comes next, or one after it.
    pub(super) block: StreamId,
    /// The element that comes next, of the run or block where there are such.
    pub(super) element: usize,
    /// How many bytes of the head or of the next element are written.
    byte: usize,
}

impl Cursor {
    /// Whether nothing is written.
    pub(super) fn is_at_start(self) -> bool {
        self == Self::default()
    }

    /// Puts what `spell` spells, unless it was written before: all that comes before the elements. Whether it is written
    /// now.
    pub(super) fn put_head<S: Elements>(
        &mut self,
        sink: &mut S,
        spell: impl FnOnce(&mut S),
    ) -> bool {
        self.has_head = self.has_head || self.put(sink, spell);
        self.has_head
    }

    /// Puts the element that `spell` spells. Whether it is written now, and the next one may follow.
    pub(super) fn put_element<S: Elements>(
        &mut self,
        sink: &mut S,
        spell: impl FnOnce(&mut S),
    ) -> bool {
        let is_written = self.put(sink, spell);
        self.element += usize::from(is_written);
        is_written
    }

    fn put<S: Elements>(&mut self, sink: &mut S, spell: impl FnOnce(&mut S)) -> bool {
        if !sink.begin(self.byte) {
            return false;
        }
        spell(sink);
        let cut = sink.cut();
        self.byte = cut.unwrap_or(0);
        cut.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::codec;

    /// However it is cut, the same bytes come out, and never more at once than there is room.
    #[test]
    fn elements_are_cut_at_any_byte() {
        let elements = [&b""[..], b"a", b"bcd", &[b'e'; 300]];
        let spell = |cursor: &mut Cursor, out: &mut Vec<u8>, room: usize| {
            let mut window = Window::new(out, room);
            cursor.put_head(&mut window, |sink| codec::put_length(sink, elements.len()))
                && elements[cursor.element..].iter().all(|element| {
                    cursor.put_element(&mut window, |sink| codec::put_bytes(sink, element))
                })
        };
        let mut whole = Vec::new();
        assert!(spell(&mut Cursor::default(), &mut whole, usize::MAX));
        assert_eq!(whole.len(), 1 + 1 + 2 + 4 + 302);
        for room in 1..=whole.len() {
            let (mut cursor, mut out) = (Cursor::default(), Vec::new());
            assert!(!spell(&mut cursor, &mut out, 0) && cursor.is_at_start() && out.is_empty());
            loop {
                let before = out.len();
                let is_done = spell(&mut cursor, &mut out, room);
                assert!(out.len() - before <= room);
                if is_done {
                    break;
                }
                assert_eq!(out.len() - before, room);
            }
            assert_eq!(out, whole, "{room} at a time");
        }
    }
}
