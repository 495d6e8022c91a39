//! Bytes that are put one behind the other and go on as they came: short ones copied, long ones lent.
//!
//! A reply passes many hands between the value that it quotes and the socket. In a [`Rope`] what is short lies in one
//! piece of memory, as in a vector, and what is long stays where it was, with its place noted. A rope in which nothing is
//! lent, as nearly all, is a vector and a null.
//!
//! **Invariant:** what is lent is not shorter than [`LENT_BYTES_MIN`], and where it is a part of something much larger, for
//! which it keeps all of that in memory, not shorter than [`PART_COPIED_BYTES_MAX`]: see [`is_worth_lending`].

use std::borrow::Cow;
use std::fmt;
use std::iter;
use std::mem;
use std::ops::Range;

use bytes::Bytes;

use super::codec::Sink;

/// The shortest piece that is lent. To copy as much takes a few microseconds; so does what a piece costs by itself, with a
/// count to be kept and a place of its own wherever it goes.
pub const LENT_BYTES_MIN: usize = 64 * 1024;

/// The longest part that is copied out of a whole of more than twice its length. To copy it takes some milliseconds; to
/// lend it would keep the whole for as long as somebody is slow to read the part. A longer one does, and that is of the
/// largest value 64 times as much.
pub const PART_COPIED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Whether a part of a whole is lent, by their lengths: what is short is copied, and so is what is little beside the rest.
#[inline]
pub const fn is_worth_lending(part: usize, whole: usize) -> bool {
    part >= LENT_BYTES_MIN && (part >= whole / 2 || part > PART_COPIED_BYTES_MAX)
}

/// Bytes in order, of which long runs may be lent.
#[derive(Clone, Default)]
pub struct Rope {
    /// What is not lent.
    own: Vec<u8>,
    /// What is, if anything.
    lent: Option<Box<Lent>>,
}

#[derive(Clone, Default)]
struct Lent {
    /// In order; none is empty.
    pieces: Vec<Piece>,
    /// Bytes of all of them.
    bytes: usize,
}

#[derive(Clone)]
struct Piece {
    /// Where in the rope it begins.
    start: usize,
    /// How many of the rope's own bytes are before it.
    own_before: usize,
    bytes: Bytes,
}

