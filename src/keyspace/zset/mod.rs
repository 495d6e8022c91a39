//! Sorted sets: distinct byte strings in the order of their scores.
//!
//! The order is (score, member bytes). A small set is a sorted vector; a larger one a dense table from member
//! to score beside a counted tree of (score, position in the table), so that a member's bytes are held once.
//! A set that became a table stays one, and the snapshot says which form it has and spells a table in the
//! table's own order, so that a restored replica goes on exactly as the others do.
//!
//! Scores are never NaN: whoever computes one refuses it before. 0.0 and −0.0 are equal, as in Redis:
//! setting one over the other changes nothing; and a small set holds −0.0 as 0.0, a larger one as it is.
//!
//! Every range of Redis (by rank, score or bytes) is a range of ranks here: `ranks_by_score` and
//! `ranks_by_member` translate, `range` reads, `remove_ranks` removes.
//!
//! Source: Redis docs, "Sorted sets"; `zset-max-listpack-entries`, `zset-max-listpack-value`.

mod loading;
mod range;
mod sorted;
mod table;

use std::ops::{Bound, Range};

use crate::stdx::codec::{self, Sink};

use super::dense::MemberKey;
use super::parts::{Cursor, Elements};

pub(super) use self::loading::ZSetLoading;
use self::range::FormRange;
pub use self::range::ZSetRange;
use self::sorted::{
    SORTED_BYTES_MAX, SORTED_MEMBERS_MAX, Scored, find, insert_sorted, update_sorted,
};
use self::table::Table;

/// The snapshot's code of the sorted vector.
const FORM_SORTED: u8 = 0;
/// The snapshot's code of the table form.
const FORM_TABLE: u8 = 1;

/// A Redis sorted set.
#[derive(Clone, Debug)]
pub struct ZSet(Form, MemberKey);

#[derive(Clone, Debug)]
enum Form {
    Sorted(Vec<Scored>),
    Table(Box<Table>),
}

/// What [`ZSet::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The member is new.
    Added,
    /// The member had another score.
    Updated,
    /// The member had this score.
    Unchanged,
}

/// An end of the order of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// ZPOPMIN.
    Lowest,
    /// ZPOPMAX.
    Highest,
}

impl ZSet {
    /// An empty sorted set; allocates nothing.
    pub(super) const fn new(key: MemberKey) -> Self {
        Self(Form::Sorted(Vec::new()), key)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Sorted(sorted) => sorted.len(),
            Form::Table(table) => table.members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What OBJECT ENCODING calls the form.
    pub const fn encoding_name(&self) -> &'static str {
        match &self.0 {
            Form::Sorted(_) => "listpack",
            Form::Table(_) => "skiplist",
        }
    }

