//! Sets: distinct byte strings.
//!
//! Three forms, as in Redis: sorted integers (`integers`), a packed run (`packed`), a dense table (`table`). The
//! first has the order of the integers, the other two that of a dense table: a new member goes to the end, a
//! removed one is replaced by the last. A form is left only for a larger one, and the snapshot says which it
//! is, so that a restored replica goes on exactly as the others do.
//!
//! Commands that pick members at random pick an index of this order with the entry's seed.
//!
//! Source: Redis docs, "Memory optimization" (`set-max-intset-entries`, `set-max-listpack-entries`,
//! `set-max-listpack-value`, since 7.2).

mod integers;
mod iter;
mod loading;
mod packed;
mod table;

use std::borrow::Cow;

use crate::stdx::codec::{self, Sink};

use super::Bin;
use super::dense::{Dense, MemberKey};
use super::packed::Packed;
use super::parts::{Cursor, Elements};

use self::integers::{Attempt, text};
use self::iter::FormIter;
pub use self::iter::SetIter;
pub(super) use self::loading::SetLoading;
use self::packed::PACKED_MEMBERS_MAX;

/// The snapshot's code of sorted integers.
const FORM_INTEGERS: u8 = 0;
/// The snapshot's code of the packed form.
const FORM_PACKED: u8 = 1;
/// The snapshot's code of the table form.
const FORM_TABLE: u8 = 2;

/// A Redis set.
#[derive(Clone, Debug)]
pub struct Set(Form, MemberKey);

#[derive(Clone, Debug)]
enum Form {
    /// Ascending, without equals.
    Integers(Vec<i64>),
    Packed(Packed),
    Table(Dense<Bin>),
}

