//! The syntax of redis.conf: one directive per line, its words as in `stdx/words.rs`.
//!
//! A line whose first character is `#` is a comment; a `#` further right is part of a word.

use std::fs::File;
use std::io::{self, Read};

use crate::stdx::words;

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
        // No more than Redis takes off: a comment does not begin behind a form feed, and a word may end with one.
        let line = trim(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let words = words(line, &origin)?;
        // It may still have other blanks.
        if !words.is_empty() {
            lines.push(Line { origin, words });
        }
    }
    Ok(lines)
}

fn trim(line: &[u8]) -> &[u8] {
    let is_kept = |byte: &u8| !b" \t\r\n".contains(byte);
    let begin = line.iter().position(is_kept).unwrap_or(line.len());
    let end = line.iter().rposition(is_kept).map_or(begin, |last| last + 1);
    &line[begin..end]
}

fn words(line: &[u8], origin: &Origin) -> Result<Vec<String>, ConfigError> {
    let Some(words) = words::of(line) else {
        return Err(ConfigError::Quotes { origin: origin.clone() });
    };
    words
        .into_iter()
        .map(String::from_utf8)
        .collect::<Result<_, _>>()
        .map_err(|_| ConfigError::NotUtf8 { origin: origin.clone() })
}

/// `word` as a file writes it: in double quotes where it would otherwise not be read back as one word.
pub fn quote(word: &str) -> String {
    let is_plain =
        |byte: u8| !words::is_blank(byte) && !byte.is_ascii_control() && !b"\"'#\\".contains(&byte);
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
