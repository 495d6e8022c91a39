//! Replies to bytes, in the protocol the client speaks; what RESP2 lacks is downgraded here only.
//!
//! Source: the RESP3 specification and the downgrade table of Redis 7 (`addReply*`).

use bytes::Bytes;

use super::reply::Reply;
use crate::stdx::codec::Sink;
use crate::stdx::num;

/// The protocol of one connection. A connection starts with RESP2; HELLO 3 changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RESP2: strings, integers, errors and arrays.
    #[default]
    Resp2,
    /// RESP3: RESP2 and maps, sets, doubles, booleans, pushes and more.
    Resp3,
}

/// Appends `reply` as `protocol` writes it to `out`, which may share what is lent. Allocates only what `out` needs to grow.
pub fn encode<S: Sink>(reply: &Reply<'_>, protocol: Protocol, out: &mut S) {
    match reply {
        Reply::Simple(text) => encode_line(out, b'+', text.as_bytes()),
        Reply::Error(error) => encode_line(out, b'-', error.line().as_bytes()),
        Reply::Bulk(bytes) => encode_bulk(out, bytes),
        Reply::Lent(bytes) => encode_lent(out, bytes),
        Reply::Integer(number) => encode_integer(out, *number),
        Reply::Double(number) => encode_double(out, protocol, *number),
        Reply::Boolean(yes) => encode_boolean(out, protocol, *yes),
        Reply::Null => encode_null(out, protocol),
        Reply::NullArray => encode_null_array(out, protocol),
        Reply::Array(items) => encode_items(out, b'*', protocol, items),
        Reply::Set(items) => encode_items(out, resp3_or(protocol, b'~'), protocol, items),
        Reply::Push(items) => encode_items(out, resp3_or(protocol, b'>'), protocol, items),
        Reply::Map(pairs) => encode_map(out, protocol, pairs),
        Reply::Pairs(pairs) => encode_pairs(out, protocol, pairs),
        Reply::Verbatim { format, text } => encode_verbatim(out, protocol, *format, text),
        Reply::BigNumber(digits) => match protocol {
            Protocol::Resp2 => encode_bulk(out, digits),
            Protocol::Resp3 => encode_line(out, b'(', digits),
        },
    }
}

/// Appends `reply` as [`encode`] does, unless it is longer than `bytes_max`: then nothing.
///
/// # Errors
/// [`TooLong`]. Found without encoding it: a reply that would not fit in memory never is.
#[inline]
pub fn encode_within<S: Sink>(
    reply: &Reply<'_>,
    protocol: Protocol,
    bytes_max: usize,
    out: &mut S,
) -> Result<(), TooLong> {
    // Most replies, without a look at more than their length.
    if let Reply::Bulk(bytes) = reply {
        if bytes.len().saturating_add(HEADER_BYTES_MAX + FORMAT_BYTES) > bytes_max {
            return Err(TooLong);
        }
        encode_bulk(out, bytes);
        return Ok(());
    }
    if longest(reply) > bytes_max {
        return Err(TooLong);
    }
    encode(reply, protocol, out);
    Ok(())
}

/// A reply is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is too long")]
pub struct TooLong;

/// Bytes that `reply` takes at most, in either protocol.
fn longest(reply: &Reply<'_>) -> usize {
    let of_items = |items: &[Reply<'_>]| {
        items.iter().map(longest).fold(HEADER_BYTES_MAX, usize::saturating_add)
    };
    let of_pairs = |pairs: &[(Reply<'_>, Reply<'_>)]| {
        let each = |(first, second): &(Reply<'_>, Reply<'_>)| {
            HEADER_BYTES_MAX.saturating_add(longest(first)).saturating_add(longest(second))
        };
        pairs.iter().map(each).fold(HEADER_BYTES_MAX, usize::saturating_add)
    };
    // What has no length of its own fits into one header with its text.
    let with_text = |text: usize| text.saturating_add(HEADER_BYTES_MAX + FORMAT_BYTES);
    match reply {
        Reply::Simple(text) => with_text(text.len()),
        Reply::Error(error) => with_text(error.line().len()),
        Reply::Bulk(bytes) | Reply::BigNumber(bytes) => with_text(bytes.len()),
        Reply::Lent(bytes) => with_text(bytes.len()),
        Reply::Verbatim { text, .. } => with_text(text.len()),
        Reply::Integer(_) | Reply::Boolean(_) | Reply::Null | Reply::NullArray => with_text(0),
        Reply::Double(_) => with_text(DOUBLE_BYTES_MAX),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => of_items(items),
        Reply::Map(pairs) | Reply::Pairs(pairs) => of_pairs(pairs),
    }
}