impl Set {
    /// An empty set; allocates nothing.
    pub(super) const fn new(key: MemberKey) -> Self {
        Self(Form::Integers(Vec::new()), key)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Integers(numbers) => numbers.len(),
            Form::Packed(run) => run.len(),
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What OBJECT ENCODING calls the form.
    pub const fn encoding_name(&self) -> &'static str {
        match &self.0 {
            Form::Integers(_) => "intset",
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// Whether `member` is in the set.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.position(member).is_some()
    }

    /// Adds `member`. Returns whether it is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        if let Form::Integers(numbers) = &mut self.0 {
            match integers::insert(numbers, member) {
                Attempt::Done { is_new } => return is_new,
                Attempt::NotAnInteger => self.leave_integers(),
                Attempt::Full => {}
            }
        }
        if let Form::Packed(run) = &mut self.0
            && let Some(is_new) = packed::insert(run, member)
        {
            return is_new;
        }
        self.make_table().insert_with(member, || member.into()).1
    }

    /// Removes `member`. Returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self.position(member) {
            Some(index) => {
                self.remove_at(index);
                true
            }
            None => false,
        }
    }

    /// The member at `index` of the order.
    pub fn nth(&self, index: usize) -> Option<Cow<'_, [u8]>> {
        match &self.0 {
            Form::Integers(numbers) => numbers.get(index).map(|&number| text(number)),
            Form::Packed(run) => run.get(index).map(Cow::Borrowed),
            Form::Table(table) => table.get(index).map(|member| Cow::Borrowed(&**member)),
        }
    }

    /// Removes the member at `index` of the order.
    pub fn take_nth(&mut self, index: usize) -> Option<Vec<u8>> {
        let member = self.nth(index)?.into_owned();
        self.remove_at(index);
        Some(member)
    }

    /// All members in the order in which [`Set::take_picked`] would take them.
    pub fn picked(&self, mut pick: impl FnMut(usize) -> usize) -> Vec<Cow<'_, [u8]>> {
        let mut left: Vec<Cow<'_, [u8]>> = self.iter().collect();
        let mut picked = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let at = pick(left.len());
            picked.push(match &self.0 {
                Form::Integers(_) => left.remove(at),
                Form::Packed(_) | Form::Table(_) => left.swap_remove(at),
            });
        }
        picked
    }

    /// Removes up to `count` members, one after the other, each at the index of the order that `pick` chooses among as
    /// many as it is told.
    pub fn take_picked(
        &mut self,
        count: usize,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Vec<Vec<u8>> {
        match &mut self.0 {
            Form::Table(table) => {
                table.take_picked(count, pick).into_iter().map(Bin::into_vec).collect()
            }
            Form::Integers(_) | Form::Packed(_) => {
                let take = || self.take_nth(pick(self.len()));
                std::iter::from_fn(take).take(count).collect()
            }
        }
    }

    /// All members, in the order of the set. Integers are spelled out on the way.
    pub fn iter(&self) -> SetIter<'_> {
        SetIter(match &self.0 {
            Form::Integers(numbers) => FormIter::Integers(numbers.iter()),
            Form::Packed(run) => FormIter::Packed(run.iter()),
            Form::Table(table) => FormIter::Table(table.as_slice().iter()),
        })
    }

    /// One step of a scan: visits about `count` members, beginning where `cursor` says (0: the beginning),
    /// and returns the cursor of the next step, 0 when there is none. A small set is visited at once.
    ///
    /// Guarantee: a member that is there from the first step to the last is visited at least once. Cursors
    /// are good on every replica.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8])) -> u64 {
        match &self.0 {
            Form::Integers(_) | Form::Packed(_) => {
                self.iter().for_each(|member| visit(&member));
                0
            }
            Form::Table(table) => {
                let (step, next) = table.scan(cursor, count);
                for member in step {
                    visit(member);
                }
                next
            }
        }
    }

    /// Writes the code of the form and the number of members.
    pub(super) fn put_head<S: Sink>(&self, sink: &mut S) {
        sink.put(&[match &self.0 {
            Form::Integers(_) => FORM_INTEGERS,
            Form::Packed(_) => FORM_PACKED,
            Form::Table(_) => FORM_TABLE,
        }]);
        codec::put_length(sink, self.len());
    }

    /// Writes elements: the members in the order of the set, of integers the first and then the distance of each to the one
    /// before. Those from `cursor` on, as far as there is room; whether those were all.
    pub(super) fn put_elements<S: Elements>(&self, cursor: &mut Cursor, sink: &mut S) -> bool {
        match &self.0 {
            Form::Integers(numbers) => integers::put(numbers, cursor, sink),
            Form::Packed(run) => put_members(run.iter_from(cursor.element), cursor, sink),
            Form::Table(table) => {
                let members = table.as_slice()[cursor.element..].iter();
                put_members(members.map(|member| &**member), cursor, sink)
            }
        }
    }

    /// Where `member` stands in the order.
    fn position(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Form::Integers(numbers) => integers::position(numbers, member),
            Form::Packed(run) => packed::position(run, member),
            Form::Table(table) => table.position(member),
        }
    }

    fn remove_at(&mut self, index: usize) {
        match &mut self.0 {
            Form::Integers(numbers) => drop(numbers.remove(index)),
            Form::Packed(run) => run.swap_remove(index, 1),
            Form::Table(table) => drop(table.swap_remove(index)),
        }
    }

    /// Turns integers into a run, or into a table when they are too many for one.
    fn leave_integers(&mut self) {
        if self.len() > PACKED_MEMBERS_MAX {
            self.make_table();
        } else if let Form::Integers(numbers) = &self.0 {
            self.0 = Form::Packed(packed::of_integers(numbers));
        }
    }

    fn make_table(&mut self) -> &mut Dense<Bin> {
        if !matches!(self.0, Form::Table(_)) {
            self.0 = Form::Table(table::of_members(self.iter(), self.1));
        }
        match &mut self.0 {
            Form::Table(table) => table,
            Form::Integers(_) | Form::Packed(_) => unreachable!("the form was made a table"),
        }
    }
}

impl<'a> IntoIterator for &'a Set {
    type Item = Cow<'a, [u8]>;
    type IntoIter = SetIter<'a>;

    fn into_iter(self) -> SetIter<'a> {
        self.iter()
    }
}