/// Bytes from some place on that lie together.
enum Run<'a> {
    Own(&'a [u8]),
    /// From this offset in these bytes on.
    Lent(&'a Bytes, usize),
}

impl Rope {
    /// A rope of nothing.
    pub const fn new() -> Self {
        Self { own: Vec::new(), lent: None }
    }

    /// Its length in bytes, with what is lent.
    #[inline]
    pub fn len(&self) -> usize {
        self.own.len() + self.lent.as_ref().map_or(0, |lent| lent.bytes)
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all bytes away but keeps the memory of those that are its own.
    #[inline]
    pub fn clear(&mut self) {
        self.own.clear();
        self.lent = None;
    }

    /// Gives memory for its own bytes back, but for so many.
    #[inline]
    pub fn shrink_to(&mut self, bytes: usize) {
        self.own.shrink_to(bytes);
    }

    /// Its bytes, if none are lent.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        if self.lent.is_none() { Some(&self.own) } else { None }
    }

    /// The longest run of bytes from the offset `at` on that lie together; none at the end.
    ///
    /// # Panics
    /// Beyond the end.
    #[inline]
    pub fn run_at(&self, at: usize) -> &[u8] {
        match self.run(at) {
            Run::Own(bytes) => bytes,
            Run::Lent(bytes, from) => &bytes[from..],
        }
    }

    /// Its bytes in order, in runs that lie together.
    pub fn runs(&self) -> impl Iterator<Item = &[u8]> {
        self.runs_from(0)
    }

    /// Its bytes from the offset `at` on, in such runs.
    pub fn runs_from(&self, mut at: usize) -> impl Iterator<Item = &[u8]> {
        iter::from_fn(move || {
            let run = self.run_at(at);
            at += run.len();
            (!run.is_empty()).then_some(run)
        })
    }

    /// The bytes of `part`; copied where they do not lie together.
    ///
    /// # Panics
    /// When that is beyond the end.
    #[inline]
    pub fn bytes(&self, part: Range<usize>) -> Cow<'_, [u8]> {
        let run = self.run_at(part.start);
        if let Some(bytes) = run.get(..part.len()) {
            return Cow::Borrowed(bytes);
        }
        let mut bytes = Vec::with_capacity(part.len());
        self.put_to(part, &mut bytes);
        Cow::Owned(bytes)
    }

    /// Whether it begins with `prefix`.
    pub fn starts_with(&self, prefix: &[u8]) -> bool {
        self.len() >= prefix.len() && *self.bytes(0..prefix.len()) == *prefix
    }

    /// Copies all of it.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes(0..self.len()).into_owned()
    }

    /// A rope of the bytes of `part`, as far as that is worth while lent by whoever has lent them to this one.
    ///
    /// # Panics
    /// As [`Self::put_to`].
    #[must_use]
    pub fn part(&self, part: Range<usize>) -> Self {
        let mut rope = Self::new();
        self.put_to(part, &mut rope);
        rope
    }

    /// Puts the bytes of `part` into `sink`, which may share what is lent of them; its own are copied.
    ///
    /// # Panics
    /// When that is beyond the end.
    #[inline]
    pub fn put_to<S: Sink>(&self, part: Range<usize>, sink: &mut S) {
        if self.lent.is_none() {
            return sink.put(&self.own[part]);
        }
        self.put_runs_to(part, is_worth_lending, sink);
    }

    /// As [`Self::put_to`], for whoever shares all of it out to one sink: what is long is lent, however little it is beside
    /// the rest, for that is kept in memory anyway.
    ///
    /// # Panics
    /// When that is beyond the end.
    pub fn share_out<S: Sink>(&self, part: Range<usize>, sink: &mut S) {
        self.put_runs_to(part, |part, _| part >= LENT_BYTES_MIN, sink);
    }

    #[cold]
    fn put_runs_to<S: Sink>(
        &self,
        part: Range<usize>,
        is_worth_lending: impl Fn(usize, usize) -> bool,
        sink: &mut S,
    ) {
        assert!(part.end <= self.len(), "no part of it ends there");
        let mut at = part.start;
        while at < part.end {
            let at_most = part.end - at;
            at += match self.run(at) {
                Run::Own(bytes) => {
                    let bytes = &bytes[..bytes.len().min(at_most)];
                    sink.put(bytes);
                    bytes.len()
                }
                Run::Lent(whole, from) => {
                    let upto = whole.len().min(from + at_most);
                    if is_worth_lending(upto - from, whole.len()) {
                        sink.put_shared(&whole.slice(from..upto));
                    } else {
                        sink.put(&whole[from..upto]);
                    }
                    upto - from
                }
            };
        }
    }

    /// Moves all of `other` to its end.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        other.put_to(0..other.len(), self);
        other.clear();
    }

    /// Has it that long runs of its own bytes are lent, too, from now on. To be called where it is not put to any more and
    /// others take parts of it: they would copy these.
    #[inline]
    pub fn freeze(&mut self) {
        if self.own.len() >= LENT_BYTES_MIN {
            self.freeze_own();
        }
    }

    #[cold]
    fn freeze_own(&mut self) {
        let Self { own, lent } = mem::take(self);
        let own = Bytes::from(own);
        let mut from = 0;
        for Piece { own_before, bytes, .. } in lent.into_iter().flat_map(|lent| lent.pieces) {
            self.put_own(&own, from..own_before);
            self.lend(bytes);
            from = own_before;
        }
        self.put_own(&own, from..own.len());
    }

    /// Puts a run of what was its own. Whoever takes a part of it later sees how long the run is, and no longer the whole.
    fn put_own(&mut self, own: &Bytes, run: Range<usize>) {
        if is_worth_lending(run.len(), own.len()) {
            self.lend(own.slice(run));
        } else {
            self.put(&own[run]);
        }
    }

    #[cold]
    fn lend(&mut self, bytes: Bytes) {
        let (start, own_before) = (self.len(), self.own.len());
        let lent = self.lent.get_or_insert_default();
        lent.bytes += bytes.len();
        lent.pieces.push(Piece { start, own_before, bytes });
    }

    #[inline]
    fn run(&self, at: usize) -> Run<'_> {
        match &self.lent {
            None => Run::Own(&self.own[at..]),
            Some(lent) => self.run_among(lent, at),
        }
    }

    fn run_among<'a>(&'a self, lent: &'a Lent, at: usize) -> Run<'a> {
        let ended = lent.pieces.partition_point(|piece| piece.start + piece.bytes.len() <= at);
        match lent.pieces.get(ended) {
            Some(piece) if piece.start <= at => Run::Lent(&piece.bytes, at - piece.start),
            Some(piece) => {
                let from = piece.own_before - (piece.start - at);
                Run::Own(&self.own[from..piece.own_before])
            }
            None => Run::Own(&self.own[at - lent.bytes..]),
        }
    }
}

