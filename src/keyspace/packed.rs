//! Packed: a run of byte strings in one allocation, the block that small values and lists are built of.
//!
//! An element costs its bytes and two lengths, one in front and one behind, so that a run is read from
//! either end: two bytes for an element below 128. Everything but the ends is linear in the bytes of the
//! run; the owner keeps runs short.
//!
//! Layout: free bytes (`start` of them), then per element `varint length | bytes | the varint mirrored`.
//! The free bytes in front make removing and adding at the front as cheap as at the back. The layout is
//! private to memory: snapshots spell elements out with `codec`.
//!
//! Source: Redis' listpack (antirez, "Listpack specification"), simplified: no integer encodings.

use std::fmt;
use std::iter::FusedIterator;

/// The size in bytes up to which an allocation grows by doubling; beyond, by [`GROWTH_STEP_BYTES`] or an eighth.
const DOUBLING_BYTES_MAX: usize = 4096;
/// How an allocation beyond [`DOUBLING_BYTES_MAX`] grows, in bytes.
const GROWTH_STEP_BYTES: usize = 1024;
/// The smallest allocation, in bytes.
const ALLOCATION_BYTES_MIN: usize = 32;
/// The longest length word: a `usize` in groups of seven bits.
const LENGTH_BYTES_MAX: usize = 10;

/// A run of byte strings in one allocation.
#[derive(Clone, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    start: usize,
    count: usize,
}