    /// The score of `member`.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Form::Sorted(sorted) => find(sorted, member).map(|rank| sorted[rank].score),
            Form::Table(table) => table.find(member).map(|(_, score)| score),
        }
    }

    /// Sets the score of `member`, which is added when it is missing.
    ///
    /// # Panics
    /// When `score` is NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Insertion {
        assert!(!score.is_nan(), "a score is a number");
        if let Form::Sorted(sorted) = &mut self.0 {
            // Redis packs integral scores as integers, which have no −0. (−0.0 + 0.0 is 0.0.)
            let packed_score = score + 0.0;
            match find(sorted, member) {
                Some(rank) => return update_sorted(sorted, rank, packed_score),
                None if sorted.len() < SORTED_MEMBERS_MAX && member.len() <= SORTED_BYTES_MAX => {
                    insert_sorted(sorted, Scored::new(packed_score, member));
                    return Insertion::Added;
                }
                None => self.0 = Form::Table(Box::new(Table::of_sorted(sorted, self.1))),
            }
        }
        match &mut self.0 {
            Form::Table(table) => table.insert(member, score),
            Form::Sorted(_) => unreachable!("the form was made a table"),
        }
    }

    /// Removes `member`. Returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Form::Sorted(sorted) => find(sorted, member).map(|rank| sorted.remove(rank).score),
            Form::Table(table) => {
                let (position, score) = table.find(member)?;
                let rank = table.rank(score, member);
                table.remove(rank, position);
                Some(score)
            }
        }
    }

    /// The rank of `member`, 0 being the lowest.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Form::Sorted(sorted) => find(sorted, member),
            Form::Table(table) => table.find(member).map(|(_, score)| table.rank(score, member)),
        }
    }

    /// The member of `rank` and its score.
    pub fn nth(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.range(rank..rank.saturating_add(1)).next()
    }

    /// The members with the ranks `range`, cut to what exists, with their scores, from both ends.
    pub fn range(&self, range: Range<usize>) -> ZSetRange<'_> {
        ZSetRange(match &self.0 {
            Form::Sorted(sorted) => {
                let end = range.end.min(sorted.len());
                FormRange::Sorted(sorted[range.start.min(end)..end].iter())
            }
            Form::Table(table) => FormRange::Table(table, table.order.range(range)),
        })
    }

    /// All members with their scores, from the lowest to the highest.
    pub fn iter(&self) -> ZSetRange<'_> {
        self.range(0..self.len())
    }

    /// The ranks of the members with scores between `min` and `max`; an empty range when there are none.
    pub fn ranks_by_score(&self, min: Bound<f64>, max: Bound<f64>) -> Range<usize> {
        let start = match min {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.partition_point(|score, _| score < min),
            Bound::Excluded(min) => self.partition_point(|score, _| score <= min),
        };
        let end = match max {
            Bound::Unbounded => self.len(),
            Bound::Included(max) => self.partition_point(|score, _| score <= max),
            Bound::Excluded(max) => self.partition_point(|score, _| score < max),
        };
        start..end.max(start)
    }

    /// The ranks of the members between `min` and `max` as bytes; an empty range when there are none. Only
    /// meaningful where all members have one score; otherwise the ranks are some, in bounds.
    pub fn ranks_by_member(&self, min: Bound<&[u8]>, max: Bound<&[u8]>) -> Range<usize> {
        let start = match min {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.partition_point(|_, member| member < min),
            Bound::Excluded(min) => self.partition_point(|_, member| member <= min),
        };
        let end = match max {
            Bound::Unbounded => self.len(),
            Bound::Included(max) => self.partition_point(|_, member| member <= max),
            Bound::Excluded(max) => self.partition_point(|_, member| member < max),
        };
        start..end.max(start)
    }

    /// Removes the member with the lowest score and returns both.
    pub fn pop_min(&mut self) -> Option<(Vec<u8>, f64)> {
        self.take_rank(0)
    }

    /// Removes the member with the highest score and returns both.
    pub fn pop_max(&mut self) -> Option<(Vec<u8>, f64)> {
        self.take_rank(self.len().checked_sub(1)?)
    }

    /// Removes up to `count` members, beginning with the lowest score or the highest, and returns them with their scores
    /// in that order.
    pub fn pop_many(&mut self, count: usize, from: Extreme) -> Vec<(Vec<u8>, f64)> {
        let count = count.min(self.len());
        if let Form::Table(table) = &mut self.0
            && table.members.is_worth_a_list(count)
        {
            let taken = table.take_many(count, from).into_iter();
            return taken.map(|scored| (scored.member.into_vec(), scored.score)).collect();
        }
        let pop = || match from {
            Extreme::Lowest => self.pop_min(),
            Extreme::Highest => self.pop_max(),
        };
        std::iter::from_fn(pop).take(count).collect()
    }

    /// Removes the members with the ranks `range`, cut to what exists. Returns how many those were.
    pub fn remove_ranks(&mut self, range: Range<usize>) -> usize {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        match &mut self.0 {
            Form::Sorted(sorted) => drop(sorted.drain(start..end)),
            Form::Table(table) => (start..end).for_each(|_| drop(table.take_rank(start))),
        }
        end - start
    }

    /// One step of a scan: visits about `count` members with their scores, beginning where `cursor` says (0:
    /// the beginning), and returns the cursor of the next step, 0 when there is none. A small set is visited
    /// at once.
    ///
    /// Guarantee: a member that is there from the first step to the last is visited at least once. Cursors
    /// are good on every replica.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], f64)) -> u64 {
        let (step, next) = match &self.0 {
            Form::Sorted(sorted) => (&sorted[..], 0),
            Form::Table(table) => table.members.scan(cursor, count),
        };
        for scored in step {
            visit(&scored.member, scored.score);
        }
        next
    }

    /// Writes the code of the form and the number of members.
    pub(super) fn put_head<S: Sink>(&self, sink: &mut S) {
        sink.put(&[match &self.0 {
            Form::Sorted(_) => FORM_SORTED,
            Form::Table(_) => FORM_TABLE,
        }]);
        codec::put_length(sink, self.len());
    }

    /// Writes elements, each a member and its score, sorted in a small set, in the order of the table in a larger one: those
    /// from `cursor` on, as far as there is room; whether those were all.
    pub(super) fn put_elements<S: Elements>(&self, cursor: &mut Cursor, sink: &mut S) -> bool {
        self.as_slice()[cursor.element..].iter().all(|scored| {
            cursor.put_element(sink, |sink| {
                codec::put_bytes(sink, &scored.member);
                codec::put_f64(sink, scored.score);
            })
        })
    }

    /// How many members at the beginning of the order satisfy `is_before`.
    fn partition_point(&self, is_before: impl Fn(f64, &[u8]) -> bool) -> usize {
        match &self.0 {
            Form::Sorted(sorted) => {
                sorted.partition_point(|scored| is_before(scored.score, &scored.member))
            }
            Form::Table(table) => {
                table.order.partition_point(|item| is_before(item.score, table.member(item)))
            }
        }
    }

    fn take_rank(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        if rank >= self.len() {
            return None;
        }
        let scored = match &mut self.0 {
            Form::Sorted(sorted) => sorted.remove(rank),
            Form::Table(table) => table.take_rank(rank),
        };
        Some((scored.member.into_vec(), scored.score))
    }

    fn as_slice(&self) -> &[Scored] {
        match &self.0 {
            Form::Sorted(sorted) => sorted,
            Form::Table(table) => table.members.as_slice(),
        }
    }
}

