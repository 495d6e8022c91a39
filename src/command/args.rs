//! A cursor over the arguments of a command; what it cannot read becomes Redis' error text.
//!
//! Arity is checked before a command runs, but nothing here relies on it: a missing argument is the error
//! that arity would have been.

use super::invocation::Invocation;
use crate::keyspace::{Key, Keyspace};
use crate::resp::ErrorReply;
use crate::stdx::num;

/// The arguments of one command, its name left out, read from front to back.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    name: &'static str,
    rest: &'a [&'a [u8]],
    /// The first key, where it is known.
    known: Option<&'a Key<'a>>,
}

impl<'a> Args<'a> {
    /// The arguments of the command called `name`; `argv` starts with the name as the client wrote it.
    pub fn new(name: &'static str, argv: &'a [&'a [u8]]) -> Self {
        Self { name, rest: argv.get(1..).unwrap_or_default(), known: None }
    }

    /// The arguments of `invocation`.
    #[inline]
    pub fn of(invocation: &'a Invocation<'a>) -> Self {
        let Invocation { command, argv, key } = invocation;
        Self { known: key.as_ref(), ..Self::new(command.spec.name, argv) }
    }

    /// Those of the arguments of the command called `name` that are `words`.
    pub const fn of_words(name: &'static str, words: &'a [&'a [u8]]) -> Self {
        Self { name, rest: words, known: None }
    }

    /// The name of the command, as its spec writes it.
    pub const fn command_name(&self) -> &'static str {
        self.name
    }

    /// How many arguments are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether none is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next argument, which stays.
    pub fn peek(&self) -> Option<&'a [u8]> {
        self.rest.first().copied()
    }

    /// The next argument, if there is one.
    #[expect(clippy::should_implement_trait, reason = "an Args is read by type, never looped over")]
    pub fn next(&mut self) -> Option<&'a [u8]> {
        let (next, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(next)
    }

    /// The next argument as any bytes.
    ///
    /// # Errors
    /// `ERR wrong number of arguments for '…' command` when there is none.
    pub fn next_bytes(&mut self) -> Result<&'a [u8], ErrorReply> {
        self.next().ok_or_else(|| self.wrong_number())
    }

    /// The next argument as a key, to be looked up in `keyspace`.
    ///
    /// # Errors
    /// As [`Args::next_bytes`].
    #[inline]
    pub fn next_key(&mut self, keyspace: &Keyspace) -> Result<Key<'a>, ErrorReply> {
        let bytes = self.next_bytes()?;
        Ok(self.key(bytes, keyspace))
    }

    /// The key that `bytes` are, one of the arguments, to be looked up in `keyspace`.
    #[inline]
    pub fn key(&self, bytes: &'a [u8], keyspace: &Keyspace) -> Key<'a> {
        match self.known {
            // The same word: what it says need not be compared.
            Some(key) if std::ptr::eq(key.bytes(), bytes) => *key,
            Some(_) | None => keyspace.key(bytes),
        }
    }

    /// The next argument as a signed 64-bit integer.
    ///
    /// # Errors
    /// `ERR value is not an integer or out of range`; as [`Args::next_bytes`] when there is none.
    pub fn next_i64(&mut self) -> Result<i64, ErrorReply> {
        parse_i64(self.next_bytes()?)
    }

    /// The next argument as a number with a fraction; infinite ones are numbers, NaN is none.
    ///
    /// # Errors
    /// `ERR value is not a valid float`; as [`Args::next_bytes`] when there is none.
    pub fn next_f64(&mut self) -> Result<f64, ErrorReply> {
        num::parse_f64(self.next_bytes()?).ok_or(ErrorReply::NOT_FLOAT)
    }

    /// The next argument as an option's value: what is missing is a syntax error.
    ///
    /// # Errors
    /// `ERR syntax error` when there is none.
    pub fn option_value(&mut self) -> Result<&'a [u8], ErrorReply> {
        self.next().ok_or(ErrorReply::SYNTAX)
    }

    /// Whether the next argument is `word` in any case; it is taken then.
    pub fn token(&mut self, word: &str) -> bool {
        let is_next = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }

    /// All that is left, which is taken.
    pub fn rest(&mut self) -> &'a [&'a [u8]] {
        std::mem::take(&mut self.rest)
    }

    /// The next `count` arguments, which are taken; `None` when there are fewer.
    pub fn take(&mut self, count: usize) -> Option<&'a [&'a [u8]]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// All that is left as pairs, which are taken.
    ///
    /// # Errors
    /// `ERR wrong number of arguments for '…' command` when their number is odd or zero.
    pub fn pairs(&mut self) -> Result<Pairs<'a>, ErrorReply> {
        let (pairs, []) = self.rest.as_chunks::<2>() else { return Err(self.wrong_number()) };
        if pairs.is_empty() {
            return Err(self.wrong_number());
        }
        self.rest = &[];
        Ok(Pairs { pairs: pairs.iter() })
    }

    /// Refuses further arguments.
    ///
    /// # Errors
    /// `ERR syntax error` when some are left.
    pub fn end(&self) -> Result<(), ErrorReply> {
        if self.is_empty() { Ok(()) } else { Err(ErrorReply::SYNTAX) }
    }

    /// `ERR wrong number of arguments for '…' command`.
    pub fn wrong_number(&self) -> ErrorReply {
        ErrorReply::wrong_arity(self.name)
    }
}

