//! The words of a line, split and quoted as Redis does it: in its configuration and in commands typed by hand.
//!
//! Between double quotes `\n \r \t \b \a \xHH` are bytes and any other character after a backslash is itself; between single
//! quotes only `\'` is special. A closing quote must end the word. Space, tab, CR and LF end a word outside of quotes;
//! vertical tab and form feed do not, but are skipped like these between words.
//!
//! A NUL is a byte like any other here; Redis ends the line at it.
//!
//! Source: Redis 7.0 `sdssplitargs`.

use std::ops::Range;

/// Splits `line`: the bytes of all words without their quotes are appended to `bytes`, and where each word stands there to
/// `words`. `None` when a quote has no end, or something else than a blank follows it; what was appended is then of no use.
#[must_use]
pub fn split(line: &[u8], bytes: &mut Vec<u8>, words: &mut Vec<Range<usize>>) -> Option<()> {
    let mut reader = Reader { line, bytes };
    loop {
        while reader.peek().is_some_and(is_blank) {
            reader.skip(1);
        }
        if reader.line.is_empty() {
            return Some(());
        }
        let start = reader.bytes.len();
        reader.word()?;
        words.push(start..reader.bytes.len());
    }
}

/// The words of `line`, each by itself.
pub fn of(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut bytes, mut words) = (Vec::new(), Vec::new());
    split(line, &mut bytes, &mut words)?;
    Some(words.into_iter().map(|word| bytes[word].to_vec()).collect())
}

/// C's `isspace`: unlike Rust's `is_ascii_whitespace` it has the vertical tab.
pub const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