impl Packed {
    /// An empty run; allocates nothing.
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, count: 0 }
    }

    /// How many elements there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// How many bytes the elements take, lengths included.
    pub(super) fn used_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// How many bytes stand from the beginning of the allocation to the end of the last element.
    pub(super) fn reach_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many free bytes stand in front of the first element.
    pub(super) const fn free_front_bytes(&self) -> usize {
        self.start
    }

    /// How many bytes `element` would take in a run, its lengths included.
    pub(super) const fn cost(element: &[u8]) -> usize {
        element.len() + 2 * length_bytes(element.len())
    }

    /// All elements in order, from both ends.
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { bytes: &self.bytes[self.start..], count: self.count }
    }

    /// The elements from the one at `index` on, which may be the end. Linear in those before.
    pub(super) fn iter_from(&self, index: usize) -> Iter<'_> {
        let mut elements = self.iter();
        for _ in 0..index {
            elements.next();
        }
        elements
    }

    /// The elements of an empty run.
    pub(super) const fn no_elements<'a>() -> Iter<'a> {
        Iter { bytes: &[], count: 0 }
    }

    /// The element at `index`.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        if index < self.count / 2 {
            self.iter().nth(index)
        } else {
            self.count.checked_sub(index + 1).and_then(|from_back| self.iter().nth_back(from_back))
        }
    }

    /// Adds `element` behind the last one.
    pub(super) fn push_back(&mut self, element: &[u8]) {
        let at = self.bytes.len();
        self.splice(at, 0, element);
        self.count += 1;
    }

    /// Adds `element` before the first one.
    pub(super) fn push_front(&mut self, element: &[u8]) {
        let cost = Self::cost(element);
        if self.start < cost {
            self.move_to_back(cost);
        }
        self.start -= cost;
        write_element(&mut self.bytes[self.start..self.start + cost], element);
        self.count += 1;
    }

    /// Removes the first element.
    pub(super) fn pop_front(&mut self) -> Option<Vec<u8>> {
        let element = self.iter().next()?.to_vec();
        self.start += Self::cost(&element);
        self.count -= 1;
        self.forget_bytes_if_empty();
        Some(element)
    }

    /// Removes the last element.
    pub(super) fn pop_back(&mut self) -> Option<Vec<u8>> {
        let element = self.iter().next_back()?.to_vec();
        self.bytes.truncate(self.bytes.len() - Self::cost(&element));
        self.count -= 1;
        self.forget_bytes_if_empty();
        Some(element)
    }

    /// Adds `element` so that it becomes the one at `index`, which is at most the length.
    pub(super) fn insert(&mut self, index: usize, element: &[u8]) {
        let at = self.offset(index);
        self.splice(at, 0, element);
        self.count += 1;
    }

    /// Puts `element` in the place of the one at `index`, which exists.
    pub(super) fn replace(&mut self, index: usize, element: &[u8]) {
        let at = self.offset(index);
        let old = self.cost_at(at);
        self.splice(at, old, element);
    }

    /// Removes the `count` elements from `index` on, which exist.
    pub(super) fn remove(&mut self, index: usize, count: usize) {
        let (from, to) = (self.offset(index), self.offset(index + count));
        if index == 0 {
            self.start = to;
        } else {
            self.bytes.copy_within(to.., from);
            self.bytes.truncate(self.bytes.len() - (to - from));
        }
        self.count -= count;
        self.forget_bytes_if_empty();
    }

    /// Removes the `width` elements from `index` on and puts the last `width` elements of the run into
    /// their place: the removal of a dense table, which moves one entry only.
    pub(super) fn swap_remove(&mut self, index: usize, width: usize) {
        let last = self.count - width;
        let (tail_from, from) = (self.offset(last), self.offset(index));
        let tail = self.bytes.split_off(tail_from);
        self.count = last;
        if index < last {
            let old = (0..width).fold(from, |at, _| at + self.cost_at(at)) - from;
            self.open(from, old, tail.len());
            self.bytes[from..from + tail.len()].copy_from_slice(&tail);
        }
        self.forget_bytes_if_empty();
    }

    /// Cuts the run before `index`: what stood from there on is returned.
    pub(super) fn split_off(&mut self, index: usize) -> Self {
        let at = self.offset(index);
        let tail = Self { bytes: self.bytes[at..].to_vec(), start: 0, count: self.count - index };
        self.bytes.truncate(at);
        self.count = index;
        self.forget_bytes_if_empty();
        tail
    }

    /// Adds all elements of `other` behind the last one.
    pub(super) fn append(&mut self, other: &Self) {
        self.reserve(other.used_bytes());
        self.bytes.extend_from_slice(&other.bytes[other.start..]);
        self.count += other.count;
    }

    /// Moves the elements to the beginning of the allocation.
    pub(super) fn move_to_front(&mut self) {
        self.bytes.copy_within(self.start.., 0);
        self.bytes.truncate(self.bytes.len() - self.start);
        self.start = 0;
    }

    /// Moves the elements to the end of an allocation with at least `free` bytes in front.
    fn move_to_back(&mut self, free: usize) {
        let used = self.used_bytes();
        self.move_to_front();
        self.reserve(free);
        let size = self.bytes.capacity().min(allocation_bytes(used + free));
        self.bytes.resize(size, 0);
        self.bytes.copy_within(..used, size - used);
        self.start = size - used;
    }

    /// Where the element at `index` begins; the end of the last one when `index` is the length.
    fn offset(&self, index: usize) -> usize {
        assert!(index <= self.count, "an index of a run is at most its length");
        if index <= self.count / 2 {
            let mut elements = self.iter();
            for _ in 0..index {
                elements.next();
            }
            self.bytes.len() - elements.bytes.len()
        } else {
            let mut elements = self.iter();
            for _ in index..self.count {
                elements.next_back();
            }
            self.start + elements.bytes.len()
        }
    }

    /// How many bytes the element that begins at `at` takes, its lengths included.
    fn cost_at(&self, at: usize) -> usize {
        let (length, word) = read_length(&self.bytes[at..]);
        length + 2 * word
    }

    /// Writes `element` over the `old` bytes at `at`.
    fn splice(&mut self, at: usize, old: usize, element: &[u8]) {
        let cost = Self::cost(element);
        self.open(at, old, cost);
        write_element(&mut self.bytes[at..at + cost], element);
    }

    /// Turns the `old` bytes at `at` into `new` bytes of any content.
    fn open(&mut self, at: usize, old: usize, new: usize) {
        let end = self.bytes.len();
        if new > old {
            self.reserve(new - old);
            self.bytes.resize(end + (new - old), 0);
            self.bytes.copy_within(at + old..end, at + new);
        } else {
            self.bytes.copy_within(at + old.., at + new);
            self.bytes.truncate(end - (old - new));
        }
    }

    fn reserve(&mut self, more: usize) {
        let wanted = self.bytes.len() + more;
        if wanted > self.bytes.capacity() {
            // An eighth more for a run that has grown long, so that all its growing stays linear.
            let length = self.bytes.len();
            let spare = if length > DOUBLING_BYTES_MAX { length / 8 } else { 0 };
            let wanted = wanted.max(length + spare);
            self.bytes.reserve_exact(allocation_bytes(wanted) - self.bytes.len());
        }
    }

    fn forget_bytes_if_empty(&mut self) {
        if self.count == 0 {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.bytes[self.start..] == other.bytes[other.start..]
    }
}

