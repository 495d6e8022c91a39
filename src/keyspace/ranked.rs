//! A counted B+tree: a sequence with the rank of everything in it.
//!
//! Holds (score, position) pairs in the order that its owner gives them: the tree inserts, removes and
//! finds by rank, and finds a rank by a predicate that is true for a beginning of the sequence. It knows
//! nothing of the order itself, so ties may be broken by bytes that are stored elsewhere. Every operation is
//! O(log n).
//!
//! Invariants: an inner node has children and none of them is empty; `Child::count` is the number of items
//! below, `Child::first` the first of them; all leaves have the same depth.
//!
//! Source: R. Bayer, "Organization and Maintenance of Large Ordered Indices" (1972), with
//! subtree counts; in Redis the skip list with spans does this.

use std::ops::Range;

/// The most items of a leaf: 1 KiB, of which an insertion moves half.
const LEAF_ITEMS_MAX: usize = 64;
/// The most children of an inner node.
const CHILDREN_MAX: usize = 32;
/// How full a tree that is built at once makes its nodes, in eighths: room for the first insertions.
const BUILD_EIGHTHS: usize = 6;

/// A score, and where its member stands in the dense table of the sorted set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Item {
    /// Never NaN.
    pub(super) score: f64,
    pub(super) position: u32,
}

/// A sequence of items with their ranks.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranked {
    root: Subtree,
    len: usize,
}

#[derive(Clone, Debug)]
enum Subtree {
    Leaf(Vec<Item>),
    Inner(Vec<Child>),
}

#[derive(Clone, Debug)]
struct Child {
    count: usize,
    first: Item,
    node: Subtree,
}

impl Default for Subtree {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

impl Ranked {
    /// The tree of `items`, in their order.
    pub(super) fn build(items: &[Item]) -> Self {
        let mut level: Vec<Child> = items
            .chunks(LEAF_ITEMS_MAX * BUILD_EIGHTHS / 8)
            .map(|part| leaf(part.to_vec()))
            .collect();
        while level.len() > 1 {
            let mut rest = level.into_iter();
            level = Vec::new();
            loop {
                let part: Vec<_> = rest.by_ref().take(CHILDREN_MAX * BUILD_EIGHTHS / 8).collect();
                if part.is_empty() {
                    break;
                }
                level.push(inner(part));
            }
        }
        let root = level.pop().map(|child| child.node).unwrap_or_default();
        Self { root, len: items.len() }
    }

    /// How many items at the beginning satisfy `is_before`, which is true for a beginning and false for the
    /// rest.
    pub(super) fn partition_point(&self, mut is_before: impl FnMut(Item) -> bool) -> usize {
        let mut rank = 0;
        let mut node = &self.root;
        loop {
            match node {
                Subtree::Leaf(items) => {
                    return rank + items.partition_point(|item| is_before(*item));
                }
                Subtree::Inner(children) => {
                    let after = children.partition_point(|child| is_before(child.first));
                    let Some(last) = after.checked_sub(1) else { return rank };
                    rank += children[..last].iter().map(|child| child.count).sum::<usize>();
                    node = &children[last].node;
                }
            }
        }
    }

    /// The item of `rank`.
    pub(super) fn get(&self, rank: usize) -> Option<Item> {
        if rank >= self.len {
            return None;
        }
        let (items, at) = self.leaf_of(rank);
        items.get(at).copied()
    }

    /// Adds `item` so that it has `rank`, which is at most the length.
    pub(super) fn insert(&mut self, rank: usize, item: Item) {
        assert!(rank <= self.len, "a rank is at most the length");
        if let Some(right) = insert(&mut self.root, rank, item) {
            let left = wrap(std::mem::take(&mut self.root));
            self.root = Subtree::Inner(vec![left, right]);
        }
        self.len += 1;
    }

    /// Removes the item of `rank`, which exists.
    pub(super) fn remove(&mut self, rank: usize) -> Item {
        assert!(rank < self.len, "only an item that exists is removed");
        let item = remove(&mut self.root, rank);
        self.len -= 1;
        while let Subtree::Inner(children) = &mut self.root
            && children.len() <= 1
        {
            self.root = children.pop().map(|child| child.node).unwrap_or_default();
        }
        item
    }

    /// Puts `item` in the place of the one of `rank`, which exists.
    pub(super) fn replace(&mut self, rank: usize, item: Item) {
        assert!(rank < self.len, "only an item that exists is replaced");
        let mut node = &mut self.root;
        let mut rank = rank;
        loop {
            match node {
                Subtree::Leaf(items) => {
                    items[rank] = item;
                    return;
                }
                Subtree::Inner(children) => {
                    let (at, inner) = locate(children, rank);
                    let child = &mut children[at];
                    if inner == 0 {
                        child.first = item;
                    }
                    rank = inner;
                    node = &mut child.node;
                }
            }
        }
    }

