//! Strings: bytes that may be an integer.
//!
//! A text that is the canonical spelling of an `i64` is kept as that integer, a short one inside the entry,
//! a longer one on the heap. Which it is never shows in what the string says ([`Str::as_bytes`]) nor in its
//! digest; only `OBJECT ENCODING` tells ([`Str::encoding`]).
//!
//! A long one is behind a count, so that whoever is to have it, be it for a reply or for a snapshot, is lent it however long
//! it is ([`Str::lent`]). It is edited in place while nobody else has it, and copied first while somebody has.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::stdx::codec::{self, Sink};
use crate::stdx::num::parse_i64;
use crate::stdx::rope::LENT_BYTES_MIN;

use super::error::DecodeError;
use super::parts::Spelling;

/// The longest text that is kept inside the entry, in bytes: what 32 bytes leave beside the tag and length.
const SHORT_BYTES_MAX: usize = 30;

/// The longest string that Redis calls `embstr`, in bytes.
const EMBSTR_BYTES_MAX: usize = 44;

/// The shortest string that can be lent, in bytes. (In tests it is short enough to be common.)
const SHARED_BYTES_MIN: usize = if cfg!(test) { 150 } else { LENT_BYTES_MIN };

/// A Redis string.
#[derive(Clone, Debug)]
pub struct Str {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The canonical text of this integer.
    Integer(i64),
    /// At most [`SHORT_BYTES_MAX`] bytes, set as a whole.
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    /// More than that, set as a whole.
    Long(Vec<u8>),
    /// Edited in place since it was set: Redis calls it `raw` whatever its length.
    Edited(Vec<u8>),
    /// Either of these, of [`SHARED_BYTES_MIN`] or more.
    Shared { bytes: Arc<Vec<u8>>, is_edited: bool },
}

// Beside its tag, what a short one has.
const _: () = assert!(size_of::<Str>() == 32);

