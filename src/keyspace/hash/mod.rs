//! Hashes: fields with values.
//!
//! Small hashes are one packed run (`packed`), larger ones a dense table (`table`). Both keep the same order: a
//! new field goes to the end, a removed one is replaced by the last. A hash that became a table stays one, as
//! in Redis, and the snapshot says which form it has, so that a restored replica goes on exactly as the others
//! do.
//!
//! Source: Redis docs, "Memory optimization" (`hash-max-listpack-entries`, `hash-max-listpack-value`).

mod iter;
mod loading;
mod packed;
mod table;

use crate::stdx::codec::{self, Sink};

use super::dense::{Dense, MemberKey};
use super::packed::Packed;
use super::parts::{Cursor, Elements};

use self::iter::FormIter;
pub use self::iter::HashIter;
pub(super) use self::loading::HashLoading;
use self::packed::Pairs;
use self::table::Pair;

/// The snapshot's code of the packed form.
const FORM_PACKED: u8 = 0;
/// The snapshot's code of the table form.
const FORM_TABLE: u8 = 1;

/// A Redis hash.
#[derive(Clone, Debug)]
pub struct Hash(Form, MemberKey);

#[derive(Clone, Debug)]
enum Form {
    Packed(Packed),
    Table(Dense<Pair>),
}

impl Hash {
    /// An empty hash; allocates nothing.
    pub(super) const fn new(key: MemberKey) -> Self {
        Self(Form::Packed(Packed::new()), key)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(run) => run.len() / 2,
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
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// The value of `field`.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.0 {
            Form::Packed(run) => {
                Pairs::of(run).find(|(other, _)| *other == field).map(|(_, value)| value)
            }
            Form::Table(table) => {
                let position = table.position(field)?;
                table.get(position).map(|pair| pair.as_slices().1)
            }
        }
    }

    /// Whether `field` exists.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets `field` to `value`. Returns whether the field is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        if let Form::Packed(run) = &mut self.0
            && let Some(is_new) = packed::insert(run, field, value)
        {
            return is_new;
        }
        table::insert(self.make_table(), field, value)
    }

    /// Removes `field`; the last field takes its place in the order. Returns whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Form::Packed(run) => packed::remove(run, field),
            Form::Table(table) => table::remove(table, field),
        }
    }

    /// The field at `index` of the order, and its value.
    pub fn nth(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match &self.0 {
            Form::Packed(run) => Pairs::of(run).nth(index),
            Form::Table(table) => table.get(index).map(Pair::as_slices),
        }
    }

    /// All fields with their values, in the order of the hash.
    pub fn iter(&self) -> HashIter<'_> {
        HashIter(match &self.0 {
            Form::Packed(run) => FormIter::Packed(Pairs::of(run)),
            Form::Table(table) => FormIter::Table(table.as_slice().iter()),
        })
    }

    /// One step of a scan: visits about `count` fields, beginning where `cursor` says (0: the beginning),
    /// and returns the cursor of the next step, 0 when there is none. A small hash is visited at once.
    ///
    /// Guarantee: a field that exists from the first step to the last is visited at least once. Cursors are
    /// good on every replica.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        match &self.0 {
            Form::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Table(table) => {
                let (step, next) = table.scan(cursor, count);
                step.iter().map(Pair::as_slices).for_each(|(field, value)| visit(field, value));
                next
            }
        }
    }

    /// Writes the code of the form and the number of fields.
    pub(super) fn put_head<S: Sink>(&self, sink: &mut S) {
        sink.put(&[match &self.0 {
            Form::Packed(_) => FORM_PACKED,
            Form::Table(_) => FORM_TABLE,
        }]);
        codec::put_length(sink, self.len());
    }

    /// Writes elements, each a field and its value in the order of the hash: those from `cursor` on, as far as there is
    /// room; whether those were all.
    pub(super) fn put_elements<S: Elements>(&self, cursor: &mut Cursor, sink: &mut S) -> bool {
        let pairs = match &self.0 {
            Form::Packed(run) => FormIter::Packed(Pairs::from(run, cursor.element)),
            Form::Table(table) => FormIter::Table(table.as_slice()[cursor.element..].iter()),
        };
        HashIter(pairs).all(|(field, value)| {
            cursor.put_element(sink, |sink| {
                codec::put_bytes(sink, field);
                codec::put_bytes(sink, value);
            })
        })
    }

    fn make_table(&mut self) -> &mut Dense<Pair> {
        if let Form::Packed(run) = &self.0 {
            self.0 = Form::Table(table::of_run(run, self.1));
        }
        match &mut self.0 {
            Form::Table(table) => table,
            Form::Packed(_) => unreachable!("the form was made a table"),
        }
    }
}