    /// The items with the ranks `range`, cut to what exists, from both ends.
    pub(super) fn range(&self, range: Range<usize>) -> RankedRange<'_> {
        let end = range.end.min(self.len);
        RankedRange { tree: self, front: range.start.min(end), back: end, head: &[], tail: &[] }
    }

    /// The leaf with the item of `rank`, which exists, and the item's place in it.
    fn leaf_of(&self, mut rank: usize) -> (&[Item], usize) {
        let mut node = &self.root;
        loop {
            match node {
                Subtree::Leaf(items) => return (items, rank),
                Subtree::Inner(children) => {
                    let (at, inner) = locate(children, rank);
                    rank = inner;
                    node = &children[at].node;
                }
            }
        }
    }
}

/// Items between two ranks. Finds a leaf by its rank and then reads it to its end.
#[derive(Clone, Debug)]
pub(super) struct RankedRange<'a> {
    tree: &'a Ranked,
    front: usize,
    back: usize,
    /// What is left of the leaf at `front`.
    head: &'a [Item],
    /// What is left of the leaf before `back`.
    tail: &'a [Item],
}

impl Iterator for RankedRange<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.front == self.back {
            return None;
        }
        if self.head.is_empty() {
            let (items, at) = self.tree.leaf_of(self.front);
            self.head = &items[at..];
        }
        let (&item, rest) = self.head.split_first()?;
        self.head = rest;
        self.front += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.back - self.front, Some(self.back - self.front))
    }
}

impl DoubleEndedIterator for RankedRange<'_> {
    fn next_back(&mut self) -> Option<Item> {
        if self.front == self.back {
            return None;
        }
        if self.tail.is_empty() {
            let (items, at) = self.tree.leaf_of(self.back - 1);
            self.tail = &items[..=at];
        }
        let (&item, rest) = self.tail.split_last()?;
        self.tail = rest;
        self.back -= 1;
        Some(item)
    }
}

impl ExactSizeIterator for RankedRange<'_> {}

/// The child with the item of `rank` and its rank in there; the end of the last child for the rank behind
/// the last item.
fn locate(children: &[Child], rank: usize) -> (usize, usize) {
    let mut inner = rank;
    for (at, child) in children.iter().enumerate() {
        if inner < child.count || at == children.len() - 1 {
            return (at, inner);
        }
        inner -= child.count;
    }
    unreachable!("an inner node has children")
}

/// Inserts below `node`; a node that had to be cut returns its right part.
fn insert(node: &mut Subtree, rank: usize, item: Item) -> Option<Child> {
    match node {
        Subtree::Leaf(items) => {
            items.insert(rank, item);
            (items.len() > LEAF_ITEMS_MAX).then(|| leaf(split(items, rank)))
        }
        Subtree::Inner(children) => {
            let (at, inner_rank) = locate(children, rank);
            let child = &mut children[at];
            let right = insert(&mut child.node, inner_rank, item);
            child.count += 1;
            if inner_rank == 0 {
                child.first = item;
            }
            let right = right?;
            child.count -= right.count;
            children.insert(at + 1, right);
            (children.len() > CHILDREN_MAX).then(|| inner(split(children, at + 1)))
        }
    }
}

/// Cuts a node that outgrew its limit by an insertion at `inserted`.
fn split<T>(parts: &mut Vec<T>, inserted: usize) -> Vec<T> {
    // Scores that only grow, such as times, always insert at the end: there the left part stays full.
    let at = if inserted == parts.len() - 1 { inserted } else { parts.len() / 2 };
    let right = parts.split_off(at);
    parts.shrink_to_fit();
    right
}

fn remove(node: &mut Subtree, rank: usize) -> Item {
    match node {
        Subtree::Leaf(items) => items.remove(rank),
        Subtree::Inner(children) => {
            let (at, inner_rank) = locate(children, rank);
            let child = &mut children[at];
            let item = remove(&mut child.node, inner_rank);
            child.count -= 1;
            if child.count == 0 {
                children.remove(at);
            } else {
                if inner_rank == 0 {
                    child.first = child.node.first();
                }
                if child.node.is_sparse() {
                    merge_around(children, at);
                }
            }
            item
        }
    }
}

/// Joins the child at `at` with a neighbour that has room for it. Without such a neighbour it stays: then
/// its neighbours are full enough to keep the tree shallow.
fn merge_around(children: &mut Vec<Child>, at: usize) {
    for left in [Some(at), at.checked_sub(1)].into_iter().flatten() {
        if left + 1 < children.len() && children[left].node.has_room_for(&children[left + 1].node) {
            let right = children.remove(left + 1);
            let child = &mut children[left];
            child.count += right.count;
            child.node.append(right.node);
            return;
        }
    }
}

impl Subtree {
    fn first(&self) -> Item {
        match self {
            Self::Leaf(items) => items[0],
            Self::Inner(children) => children[0].first,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    fn is_sparse(&self) -> bool {
        match self {
            Self::Leaf(items) => items.len() < LEAF_ITEMS_MAX / 4,
            Self::Inner(children) => children.len() < CHILDREN_MAX / 4,
        }
    }

    fn has_room_for(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(left), Self::Leaf(right)) => left.len() + right.len() <= LEAF_ITEMS_MAX,
            (Self::Inner(left), Self::Inner(right)) => left.len() + right.len() <= CHILDREN_MAX,
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => false,
        }
    }

    fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Leaf(left), Self::Leaf(right)) => left.extend(right),
            (Self::Inner(left), Self::Inner(right)) => left.extend(right),
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => {
                unreachable!("all leaves have the same depth")
            }
        }
    }
}

fn leaf(items: Vec<Item>) -> Child {
    wrap(Subtree::Leaf(items))
}

fn inner(children: Vec<Child>) -> Child {
    wrap(Subtree::Inner(children))
}

/// The child that `node`, which is not empty, becomes.
fn wrap(node: Subtree) -> Child {
    Child { count: node.count(), first: node.first(), node }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::testing::seeded;

    fn item(number: u32) -> Item {
        Item { score: f64::from(number), position: number }
    }

    /// Checks the invariants below `node` and returns its depth.
    fn depth(node: &Subtree) -> usize {
        match node {
            Subtree::Leaf(items) => {
                assert!(items.len() <= LEAF_ITEMS_MAX);
                1
            }
            Subtree::Inner(children) => {
                assert!(!children.is_empty() && children.len() <= CHILDREN_MAX);
                let depths: Vec<_> = children.iter().map(|child| depth(&child.node)).collect();
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                for child in children {
                    assert!(child.count > 0);
                    assert_eq!(child.count, child.node.count());
                    assert_eq!(child.first, child.node.first());
                }
                depths[0] + 1
            }
        }
    }

    fn assert_same(tree: &Ranked, model: &[Item]) {
        depth(&tree.root);
        assert_eq!(tree.len, model.len());
        assert!(tree.range(0..usize::MAX).eq(model.iter().copied()));
        assert!(tree.range(0..usize::MAX).rev().eq(model.iter().rev().copied()));
    }

    proptest! {
        #![proptest_config(seeded(60))]

        #[test]
        fn a_tree_behaves_as_a_vector(
            initial in 0..5000_u32,
            steps in prop::collection::vec((0..4_u8, any::<u32>(), 1..300_u32), 1..60),
        ) {
            let mut model: Vec<_> = (0..initial).map(item).collect();
            let mut tree = Ranked::build(&model);
            assert_same(&tree, &model);
            for (kind, at, times) in steps {
                for turn in 0..times {
                    // Near one another, at either end or scattered: all ways to fill and empty nodes.
                    let spread = if times % 2 == 0 { at } else { at.wrapping_mul(turn + 1) };
                    let place = spread as usize % (model.len() + 1);
                    match kind {
                        0 | 1 => {
                            tree.insert(place, item(spread));
                            model.insert(place, item(spread));
                        }
                        2 if place < model.len() => {
                            prop_assert_eq!(tree.remove(place), model.remove(place));
                        }
                        3 if place < model.len() => {
                            tree.replace(place, item(turn));
                            model[place] = item(turn);
                        }
                        _ => {}
                    }
                }
                assert_same(&tree, &model);
            }
            let (from, to) = (model.len() / 3, model.len() / 2);
            prop_assert!(tree.range(from..to).eq(model[from..to].iter().copied()));
            prop_assert_eq!(tree.get(from), model.get(from).copied());
            prop_assert_eq!(tree.get(model.len()), None);
        }

        #[test]
        fn ranks_agree_with_a_sorted_vector(numbers in prop::collection::vec(0..500_u32, 0..2000), pivot in 0..501_u32) {
            let mut model: Vec<Item> = Vec::new();
            let mut tree = Ranked::default();
            for number in numbers {
                let rank = tree.partition_point(|other| other.position < number);
                prop_assert_eq!(rank, model.partition_point(|other| other.position < number));
                tree.insert(rank, item(number));
                model.insert(rank, item(number));
            }
            prop_assert_eq!(
                tree.partition_point(|other| other.position < pivot),
                model.partition_point(|other| other.position < pivot)
            );
            while !model.is_empty() {
                let rank = (pivot as usize).min(model.len() - 1);
                prop_assert_eq!(tree.remove(rank), model.remove(rank));
            }
            assert_same(&tree, &model);
        }
    }

    #[test]
    fn growing_scores_fill_the_leaves() {
        let mut tree = Ranked::default();
        for number in 0..100_000 {
            tree.insert(number as usize, item(number));
        }
        assert_eq!(depth(&tree.root), 4);
    }

    #[test]
    fn both_ends_meet_in_the_middle() {
        let items: Vec<_> = (0..1000).map(item).collect();
        let tree = Ranked::build(&items);
        let mut range = tree.range(10..900);
        let mut seen = Vec::new();
        while let Some(front) = range.next() {
            seen.push(front.position);
            seen.extend(range.next_back().map(|back| back.position));
        }
        seen.sort_unstable();
        assert_eq!(seen, (10..900).collect::<Vec<_>>());
    }
}