struct Reader<'a> {
    line: &'a [u8],
    bytes: &'a mut Vec<u8>,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<()> {
        while let Some(byte) = self.peek() {
            self.skip(1);
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => return Some(()),
                // A quote may begin inside a word, and its end must be the word's.
                b'"' => return self.double_quoted(),
                b'\'' => return self.single_quoted(),
                byte => self.bytes.push(byte),
            }
        }
        Some(())
    }

    fn double_quoted(&mut self) -> Option<()> {
        loop {
            match *self.line {
                [b'\\', b'x', high, low, ..]
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    self.bytes.push(hex(high) << 4 | hex(low));
                    self.skip(4);
                }
                [b'\\', escaped, ..] => {
                    self.bytes.push(unescape(escaped));
                    self.skip(2);
                }
                [b'"', ..] => return self.close_quotes(),
                [byte, ..] => {
                    self.bytes.push(byte);
                    self.skip(1);
                }
                [] => return None,
            }
        }
    }

    fn single_quoted(&mut self) -> Option<()> {
        loop {
            match *self.line {
                [b'\\', b'\'', ..] => {
                    self.bytes.push(b'\'');
                    self.skip(2);
                }
                [b'\'', ..] => return self.close_quotes(),
                [byte, ..] => {
                    self.bytes.push(byte);
                    self.skip(1);
                }
                [] => return None,
            }
        }
    }

    /// Passes the closing quote, behind which the word must end.
    fn close_quotes(&mut self) -> Option<()> {
        self.skip(1);
        self.peek().is_none_or(is_blank).then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.line.first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.line = &self.line[bytes..];
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        byte => byte,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        // The caller has checked that it is a hexadecimal digit.
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line and its words.
    type Row = (&'static [u8], Option<&'static [&'static [u8]]>);

    /// Recorded from redis-server 7.0.15, with ECHO and, for those that stand in its file, with a directive.
    #[test]
    fn words_are_those_of_redis() {
        let table: [Row; 22] = [
            (b"", Some(&[])),
            (b"\x0b", Some(&[])),
            (b"a b", Some(&[b"a", b"b"])),
            (b"  a\t\tb  ", Some(&[b"a", b"b"])),
            (b"a\rb", Some(&[b"a", b"b"])),
            (b"a\x0bb", Some(&[b"a\x0bb"])),
            (b"a\x0cb", Some(&[b"a\x0cb"])),
            (b"a\x0b", Some(&[b"a\x0b"])),
            (b"\x0ba \x0c\x0bb", Some(&[b"a", b"b"])),
            (b"\"a\"\x0b\x0cb", Some(&[b"a", b"b"])),
            (b"a\x1cb\xa0\x85", Some(&[b"a\x1cb\xa0\x85"])),
            (br#""a\x41\n\r\t\b\a""#, Some(&[b"aA\n\r\t\x08\x07"])),
            (br#""\xZZ\q\"""#, Some(&[b"xZZq\""])),
            (br#""\x4""#, Some(&[b"x4"])),
            (br"'a\'b\n'", Some(&[b"a'b\\n"])),
            (br#"a"b c""#, Some(&[b"ab c"])),
            (br#""" ''"#, Some(&[b"", b""])),
            (br#""a"b"#, None),
            (br"'a'b", None),
            (br#"a"b"#, None),
            (br#""a\""#, None),
            (br"'a\'", None),
        ];
        for (line, expected) in table {
            let expected = expected.map(|words| words.iter().map(|word| word.to_vec()).collect());
            assert_eq!(of(line), expected, "{}", line.escape_ascii());
        }
    }

    /// `sdssplitargs`, translated as it stands, with the end of the line for its NUL.
    fn as_redis_writes_it(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let at = |p: usize| line.get(p).copied();
        let is_space = |p: usize| at(p).is_some_and(|c| b" \t\n\x0b\x0c\r".contains(&c));
        let is_hex = |p: usize| at(p).is_some_and(|c| c.is_ascii_hexdigit());
        let digit = |p: usize| u8::try_from(char::from(line[p]).to_digit(16).unwrap()).unwrap();
        let (mut vector, mut p) = (Vec::new(), 0);
        loop {
            while is_space(p) {
                p += 1;
            }
            if at(p).is_none() {
                return Some(vector);
            }
            let (mut is_double, mut is_single, mut done) = (false, false, false);
            let mut current = Vec::new();
            while !done {
                if is_double {
                    if at(p) == Some(b'\\')
                        && at(p + 1) == Some(b'x')
                        && is_hex(p + 2)
                        && is_hex(p + 3)
                    {
                        current.push(digit(p + 2) * 16 + digit(p + 3));
                        p += 3;
                    } else if let (Some(b'\\'), Some(c)) = (at(p), at(p + 1)) {
                        p += 1;
                        let known = [(b'n', 10), (b'r', 13), (b't', 9), (b'b', 8), (b'a', 7)];
                        let byte = known.iter().find(|(letter, _)| *letter == c);
                        current.push(byte.map_or(c, |(_, byte)| *byte));
                    } else if at(p) == Some(b'"') {
                        if at(p + 1).is_some() && !is_space(p + 1) {
                            return None;
                        }
                        done = true;
                    } else {
                        current.push(at(p)?);
                    }
                } else if is_single {
                    if at(p) == Some(b'\\') && at(p + 1) == Some(b'\'') {
                        p += 1;
                        current.push(b'\'');
                    } else if at(p) == Some(b'\'') {
                        if at(p + 1).is_some() && !is_space(p + 1) {
                            return None;
                        }
                        done = true;
                    } else {
                        current.push(at(p)?);
                    }
                } else {
                    match at(p) {
                        None | Some(b' ' | b'\n' | b'\r' | b'\t') => done = true,
                        Some(b'"') => is_double = true,
                        Some(b'\'') => is_single = true,
                        Some(c) => current.push(c),
                    }
                }
                if at(p).is_some() {
                    p += 1;
                }
            }
            vector.push(current);
        }
    }

    proptest! {
        /// Seeds of failures are printed by proptest.
        #[test]
        fn any_line_is_split_as_redis_does(
            line in proptest::collection::vec(
                prop_oneof![
                    4 => proptest::sample::select(&b" \t\r\n\x0b\x0c\"'\\xnab4F"[..]),
                    1 => any::<u8>(),
                ],
                0..24,
            ),
        ) {
            prop_assert_eq!(of(&line), as_redis_writes_it(&line));
        }
    }
}
