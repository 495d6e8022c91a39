//! Bytes of a client to requests: where each argument stands in the connection's buffer.
//!
//! Nothing is copied and, in the common case, nothing allocated. The decoder remembers how far it came, so a request
//! that arrives in many reads is looked at once; its cost is linear in its bytes however they are split, and so is
//! its outcome.
//!
//! Source: the RESP specification; limits and texts of errors from Redis 7. Stricter than Redis in one thing: lines
//! and bulks must end in CR LF, which Redis does not look at, so a client that counts wrong is told and not misread.

use std::ops::Range;

use thiserror::Error;

use super::limits::{
    ARGUMENTS_KEPT_MAX, LINE_BYTES_MAX, Limits, Standing, UNAUTHENTICATED_ARGUMENTS_MAX,
    UNAUTHENTICATED_BULK_BYTES_MAX,
};
use crate::stdx::{num, words};

/// Finds requests in what one connection has received.
///
/// The caller keeps the buffer. It calls [`decode`](Self::decode) with the bytes from the start of the current
/// request, and drops [`Decoded::consumed`] bytes once it is done with the arguments.
#[derive(Debug)]
pub struct RequestDecoder {
    limits: Limits,
    stage: Stage,
    /// Bytes of the current request that are understood.
    position: usize,
    /// Bytes from `position` on that hold no line end: where the search for it goes on.
    searched: usize,
    /// Arguments announced.
    count: usize,
    /// The length of the argument that stands at `position`, once its header is read.
    bulk: Option<usize>,
    /// Where each argument read so far stands: in the caller's buffer, or in `unquoted`.
    arguments: Vec<Range<usize>>,
    /// The arguments of an inline request without their quotes, one after the other.
    unquoted: Vec<u8>,
    needed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// At the first byte of a request, or within the line that begins it.
    Begin,
    /// The number of arguments is read.
    Arguments,
    /// The last call found a whole request of this form.
    Done(Form),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Multibulk,
    Inline,
}

/// A whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes the request took, from the start of the buffer. Never 0.
    pub consumed: usize,
    /// Arguments with the command's name. 0 for an empty line or array: nothing to answer, only bytes to drop.
    pub arguments: usize,
}

/// Why the bytes are no request. The connection must be closed after the error is sent.
///
/// Displays Redis' text as it follows `ERR Protocol error: `, see
/// [`ErrorReply::protocol_error`](super::error::ErrorReply::protocol_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// More than [`LINE_BYTES_MAX`] without a line end where a command in plain text should be.
    #[error("too big inline request")]
    InlineTooBig,
    /// A quote that is not closed, or closed in the middle of a word.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More than [`LINE_BYTES_MAX`] without a line end after `*`.
    #[error("too big mbulk count string")]
    CountLineTooBig,
    /// The number after `*` is none, or above [`Limits::arguments_max`].
    #[error("invalid multibulk length")]
    InvalidCount,
    /// More arguments than a client may send before it authenticates.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// More than [`LINE_BYTES_MAX`] without a line end where an argument's length should be.
    #[error("too big bulk count string")]
    LengthLineTooBig,
    /// Something else where `$` and an argument's length should be.
    #[error("expected '$', got '{}'", shown(*.0))]
    ExpectedBulk(u8),
    /// The number after `$` is none, negative, or above [`Limits::bulk_bytes_max`].
    #[error("invalid bulk length")]
    InvalidLength,
    /// A longer argument than a client may send before it authenticates.
    #[error("unauthenticated bulk length")]
    UnauthenticatedLength,
    /// The bytes after an argument are not CR LF. No text of Redis, which does not look.
    #[error("expected CR LF after a bulk string")]
    UnterminatedBulk,
    /// The request as a whole is above [`Limits::request_bytes_max`]. No text of Redis, which hangs up in silence.
    #[error("too big request")]
    RequestTooBig,
}