impl<'a> IntoIterator for &'a ZSet {
    type Item = (&'a [u8], f64);
    type IntoIter = ZSetRange<'a>;

    fn into_iter(self) -> ZSetRange<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sorted::BEYOND_LIMITS;
    use super::*;
    use crate::keyspace::error::DecodeError;
    use crate::keyspace::testing::{KEY, digest_of, load, restored, seeded};
    use crate::keyspace::value::type_code::ZSET;

    type Model = Vec<(f64, Vec<u8>)>;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, f64),
        InsertMany(u16, u16, f64),
        Remove(Vec<u8>),
        PopMin,
        PopMax,
        PopMany(usize, Extreme),
        RemoveRanks(usize, usize),
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            40 => (0..300_u16).prop_map(|number| number.to_string().into_bytes()),
            1 => (60..70_usize).prop_map(|length| vec![b'm'; length]),
        ]
    }

    /// Few distinct scores, so that ties occur.
    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => (-3..4_i8).prop_map(f64::from),
            3 => any::<f64>().prop_filter("a number", |score| !score.is_nan()),
            1 => prop::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (member(), score()).prop_map(|(member, score)| Step::Insert(member, score)),
            1 => (0..300_u16, 0..200_u16, score())
                .prop_map(|(from, count, score)| Step::InsertMany(from, count, score)),
            2 => member().prop_map(Step::Remove),
            1 => Just(Step::PopMin),
            1 => Just(Step::PopMax),
            1 => (0..400_usize).prop_map(|count| Step::PopMany(count, Extreme::Lowest)),
            1 => (0..400_usize).prop_map(|count| Step::PopMany(count, Extreme::Highest)),
            1 => (any::<usize>(), 0..20_usize).prop_map(|(from, count)| Step::RemoveRanks(from, count)),
        ]
    }

    fn insert(zset: &mut ZSet, model: &mut Model, member: Vec<u8>, score: f64) {
        let old = model.iter().position(|(_, other)| *other == member);
        let expected = match old.map(|at| model[at].0.partial_cmp(&score).unwrap().is_eq()) {
            None => Insertion::Added,
            Some(true) => Insertion::Unchanged,
            Some(false) => Insertion::Updated,
        };
        assert_eq!(zset.insert(&member, score), expected);
        if expected == Insertion::Unchanged {
            return;
        }
        if let Some(at) = old {
            model.remove(at);
        }
        model.push((score, member));
        model.sort_by(|(a, x), (b, y)| a.partial_cmp(b).unwrap().then(x.cmp(y)));
    }

    fn apply(zset: &mut ZSet, model: &mut Model, step: Step) {
        match step {
            Step::Insert(member, score) => insert(zset, model, member, score),
            Step::InsertMany(from, count, score) => {
                for number in from..from + count {
                    insert(zset, model, number.to_string().into_bytes(), score);
                }
            }
            Step::Remove(member) => {
                let at = model.iter().position(|(_, other)| *other == member);
                let removed = at.map(|at| model.remove(at).0);
                assert_eq!(zset.remove(&member), removed);
            }
            Step::PopMin => {
                let first = (!model.is_empty()).then(|| model.remove(0));
                assert_eq!(zset.pop_min(), first.map(|(score, member)| (member, score)));
            }
            Step::PopMax => {
                assert_eq!(zset.pop_max(), model.pop().map(|(score, member)| (member, score)));
            }
            Step::PopMany(count, from) => {
                let mut one_by_one = zset.clone();
                let pop = match from {
                    Extreme::Lowest => ZSet::pop_min,
                    Extreme::Highest => ZSet::pop_max,
                };
                let expected: Vec<_> =
                    std::iter::from_fn(|| pop(&mut one_by_one)).take(count).collect();
                assert_eq!(zset.pop_many(count, from), expected);
                // Also in the order of the table, which snapshots and scans show.
                let digest = digest_of(&zset.clone().into());
                assert_eq!(digest, digest_of(&one_by_one.into()));
                match from {
                    Extreme::Lowest => drop(model.drain(..count.min(model.len()))),
                    Extreme::Highest => model.truncate(model.len().saturating_sub(count)),
                }
            }
            Step::RemoveRanks(from, count) => {
                let from = from % (model.len() + 1);
                let to = (from + count).min(model.len());
                assert_eq!(zset.remove_ranks(from..from + count), to - from);
                model.drain(from..to);
            }
        }
    }

    fn after(steps: Vec<Step>) -> (ZSet, Model) {
        let (mut zset, mut model) = (ZSet::new(KEY), Vec::new());
        for step in steps {
            apply(&mut zset, &mut model, step);
        }
        (zset, model)
    }

    /// Bits, so that infinities compare, but one for both zeros: which is held depends on the form.
    fn bits<'a>(pairs: impl Iterator<Item = (&'a [u8], f64)>) -> Vec<(Vec<u8>, u64)> {
        pairs.map(|(member, score)| (member.to_vec(), (score + 0.0).to_bits())).collect()
    }

    fn scanned(zset: &ZSet) -> Vec<(Vec<u8>, u64)> {
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            let mut visit =
                |member: &[u8], score: f64| seen.push((member.to_vec(), (score + 0.0).to_bits()));
            cursor = zset.scan(cursor, 7, &mut visit);
            if cursor == 0 {
                return seen;
            }
        }
    }

    proptest! {
        #![proptest_config(seeded(60))]

        #[test]
        fn a_sorted_set_behaves_as_a_sorted_vector(
            steps in prop::collection::vec(step(), 1..80), low in score(), high in score()
        ) {
            let (zset, model) = after(steps);
            let pairs = || model.iter().map(|(score, member)| (&member[..], *score));
            prop_assert_eq!(zset.len(), model.len());
            prop_assert_eq!(bits(zset.iter()), bits(pairs()));
            prop_assert_eq!(bits(zset.iter().rev()), bits(pairs().rev()));
            for (rank, (score, member)) in model.iter().enumerate() {
                prop_assert_eq!(zset.rank(member), Some(rank));
                prop_assert_eq!(zset.score(member), Some(*score));
                prop_assert_eq!(zset.nth(rank), Some((&member[..], *score)));
            }
            prop_assert_eq!(zset.nth(model.len()), None);
            prop_assert_eq!(zset.rank(b"no such member"), None);

            let within = |range: Range<usize>| bits(zset.range(range));
            let between = |from: &dyn Fn(f64) -> bool, to: &dyn Fn(f64) -> bool| {
                bits(pairs().filter(|(_, score)| from(*score) && to(*score)))
            };
            prop_assert_eq!(
                within(zset.ranks_by_score(Bound::Included(low), Bound::Excluded(high))),
                between(&|score| score >= low, &|score| score < high)
            );
            prop_assert_eq!(
                within(zset.ranks_by_score(Bound::Excluded(low), Bound::Included(high))),
                between(&|score| score > low, &|score| score <= high)
            );
            prop_assert_eq!(within(zset.ranks_by_score(Bound::Unbounded, Bound::Unbounded)), bits(pairs()));
            let (mut seen, mut all) = (scanned(&zset), bits(pairs()));
            seen.sort();
            all.sort();
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn members_of_one_score_are_found_by_their_bytes(
            members in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..4), 0..300),
            low in prop::collection::vec(any::<u8>(), 0..4),
            high in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut zset = ZSet::new(KEY);
            for member in members.iter().rev() {
                zset.insert(member, 0.0);
            }
            let found = zset.range(zset.ranks_by_member(Bound::Included(&low), Bound::Excluded(&high)));
            let expected = members.iter().filter(|member| **member >= low && **member < high);
            prop_assert!(found.map(|(member, _)| member).eq(expected.map(Vec::as_slice)));
            let found = zset.range(zset.ranks_by_member(Bound::Excluded(&low), Bound::Included(&high)));
            let expected = members.iter().filter(|member| **member > low && **member <= high);
            prop_assert!(found.map(|(member, _)| member).eq(expected.map(Vec::as_slice)));
        }

        #[test]
        fn a_restored_sorted_set_goes_on_like_the_original(
            before in prop::collection::vec(step(), 0..60), later in prop::collection::vec(step(), 0..30)
        ) {
            let (mut zset, mut model) = after(before);
            let mut copy = restored(&zset);
            let mut copy_model = model.clone();
            for step in later {
                apply(&mut zset, &mut model, step.clone());
                apply(&mut copy, &mut copy_model, step);
            }
            prop_assert_eq!(bits(zset.iter()), bits(copy.iter()));
            prop_assert_eq!(scanned(&zset), scanned(&copy));
            prop_assert_eq!(zset.encoding_name(), copy.encoding_name());
            prop_assert_eq!(digest_of(&zset.into()), digest_of(&copy.into()));
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(0..4_u8, 0..60)) {
            if let Ok(zset) = load::<ZSet>(ZSET, &bytes) {
                prop_assert_eq!(zset.iter().count(), zset.len());
            }
        }
    }

    #[test]
    fn negative_zero_is_zero_in_a_small_set_and_never_set_over_zero() {
        let mut zset = ZSet::new(KEY);
        assert_eq!(zset.insert(b"a", -0.0), Insertion::Added);
        assert_eq!(zset.score(b"a").map(f64::to_bits), Some(0));
        assert_eq!(zset.insert(&[b'm'; SORTED_BYTES_MAX + 1], 1.0), Insertion::Added);
        assert_eq!(zset.insert(b"a", -0.0), Insertion::Unchanged);
        assert_eq!(zset.insert(b"b", -0.0), Insertion::Added);
        assert_eq!(zset.score(b"a").map(f64::to_bits), Some(0));
        assert_eq!(zset.score(b"b").map(f64::to_bits), Some((-0.0_f64).to_bits()));
        assert_eq!(zset.rank(b"b"), Some(1));
    }

    fn encoded(form: u8, members: &[(&[u8], f64)]) -> Vec<u8> {
        let mut bytes = vec![form];
        codec::put_length(&mut bytes, members.len());
        for (member, score) in members {
            codec::put_bytes(&mut bytes, member);
            codec::put_f64(&mut bytes, *score);
        }
        bytes
    }

    #[test]
    fn bad_snapshots_are_refused() {
        let rows = [
            (vec![], DecodeError::Truncated),
            (vec![FORM_TABLE, 1, 1, b'm'], DecodeError::Truncated),
            (encoded(5, &[]), DecodeError::UnknownFormat(5)),
            (encoded(FORM_SORTED, &[(b"m", 1.0), (b"m", 2.0)]), DecodeError::Duplicate("member")),
            (encoded(FORM_TABLE, &[(b"m", 1.0), (b"m", 2.0)]), DecodeError::Duplicate("member")),
            (
                encoded(FORM_SORTED, &[(b"b", 1.0), (b"a", 1.0)]),
                DecodeError::Invalid("a sorted set is not sorted"),
            ),
            (
                encoded(FORM_TABLE, &[(b"a", f64::NAN)]),
                DecodeError::Invalid("a score is not a number"),
            ),
            (encoded(FORM_SORTED, &[(&[0; SORTED_BYTES_MAX + 1], 1.0)]), BEYOND_LIMITS),
            (encoded(FORM_SORTED, &[(&b"a"[..], 1.0); SORTED_MEMBERS_MAX + 1]), BEYOND_LIMITS),
        ];
        for (bytes, error) in rows {
            assert_eq!(load::<ZSet>(ZSET, &bytes).err(), Some(error), "{bytes:?}");
        }
    }

    #[test]
    fn the_form_changes_at_the_limits_of_redis() {
        let mut zset = ZSet::new(KEY);
        for number in 0..128_u8 {
            zset.insert(&[number], f64::from(number));
        }
        assert_eq!(zset.encoding_name(), "listpack");
        zset.insert(b"one more", 0.5);
        assert_eq!(zset.encoding_name(), "skiplist");
        assert_eq!(zset.rank(b"one more"), Some(1));
        let mut zset = ZSet::new(KEY);
        zset.insert(&[b'm'; SORTED_BYTES_MAX + 1], 1.0);
        assert_eq!(zset.encoding_name(), "skiplist");
    }
}