impl Eq for Packed {}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|element| element.escape_ascii().to_string()))
            .finish()
    }
}

/// The elements of a run, from both ends.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.count = self.count.checked_sub(1)?;
        let (length, word) = read_length(self.bytes);
        let (element, rest) = self.bytes.split_at(length + 2 * word);
        self.bytes = rest;
        Some(&element[word..word + length])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let (length, word) = read_length_backward(self.bytes);
        let (rest, element) = self.bytes.split_at(self.bytes.len() - length - 2 * word);
        self.bytes = rest;
        Some(&element[word..word + length])
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl FusedIterator for Iter<'_> {}

fn allocation_bytes(wanted: usize) -> usize {
    if wanted <= DOUBLING_BYTES_MAX {
        wanted.next_power_of_two().max(ALLOCATION_BYTES_MIN)
    } else {
        wanted.next_multiple_of(GROWTH_STEP_BYTES)
    }
}

/// How many bytes the length word of an element of `length` bytes takes.
const fn length_bytes(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros();
    if bits <= 7 { 1 } else { bits.div_ceil(7) as usize }
}

/// Writes lengths and bytes of `element` over `out`, which has just that size.
fn write_element(out: &mut [u8], element: &[u8]) {
    let (word, size) = length_word(element.len());
    let end = out.len();
    out[..size].copy_from_slice(&word[..size]);
    out[size..end - size].copy_from_slice(element);
    for (to, from) in out[end - size..].iter_mut().rev().zip(word) {
        *to = from;
    }
}

fn length_word(mut length: usize) -> ([u8; LENGTH_BYTES_MAX], usize) {
    let mut word = [0; LENGTH_BYTES_MAX];
    let mut size = 0;
    loop {
        let low = length.to_le_bytes()[0] & 0x7f;
        length >>= 7;
        word[size] = if length == 0 { low } else { low | 0x80 };
        size += 1;
        if length == 0 {
            return (word, size);
        }
    }
}

/// The length in front of the first element, and how many bytes it takes.
fn read_length(bytes: &[u8]) -> (usize, usize) {
    // One byte is the rule, worth its own path.
    if bytes[0] < 0x80 { (usize::from(bytes[0]), 1) } else { sum_length(bytes.iter()) }
}

/// The mirrored length behind the last element, and how many bytes it takes.
fn read_length_backward(bytes: &[u8]) -> (usize, usize) {
    sum_length(bytes.iter().rev())
}