/// The byte as an error line can hold it.
fn shown(byte: u8) -> char {
    match byte {
        b'\r' | b'\n' => ' ',
        byte if byte.is_ascii() => char::from(byte),
        _ => char::REPLACEMENT_CHARACTER,
    }
}

// A header of three digits announces nothing that a stranger may not send.
const _: () = assert!(UNAUTHENTICATED_BULK_BYTES_MAX >= 999);

/// `$0`, CR LF, CR LF: the shortest argument.
const BULK_FRAMED_BYTES_MIN: usize = 6;

const CR_LF: &[u8] = b"\r\n";

impl RequestDecoder {
    /// A decoder at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            stage: Stage::Begin,
            position: 0,
            searched: 0,
            count: 0,
            bulk: None,
            arguments: Vec::new(),
            unquoted: Vec::new(),
            needed: 1,
        }
    }

    /// Changes the limits, as after authentication. They hold for what is decoded from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Looks for the request at the start of `buffer`.
    ///
    /// `buffer` starts where the current request starts: after `None` the same bytes and more, after a request the
    /// bytes behind it. `None` means that the request is not all there, see [`needed`](Self::needed).
    ///
    /// # Errors
    /// [`ProtocolError`] when no bytes to come can make this a request. The decoder is of no use after that.
    pub fn decode(&mut self, buffer: &[u8]) -> Result<Option<Decoded>, ProtocolError> {
        if let Stage::Done(_) = self.stage {
            self.begin();
        }
        if self.stage == Stage::Begin
            && let Some(consumed) = self.decode_short(buffer)
        {
            self.stage = Stage::Done(Form::Multibulk);
            return Ok(Some(Decoded { consumed, arguments: self.arguments.len() }));
        }
        let form = match (self.stage, buffer.first()) {
            (Stage::Begin, Some(b'*')) => self.decode_count(buffer)?.then_some(Form::Multibulk),
            (Stage::Begin, Some(_)) => self.decode_inline(buffer)?.then_some(Form::Inline),
            (Stage::Begin, None) => {
                self.needed = 1;
                None
            }
            (Stage::Arguments | Stage::Done(_), _) => {
                self.decode_arguments(buffer)?.then_some(Form::Multibulk)
            }
        };
        Ok(form.map(|form| {
            self.stage = Stage::Done(form);
            Decoded { consumed: self.position, arguments: self.arguments.len() }
        }))
    }

    /// The arguments of the request that [`decode`](Self::decode) just returned, the command's name first.
    ///
    /// `buffer` is the one given to that call. Empty when the last call returned no request.
    pub fn argv<'a>(&'a self, buffer: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let (source, arguments) = match self.stage {
            Stage::Done(Form::Multibulk) => (buffer, &self.arguments[..]),
            Stage::Done(Form::Inline) => (&self.unquoted[..], &self.arguments[..]),
            Stage::Begin | Stage::Arguments => (buffer, &[][..]),
        };
        // A range outside of the buffer would mean another buffer than the one decoded: then an argument is empty.
        arguments.iter().map(move |range| source.get(range.clone()).unwrap_or_default())
    }

    /// Where the arguments stand in the buffer given to [`decode`](Self::decode); `None` for an inline request, whose
    /// arguments are the decoder's own.
    ///
    /// For callers that hold the arguments of several requests of one buffer at once.
    pub fn ranges(&self) -> Option<&[Range<usize>]> {
        (self.stage == Stage::Done(Form::Multibulk)).then_some(&self.arguments[..])
    }

    /// How many more bytes the current request surely needs: a lower bound, at least 1.
    ///
    /// Meaningful after [`decode`](Self::decode) returned `None`. It is what the client announced and may be up to
    /// [`Limits::request_bytes_max`]: a hint how much to read, nothing to set memory aside for at once.
    pub fn needed(&self) -> usize {
        self.needed.max(1)
    }

    /// Forgets what it knows of the current request: the next buffer starts where some request starts, be it one that
    /// was returned before.
    pub fn restart(&mut self) {
        self.begin();
    }

    fn begin(&mut self) {
        self.stage = Stage::Begin;
        self.position = 0;
        self.searched = 0;
        self.bulk = None;
        self.arguments.clear();
        if self.arguments.capacity() > ARGUMENTS_KEPT_MAX {
            self.arguments.shrink_to(ARGUMENTS_KEPT_MAX);
        }
    }

    /// Reads a request that is like most: all of it there, and no number of more than three digits. Returns its bytes. `None`
    /// sends the caller the long way, from the beginning; that way is taken once for a request, so this is too.
    #[inline]
    fn decode_short(&mut self, buffer: &[u8]) -> Option<usize> {
        let (count, mut position) = short_header(buffer, b'*')?;
        let count_max = if self.is_unauthenticated() {
            UNAUTHENTICATED_ARGUMENTS_MAX
        } else {
            self.limits.arguments_max
        };
        if count == 0 || count > count_max {
            return None;
        }
        self.arguments.reserve(count.min(ARGUMENTS_KEPT_MAX));
        for _ in 0..count {
            let argument = short_argument(buffer, position);
            let Some(argument) = argument.filter(|it| it.len() <= self.limits.bulk_bytes_max)
            else {
                self.arguments.clear();
                return None;
            };
            position = argument.end + CR_LF.len();
            self.arguments.push(argument);
        }
        if position > self.limits.request_bytes_max {
            self.arguments.clear();
            return None;
        }
        Some(position)
    }

    /// Reads `*<count>` and what of the arguments is there; true when all of them are.
    fn decode_count(&mut self, buffer: &[u8]) -> Result<bool, ProtocolError> {
        let errors = LineErrors {
            too_big: ProtocolError::CountLineTooBig,
            invalid: ProtocolError::InvalidCount,
        };
        let Some(count) = self.decode_number(buffer, &errors)? else {
            return Ok(false);
        };
        // Redis takes a negative count for no request as well.
        self.count = usize::try_from(count).unwrap_or(0);
        if self.count > self.limits.arguments_max {
            return Err(ProtocolError::InvalidCount);
        }
        if self.is_unauthenticated() && self.count > UNAUTHENTICATED_ARGUMENTS_MAX {
            return Err(ProtocolError::UnauthenticatedCount);
        }
        // The count is only a claim yet; the vector grows further as arguments arrive.
        self.arguments.reserve(self.count.min(ARGUMENTS_KEPT_MAX));
        self.stage = Stage::Arguments;
        self.decode_arguments(buffer)
    }

    /// Reads arguments until all are read or the buffer ends.
    fn decode_arguments(&mut self, buffer: &[u8]) -> Result<bool, ProtocolError> {
        while self.arguments.len() < self.count {
            let length = match self.bulk {
                Some(length) => length,
                None => match self.decode_length(buffer)? {
                    Some(length) => length,
                    None => return Ok(false),
                },
            };
            // The sum was checked against request_bytes_max when the length was read.
            let end = self.position + length;
            let Some(terminator) = buffer.get(end..end + CR_LF.len()) else {
                self.wait_for_bulk(end, buffer.len(), length);
                return Ok(false);
            };
            if terminator != CR_LF {
                return Err(ProtocolError::UnterminatedBulk);
            }
            self.arguments.push(self.position..end);
            self.position = end + CR_LF.len();
            self.bulk = None;
        }
        Ok(true)
    }

    /// Reads `$<length>`.
    fn decode_length(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let errors = LineErrors {
            too_big: ProtocolError::LengthLineTooBig,
            invalid: ProtocolError::InvalidLength,
        };
        if let Some(byte) = buffer.get(self.position).filter(|byte| **byte != b'$') {
            // Like Redis, judge a line only when it is whole.
            let line = self.line_end(buffer, errors.too_big)?;
            return line.map_or(Ok(None), |_| Err(ProtocolError::ExpectedBulk(*byte)));
        }
        let Some(length) = self.decode_number(buffer, &errors)? else {
            self.needed += (self.count - self.arguments.len() - 1) * BULK_FRAMED_BYTES_MIN;
            return Ok(None);
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::InvalidLength)?;
        if length > self.limits.bulk_bytes_max {
            return Err(ProtocolError::InvalidLength);
        }
        if self.is_unauthenticated() && length > UNAUTHENTICATED_BULK_BYTES_MAX {
            return Err(ProtocolError::UnauthenticatedLength);
        }
        let end = self.position.checked_add(length).and_then(|end| end.checked_add(CR_LF.len()));
        if end.is_none_or(|end| end > self.limits.request_bytes_max) {
            return Err(ProtocolError::RequestTooBig);
        }
        Ok(Some(length))
    }

    /// Reads the number on the line at `position`, after its first byte, and passes the line.
    fn decode_number(
        &mut self,
        buffer: &[u8],
        errors: &LineErrors,
    ) -> Result<Option<i64>, ProtocolError> {
        let line = buffer.get(self.position..).unwrap_or_default();
        if let Some((number, line_bytes)) = short_number(line) {
            self.pass_line(line_bytes);
            return Ok(Some(number));
        }
        let Some(end) = self.line_end(buffer, errors.too_big)? else {
            return Ok(None);
        };
        if line.get(end + 1) != Some(&b'\n') {
            return Err(errors.invalid);
        }
        let number = num::parse_i64(line.get(1..end).unwrap_or_default()).ok_or(errors.invalid)?;
        self.pass_line(end + CR_LF.len());
        Ok(Some(number))
    }

    fn pass_line(&mut self, line_bytes: usize) {
        self.position += line_bytes;
        self.searched = 0;
    }

    /// Where, from `position`, the CR stands that has a byte behind it; `None` when it is still to come.
    fn line_end(
        &mut self,
        buffer: &[u8],
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let line = buffer.get(self.position..).unwrap_or_default();
        let found = self.search(line, b'\r', too_big)?;
        if found.is_some_and(|end| end + 1 < line.len()) {
            return Ok(found);
        }
        self.needed = 1;
        Ok(None)
    }

    /// Where `byte` stands in `line`, going on where the last search ended.
    fn search(
        &mut self,
        line: &[u8],
        byte: u8,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let within = &line[..line.len().min(LINE_BYTES_MAX + 1)];
        let rest = within.get(self.searched..).unwrap_or_default();
        if let Some(offset) = rest.iter().position(|b| *b == byte) {
            // `searched` stays before the byte found: it is looked at again when what must follow it has arrived.
            self.searched += offset;
            return Ok(Some(self.searched));
        }
        self.searched = within.len();
        if line.len() > LINE_BYTES_MAX { Err(too_big) } else { Ok(None) }
    }

    /// Reads a command in plain text; true when its line is whole.
    fn decode_inline(&mut self, buffer: &[u8]) -> Result<bool, ProtocolError> {
        let Some(end) = self.search(buffer, b'\n', ProtocolError::InlineTooBig)? else {
            self.needed = 1;
            return Ok(false);
        };
        let line = &buffer[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.unquoted.clear();
        words::split(line, &mut self.unquoted, &mut self.arguments)
            .ok_or(ProtocolError::UnbalancedQuotes)?;
        self.position = end + 1;
        Ok(true)
    }

    /// Notes that the bulk of `length` bytes that ends at `end` is not all among `have` bytes.
    fn wait_for_bulk(&mut self, end: usize, have: usize, length: usize) {
        self.bulk = Some(length);
        let later = self.count - self.arguments.len() - 1;
        self.needed = (end + CR_LF.len()).saturating_sub(have) + later * BULK_FRAMED_BYTES_MIN;
    }

    fn is_unauthenticated(&self) -> bool {
        self.limits.standing == Standing::Unauthenticated
    }
}