fn put_members<'a, S: Elements>(
    mut members: impl Iterator<Item = &'a [u8]>,
    cursor: &mut Cursor,
    sink: &mut S,
) -> bool {
    members.all(|member| cursor.put_element(sink, |sink| codec::put_bytes(sink, member)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::integers::INTEGERS_MAX;
    use super::packed::PACKED_BYTES_MAX;
    use super::*;
    use crate::keyspace::error::DecodeError;
    use crate::keyspace::testing::{KEY, digest_of, load, restored, seeded};
    use crate::keyspace::value::type_code::SET;
    use crate::stdx::num;
    use crate::stdx::prng::SplitMix64;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>),
        InsertMany(i64, i64),
        Remove(Vec<u8>),
        TakeNth(usize),
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            40 => (-300..300_i64).prop_map(|number| number.to_string().into_bytes()),
            4 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            4 => "[a-c]{0,2}".prop_map(String::into_bytes),
            2 => prop::sample::select(vec!["01", "-0", "+1", "-", "9223372036854775808"])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => (60..70_usize).prop_map(|length| vec![b'm'; length]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => member().prop_map(Step::Insert),
            1 => (-300..300_i64, 0..200_i64).prop_map(|(from, count)| Step::InsertMany(from, count)),
            2 => member().prop_map(Step::Remove),
            2 => any::<usize>().prop_map(Step::TakeNth),
        ]
    }

    /// Applies `step` to both and compares what they say; the model is what the set held, in its order.
    fn apply(set: &mut Set, model: &mut Vec<Vec<u8>>, step: Step) {
        let is_single = !matches!(step, Step::InsertMany(..));
        match step {
            Step::Insert(member) => {
                let is_new = !model.contains(&member);
                assert_eq!(set.contains(&member), !is_new);
                assert_eq!(set.insert(&member), is_new);
            }
            Step::InsertMany(from, count) => {
                for number in from..from + count {
                    let member = number.to_string().into_bytes();
                    assert_eq!(set.insert(&member), !model.contains(&member));
                }
            }
            Step::Remove(member) => assert_eq!(set.remove(&member), model.contains(&member)),
            Step::TakeNth(index) => {
                let index = index % (model.len() + 1);
                assert_eq!(set.take_nth(index), model.get(index).cloned());
            }
        }
        if is_single {
            assert_change_is_orderly(set, model);
        }
        *model = contents(set);
    }

    /// Whatever happened, the order is ascending integers, or what was there stayed in place but for one
    /// member that moved into a gap.
    fn assert_change_is_orderly(set: &Set, before: &[Vec<u8>]) {
        let after = contents(set);
        if matches!(set.0, Form::Integers(_)) {
            let numbers: Vec<_> =
                after.iter().map(|member| num::parse_i64(member).unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        } else {
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
            assert!(moved <= 1, "{moved} members moved");
        }
    }

    fn contents(set: &Set) -> Vec<Vec<u8>> {
        set.iter().map(Cow::into_owned).collect()
    }

    proptest! {
        #![proptest_config(seeded(100))]

        #[test]
        fn a_set_holds_what_was_put_in(steps in prop::collection::vec(step(), 1..120)) {
            let (mut set, mut model) = (Set::new(KEY), Vec::new());
            let mut sorted = std::collections::BTreeSet::new();
            for step in steps {
                match &step {
                    Step::Insert(member) => drop(sorted.insert(member.clone())),
                    Step::InsertMany(from, count) => sorted
                        .extend((*from..from + count).map(|number| number.to_string().into_bytes())),
                    Step::Remove(member) => drop(sorted.remove(member)),
                    Step::TakeNth(index) => {
                        let picked = model.get(index % (model.len() + 1));
                        picked.map(|member: &Vec<u8>| sorted.remove(member));
                    }
                }
                apply(&mut set, &mut model, step);
                prop_assert_eq!(set.len(), sorted.len());
            }
            prop_assert_eq!(contents(&set).into_iter().collect::<std::collections::BTreeSet<_>>(), sorted);
            for (index, member) in model.iter().enumerate() {
                prop_assert_eq!(set.nth(index), Some(Cow::Borrowed(&member[..])));
            }
        }

        /// However many are taken at once, it is as if they were taken one by one, also for who takes all of them.
        #[test]
        fn taking_many_is_taking_one_by_one(
            steps in prop::collection::vec(step(), 1..60), count in 0..500_usize, seed in any::<u64>()
        ) {
            let (mut set, mut model) = (Set::new(KEY), Vec::new());
            for step in steps {
                apply(&mut set, &mut model, step);
            }
            let picker = || {
                let mut dice = SplitMix64::new(seed);
                move |len: usize| usize::try_from(dice.below(len as u64)).unwrap()
            };
            let (mut one_by_one, mut pick) = (set.clone(), picker());
            let take = || one_by_one.take_nth(pick(one_by_one.len()));
            let expected: Vec<_> = std::iter::from_fn(take).take(count).collect();
            if count >= set.len() {
                let all: Vec<_> = set.picked(picker()).into_iter().map(Cow::into_owned).collect();
                prop_assert_eq!(&all, &expected);
            }
            prop_assert_eq!(set.take_picked(count, picker()), expected);
            prop_assert_eq!(contents(&set), contents(&one_by_one));
            prop_assert_eq!(set.encoding_name(), one_by_one.encoding_name());
        }

        #[test]
        fn a_restored_set_goes_on_like_the_original(
            before in prop::collection::vec(step(), 0..60), after in prop::collection::vec(step(), 0..30)
        ) {
            let (mut set, mut model) = (Set::new(KEY), Vec::new());
            for step in before {
                apply(&mut set, &mut model, step);
            }
            let mut copy = restored(&set);
            let mut copy_model = model.clone();
            for step in after {
                apply(&mut set, &mut model, step.clone());
                apply(&mut copy, &mut copy_model, step);
            }
            prop_assert_eq!(contents(&set), contents(&copy));
            prop_assert_eq!(set.encoding_name(), copy.encoding_name());
            prop_assert_eq!(digest_of(&set.into()), digest_of(&copy.into()));
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(0..4_u8, 0..40)) {
            if let Ok(set) = load::<Set>(SET, &bytes) {
                prop_assert_eq!(set.iter().count(), set.len());
            }
        }
    }

    #[test]
    fn bad_snapshots_are_refused() {
        let mut beyond = vec![FORM_INTEGERS, 2];
        codec::put_signed(&mut beyond, i64::MAX);
        codec::put_varint(&mut beyond, 1);
        let rows: [(&[u8], DecodeError); 6] = [
            (&[], DecodeError::Truncated),
            (&[9, 0], DecodeError::UnknownFormat(9)),
            (&[FORM_INTEGERS, 2, 1, 0], DecodeError::Duplicate("member")),
            (&beyond, DecodeError::Invalid("an integer of a set exceeds 64 bits")),
            (&[FORM_PACKED, 2, 1, b'm', 1, b'm'], DecodeError::Duplicate("member")),
            (&[FORM_TABLE, 2, 1, b'm', 1, b'm'], DecodeError::Duplicate("member")),
        ];
        for (bytes, error) in rows {
            assert_eq!(load::<Set>(SET, bytes).err(), Some(error), "{bytes:?}");
        }
    }

    #[test]
    fn the_form_changes_at_the_limits_of_redis() {
        let mut set = Set::new(KEY);
        for number in 0..INTEGERS_MAX {
            set.insert(number.to_string().as_bytes());
        }
        assert_eq!(set.encoding_name(), "intset");
        set.insert(b"1000");
        assert_eq!(set.encoding_name(), "hashtable");

        let mut set = Set::new(KEY);
        for number in 0..PACKED_MEMBERS_MAX - 1 {
            set.insert(number.to_string().as_bytes());
        }
        set.insert(b"a");
        assert_eq!((set.len(), set.encoding_name()), (PACKED_MEMBERS_MAX, "listpack"));
        set.insert(b"b");
        assert_eq!(set.encoding_name(), "hashtable");

        let mut set = Set::new(KEY);
        set.insert(&[b'm'; PACKED_BYTES_MAX + 1]);
        assert_eq!(set.encoding_name(), "hashtable");
    }
}