/// Arguments that come in twos: field and value, score and member.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    pairs: std::slice::Iter<'a, [&'a [u8]; 2]>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.pairs.next().map(|&[first, second]| (first, second))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pairs.size_hint()
    }
}

impl ExactSizeIterator for Pairs<'_> {}

/// `text` as a signed 64-bit integer in canonical form.
///
/// # Errors
/// `ERR value is not an integer or out of range`.
pub fn parse_i64(text: &[u8]) -> Result<i64, ErrorReply> {
    num::parse_i64(text).ok_or(ErrorReply::NOT_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;
    use crate::stdx::hash_key::HashKey;

    const ARGV: &[&[u8]] = &[b"name", b"key", b"7", b"Ex", b"x"];

    fn keyspace() -> Keyspace {
        Keyspace::new(0..=16_383, HashKey::new([1, 2]))
    }

    /// Told by a key of another keyspace, which has another hash.
    #[test]
    fn a_key_that_is_known_is_not_found_out_again() {
        let elsewhere = Keyspace::new(0..=16_383, HashKey::new([3, 4]));
        let again = b"a".to_vec();
        let words: &[&[u8]] = &[b"mget", b"a", b"b", &again];
        let invocation = Invocation::located(lookup(b"mget").unwrap(), words, &elsewhere);
        let mut args = Args::of(&invocation);
        assert_eq!(args.next_key(&keyspace()), Ok(elsewhere.key(b"a")));
        assert_eq!(args.next_key(&keyspace()), Ok(keyspace().key(b"b")), "another key");
        assert_eq!(args.next_key(&keyspace()), Ok(keyspace().key(b"a")), "another word");
    }

    #[test]
    fn arguments_are_read_in_order() {
        let mut args = Args::new("name", ARGV);
        assert_eq!(args.remaining(), 4);
        assert_eq!(args.next_key(&keyspace()), Ok(keyspace().key(b"key")));
        assert_eq!(args.next_i64(), Ok(7));
        assert!(!args.token("PX"));
        assert!(args.token("EX"));
        assert_eq!(args.peek(), Some(&b"x"[..]));
        assert_eq!(args.end(), Err(ErrorReply::SYNTAX));
        assert_eq!(args.next_i64(), Err(ErrorReply::NOT_INTEGER));
        assert!(args.is_empty());
        assert_eq!(args.end(), Ok(()));
    }

    #[test]
    fn fractions_are_read_as_redis_does() {
        let mut args = Args::new("name", &[b"name", b"1.5", b"-inf", b"nan", b"x"]);
        assert_eq!(args.next_f64(), Ok(1.5));
        assert_eq!(args.next_f64(), Ok(f64::NEG_INFINITY));
        assert_eq!(args.next_f64(), Err(ErrorReply::NOT_FLOAT));
        assert_eq!(args.next_f64(), Err(ErrorReply::NOT_FLOAT));
    }

    #[test]
    fn what_is_missing_is_a_wrong_number_of_arguments() {
        for argv in [&[][..], &[&b"name"[..]][..]] {
            let mut args = Args::new("name", argv);
            let wrong = ErrorReply::wrong_arity("name");
            assert_eq!(args.next_bytes(), Err(wrong.clone()));
            assert_eq!(args.next_key(&keyspace()), Err(wrong.clone()));
            assert_eq!(args.next_i64(), Err(wrong.clone()));
            assert_eq!(args.next_f64(), Err(wrong.clone()));
            assert_eq!(args.pairs().map(|_| ()), Err(wrong));
            assert_eq!(args.option_value(), Err(ErrorReply::SYNTAX));
            assert_eq!(args.next(), None);
            assert!(args.rest().is_empty());
            assert_eq!(args.take(1), None);
        }
    }

    #[test]
    fn pairs_need_an_even_number() {
        let pairs: Vec<_> = Args::new("name", ARGV).pairs().unwrap().collect();
        assert_eq!(pairs, [(&b"key"[..], &b"7"[..]), (&b"Ex"[..], &b"x"[..])]);
        assert!(Args::new("name", &ARGV[..4]).pairs().is_err());
    }

    #[test]
    fn taking_more_than_there_is_takes_nothing() {
        let mut args = Args::new("name", ARGV);
        assert_eq!(args.take(5), None);
        assert_eq!(args.take(4), Some(&ARGV[1..]));
        assert_eq!(args.take(0), Some(&[][..]));
    }
}
