//! Which values a directive takes: words in, the text of CONFIG GET out.

use std::net::IpAddr;

use crate::stdx::size;

use super::error::Rejection;
use super::limits::{
    ADDRESSES_MAX, HOST_BYTES_MAX, HOSTNAMES_MAX, NODE_NAME_BYTES_MAX, NODES_BYTES_MAX,
    PATH_BYTES_MAX, TEXT_BYTES_MAX,
};
use super::options::BindAddress;

/// The values a directive takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A path, or nothing.
    OptionalPath,
    /// A path.
    Path,
    /// A text that nobody but CONFIG GET may show; empty for none.
    Secret,
    /// The name of a node.
    NodeName,
    /// A list of nodes, each beginning with `name=`; the rest is read by whoever uses it.
    Nodes,
    /// A host name, or nothing.
    Hostname,
    /// Host names, `*` for any; or none.
    Hostnames,
    /// An IP address, or nothing.
    Ip,
    /// Addresses to listen on.
    Addresses,
    /// A TCP port; `zero` says what 0 means.
    Port {
        /// The meaning of 0, to be read after "0 =".
        zero: &'static str,
    },
    /// A whole number in `min..=max`.
    Count {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// `auto`, or a whole number in `min..=max`.
    AutoCount {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// An amount of memory in `min..=max` bytes, with or without a unit.
    Bytes {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `yes` or `no`.
    Switch,
    /// This value and no other.
    Fixed {
        /// The value.
        value: &'static str,
        /// Why there is no other: a sentence without its full stop.
        because: &'static str,
    },
}

impl Kind {
    /// The text that CONFIG GET shows for `words`.
    ///
    /// What it returns is accepted again as one word, with the same result.
    ///
    /// # Errors
    /// [`Rejection`] when the directive does not take these words.
    pub(super) fn accept(&self, words: &[&str]) -> Result<String, Rejection> {
        let word = single(words);
        match *self {
            Self::OptionalPath => path(word?),
            Self::Path => path(not_empty(word?)?),
            Self::Secret => at_most(word?, TEXT_BYTES_MAX),
            Self::NodeName => node_name(word?),
            Self::Nodes => nodes(words),
            Self::Hostname => hostname(word?),
            Self::Hostnames => hostnames(words),
            Self::Ip => ip(word?),
            Self::Addresses => addresses(words),
            Self::Port { .. } => number(word?, 0, i64::from(u16::MAX)),
            Self::Count { min, max } => number(word?, min, max),
            Self::AutoCount { min, max } => auto_number(word?, min, max),
            Self::Bytes { min, max } => bytes(word?, min, max),
            Self::Choice(words) => one_of(word?, words).ok_or(Rejection::NotOneOf(words)),
            Self::Switch => one_of(word?, &["yes", "no"]).ok_or(Rejection::NotSwitch),
            Self::Fixed { value, because } => fixed(&words.join(" "), value, because),
        }
    }

    /// The values it takes, to be read after "takes"; numbers count `unit`.
    pub(super) fn takes(&self, unit: &str) -> String {
        let counted = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
        match *self {
            Self::OptionalPath => format!("a path of at most {PATH_BYTES_MAX} bytes, or \"\""),
            Self::Path => format!("a path of 1 to {PATH_BYTES_MAX} bytes"),
            Self::Secret => format!("a text of at most {TEXT_BYTES_MAX} bytes, \"\" for none"),
            Self::NodeName => format!("a name of 1 to {NODE_NAME_BYTES_MAX} of a-z A-Z 0-9 . _ -"),
            Self::Nodes => "name=host:peerport[:weight[:zone]] ..., each name once, or \"\"".into(),
            Self::Hostname => {
                format!("a host name of at most {HOST_BYTES_MAX} of a-z A-Z 0-9 . _ -, or \"\"")
            }
            Self::Hostnames => format!("at most {HOSTNAMES_MAX} host names, or *, or \"\""),
            Self::Ip => "an IP address, or \"\"".into(),
            Self::Addresses => {
                format!(
                    "1 to {ADDRESSES_MAX} of: an IP address, *, ::*, each after a - if optional"
                )
            }
            Self::Port { zero } => format!("a port from 0 to 65535, 0 = {zero}"),
            Self::Count { min, max } => format!("a whole number{counted} from {min} to {max}"),
            Self::AutoCount { min, max } => {
                format!("auto or a whole number{counted} from {min} to {max}")
            }
            Self::Bytes { min, max } => {
                format!("an amount of memory from {} to {}", size_text(min), size_text(max))
            }
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Switch => "yes or no".into(),
            Self::Fixed { value, because } => format!("only \"{value}\" ({because})"),
        }
    }
}

/// The entries of a list of nodes: separated by blanks or commas.
pub(super) fn node_entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|entry| !entry.is_empty())
}