impl<'a> IntoIterator for &'a Hash {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = HashIter<'a>;

    fn into_iter(self) -> HashIter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::packed::{PACKED_BYTES_MAX, PACKED_FIELDS_MAX};
    use super::*;
    use crate::keyspace::error::DecodeError;
    use crate::keyspace::testing::{KEY, digest_of, load, restored, seeded};
    use crate::keyspace::value::type_code::HASH;

    /// The order of a hash, as a vector defines it.
    type Model = Vec<(Vec<u8>, Vec<u8>)>;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, Vec<u8>),
        InsertMany(u16, u16),
        Remove(Vec<u8>),
        RemoveAt(usize),
    }

    fn field() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            20 => (0..200_u16).prop_map(|number| number.to_string().into_bytes()),
            1 => Just(vec![b'f'; PACKED_BYTES_MAX]),
            1 => Just(vec![b'f'; PACKED_BYTES_MAX + 1]),
        ]
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            60 => prop::collection::vec(any::<u8>(), 0..=PACKED_BYTES_MAX),
            1 => prop::collection::vec(any::<u8>(), 65..200),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (field(), value()).prop_map(|(field, value)| Step::Insert(field, value)),
            1 => (0..200_u16, 0..100_u16).prop_map(|(from, count)| Step::InsertMany(from, count)),
            2 => field().prop_map(Step::Remove),
            2 => any::<usize>().prop_map(Step::RemoveAt),
        ]
    }

    fn insert(hash: &mut Hash, model: &mut Model, field: Vec<u8>, value: Vec<u8>) {
        let found = model.iter_mut().find(|(other, _)| *other == field);
        assert_eq!(hash.insert(&field, &value), found.is_none());
        match found {
            Some(pair) => pair.1 = value,
            None => model.push((field, value)),
        }
    }

    fn apply(hash: &mut Hash, model: &mut Model, step: Step) {
        match step {
            Step::Insert(field, value) => insert(hash, model, field, value),
            Step::InsertMany(from, count) => {
                for number in from..from + count {
                    insert(hash, model, number.to_string().into_bytes(), b"v".to_vec());
                }
            }
            Step::Remove(field) => {
                let at = model.iter().position(|(other, _)| *other == field);
                assert_eq!(hash.remove(&field), at.is_some());
                if let Some(at) = at {
                    model.swap_remove(at);
                }
            }
            Step::RemoveAt(at) if !model.is_empty() => {
                let at = at % model.len();
                let (field, _) = model.swap_remove(at);
                assert!(hash.remove(&field));
            }
            Step::RemoveAt(_) => {}
        }
    }

    fn contents(hash: &Hash) -> Model {
        hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
    }

    proptest! {
        #![proptest_config(seeded(100))]

        /// The order is that of a vector with `push` and `swap_remove`, whichever form the hash has.
        #[test]
        fn a_hash_behaves_as_a_vector_of_pairs(steps in prop::collection::vec(step(), 1..150)) {
            let (mut hash, mut model) = (Hash::new(KEY), Vec::new());
            for step in steps {
                apply(&mut hash, &mut model, step);
                prop_assert_eq!(hash.len(), model.len());
            }
            prop_assert_eq!(contents(&hash), &model[..]);
            for (index, (field, value)) in model.iter().enumerate() {
                prop_assert_eq!(hash.get(field), Some(&value[..]));
                prop_assert_eq!(hash.nth(index), Some((&field[..], &value[..])));
            }
            prop_assert_eq!(hash.nth(model.len()), None);
            prop_assert!(!hash.contains(b"no such field"));
        }

        #[test]
        fn a_restored_hash_goes_on_like_the_original(
            before in prop::collection::vec(step(), 0..80), after in prop::collection::vec(step(), 0..40)
        ) {
            let (mut hash, mut model) = (Hash::new(KEY), Vec::new());
            for step in before {
                apply(&mut hash, &mut model, step);
            }
            let mut copy = restored(&hash);
            let mut copy_model = model.clone();
            for step in after {
                apply(&mut hash, &mut model, step.clone());
                apply(&mut copy, &mut copy_model, step);
            }
            prop_assert_eq!(contents(&hash), contents(&copy));
            prop_assert_eq!(hash.encoding_name(), copy.encoding_name());
            prop_assert_eq!(digest_of(&hash.into()), digest_of(&copy.into()));
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(0..4_u8, 0..40)) {
            if let Ok(hash) = load::<Hash>(HASH, &bytes) {
                prop_assert_eq!(hash.iter().count(), hash.len());
            }
        }
    }

    #[test]
    fn bad_snapshots_are_refused() {
        let packed_too_long = [&[FORM_PACKED, 1, 65][..], &[0; 65], &[0]].concat();
        let rows: [(&[u8], DecodeError); 6] = [
            (&[], DecodeError::Truncated),
            (&[7, 0], DecodeError::UnknownFormat(7)),
            (&[FORM_PACKED, 1, 1, b'f'], DecodeError::Truncated),
            (&[FORM_PACKED, 2, 1, b'f', 0, 1, b'f', 0], DecodeError::Duplicate("field")),
            (&[FORM_TABLE, 2, 1, b'f', 0, 1, b'f', 0], DecodeError::Duplicate("field")),
            (&packed_too_long, DecodeError::Invalid("a packed hash is beyond its limits")),
        ];
        for (bytes, error) in rows {
            assert_eq!(load::<Hash>(HASH, bytes).err(), Some(error), "{bytes:?}");
        }
    }

    #[test]
    fn the_form_changes_at_the_limits_of_redis() {
        let mut hash = Hash::new(KEY);
        for number in 0..PACKED_FIELDS_MAX {
            hash.insert(number.to_string().as_bytes(), &[b'v'; PACKED_BYTES_MAX]);
        }
        assert_eq!(hash.encoding_name(), "listpack");
        hash.insert(b"one more", b"");
        assert_eq!(hash.encoding_name(), "hashtable");
        for number in 0..PACKED_FIELDS_MAX {
            hash.remove(number.to_string().as_bytes());
        }
        assert_eq!((hash.len(), hash.encoding_name()), (1, "hashtable"));
    }

    #[test]
    fn a_small_hash_is_scanned_at_once_and_a_large_one_in_steps() {
        let mut hash = Hash::new(KEY);
        hash.insert(b"f", b"v");
        let mut seen = 0;
        assert_eq!(hash.scan(0, 1, &mut |_, _| seen += 1), 0);
        assert_eq!(seen, 1);
        for number in 0..1000_u32 {
            hash.insert(&number.to_le_bytes(), b"v");
        }
        let (mut cursor, mut seen, mut steps) = (0, Vec::new(), 0);
        loop {
            cursor = hash.scan(cursor, 10, &mut |field, _| seen.push(field.to_vec()));
            steps += 1;
            if cursor == 0 {
                break;
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((seen.len(), steps), (1001, 101));
        // A cursor from elsewhere begins at the nearest place there is.
        assert_eq!(hash.scan(u64::MAX, 1001, &mut |_, _| {}), 0);
    }
}
