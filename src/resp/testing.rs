//! How tests read replies: one reader for both protocols, and two spellings.
//!
//! | reply | compact, on one line | golden, on lines of its own |
//! | --- | --- | --- |
//! | status | `+OK` | `+OK` |
//! | error | `-ERR syntax error` | `-ERR syntax error` |
//! | integer, double, boolean | `:1`, `,0.5`, `#t` | the same |
//! | string | `$text`, `$"two words"` | `"text"` |
//! | missing string, of RESP3 | `$-1`, `_` | `(nil)` |
//! | missing array | `*-1` | `(nil array)` |
//! | array, set, push | `*2 $a :1` | `*2`, then its elements indented by two spaces |
//! | map | `%1 $a :1` | `%1`, then its keys and values likewise |
//!
//! A string is quoted where the compact form would be misread: when it is empty, `-1`, or has anything else than
//! letters, digits and `_-+.:{}[]()/`. Quoting is that of redis-cli: `\n \r \t \" \\ \xff`.
//!
//! `tests/it` takes this file in by its path, so it names nothing of the crate. Nor does it share code with the encoder,
//! so that neither hides the other's mistakes.
//!
//! Source: the RESP3 specification.

use std::fmt::Write as _;

/// A reply as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    /// A string, a verbatim text or a big number.
    Bulk(Vec<u8>),
    /// The missing string of RESP2.
    Null,
    /// The missing array of RESP2.
    NullArray,
    /// What RESP3 has for both.
    Resp3Null,
    /// An array, a set or a push message.
    Array(Vec<Value>),
    /// In the order in which it came.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The one reply that `bytes` are.
    #[track_caller]
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut reader = Reader::default();
        reader.feed(bytes);
        let value = reader.next_reply().expect("a reply").expect("a whole reply");
        assert!(reader.is_empty(), "one reply and nothing after it");
        value
    }

    /// On one line.
    pub(crate) fn compact(&self) -> String {
        match self {
            Self::Simple(text) => format!("+{text}"),
            Self::Error(text) => format!("-{text}"),
            Self::Integer(number) => format!(":{number}"),
            Self::Double(number) => format!(",{number}"),
            Self::Boolean(true) => "#t".into(),
            Self::Boolean(false) => "#f".into(),
            Self::Bulk(bytes) if is_plain(bytes) => format!("${}", String::from_utf8_lossy(bytes)),
            Self::Bulk(bytes) => format!("${}", quoted(bytes)),
            Self::Null => "$-1".into(),
            Self::NullArray => "*-1".into(),
            Self::Resp3Null => "_".into(),
            Self::Array(_) | Self::Map(_) => {
                let parts = self.parts().into_iter().map(|part| format!(" {}", part.compact()));
                self.head() + &parts.collect::<String>()
            }
        }
    }

    /// On lines; each ends with LF.
    pub(crate) fn golden(&self) -> String {
        let mut text = String::new();
        self.write_golden(0, &mut text);
        text
    }

    fn write_golden(&self, depth: usize, out: &mut String) {
        let own = match self {
            Self::Bulk(bytes) => quoted(bytes),
            Self::Null | Self::Resp3Null => "(nil)".into(),
            Self::NullArray => "(nil array)".into(),
            Self::Array(_) | Self::Map(_) => self.head(),
            Self::Simple(_)
            | Self::Error(_)
            | Self::Integer(_)
            | Self::Double(_)
            | Self::Boolean(_) => self.compact(),
        };
        writeln!(out, "{}{own}", "  ".repeat(depth)).expect("a String takes everything");
        for part in self.parts() {
            part.write_golden(depth + 1, out);
        }
    }

    /// What stands before the parts.
    fn head(&self) -> String {
        let parts = self.parts().len();
        if matches!(self, Self::Map(_)) { format!("%{}", parts / 2) } else { format!("*{parts}") }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Array(items) => items.iter().collect(),
            Self::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
            Self::Simple(_)
            | Self::Error(_)
            | Self::Integer(_)
            | Self::Double(_)
            | Self::Boolean(_)
            | Self::Bulk(_)
            | Self::Null
            | Self::NullArray
            | Self::Resp3Null => Vec::new(),
        }
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    let is_plain_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+.:{}[]()/".contains(byte);
    !bytes.is_empty() && bytes != b"-1" && bytes.iter().all(is_plain_byte)
}

/// `bytes` in quotes as redis-cli shows them.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => write!(text, "\\x{byte:02x}").expect("a String takes everything"),
        }
    }
    text.push('"');
    text
}

/// What came over a connection, and the replies in it. Looks at each byte once, however they arrive.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    /// Arrays and maps that lack elements, outermost first.
    open: Vec<Open>,
}

/// An array or a map whose elements are being read.
#[derive(Debug)]
struct Open {
    is_map: bool,
    missing: usize,
    items: Vec<Value>,
}

impl Open {
    fn close(self) -> Value {
        if !self.is_map {
            return Value::Array(self.items);
        }
        let (mut pairs, mut items) = (Vec::new(), self.items.into_iter());
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            pairs.push((key, value));
        }
        Value::Map(pairs)
    }
}

/// A reply without parts, or the head of one with parts.
#[derive(Debug)]
enum Token {
    Whole(Value),
    Open(Open),
}