/// Appends the bulk string `bytes`.
pub fn encode_bulk<S: Sink>(out: &mut S, bytes: &[u8]) {
    // One reservation for header, bytes and ends: growing twice would copy a big reply twice.
    out.reserve(bytes.len() + HEADER_BYTES_MAX + 2);
    encode_length(out, b'$', bytes.len());
    out.put(bytes);
    out.put(b"\r\n");
}

fn encode_lent<S: Sink>(out: &mut S, bytes: &Bytes) {
    encode_length(out, b'$', bytes.len());
    out.put_shared(bytes);
    out.put(b"\r\n");
}

/// Appends the integer `number`.
pub fn encode_integer<S: Sink>(out: &mut S, number: i64) {
    encode_line(out, b':', itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the header of an array; its `count` elements must follow.
pub fn encode_array_header<S: Sink>(out: &mut S, count: usize) {
    encode_length(out, b'*', count);
}

/// Appends the header of a map; its `pairs` keys and values must follow, key before value.
pub fn encode_map_header<S: Sink>(out: &mut S, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => encode_length(out, b'*', pairs.saturating_mul(2)),
        Protocol::Resp3 => encode_length(out, b'%', pairs),
    }
}

/// Appends the header of a set; its `count` elements must follow.
pub fn encode_set_header<S: Sink>(out: &mut S, protocol: Protocol, count: usize) {
    encode_length(out, resp3_or(protocol, b'~'), count);
}

/// Appends the header of a push message; its `count` elements must follow.
pub fn encode_push_header<S: Sink>(out: &mut S, protocol: Protocol, count: usize) {
    encode_length(out, resp3_or(protocol, b'>'), count);
}

/// Appends the missing string.
pub fn encode_null<S: Sink>(out: &mut S, protocol: Protocol) {
    out.put(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Type byte, the 20 digits of the largest length, CR, LF.
const HEADER_BYTES_MAX: usize = 23;

/// What a reply may have beside one header and its text: the format of a verbatim text, CR and LF.
const FORMAT_BYTES: usize = 6;

/// The longest text of a double.
const DOUBLE_BYTES_MAX: usize = 32;

fn encode_null_array<S: Sink>(out: &mut S, protocol: Protocol) {
    out.put(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

fn encode_boolean<S: Sink>(out: &mut S, protocol: Protocol, yes: bool) {
    out.put(match (protocol, yes) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

fn encode_double<S: Sink>(out: &mut S, protocol: Protocol, number: f64) {
    let text = num::DoubleText::new(number);
    match protocol {
        Protocol::Resp2 => encode_bulk(out, text.as_bytes()),
        Protocol::Resp3 => encode_line(out, b',', text.as_bytes()),
    }
}

fn encode_items<S: Sink>(out: &mut S, kind: u8, protocol: Protocol, items: &[Reply<'_>]) {
    encode_length(out, kind, items.len());
    for item in items {
        encode(item, protocol, out);
    }
}

fn encode_map<S: Sink>(out: &mut S, protocol: Protocol, pairs: &[(Reply<'_>, Reply<'_>)]) {
    encode_map_header(out, protocol, pairs.len());
    for (key, value) in pairs {
        encode(key, protocol, out);
        encode(value, protocol, out);
    }
}

fn encode_pairs<S: Sink>(out: &mut S, protocol: Protocol, pairs: &[(Reply<'_>, Reply<'_>)]) {
    match protocol {
        Protocol::Resp2 => encode_array_header(out, pairs.len().saturating_mul(2)),
        Protocol::Resp3 => encode_array_header(out, pairs.len()),
    }
    for (first, second) in pairs {
        if protocol == Protocol::Resp3 {
            encode_array_header(out, 2);
        }
        encode(first, protocol, out);
        encode(second, protocol, out);
    }
}

fn encode_verbatim<S: Sink>(out: &mut S, protocol: Protocol, format: [u8; 3], text: &[u8]) {
    match protocol {
        Protocol::Resp2 => encode_bulk(out, text),
        Protocol::Resp3 => {
            encode_length(out, b'=', text.len().saturating_add(4));
            out.put(&format);
            out.put(b":");
            out.put(text);
            out.put(b"\r\n");
        }
    }
}

/// The RESP3 type byte `kind`, or the array's in RESP2.
fn resp3_or(protocol: Protocol, kind: u8) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => kind,
    }
}

fn encode_length<S: Sink>(out: &mut S, kind: u8, length: usize) {
    encode_line(out, kind, itoa::Buffer::new().format(length).as_bytes());
}

fn encode_line<S: Sink>(out: &mut S, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.put(&[kind]);
    out.put(text);
    out.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use redis_protocol::resp2::types as resp2;
    use redis_protocol::resp3::types as resp3;

    use super::*;
    use crate::resp::error::ErrorReply;
    use crate::resp::frame;
    use crate::stdx::rope::{LENT_BYTES_MIN, Rope};

    fn text_of(reply: &Reply<'_>, protocol: Protocol) -> String {
        let mut out = Vec::new();
        encode(reply, protocol, &mut out);
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn a_reply_that_is_too_long_is_not_encoded_at_all() {
        let bulk = |length: usize| Reply::bulk(vec![b'x'; length]);
        let nested = || Reply::Array(vec![bulk(100), Reply::Map(vec![(bulk(1), bulk(500))])]);
        let lent = Reply::lent(Bytes::from(vec![b'x'; 1000]));
        for (reply, enough) in [(bulk(1000), 1100), (lent, 1100), (nested(), 800)] {
            let mut out = b"before".to_vec();
            assert_eq!(encode_within(&reply, Protocol::Resp3, 600, &mut out), Err(TooLong));
            assert_eq!(out, b"before");
            assert_eq!(encode_within(&reply, Protocol::Resp3, enough, &mut out), Ok(()));
            assert!(out.len() > 600);
        }
    }

    #[test]
    fn each_type_has_its_form_in_both_protocols() {
        let one_two = || vec![Reply::Integer(1), Reply::bulk(&b"two"[..])];
        let table = [
            (Reply::OK, "+OK|", "+OK|"),
            (Reply::bulk(&b""[..]), "$0||", "$0||"),
            (Reply::bulk(&b"ab"[..]), "$2|ab|", "$2|ab|"),
            (Reply::lent(Bytes::from_static(b"ab")), "$2|ab|", "$2|ab|"),
            (Reply::Integer(i64::MIN), ":-9223372036854775808|", ":-9223372036854775808|"),
            (Reply::Integer(0), ":0|", ":0|"),
            (Reply::Double(0.1), "$3|0.1|", ",0.1|"),
            (Reply::Double(3.0), "$1|3|", ",3|"),
            (Reply::Double(f64::INFINITY), "$3|inf|", ",inf|"),
            (Reply::Double(f64::NEG_INFINITY), "$4|-inf|", ",-inf|"),
            (Reply::Double(f64::NAN), "$3|nan|", ",nan|"),
            (Reply::Boolean(true), ":1|", "#t|"),
            (Reply::Boolean(false), ":0|", "#f|"),
            (Reply::Null, "$-1|", "_|"),
            (Reply::NullArray, "*-1|", "_|"),
            (Reply::Array(vec![]), "*0|", "*0|"),
            (Reply::Array(one_two()), "*2|:1|$3|two|", "*2|:1|$3|two|"),
            (Reply::Set(one_two()), "*2|:1|$3|two|", "~2|:1|$3|two|"),
            (Reply::Push(one_two()), "*2|:1|$3|two|", ">2|:1|$3|two|"),
            (Reply::Map(vec![(Reply::Integer(1), Reply::Boolean(true))]), "*2|:1|:1|", "%1|:1|#t|"),
            (
                Reply::Pairs(vec![(Reply::Integer(1), Reply::Double(0.5))]),
                "*2|:1|$3|0.5|",
                "*1|*2|:1|,0.5|",
            ),
            (Reply::verbatim_text("hey"), "$3|hey|", "=7|txt:hey|"),
            (Reply::BigNumber(Cow::Borrowed(b"-12")), "$3|-12|", "(-12|"),
            (Reply::Error(ErrorReply::SYNTAX), "-ERR syntax error|", "-ERR syntax error|"),
            (
                Reply::Array(vec![Reply::Array(vec![Reply::Null]), Reply::NullArray]),
                "*2|*1|$-1|*-1|",
                "*2|*1|_|_|",
            ),
        ];
        for (reply, resp2, resp3) in table {
            assert_eq!(text_of(&reply, Protocol::Resp2), resp2, "{reply:?}");
            assert_eq!(text_of(&reply, Protocol::Resp3), resp3, "{reply:?}");
        }
    }

    /// Wherever it stands, and the same as a copy of it.
    #[test]
    fn what_is_lent_goes_on_as_it_is_to_who_shares_it() {
        let value = Bytes::from(vec![b'x'; LENT_BYTES_MIN]);
        let reply = |value: Reply<'static>| Reply::Array(vec![value.clone(), Reply::Null, value]);
        let (mut rope, mut copy) = (Rope::new(), Vec::new());
        encode(&reply(Reply::lent(value.clone())), Protocol::Resp2, &mut rope);
        encode(&reply(Reply::bulk(value.to_vec())), Protocol::Resp2, &mut copy);
        assert!(rope.to_vec() == copy);
        let lent = rope.runs().filter(|run| run.as_ptr() == value.as_ptr());
        assert_eq!(lent.count(), 2);
        assert_eq!(rope.runs().count(), 5, "what is around them lies together");
    }

    #[test]
    fn headers_match_the_whole_forms() {
        let mut out = Vec::new();
        encode_array_header(&mut out, 2);
        encode_map_header(&mut out, Protocol::Resp2, 2);
        encode_map_header(&mut out, Protocol::Resp3, 2);
        encode_set_header(&mut out, Protocol::Resp2, 1);
        encode_set_header(&mut out, Protocol::Resp3, 1);
        encode_push_header(&mut out, Protocol::Resp3, 1);
        assert_eq!(out, b"*2\r\n*4\r\n%2\r\n*1\r\n~1\r\n>1\r\n");
    }

    #[test]
    fn replies_are_appended() {
        let mut out = b"before".to_vec();
        encode_bulk(&mut out, b"x");
        encode_integer(&mut out, -1);
        assert_eq!(out, b"before$1\r\nx\r\n:-1\r\n");
    }

    /// What a RESP2 client understands of a reply.
    fn as_resp2(reply: &Reply<'_>) -> resp2::OwnedFrame {
        let array =
            |items: &[Reply<'_>]| resp2::OwnedFrame::Array(items.iter().map(as_resp2).collect());
        match reply {
            Reply::Simple(text) => resp2::OwnedFrame::SimpleString(text.as_bytes().to_vec()),
            Reply::Bulk(bytes) | Reply::BigNumber(bytes) | Reply::Verbatim { text: bytes, .. } => {
                resp2::OwnedFrame::BulkString(bytes.to_vec())
            }
            Reply::Lent(bytes) => resp2::OwnedFrame::BulkString(bytes.to_vec()),
            Reply::Integer(number) => resp2::OwnedFrame::Integer(*number),
            Reply::Double(number) => {
                resp2::OwnedFrame::BulkString(num::DoubleText::new(*number).as_bytes().to_vec())
            }
            Reply::Boolean(yes) => resp2::OwnedFrame::Integer(i64::from(*yes)),
            Reply::Null | Reply::NullArray => resp2::OwnedFrame::Null,
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => array(items),
            Reply::Map(pairs) | Reply::Pairs(pairs) => resp2::OwnedFrame::Array(
                pairs.iter().flat_map(|(k, v)| [as_resp2(k), as_resp2(v)]).collect(),
            ),
            Reply::Error(error) => resp2::OwnedFrame::Error(error.line().to_owned()),
        }
    }

    /// What a RESP3 client understands of a reply. Sets and maps hold distinct elements here, see `any_reply`.
    fn as_resp3(reply: &Reply<'_>) -> resp3::OwnedFrame {
        let attributes = None;
        let all = |items: &[Reply<'_>]| items.iter().map(as_resp3).collect();
        match reply {
            Reply::Simple(text) => {
                resp3::OwnedFrame::SimpleString { data: text.as_bytes().to_vec(), attributes }
            }
            Reply::Bulk(bytes) => {
                resp3::OwnedFrame::BlobString { data: bytes.to_vec(), attributes }
            }
            Reply::Lent(bytes) => {
                resp3::OwnedFrame::BlobString { data: bytes.to_vec(), attributes }
            }
            Reply::BigNumber(digits) => {
                resp3::OwnedFrame::BigNumber { data: digits.to_vec(), attributes }
            }
            Reply::Verbatim { text, .. } => resp3::OwnedFrame::VerbatimString {
                data: text.to_vec(),
                format: resp3::VerbatimStringFormat::Text,
                attributes,
            },
            Reply::Integer(number) => resp3::OwnedFrame::Number { data: *number, attributes },
            Reply::Double(number) => resp3::OwnedFrame::Double { data: *number, attributes },
            Reply::Boolean(yes) => resp3::OwnedFrame::Boolean { data: *yes, attributes },
            Reply::Null | Reply::NullArray => resp3::OwnedFrame::Null,
            Reply::Array(items) => resp3::OwnedFrame::Array { data: all(items), attributes },
            Reply::Push(items) => resp3::OwnedFrame::Push { data: all(items), attributes },
            Reply::Set(items) => {
                resp3::OwnedFrame::Set { data: items.iter().map(as_resp3).collect(), attributes }
            }
            Reply::Map(pairs) => resp3::OwnedFrame::Map {
                data: pairs.iter().map(|(k, v)| (as_resp3(k), as_resp3(v))).collect(),
                attributes,
            },
            Reply::Pairs(pairs) => {
                let pair = |(first, second): &(Reply<'_>, Reply<'_>)| resp3::OwnedFrame::Array {
                    data: vec![as_resp3(first), as_resp3(second)],
                    attributes: None,
                };
                resp3::OwnedFrame::Array { data: pairs.iter().map(pair).collect(), attributes }
            }
            Reply::Error(error) => {
                resp3::OwnedFrame::SimpleError { data: error.line().to_owned(), attributes }
            }
        }
    }

    fn any_scalar() -> impl Strategy<Value = Reply<'static>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            Just(Reply::OK),
            bytes().prop_map(Reply::bulk),
            any::<i64>().prop_map(Reply::Integer),
            prop::num::f64::NORMAL.prop_map(Reply::Double),
            Just(Reply::Double(f64::INFINITY)),
            Just(Reply::Double(f64::NEG_INFINITY)),
            any::<bool>().prop_map(Reply::Boolean),
            Just(Reply::Null),
            Just(Reply::NullArray),
            "[a-z ]{0,20}".prop_map(Reply::verbatim_text),
            "-?[1-9][0-9]{0,40}".prop_map(|digits| Reply::BigNumber(digits.into_bytes().into())),
            "[ -~]{1,20}".prop_map(|text| Reply::Error(ErrorReply::new("ERR", text))),
        ]
    }

    fn any_reply() -> impl Strategy<Value = Reply<'static>> {
        let numbered = |values: Vec<Reply<'static>>| {
            (0..).map(Reply::Integer).zip(values).collect::<Vec<(Reply<'_>, Reply<'_>)>>()
        };
        any_scalar().prop_recursive(3, 24, 4, move |inner| {
            let items = || proptest::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                items().prop_map(Reply::Array),
                items().prop_map(move |values| Reply::Map(numbered(values))),
                items().prop_map(move |values| Reply::Pairs(numbered(values))),
                (0..5_usize).prop_map(|n| Reply::Set((0..n).map(Reply::count).collect())),
            ]
        })
    }

    fn seeded() -> ProptestConfig {
        ProptestConfig {
            rng_seed: RngSeed::Fixed(0x6b76_6f72_756d),
            failure_persistence: None,
            cases: 1000,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn clients_of_both_protocols_understand_what_was_meant(reply in any_reply()) {
            let mut bytes = Vec::new();
            encode(&reply, Protocol::Resp2, &mut bytes);
            prop_assert_eq!(frame::reply_length(&bytes), Ok(Some(bytes.len())));
            let decoded = redis_protocol::resp2::decode::decode(&bytes).unwrap();
            prop_assert_eq!(decoded, Some((as_resp2(&reply), bytes.len())));

            bytes.clear();
            encode(&reply, Protocol::Resp3, &mut bytes);
            prop_assert_eq!(frame::reply_length(&bytes), Ok(Some(bytes.len())));
            let decoded = redis_protocol::resp3::decode::complete::decode(&bytes).unwrap();
            prop_assert_eq!(decoded, Some((as_resp3(&reply), bytes.len())));
        }

        #[test]
        fn elements_of_an_array_are_what_each_encodes_to(
            items in proptest::collection::vec(any_reply(), 0..5)
        ) {
            let encoded = |reply: &Reply<'_>| {
                let mut bytes = Vec::new();
                encode(reply, Protocol::Resp3, &mut bytes);
                bytes
            };
            let each: Vec<_> = items.iter().map(encoded).collect();
            let whole = Rope::from(encoded(&Reply::Array(items)));
            let elements = frame::array_elements(&whole).unwrap();
            let elements: Vec<_> = elements.into_iter().map(|it| whole.bytes(it)).collect();
            prop_assert_eq!(elements, each);
        }
    }
}
