//! The syntax of redis.conf: one directive per line, words split and quoted as `sdssplitargs` does.
//!
//! A line whose first character is `#` is a comment; a `#` further right is part of a word. Between double quotes
//! `\n \r \t \b \a \xHH` are bytes and any other character after a backslash is itself; between single quotes only `\'`
//! is special. A closing quote must end the word.

use std::fs::File;
use std::io::{self, Read};

use super::error::{ConfigError, Origin};
use super::limits::FILE_BYTES_MAX;

/// One line that is neither blank nor a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it stands.
    pub(super) origin: Origin,
    /// The directive and its values.
    pub(super) words: Vec<String>,
}

/// Reads the file at `path`, or standard input when it is `-`.
pub(super) fn read(path: &str) -> Result<Vec<Line>, ConfigError> {
    if path == "-" {
        return parse("stdin", &read_all("stdin", io::stdin().lock())?);
    }
    let file =
        File::open(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &read_all(path, file)?)
}

fn read_all(path: &str, source: impl Read) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file of just the greatest size from a larger one.
    source
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        return Ok(bytes);
    }
    Err(ConfigError::TooLarge { path: path.to_owned() })
}

/// The lines of `text`, which messages call `path`.
pub(super) fn parse(path: &str, text: &[u8]) -> Result<Vec<Line>, ConfigError> {
    let mut lines = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let origin = Origin::File { path: path.to_owned(), line: index + 1 };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let words = words(line, &origin)?;
        // Blank by C's rules: a vertical tab is none by Rust's.
        if !words.is_empty() {
            lines.push(Line { origin, words });
        }
    }
    Ok(lines)
}

fn words(line: &[u8], origin: &Origin) -> Result<Vec<String>, ConfigError> {
    let Some(words) = split_words(line) else {
        return Err(ConfigError::Quotes { origin: origin.clone() });
    };
    words
        .into_iter()
        .map(String::from_utf8)
        .collect::<Result<_, _>>()
        .map_err(|_| ConfigError::NotUtf8 { origin: origin.clone() })
}

/// The words of `line`; `None` when a quote has no end or more than a blank follows it.
///
/// Source: Redis `sdssplitargs`.
fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let (word, after) = next_word(rest)?;
        words.push(word);
        rest = skip_blanks(after);
    }
    Some(words)
}

fn next_word(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut rest = line;
    while let [byte, after @ ..] = rest {
        rest = match byte {
            blank if is_blank(*blank) => break,
            // A quote may begin inside a word, and its end must be the word's.
            b'"' => {
                let after = ends_word(double_quoted(after, &mut word)?)?;
                return Some((word, after));
            }
            b'\'' => {
                let after = ends_word(single_quoted(after, &mut word)?)?;
                return Some((word, after));
            }
            other => {
                word.push(*other);
                after
            }
        };
    }
    Some((word, rest))
}

/// Reads up to the closing `"` and returns what follows it.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                word.push(hex(*high)? << 4 | hex(*low)?);
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(unescape(*escaped));
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

/// Reads up to the closing `'` and returns what follows it.
fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

/// `rest` if a word may end before it.
fn ends_word(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_blank(*byte)).then_some(rest)
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
    &line[blanks..]
}

/// C's `isspace`: unlike Rust's `is_ascii_whitespace` it has the vertical tab.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// `word` as a file writes it: in double quotes where it would otherwise not be read back as one word.
pub fn quote(word: &str) -> String {
    let is_plain =
        |byte: u8| !is_blank(byte) && !byte.is_ascii_control() && !b"\"'#\\".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii_control() || b"\"\\".contains(&byte) => {
                quoted.extend(std::ascii::escape_default(byte).map(char::from));
            }
            Ok(_) | Err(_) => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