/// What lends a string for as long as there are parts of it.
struct Lender(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lender {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// How a string is kept, as snapshots spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StrForm {
    Text,
    Integer,
    Edited,
}

impl Str {
    /// The empty string.
    pub fn new() -> Self {
        Self::short(b"")
    }

    /// The string of `bytes`; a canonical integer is recognised.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if let Some(number) = parse_i64(bytes) {
            return Self::from_i64(number);
        }
        if bytes.len() <= SHORT_BYTES_MAX { Self::short(bytes) } else { Self::long(bytes.to_vec()) }
    }

    /// As [`Str::from_bytes`], without a copy when the bytes stay on the heap.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        if bytes.len() <= SHORT_BYTES_MAX { Self::from_bytes(&bytes) } else { Self::long(bytes) }
    }

    /// The decimal text of `number`.
    pub fn from_i64(number: i64) -> Self {
        Self { form: Form::Integer(number) }
    }

    /// What the string says. Copies only when it is an integer; see [`Str::bytes_in`] for none at all.
    pub fn as_bytes(&self) -> Cow<'_, [u8]> {
        match &self.form {
            Form::Integer(number) => {
                Cow::Owned(itoa::Buffer::new().format(*number).as_bytes().to_vec())
            }
            Form::Short { length, bytes } => Cow::Borrowed(&bytes[..usize::from(*length)]),
            Form::Long(bytes) | Form::Edited(bytes) => Cow::Borrowed(bytes),
            Form::Shared { bytes, .. } => Cow::Borrowed(bytes),
        }
    }

    /// Whether it is long, and a clone costs nothing.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.form, Form::Shared { .. })
    }

    /// What a long string says, lent: it costs the same however long that is, and stays as it is whatever becomes of the
    /// string. `None` of a short one, which is better copied.
    #[inline]
    pub fn lent(&self) -> Option<Bytes> {
        match &self.form {
            Form::Shared { bytes, .. } => Some(Bytes::from_owner(Lender(Arc::clone(bytes)))),
            Form::Integer(_) | Form::Short { .. } | Form::Long(_) | Form::Edited(_) => None,
        }
    }

    /// What the string says; an integer's text is put into `text`.
    pub fn bytes_in<'a>(&'a self, text: &'a mut itoa::Buffer) -> &'a [u8] {
        match &self.form {
            Form::Integer(number) => text.format(*number).as_bytes(),
            Form::Short { length, bytes } => &bytes[..usize::from(*length)],
            Form::Long(bytes) | Form::Edited(bytes) => bytes,
            Form::Shared { bytes, .. } => bytes,
        }
    }

    /// The integer whose canonical text this is. `None` for `+1`, ` 1`, `01`, `-0` and what exceeds `i64`.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.form {
            Form::Integer(number) => Some(*number),
            // A text set as a whole would have become an integer, and no integer is so long.
            Form::Short { .. } | Form::Long(_) | Form::Shared { .. } => None,
            Form::Edited(bytes) => parse_i64(bytes),
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes_in(&mut itoa::Buffer::new()).len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets `change` edit the bytes (APPEND, SETRANGE, SETBIT), which become `more` longer; in place, unless they are lent to
    /// somebody. The string is `raw` from then on.
    pub fn edit<R>(&mut self, more: usize, change: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if let Form::Shared { bytes, is_edited } = &mut self.form {
            *is_edited = true;
            return change(own(bytes, more));
        }
        let mut bytes = std::mem::take(self).into_vec();
        let changed = change(&mut bytes);
        *self = Self::edited(bytes);
        changed
    }

    /// What the string says, without a copy when it is on the heap and nobody else has it.
    fn into_vec(self) -> Vec<u8> {
        match self.form {
            Form::Long(bytes) | Form::Edited(bytes) => bytes,
            Form::Shared { bytes, .. } => Arc::unwrap_or_clone(bytes),
            Form::Integer(_) | Form::Short { .. } => self.as_bytes().into_owned(),
        }
    }

    /// Its encoding in Redis' words: `int`, `embstr` or `raw`.
    ///
    /// Source: Redis docs, OBJECT ENCODING.
    pub fn encoding(&self) -> &'static str {
        match &self.form {
            Form::Integer(_) => "int",
            Form::Short { .. } => "embstr",
            Form::Long(bytes) if bytes.len() <= EMBSTR_BYTES_MAX => "embstr",
            Form::Long(_) | Form::Edited(_) | Form::Shared { .. } => "raw",
        }
    }

    /// What was set as a whole and is not [short](SHORT_BYTES_MAX).
    fn long(bytes: Vec<u8>) -> Self {
        Self::on_heap(bytes, false)
    }

    fn edited(bytes: Vec<u8>) -> Self {
        Self::on_heap(bytes, true)
    }

    #[inline]
    fn on_heap(bytes: Vec<u8>, is_edited: bool) -> Self {
        let form = match is_edited {
            _ if bytes.len() >= SHARED_BYTES_MIN => {
                Form::Shared { bytes: Arc::new(bytes), is_edited }
            }
            true => Form::Edited(bytes),
            false => Form::Long(bytes),
        };
        Self { form }
    }

    fn short(bytes: &[u8]) -> Self {
        let mut inline = [0; SHORT_BYTES_MAX];
        inline[..bytes.len()].copy_from_slice(bytes);
        let length = u8::try_from(bytes.len()).expect("copy_from_slice holds it to 30 bytes");
        Self { form: Form::Short { length, bytes: inline } }
    }

    fn form(&self) -> StrForm {
        match &self.form {
            Form::Integer(_) => StrForm::Integer,
            Form::Short { .. } | Form::Long(_) | Form::Shared { is_edited: false, .. } => {
                StrForm::Text
            }
            Form::Edited(_) | Form::Shared { is_edited: true, .. } => StrForm::Edited,
        }
    }

    /// The form as which it is spelled.
    pub(super) fn form_in(&self, spelling: Spelling) -> StrForm {
        match spelling {
            Spelling::Snapshot => self.form(),
            Spelling::Digest => StrForm::Text,
        }
    }

    /// Writes the string as its form is spelled; the form itself is the entry's type code.
    pub(super) fn put<S: Sink>(&self, spelling: Spelling, sink: &mut S) {
        match (&self.form, spelling) {
            (Form::Integer(number), Spelling::Snapshot) => codec::put_signed(sink, *number),
            (_, Spelling::Snapshot | Spelling::Digest) => {
                codec::put_bytes(sink, self.bytes_in(&mut itoa::Buffer::new()));
            }
        }
    }

    /// The string of `form` that says `bytes`, which were not spelled by this process.
    pub(super) fn restore(form: StrForm, bytes: Cow<'_, [u8]>) -> Result<Self, DecodeError> {
        if form == StrForm::Edited {
            return Ok(Self::edited(bytes.into_owned()));
        }
        let string = match bytes {
            Cow::Borrowed(bytes) => Self::from_bytes(bytes),
            Cow::Owned(bytes) => Self::from_vec(bytes),
        };
        if string.form() != form {
            return Err(DecodeError::Invalid("an integer is spelled as text"));
        }
        Ok(string)
    }
}