/// What to say of a line that announces a number.
struct LineErrors {
    too_big: ProtocolError,
    invalid: ProtocolError,
}

/// The number in a line of `sign`, one to three digits, and CR LF, and the line's length.
#[inline]
fn short_header(line: &[u8], sign: u8) -> Option<(usize, usize)> {
    let value = |digit: &u8| usize::from(digit - b'0');
    let (begin, header) = match line {
        [begin, a @ b'0'..=b'9', b'\r', b'\n', ..] => (begin, (value(a), 4)),
        [begin, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            (begin, (value(a) * 10 + value(b), 5))
        }
        [begin, a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            (begin, (value(a) * 100 + value(b) * 10 + value(c), 6))
        }
        _ => return None,
    };
    (*begin == sign).then_some(header)
}

/// Where the argument stands whose header is at `position`, when that is short and the argument is there and ended.
#[inline]
fn short_argument(buffer: &[u8], position: usize) -> Option<Range<usize>> {
    let (length, header) = short_header(buffer.get(position..)?, b'$')?;
    let begin = position + header;
    let end = begin + length;
    (buffer.get(end..end + CR_LF.len())? == CR_LF).then_some(begin..end)
}

/// Digits that the quick way reads: no such number overflows.
const SHORT_DIGITS_MAX: usize = 9;