fn single<'a>(words: &[&'a str]) -> Result<&'a str, Rejection> {
    match words {
        [word] => Ok(word),
        [] | [_, _, ..] => Err(Rejection::WordCount),
    }
}

fn not_empty(word: &str) -> Result<&str, Rejection> {
    if word.is_empty() { Err(Rejection::Empty) } else { Ok(word) }
}

fn node_name(word: &str) -> Result<String, Rejection> {
    if is_node_name(word) { Ok(word.to_owned()) } else { Err(Rejection::NotNodeName) }
}

fn is_node_name(name: &str) -> bool {
    (1..=NODE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_word_byte)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn at_most(word: &str, bytes_max: usize) -> Result<String, Rejection> {
    if word.len() > bytes_max {
        return Err(Rejection::TooLong { bytes_max });
    }
    Ok(word.to_owned())
}

fn path(word: &str) -> Result<String, Rejection> {
    if word.contains('\0') {
        return Err(Rejection::HasNul);
    }
    at_most(word, PATH_BYTES_MAX)
}

fn hostname(word: &str) -> Result<String, Rejection> {
    if !word.bytes().all(is_word_byte) {
        return Err(Rejection::NotHostname);
    }
    at_most(word, HOST_BYTES_MAX)
}

fn hostnames(words: &[&str]) -> Result<String, Rejection> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_ascii_whitespace()).collect();
    if words.len() > HOSTNAMES_MAX {
        return Err(Rejection::TooMany { max: HOSTNAMES_MAX });
    }
    for word in words.iter().filter(|word| **word != "*") {
        hostname(word)?;
    }
    Ok(words.join(" "))
}

fn ip(word: &str) -> Result<String, Rejection> {
    if word.is_empty() {
        return Ok(String::new());
    }
    let address: IpAddr = word.parse().map_err(|_| Rejection::NotIp)?;
    Ok(address.to_string())
}

/// A number as Redis' `string2ll` reads it: no plus sign, no leading zero, no blank.
fn integer(word: &str) -> Option<i64> {
    word.parse::<i64>().ok().filter(|number| number.to_string() == word)
}

fn number(word: &str, min: i64, max: i64) -> Result<String, Rejection> {
    let number = integer(word).ok_or(Rejection::NotInteger)?;
    in_range(number, min, max)
}

fn auto_number(word: &str, min: i64, max: i64) -> Result<String, Rejection> {
    if word.eq_ignore_ascii_case("auto") {
        return Ok("auto".to_owned());
    }
    let number = integer(word).ok_or(Rejection::NotAutoOrInteger)?;
    in_range(number, min, max)
}

fn bytes(word: &str, min: i64, max: i64) -> Result<String, Rejection> {
    let bytes = size::parse(word).ok_or(Rejection::NotMemory)?;
    in_range(i64::try_from(bytes).unwrap_or(i64::MAX), min, max)
}

fn in_range(number: i64, min: i64, max: i64) -> Result<String, Rejection> {
    if !(min..=max).contains(&number) {
        return Err(Rejection::Range { min, max });
    }
    Ok(number.to_string())
}

/// `bytes` with a unit. Limits are never negative; a negative one would print as 0.
fn size_text(bytes: i64) -> String {
    size::format(u64::try_from(bytes).unwrap_or(0))
}

fn one_of(word: &str, words: &[&str]) -> Option<String> {
    words.iter().find(|known| known.eq_ignore_ascii_case(word)).map(|known| (*known).to_owned())
}

fn fixed(word: &str, value: &str, because: &'static str) -> Result<String, Rejection> {
    if !word.eq_ignore_ascii_case(value) {
        return Err(Rejection::Fixed { because });
    }
    Ok(value.to_owned())
}

fn addresses(words: &[&str]) -> Result<String, Rejection> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_ascii_whitespace()).collect();
    if words.is_empty() {
        return Err(Rejection::Empty);
    }
    if words.len() > ADDRESSES_MAX {
        return Err(Rejection::TooMany { max: ADDRESSES_MAX });
    }
    if words.iter().any(|word| BindAddress::parse(word).is_none()) {
        return Err(Rejection::NotAddress);
    }
    Ok(words.join(" "))
}

fn nodes(words: &[&str]) -> Result<String, Rejection> {
    let text = words.join(" ");
    if text.len() > NODES_BYTES_MAX {
        return Err(Rejection::TooLong { bytes_max: NODES_BYTES_MAX });
    }
    let mut names = Vec::new();
    for entry in node_entries(&text) {
        let name = entry.split_once('=').map(|(name, _)| name).ok_or(Rejection::NotNodes)?;
        if !is_node_name(name) {
            return Err(Rejection::NotNodes);
        }
        names.push(name);
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Rejection::NotNodes);
    }
    Ok(node_entries(&text).collect::<Vec<_>>().join(" "))
}