impl Default for Str {
    fn default() -> Self {
        Self::new()
    }
}

/// Strings are equal when they say the same.
impl PartialEq for Str {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Str {}

/// The bytes, of which nobody else has these: a copy with room for `more`, if need be. Without that room what grows would be
/// copied once more at once.
fn own(bytes: &mut Arc<Vec<u8>>, more: usize) -> &mut Vec<u8> {
    if Arc::get_mut(bytes).is_none() {
        let mut copy = Vec::with_capacity(bytes.capacity().max(bytes.len() + more));
        copy.extend_from_slice(bytes);
        *bytes = Arc::new(copy);
    }
    Arc::get_mut(bytes).expect("a copy that was just made, if others had it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Value;
    use crate::keyspace::testing::digest_of;

    #[test]
    fn canonical_integers_are_recognised() {
        for number in [0, 7, -7, 10, 1_234_567, i64::MAX, i64::MIN, i64::MIN + 1] {
            let string = Str::from_bytes(number.to_string().as_bytes());
            assert_eq!(string.encoding(), "int", "{number}");
            assert_eq!(string.as_i64(), Some(number));
            assert_eq!(string.as_bytes(), number.to_string().as_bytes());
            assert_eq!(string.len(), number.to_string().len());
        }
    }

    #[test]
    fn other_spellings_stay_text() {
        for text in [
            "",
            "-",
            "+1",
            " 1",
            "1 ",
            "01",
            "-0",
            "00",
            "-01",
            "1e3",
            "1.0",
            "x",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "111111111111111111111",
        ] {
            let string = Str::from_bytes(text.as_bytes());
            assert_eq!(string.as_i64(), None, "{text}");
            assert_eq!(string.as_bytes(), text.as_bytes());
            assert_eq!(string.encoding(), "embstr");
        }
    }

    #[test]
    fn every_length_comes_back() {
        for length in [0, 1, 15, 16, 29, 30, 31, 44, 45, 1000] {
            let text = vec![b'a'; length];
            for string in [Str::from_bytes(&text), Str::from_vec(text.clone())] {
                assert_eq!(string.len(), length);
                assert_eq!(string.is_empty(), length == 0);
                assert_eq!(string.as_bytes(), &text[..]);
                assert_eq!(string.encoding(), if length <= 44 { "embstr" } else { "raw" });
                assert_eq!(string.into_vec(), text);
            }
        }
    }

    #[test]
    fn editing_turns_any_form_raw_and_keeps_the_text() {
        for text in ["12", "abc", "a text that is longer than thirty bytes"] {
            let mut string = Str::from_bytes(text.as_bytes());
            string.edit(1, |bytes| bytes.extend_from_slice(b"3"));
            assert_eq!(string.as_bytes(), format!("{text}3").as_bytes());
            assert_eq!(string.encoding(), "raw");
        }
        let mut number = Str::from_i64(12);
        number.edit(1, |bytes| bytes.push(b'3'));
        assert_eq!(number.as_i64(), Some(123));
    }

    /// However it came to be as long as that.
    #[test]
    fn a_long_string_is_lent_from_where_it_is() {
        let text = vec![b'a'; SHARED_BYTES_MIN];
        let mut grown = Str::from_bytes(&text[1..]);
        assert_eq!(grown.lent(), None);
        grown.edit(1, |bytes| bytes.push(b'a'));
        let restored = |form| Str::restore(form, Cow::Borrowed(&text)).unwrap();
        for string in [
            Str::from_bytes(&text),
            Str::from_vec(text.clone()),
            grown,
            restored(StrForm::Text),
            restored(StrForm::Edited),
        ] {
            let (first, second) = (string.lent().unwrap(), string.lent().unwrap());
            assert_eq!(first, text);
            assert_eq!(first.as_ptr(), string.as_bytes().as_ptr());
            assert_eq!(first.as_ptr(), second.as_ptr());
            assert_eq!(string.clone().lent().unwrap().as_ptr(), first.as_ptr());
            assert_eq!(string.into_vec(), text);
        }
    }

    #[test]
    fn what_is_lent_stays_as_it_is() {
        let mut string = Str::from_bytes(&[b'a'; SHARED_BYTES_MIN]);
        let lent = string.lent().unwrap();
        string.edit(1, |bytes| bytes[0] = b'b');
        assert_eq!(lent, &[b'a'; SHARED_BYTES_MIN][..]);
        assert_eq!(string.as_bytes()[..2], *b"ba");
        let lent = string.lent().unwrap();
        drop(string);
        assert_eq!(lent[..2], *b"ba");
    }

    #[test]
    fn nothing_is_copied_to_be_edited_unless_it_is_lent() {
        let mut string = Str::from_bytes(&[b'a'; SHARED_BYTES_MIN]);
        let place = string.as_bytes().as_ptr();
        drop(string.lent());
        for _ in 0..2 {
            string.edit(1, |bytes| bytes[0] = b'b');
            assert_eq!(string.as_bytes().as_ptr(), place);
        }
        assert_eq!(string.form(), StrForm::Edited);
        let lent = string.lent().unwrap();
        string.edit(1, |bytes| bytes[0] = b'c');
        assert_ne!(string.as_bytes().as_ptr(), place);
        assert_eq!(lent.as_ptr(), place);
    }

    /// It was copied as it was, and then again to make room for a byte.
    #[test]
    fn what_is_lent_and_grows_is_copied_once() {
        let mut string = Str::from_bytes(&vec![b'a'; 2 * LENT_BYTES_MIN]);
        let lent = string.lent().unwrap();
        string.edit(1, |bytes| {
            let place = bytes.as_ptr();
            bytes.push(b'x');
            assert_eq!(bytes.as_ptr(), place, "room for {}", bytes.capacity());
        });
        assert_eq!(lent.len() + 1, string.len());
    }

    #[test]
    fn digest_and_equality_ignore_the_form() {
        let digest = |string: &Str| digest_of(&Value::from(string.clone()));
        let mut edited = Str::from_bytes(b"1");
        edited.edit(1, |bytes| bytes.push(b'2'));
        assert_eq!(edited, Str::from_i64(12));
        assert_eq!(digest(&edited), digest(&Str::from_i64(12)));
        assert_ne!(digest(&edited), digest(&Str::from_i64(13)));
    }

    #[test]
    fn an_integer_spelled_as_text_is_refused() {
        assert!(Str::restore(StrForm::Text, Cow::Borrowed(b"12")).is_err());
        assert!(Str::restore(StrForm::Text, Cow::Owned(b"12".to_vec())).is_err());
        let edited = Str::restore(StrForm::Edited, Cow::Borrowed(b"12")).unwrap();
        assert_eq!(edited.encoding(), "raw");
    }
}