/// The canonical number of at most nine digits between the first byte of `line` and CR LF, and the line's length with
/// both. `None` sends the caller the long way: it is something else, or not all there.
fn short_number(line: &[u8]) -> Option<(i64, usize)> {
    let digits = line.get(1..)?;
    let mut number = 0_i64;
    for (i, byte) in digits.iter().take(SHORT_DIGITS_MAX + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let is_canonical = i == 1 || (i > 1 && digits[0] != b'0');
            let is_line = *byte == b'\r' && digits.get(i + 1) == Some(&b'\n');
            return (is_canonical && is_line).then_some((number, i + 3));
        }
        if i == SHORT_DIGITS_MAX {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use redis_protocol::resp2::decode as oracle;
    use redis_protocol::resp2::types::OwnedFrame;

    use super::*;

    type Argv = Vec<Vec<u8>>;

    /// What a stream of bytes means: its requests, then the error or the bytes left over.
    #[derive(Debug, PartialEq)]
    struct Outcome {
        requests: Vec<Argv>,
        end: Result<usize, ProtocolError>,
    }

    /// Decodes `stream` as it arrives in reads that end at `cuts` and at its end.
    fn decode_in_reads(stream: &[u8], cuts: &[usize], limits: Limits) -> Outcome {
        let mut decoder = RequestDecoder::new(limits);
        let mut requests = Vec::new();
        let mut start = 0;
        for have in cuts.iter().copied().chain([stream.len()]) {
            loop {
                let buffer = &stream[start..have];
                match decoder.decode(buffer) {
                    Ok(Some(found)) => {
                        assert!(found.consumed > 0 && found.consumed <= buffer.len());
                        let argv: Argv = decoder.argv(buffer).map(<[u8]>::to_vec).collect();
                        assert_eq!(argv.len(), found.arguments);
                        if found.arguments > 0 {
                            requests.push(argv);
                        }
                        start += found.consumed;
                    }
                    Ok(None) => {
                        assert!(decoder.needed() > 0);
                        break;
                    }
                    Err(error) => return Outcome { requests, end: Err(error) },
                }
            }
        }
        Outcome { requests, end: Ok(stream.len() - start) }
    }

    fn decode_all(stream: &[u8]) -> Outcome {
        decode_in_reads(stream, &[], Limits::AUTHENTICATED)
    }

    /// `PING|ECHO a`: requests by `|`, arguments by spaces; and the bytes left over.
    fn requests(stream: &[u8]) -> String {
        let outcome = decode_all(stream);
        outcome.end.unwrap();
        let lines: Vec<_> = outcome
            .requests
            .iter()
            .map(|argv| argv.iter().map(|a| a.escape_ascii().to_string()).collect::<Vec<_>>())
            .map(|argv| argv.join(" "))
            .collect();
        lines.join("|")
    }

    fn multibulk(argv: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", argv.len()).into_bytes();
        for argument in argv {
            bytes.extend(format!("${}\r\n", argument.len()).into_bytes());
            bytes.extend(argument);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    #[test]
    fn requests_are_found_in_order() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"*1\r\n$4\r\nPING\r\n", "PING"),
            (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$1\r\nx\r\n", "GET |x"),
            (b"*0\r\n*-1\r\n*-5\r\nPING\r\n", "PING"),
            (b"\r\n\n  \r\nPING\r\n", "PING"),
            (b"PING\nPING\r\n*1\r\n$4\r\nPING\r\nPING\n", "PING|PING|PING|PING"),
            (b"*1\r\n$2\r\n\r\n\r\n", "\\r\\n"),
            (b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGE", "PING"),
        ];
        for (stream, expected) in table {
            assert_eq!(requests(stream), *expected, "{}", stream.escape_ascii());
        }
    }

    /// Recorded from redis-server 7.0.15 with ECHO.
    #[test]
    fn inline_words_are_unquoted_as_redis_does() {
        let table: &[(&[u8], &[&[u8]])] = &[
            (b"a b", &[b"a", b"b"]),
            (b"  a\t\tb  ", &[b"a", b"b"]),
            (br#""a\x41\n\r\t\b\a""#, &[b"aA\n\r\t\x08\x07"]),
            (br#""\xZZ\q\"""#, &[b"xZZq\""]),
            (br#""\xfF""#, &[b"\xff"]),
            (br"'a\'b\n'", &[b"a'b\\n"]),
            (br#"a"b c""#, &[b"ab c"]),
            (b"a'b'", &[b"ab"]),
            (br#""" ''"#, &[b"", b""]),
            (b"a\x0bb", &[b"a\x0bb"]),
            (b"a\rb", &[b"a", b"b"]),
            (b"\xff\xfe", &[b"\xff\xfe"]),
        ];
        for (line, expected) in table {
            let mut stream = line.to_vec();
            stream.extend(b"\r\n");
            let outcome = decode_all(&stream);
            assert_eq!(outcome.end, Ok(0));
            assert_eq!(outcome.requests, [expected.to_vec()], "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_text_of_redis() {
        let big = |start: &str, byte: u8| {
            let mut bytes = start.as_bytes().to_vec();
            bytes.resize(LINE_BYTES_MAX + start.len() + 1, byte);
            bytes
        };
        let table: &[(&[u8], &str)] = &[
            (b"*3000000000\r\n", "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*abc\r\n", "invalid multibulk length"),
            (b"*1\rX", "invalid multibulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
            (b"*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
            (b"*1\r\n$03\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$4\rX", "invalid bulk length"),
            (b"*1\r\nfoo\r\n", "expected '$', got 'f'"),
            (b"*1\r\n\r\n", "expected '$', got ' '"),
            (b"*1\r\n\n\r\n", "expected '$', got ' '"),
            (b"*1\r\n\xff\r\n", "expected '$', got '\u{fffd}'"),
            (b"*1\r\n$4\r\nPINGxx", "expected CR LF after a bulk string"),
            (b"ECHO \"a\r\n", "unbalanced quotes in request"),
            (b"ECHO \"a\"b\r\n", "unbalanced quotes in request"),
            (b"ECHO 'a\r\n", "unbalanced quotes in request"),
            (b"ECHO 'a'b\r\n", "unbalanced quotes in request"),
            (b"ECHO \"a\\\r\n", "unbalanced quotes in request"),
            (&big("*1", b'0'), "too big mbulk count string"),
            (&big("*1\r\n$", b'0'), "too big bulk count string"),
            (&big("*1\r\n", b'x'), "too big bulk count string"),
            (&big("", b'a'), "too big inline request"),
        ];
        for (stream, expected) in table {
            let shown = stream[..stream.len().min(50)].escape_ascii();
            let outcome = decode_all(stream);
            let error = outcome.end.expect_err(&shown.to_string());
            assert_eq!(error.to_string(), *expected, "{shown}");
            // However the bytes arrive, the answer is the same.
            for cut in 0..stream.len().min(40) {
                let split = decode_in_reads(stream, &[cut], Limits::AUTHENTICATED);
                assert_eq!(split, decode_all(stream), "{shown} cut at {cut}");
            }
        }
    }

    #[test]
    fn lines_may_be_as_long_as_the_limit() {
        let mut stream = vec![b'a'; LINE_BYTES_MAX];
        stream.push(b'\n');
        assert_eq!(decode_all(&stream).requests, [[vec![b'a'; LINE_BYTES_MAX]]]);
    }

    #[test]
    fn strangers_may_send_little() {
        let strangers = Limits::UNAUTHENTICATED;
        let eleven = multibulk(&vec![b"x".to_vec(); 11]);
        let ten = multibulk(&vec![b"x".to_vec(); 10]);
        let big = multibulk(&[vec![b'x'; 16_385]]);
        let fits = multibulk(&[vec![b'x'; 16_384]]);
        let end = |stream: &[u8]| decode_in_reads(stream, &[], strangers).end;
        assert_eq!(end(&eleven), Err(ProtocolError::UnauthenticatedCount));
        assert_eq!(end(&big), Err(ProtocolError::UnauthenticatedLength));
        assert_eq!((end(&ten), end(&fits)), (Ok(0), Ok(0)));

        let mut decoder = RequestDecoder::new(strangers);
        decoder.decode(&ten).unwrap();
        decoder.set_limits(Limits::AUTHENTICATED);
        assert_eq!(decoder.decode(&eleven).unwrap().unwrap().arguments, 11);
    }

    #[test]
    fn requests_have_a_size_limit() {
        let limits = Limits { request_bytes_max: 100, ..Limits::AUTHENTICATED };
        let fits = multibulk(&[vec![b'x'; 88]]);
        let big = multibulk(&[vec![b'x'; 40], vec![b'x'; 60]]);
        assert_eq!(decode_in_reads(&fits, &[], limits).end, Ok(0));
        assert_eq!(decode_in_reads(&big, &[], limits).end, Err(ProtocolError::RequestTooBig));
    }

    #[test]
    fn needed_is_a_lower_bound_that_announced_bulks_raise() {
        let stream = multibulk(&[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 1000]]);
        for have in 0..stream.len() {
            let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
            assert_eq!(decoder.decode(&stream[..have]), Ok(None));
            assert!(decoder.needed() <= stream.len() - have, "{have}");
        }
        let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
        decoder.decode(&stream[..stream.len() - 500]).unwrap();
        assert_eq!(decoder.needed(), 500);
    }

    /// Each byte of an argument in its own read: looking at the bytes again each time would take minutes.
    #[test]
    fn cost_is_linear_in_bytes_however_they_arrive() {
        let many = multibulk(&vec![b"ab".to_vec(); 100_000]);
        let cuts: Vec<_> = (0..many.len()).collect();
        assert_eq!(decode_in_reads(&many, &cuts, Limits::AUTHENTICATED).requests[0].len(), 100_000);
        let big = multibulk(&[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 2_000_000]]);
        let cuts: Vec<_> = (0..big.len()).collect();
        assert_eq!(decode_in_reads(&big, &cuts, Limits::AUTHENTICATED).requests.len(), 1);
    }

    #[test]
    fn room_of_a_large_request_is_given_back() {
        let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
        decoder.decode(&multibulk(&vec![b"x".to_vec(); 100_000])).unwrap();
        assert!(decoder.arguments.capacity() >= 100_000);
        decoder.decode(b"").unwrap();
        assert!(decoder.arguments.capacity() <= 2 * ARGUMENTS_KEPT_MAX);
    }

    #[test]
    fn argv_is_empty_without_a_request_and_never_leaves_the_buffer() {
        let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
        let stream = multibulk(&[b"PING".to_vec()]);
        decoder.decode(&stream[..9]).unwrap();
        assert_eq!(decoder.argv(&stream).len(), 0);
        decoder.decode(&stream).unwrap();
        assert_eq!(decoder.ranges().unwrap().first(), Some(&(8..12)));
        assert_eq!(decoder.argv(b"other").collect::<Vec<_>>(), [b""]);
        decoder.decode(b"PING\n").unwrap();
        assert_eq!(decoder.ranges(), None);
    }

    /// The same bytes through redis-protocol: argv and length of the request at their start.
    fn oracle_request(bytes: &[u8]) -> Option<(Argv, usize)> {
        let (frame, consumed) = oracle::decode(bytes).ok()??;
        let OwnedFrame::Array(items) = frame else { return None };
        let argv = items.into_iter().map(|item| match item {
            OwnedFrame::BulkString(bytes) => Some(bytes),
            OwnedFrame::SimpleString(_)
            | OwnedFrame::Error(_)
            | OwnedFrame::Integer(_)
            | OwnedFrame::Array(_)
            | OwnedFrame::Null => None,
        });
        Some((argv.collect::<Option<_>>()?, consumed))
    }

    fn seeded() -> ProptestConfig {
        ProptestConfig {
            rng_seed: RngSeed::Fixed(0x6b76_6f72_756d),
            failure_persistence: None,
            cases: 400,
            ..ProptestConfig::default()
        }
    }

    fn any_argv() -> impl Strategy<Value = Argv> {
        let argument = proptest::collection::vec(any::<u8>(), 0..24);
        proptest::collection::vec(argument, 1..6)
    }

    /// Garbage that looks like the protocol: its marks and small numbers, some of it whole.
    fn near_requests() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b"*1\r\n".to_vec()),
            Just(b"*2\r\n$1\r\n".to_vec()),
            Just(b"$1\r\nx\r\n".to_vec()),
            Just(b"$0\r\n\r\n".to_vec()),
            Just(b"\"".to_vec()),
            any_argv().prop_map(|argv| multibulk(&argv)),
            proptest::collection::vec(any::<u8>(), 0..4),
            "[*$+:0-9 \r\n-]{0,4}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn whole_requests_decode_as_redis_protocol_decodes_them_at_every_cut(
            argvs in proptest::collection::vec(any_argv(), 1..4)
        ) {
            let stream: Vec<u8> = argvs.iter().flat_map(|argv| multibulk(argv)).collect();
            let mut rest = &stream[..];
            for argv in &argvs {
                let (theirs, consumed) = oracle_request(rest).expect("well-formed");
                prop_assert_eq!(&theirs, argv);
                rest = &rest[consumed..];
            }
            for cut in 0..=stream.len() {
                let outcome = decode_in_reads(&stream, &[cut], Limits::AUTHENTICATED);
                prop_assert_eq!(&outcome.requests, &argvs);
                prop_assert_eq!(&outcome.end, &Ok(0));
            }
        }

        #[test]
        fn garbage_is_never_read_otherwise_than_redis_protocol_reads_it(
            bytes in near_requests()
        ) {
            let mut decoder = RequestDecoder::new(Limits::AUTHENTICATED);
            if let Ok(Some(decoded)) = decoder.decode(&bytes)
                && bytes[0] == b'*'
                && decoded.arguments > 0
            {
                let argv: Argv = decoder.argv(&bytes).map(<[u8]>::to_vec).collect();
                prop_assert_eq!(Some((argv, decoded.consumed)), oracle_request(&bytes));
            }
        }

        #[test]
        fn cuts_never_change_what_garbage_means(
            bytes in near_requests(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(decode_in_reads(&bytes, &cuts, Limits::AUTHENTICATED), decode_all(&bytes));
        }
    }
}