/// Shares what is long and copies what is short.
impl Sink for Rope {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.own.extend_from_slice(bytes);
    }

    #[inline]
    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < LENT_BYTES_MIN { self.put(bytes) } else { self.lend(bytes.clone()) }
    }

    #[inline]
    fn reserve(&mut self, bytes: usize) {
        self.own.reserve(bytes);
    }
}

impl From<Vec<u8>> for Rope {
    /// Without a copy; what is long is lent.
    fn from(own: Vec<u8>) -> Self {
        let mut rope = Self { own, lent: None };
        rope.freeze();
        rope
    }
}

impl From<Bytes> for Rope {
    /// What is short is copied.
    fn from(bytes: Bytes) -> Self {
        let mut rope = Self::new();
        rope.put_shared(&bytes);
        rope
    }
}

/// Ropes are equal when they say the same.
impl PartialEq for Rope {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let mut at = 0;
        while at < self.len() {
            let (mine, its) = (self.run_at(at), other.run_at(at));
            let length = mine.len().min(its.len());
            if mine[..length] != its[..length] {
                return false;
            }
            at += length;
        }
        true
    }
}

impl Eq for Rope {}

impl fmt::Debug for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lent: Vec<usize> = self
            .lent
            .iter()
            .flat_map(|lent| lent.pieces.iter().map(|piece| piece.bytes.len()))
            .collect();
        write!(f, "b\"{}\" with {lent:?} lent", self.own.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(byte: u8, length: usize) -> Bytes {
        Bytes::from(vec![byte; length])
    }

    /// Short, lent, short, lent, lent, short; and the same bytes as a vector.
    fn mixed() -> (Rope, Vec<u8>) {
        let (mut rope, mut copy) = (Rope::new(), Vec::new());
        let pieces: [&[Bytes]; 3] = [
            &[long(1, LENT_BYTES_MIN)],
            &[long(2, LENT_BYTES_MIN + 7), long(3, 2 * LENT_BYTES_MIN)],
            &[],
        ];
        for (number, pieces) in (b'a'..).zip(pieces) {
            let text = [number; 5];
            rope.put(&text);
            copy.put(&text);
            for piece in pieces {
                rope.put_shared(piece);
                copy.put_shared(piece);
            }
        }
        (rope, copy)
    }

    fn lent_at(rope: &Rope) -> Vec<(usize, *const u8)> {
        let pieces = rope.lent.iter().flat_map(|lent| &lent.pieces);
        pieces.map(|piece| (piece.start, piece.bytes.as_ptr())).collect()
    }

    #[test]
    fn nearly_all_are_a_vector_and_a_null() {
        assert_eq!(size_of::<Rope>(), size_of::<Vec<u8>>() + size_of::<usize>());
        let mut rope = Rope::new();
        rope.put(b"+OK\r\n");
        rope.put_shared(&long(1, LENT_BYTES_MIN - 1));
        assert!(rope.as_slice().is_some(), "what is short is copied");
    }

    #[test]
    fn it_says_the_same_as_a_copy() {
        let (rope, copy) = mixed();
        assert_eq!(rope.len(), copy.len());
        assert_eq!(rope.runs().map(<[u8]>::len).sum::<usize>(), copy.len());
        assert_eq!(rope.runs().count(), 6);
        assert!(rope.runs_from(7).collect::<Vec<_>>().concat() == copy[7..]);
        assert!(rope.to_vec() == copy);
        assert!(rope.run_at(rope.len()).is_empty());
        assert!(rope.as_slice().is_none());
        let mut other = Rope::new();
        other.put(&copy);
        assert!(rope == other);
        assert!(other == rope);
        other.put(b"x");
        assert!(rope != other);
        let mut last = copy.clone();
        *last.last_mut().unwrap() ^= 1;
        assert!(rope != Rope::from(last));
        assert!(rope.starts_with(&copy[..LENT_BYTES_MIN + 9]) && !rope.starts_with(b"b"));
        assert!(!Rope::new().starts_with(b"b"));
    }

    /// At every place where a run begins or ends, and one beside it.
    #[test]
    fn any_part_says_the_same_as_a_copy_of_it() {
        let (rope, copy) = mixed();
        let mut at = 0;
        let ends = rope.runs().map(|run| {
            at += run.len();
            at
        });
        let places: Vec<usize> = iter::once(0)
            .chain(ends)
            .flat_map(|end| [end.saturating_sub(1), end, (end + 1).min(copy.len())])
            .collect();
        for &from in &places {
            for &upto in places.iter().filter(|upto| **upto >= from) {
                assert!(rope.part(from..upto).to_vec() == copy[from..upto], "{from}..{upto}");
                assert!(*rope.bytes(from..upto) == copy[from..upto], "{from}..{upto}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "no part of it ends there")]
    fn a_part_beyond_the_end_is_a_bug() {
        let (rope, copy) = mixed();
        let _beyond = rope.part(0..copy.len() + 1);
    }

    #[test]
    fn what_is_lent_is_lent_on() {
        let (rope, copy) = mixed();
        let mut all = Rope::new();
        all.put(b"x");
        all.append(&mut rope.clone());
        let expected: Vec<_> = lent_at(&rope).iter().map(|&(at, bytes)| (at + 1, bytes)).collect();
        assert_eq!(lent_at(&all), expected);
        assert!(all.to_vec()[1..] == copy);
        let part = rope.part(3..5 + LENT_BYTES_MIN);
        assert_eq!(lent_at(&part), [(2, lent_at(&rope)[0].1)]);
        assert!(lent_at(&rope.part(6..5 + LENT_BYTES_MIN)).is_empty(), "too short by one");
    }

    /// A client that is slow to read 64 KiB would have kept the frame of 100 MiB in which they came.
    #[test]
    fn a_little_of_much_is_copied() {
        let whole = Rope::from(long(1, 3 * PART_COPIED_BYTES_MAX));
        for (length, is_lent) in [
            (LENT_BYTES_MIN, false),
            (PART_COPIED_BYTES_MAX, false),
            (PART_COPIED_BYTES_MAX + 1, true),
        ] {
            assert_eq!(whole.part(1..1 + length).as_slice().is_none(), is_lent, "{length}");
        }
        let whole = Rope::from(long(1, 2 * LENT_BYTES_MIN));
        assert!(whole.part(0..LENT_BYTES_MIN).as_slice().is_none());
    }

    #[test]
    fn what_is_frozen_is_lent_from_where_it_is() {
        let mut rope = Rope::new();
        rope.put(&vec![7; 2 * LENT_BYTES_MIN]);
        rope.put_shared(&long(1, LENT_BYTES_MIN));
        rope.put(&vec![8; LENT_BYTES_MIN - 1]);
        rope.put_shared(&long(2, LENT_BYTES_MIN));
        let (before, lent, own) = (rope.to_vec(), lent_at(&rope), rope.own.as_ptr());
        rope.freeze();
        assert!(rope.to_vec() == before);
        let now = lent_at(&rope);
        assert_eq!(now, [(0, own), lent[0], lent[1]]);
        assert_eq!(rope.own.len(), LENT_BYTES_MIN - 1, "what is short is still its own");
        rope.freeze();
        assert_eq!(lent_at(&rope), now);
        rope.put(b"and more");
        assert!(rope.to_vec()[before.len()..] == *b"and more");
    }

    /// A short run of a long text was lent, and a part of it thought to be all of what that keeps in memory.
    #[test]
    fn a_little_of_what_was_frozen_is_copied() {
        let mut rope = Rope::new();
        rope.put(&vec![7; LENT_BYTES_MIN]);
        rope.put_shared(&long(1, LENT_BYTES_MIN));
        rope.put(&vec![8; 3 * LENT_BYTES_MIN]);
        let place = rope.own.as_ptr();
        rope.freeze();
        let part = rope.part(0..LENT_BYTES_MIN);
        assert_ne!(part.run_at(0).as_ptr(), place);
        let rest = 2 * LENT_BYTES_MIN..rope.len();
        assert_eq!(rope.part(rest).run_at(0).as_ptr(), place.wrapping_add(LENT_BYTES_MIN));
    }

    #[test]
    fn what_is_short_stays_its_own() {
        let mut rope = Rope::new();
        rope.put(&vec![7; LENT_BYTES_MIN - 1]);
        rope.freeze();
        assert!(rope.as_slice().is_some());
        rope.clear();
        assert!(rope.is_empty() && rope.own.capacity() >= LENT_BYTES_MIN - 1);
        let (mut rope, _) = mixed();
        rope.clear();
        assert_eq!(rope.as_slice(), Some(&[][..]));
    }
}