fn sum_length<'a>(bytes: impl Iterator<Item = &'a u8>) -> (usize, usize) {
    let (mut length, mut size) = (0, 0);
    for byte in bytes {
        length |= usize::from(byte & 0x7f) << (7 * size);
        size += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (length, size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::testing::seeded;

    fn run_of(elements: &[Vec<u8>]) -> Packed {
        let mut run = Packed::new();
        for element in elements {
            run.push_back(element);
        }
        run
    }

    fn contents(run: &Packed) -> Vec<Vec<u8>> {
        run.iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn lengths_take_their_shortest_word() {
        for (length, cost) in [(0, 2), (127, 129), (128, 132), (16_383, 16_387), (16_384, 16_390)] {
            let element = vec![7; length];
            assert_eq!(Packed::cost(&element), cost);
            let run = run_of(std::slice::from_ref(&element));
            assert_eq!(run.used_bytes(), cost);
            assert_eq!(run.iter().next(), Some(&element[..]));
            assert_eq!(run.iter().next_back(), Some(&element[..]));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        PushBack(Vec<u8>),
        PushFront(Vec<u8>),
        PopBack,
        PopFront,
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize, usize),
        SwapRemove(usize),
        SplitAndAppend(usize),
        MoveToFront,
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..20),
            2 => prop::collection::vec(any::<u8>(), 120..140),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => element().prop_map(Step::PushBack),
            4 => element().prop_map(Step::PushFront),
            1 => Just(Step::PopBack),
            1 => Just(Step::PopFront),
            2 => (any::<usize>(), element()).prop_map(|(at, element)| Step::Insert(at, element)),
            2 => (any::<usize>(), element()).prop_map(|(at, element)| Step::Replace(at, element)),
            1 => (any::<usize>(), 0..3_usize).prop_map(|(at, count)| Step::Remove(at, count)),
            1 => any::<usize>().prop_map(Step::SwapRemove),
            1 => any::<usize>().prop_map(Step::SplitAndAppend),
            1 => Just(Step::MoveToFront),
        ]
    }

    fn apply(run: &mut Packed, model: &mut Vec<Vec<u8>>, step: Step) {
        let length = model.len();
        match step {
            Step::PushBack(element) => {
                run.push_back(&element);
                model.push(element);
            }
            Step::PushFront(element) => {
                run.push_front(&element);
                model.insert(0, element);
            }
            Step::PopBack => assert_eq!(run.pop_back(), model.pop()),
            Step::PopFront => {
                let first = (length > 0).then(|| model.remove(0));
                assert_eq!(run.pop_front(), first);
            }
            Step::Insert(at, element) => {
                let at = at % (length + 1);
                run.insert(at, &element);
                model.insert(at, element);
            }
            Step::Replace(at, element) if length > 0 => {
                run.replace(at % length, &element);
                model[at % length] = element;
            }
            Step::Remove(at, count) if length > 0 => {
                let at = at % length;
                let count = count.min(length - at);
                run.remove(at, count);
                model.drain(at..at + count);
            }
            Step::SwapRemove(at) if length > 0 => {
                run.swap_remove(at % length, 1);
                model.swap_remove(at % length);
            }
            Step::SplitAndAppend(at) => {
                let tail = run.split_off(at % (length + 1));
                assert_eq!(run.len() + tail.len(), length);
                run.append(&tail);
            }
            Step::MoveToFront => run.move_to_front(),
            Step::Replace(..) | Step::Remove(..) | Step::SwapRemove(_) => {}
        }
    }

    proptest! {
        #![proptest_config(seeded(200))]

        #[test]
        fn a_run_behaves_as_a_vector(steps in prop::collection::vec(step(), 1..120)) {
            let (mut run, mut model) = (Packed::new(), Vec::new());
            for step in steps {
                apply(&mut run, &mut model, step);
                prop_assert_eq!(run.len(), model.len());
                prop_assert_eq!(&contents(&run), &model);
                prop_assert!(run.iter().rev().eq(model.iter().rev().map(Vec::as_slice)));
                for index in 0..=model.len() {
                    prop_assert_eq!(run.get(index), model.get(index).map(Vec::as_slice));
                }
            }
        }

        #[test]
        fn pairs_are_swap_removed_as_pairs(
            pairs in prop::collection::vec((element(), element()), 1..20), at in any::<usize>()
        ) {
            let mut run = Packed::new();
            for (field, value) in &pairs {
                run.push_back(field);
                run.push_back(value);
            }
            let at = at % pairs.len();
            run.swap_remove(2 * at, 2);
            let mut model = pairs;
            model.swap_remove(at);
            let flat: Vec<_> = model.into_iter().flat_map(|(field, value)| [field, value]).collect();
            prop_assert_eq!(contents(&run), flat);
        }
    }

    /// The field names of a stream's block are a run that a client makes as long as it likes: with steps of one size,
    /// a million of them were moved twelve thousand times.
    #[test]
    fn a_long_run_is_moved_seldom() {
        let (mut run, mut moves) = (Packed::new(), 0);
        for _ in 0..200_000 {
            let before = run.bytes.capacity();
            run.push_back(b"0123456789");
            moves += u32::from(run.bytes.capacity() != before);
        }
        assert!(moves < 100, "{moves}");
        assert!(run.bytes.capacity() < run.bytes.len() * 9 / 8 + GROWTH_STEP_BYTES);
    }
}