impl Reader {
    /// Takes what came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether everything that came has been given out.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.open.is_empty()
    }

    /// The next reply, `None` while it is not all there.
    ///
    /// # Errors
    /// What is wrong with bytes that are no reply.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Value>, String> {
        let mut at = 0;
        let mut found = None;
        while found.is_none() {
            let Some((token, length)) = token(&self.bytes[at..])? else { break };
            at += length;
            found = self.put(token);
        }
        self.bytes.drain(..at);
        Ok(found)
    }

    /// The reply that `token` completes, if it does.
    fn put(&mut self, token: Token) -> Option<Value> {
        let mut value = match token {
            Token::Whole(value) => value,
            Token::Open(open) if open.missing == 0 => open.close(),
            Token::Open(open) => {
                self.open.push(open);
                return None;
            }
        };
        while let Some(mut open) = self.open.pop() {
            open.items.push(value);
            open.missing -= 1;
            if open.missing > 0 {
                self.open.push(open);
                return None;
            }
            value = open.close();
        }
        Some(value)
    }
}

/// The token at the start of `bytes` and its length, `None` while it is not all there.
fn token(bytes: &[u8]) -> Result<Option<(Token, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let wrong = || format!("no reply: {line:?}");
    let (kind, text) = line.split_at_checked(1).ok_or_else(wrong)?;
    let (text, mut length) = (text.to_owned(), end + 2);
    let number = || text.parse::<i64>().map_err(|_| wrong());
    let value = match kind {
        "+" => Value::Simple(text),
        "-" => Value::Error(text),
        ":" => Value::Integer(number()?),
        "," => Value::Double(text.parse().map_err(|_| wrong())?),
        "#" => Value::Boolean(text == "t"),
        "(" => Value::Bulk(text.into_bytes()),
        "_" => Value::Resp3Null,
        "$" if number()? == -1 => Value::Null,
        "*" if number()? == -1 => Value::NullArray,
        "*" | "~" | ">" | "%" => {
            let count = usize::try_from(number()?).map_err(|_| wrong())?;
            let is_map = kind == "%";
            let missing = if is_map { count * 2 } else { count };
            return Ok(Some((Token::Open(Open { is_map, missing, items: Vec::new() }), length)));
        }
        "$" | "=" | "!" => {
            let body = usize::try_from(number()?).map_err(|_| wrong())?;
            let Some(bytes) = bytes.get(length..length + body + 2) else { return Ok(None) };
            length += body + 2;
            let body = bytes.strip_suffix(b"\r\n").ok_or_else(wrong)?;
            match kind {
                "!" => Value::Error(String::from_utf8_lossy(body).into_owned()),
                // A verbatim text begins with its format: `txt:`.
                "=" => Value::Bulk(body.get(4..).ok_or_else(wrong)?.to_vec()),
                _ => Value::Bulk(body.to_vec()),
            }
        }
        _ => return Err(wrong()),
    };
    Ok(Some((Token::Whole(value), length)))
}

mod tests {
    use super::*;

    const ALL_KINDS: &[u8] =
        b"*14\r\n+OK\r\n:-1\r\n$1\r\na\r\n$9\r\ntwo words\r\n$2\r\n-1\r\n$0\r\n\r\n$-1\r\n\
        *1\r\n*-1\r\n_\r\n,0.5\r\n#f\r\n=7\r\ntxt:\xffb\n\r\n%1\r\n~0\r\n>1\r\n(12\r\n-ERR no\r\n";

    #[test]
    fn every_kind_is_read_and_has_its_spellings() {
        let value = Value::parse(ALL_KINDS);
        let compact = r#"*14 +OK :-1 $a $"two words" $"-1" $"" $-1 *1 *-1 _ ,0.5 #f $"\xffb\n" %1 *0 *1 $12 -ERR no"#;
        assert_eq!(value.compact(), compact);
        let golden = "*14\n  +OK\n  :-1\n  \"a\"\n  \"two words\"\n  \"-1\"\n  \"\"\n  (nil)\n  *1\n    (nil array)\n  \
                      (nil)\n  ,0.5\n  #f\n  \"\\xffb\\n\"\n  %1\n    *0\n    *1\n      \"12\"\n  -ERR no\n";
        assert_eq!(value.golden(), golden);
    }

    #[test]
    fn a_reply_is_there_when_its_last_byte_is() {
        let mut reader = Reader::default();
        for (at, byte) in ALL_KINDS.iter().enumerate() {
            assert_eq!(reader.next_reply(), Ok(None), "{at} bytes");
            assert_eq!(reader.is_empty(), at == 0);
            reader.feed(&[*byte]);
        }
        reader.feed(b"+next\r\n");
        assert_eq!(reader.next_reply(), Ok(Some(Value::parse(ALL_KINDS))));
        assert_eq!(reader.next_reply(), Ok(Some(Value::Simple("next".into()))));
        assert!(reader.is_empty());
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let bad: [&[u8]; 9] = [
            b"\r\n",
            b"?1\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"*-2\r\n",
            b"$1\r\nabc",
            b"=1\r\na\r\n",
            b",x\r\n",
            b"\xff\r\n",
        ];
        for bytes in bad {
            let mut reader = Reader::default();
            reader.feed(bytes);
            assert!(reader.next_reply().is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
