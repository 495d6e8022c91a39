//! Joins the encoded replies of several shards as a command's spec says.

use std::ops::Range;

use crate::resp::encode::{encode_array_header, encode_bulk, encode_integer};
use crate::resp::frame;
use crate::resp::{ErrorReply, Protocol, Reply, encode};
use crate::stdx::num::parse_i64;
use crate::stdx::rope::Rope;

/// How the replies of shards become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Every reply is the same good news; the first stands for all.
    AllSucceeded,
    /// The integers are added.
    Sum,
    /// Arrays of one element per key; for each piece, which keys of the whole command its were.
    InKeyOrder(Vec<Vec<usize>>),
    /// The arrays one after the other.
    Concatenation,
    /// One of those that are not null.
    AnyPresent,
}

/// The one reply that `pieces` make. An error among them is the reply.
///
/// `random` picks where there is a choice. Appended to `out`; what is lent in them is lent to it.
pub fn merge(how: &Merge, pieces: &[Rope], protocol: Protocol, random: u64, out: &mut Rope) {
    if let Some(error) = pieces.iter().find(|piece| piece.run_at(0).first() == Some(&b'-')) {
        return put(error, out);
    }
    if try_merge(how, pieces, random, out).is_none() {
        // The pieces are encoded by this program; only a defect or a foreign peer makes others.
        encode(&Reply::Error(ErrorReply::INTERNAL), protocol, out);
    }
}

/// As [`merge`]; `None`, and nothing is appended, when the pieces are not what they should be.
fn try_merge(how: &Merge, pieces: &[Rope], random: u64, out: &mut Rope) -> Option<()> {
    match how {
        Merge::AllSucceeded => put(pieces.first()?, out),
        Merge::Sum => {
            let sum =
                pieces.iter().try_fold(0_i64, |sum, piece| sum.checked_add(integer(piece)?))?;
            encode_integer(out, sum);
        }
        Merge::InKeyOrder(ordinals) => {
            let count = ordinals.iter().map(Vec::len).sum();
            let mut elements = vec![(pieces.first()?, 0..0); count];
            for (piece, ordinals) in pieces.iter().zip(ordinals) {
                let values = frame::array_elements(piece).ok()?;
                for (value, &ordinal) in values.into_iter().zip(ordinals) {
                    *elements.get_mut(ordinal)? = (piece, value);
                }
            }
            put_array(&elements, out);
        }
        Merge::Concatenation => {
            let mut elements = Vec::new();
            for piece in pieces {
                let values = frame::array_elements(piece).ok()?;
                elements.extend(values.into_iter().map(|value| (piece, value)));
            }
            put_array(&elements, out);
        }
        Merge::AnyPresent => {
            let is_null = |piece: &&Rope| piece.starts_with(b"$-1") || piece.starts_with(b"_");
            let present: Vec<_> = pieces.iter().filter(|piece| !is_null(piece)).collect();
            match present.len() {
                0 => put(pieces.first()?, out),
                count => put(present[usize::try_from(random % count as u64).unwrap_or(0)], out),
            }
        }
    }
    Some(())
}

fn put(piece: &Rope, out: &mut Rope) {
    piece.put_to(0..piece.len(), out);
}

/// Each element is a part of a piece, of which all that is long goes here.
fn put_array(elements: &[(&Rope, Range<usize>)], out: &mut Rope) {
    encode_array_header(out, elements.len());
    for (piece, element) in elements {
        piece.share_out(element.clone(), out);
    }
}

fn integer(piece: &Rope) -> Option<i64> {
    parse_i64(piece.as_slice()?.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// Appends a SCAN reply of one shard, with `next` as cursor in place of the shard's own 0: the walk goes on in
/// the next shard.
pub fn continue_scan(reply: &Rope, next: Option<u64>, out: &mut Rope) {
    const FINISHED: &[u8] = b"*2\r\n$1\r\n0\r\n";
    match next {
        Some(next) if reply.starts_with(FINISHED) => {
            encode_array_header(out, 2);
            encode_bulk(out, next.to_string().as_bytes());
            reply.put_to(FINISHED.len()..reply.len(), out);
        }
        Some(_) | None => put(reply, out),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::stdx::rope::LENT_BYTES_MIN;

    fn check(how: &Merge, pieces: &[&str], expected: &str) {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Rope::from(piece.as_bytes().to_vec())).collect();
        let mut out = Rope::new();
        merge(how, &pieces, Protocol::Resp2, 1, &mut out);
        assert_eq!(String::from_utf8_lossy(&out.to_vec()), expected, "{how:?}");
    }

    #[test]
    fn replies_are_joined_as_declared() {
        check(&Merge::AllSucceeded, &["+OK\r\n", "+OK\r\n"], "+OK\r\n");
        check(&Merge::Sum, &[":1\r\n", ":41\r\n"], ":42\r\n");
        check(
            &Merge::InKeyOrder(vec![vec![0, 2], vec![1]]),
            &["*2\r\n$1\r\na\r\n$1\r\nc\r\n", "*1\r\n$-1\r\n"],
            "*3\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n",
        );
        check(&Merge::Concatenation, &["*1\r\n$1\r\na\r\n", "*0\r\n"], "*1\r\n$1\r\na\r\n");
        check(&Merge::AnyPresent, &["$-1\r\n", "$1\r\na\r\n", "$1\r\nb\r\n"], "$1\r\nb\r\n");
        check(&Merge::AnyPresent, &["$-1\r\n", "$-1\r\n"], "$-1\r\n");
    }

    #[test]
    fn an_error_is_the_reply() {
        let error = "-TIMEOUT outcome unknown\r\n";
        check(&Merge::Sum, &[":1\r\n", error], error);
        check(&Merge::AllSucceeded, &["+OK\r\n", error], error);
    }

    #[test]
    fn nonsense_is_an_internal_error() {
        check(
            &Merge::Sum,
            &["+OK\r\n", ":1\r\n"],
            "-ERR internal error; see the log of the node\r\n",
        );
    }

    #[test]
    fn a_finished_shard_hands_the_scan_on() {
        for (reply, next, expected) in [
            (&b"*2\r\n$1\r\n0\r\n*0\r\n"[..], Some(8192), &b"*2\r\n$4\r\n8192\r\n*0\r\n"[..]),
            (b"*2\r\n$2\r\n17\r\n*0\r\n", Some(8192), b"*2\r\n$2\r\n17\r\n*0\r\n"),
            (b"*2\r\n$1\r\n0\r\n*0\r\n", None, b"*2\r\n$1\r\n0\r\n*0\r\n"),
        ] {
            let mut out = Rope::new();
            continue_scan(&Rope::from(reply.to_vec()), next, &mut out);
            assert_eq!(out.to_vec(), expected);
        }
    }

    /// MGET of one long value at each of two shards, however they came: as they were encoded, or in one piece from elsewhere.
    #[test]
    fn what_is_lent_to_the_pieces_is_lent_to_the_whole() {
        let value = Bytes::from(vec![b'x'; LENT_BYTES_MIN]);
        let reply = Reply::Array(vec![Reply::lent(value.clone()), Reply::Integer(1)]);
        let (mut here, mut elsewhere) = (Rope::new(), Vec::new());
        encode(&reply, Protocol::Resp2, &mut here);
        encode(&reply, Protocol::Resp2, &mut elsewhere);
        let pieces = [here, Rope::from(elsewhere.clone())];
        let second = pieces[1].run_at(0)[elsewhere.len() - 6 - value.len()..].as_ptr();
        for how in [Merge::Concatenation, Merge::InKeyOrder(vec![vec![2, 0], vec![1, 3]])] {
            let mut out = Rope::new();
            merge(&how, &pieces, Protocol::Resp2, 1, &mut out);
            let text = out.to_vec();
            let whole = frame::reply_length(&text);
            assert_eq!(whole, Ok(Some(text.len())));
            let lent = |place| {
                out.runs()
                    .any(|run| run.as_ptr_range().contains(&place) && run.len() >= value.len())
            };
            assert!(lent(value.as_ptr()) && lent(second), "{how:?}");
        }
    }

    /// Each is little beside the message it came in, and was copied.
    #[test]
    fn many_from_elsewhere_are_lent_too() {
        const COUNT: usize = 20;
        let value = Bytes::from(vec![b'x'; LENT_BYTES_MIN]);
        let mut message = Vec::new();
        encode(&Reply::Array(vec![Reply::lent(value); COUNT]), Protocol::Resp2, &mut message);
        let pieces = [Rope::from(message.clone()), Rope::from(message)];
        let mut out = Rope::new();
        merge(&Merge::Concatenation, &pieces, Protocol::Resp2, 1, &mut out);
        let lent = out.runs().filter(|run| run.len() >= LENT_BYTES_MIN).count();
        assert_eq!(lent, 2 * COUNT);
    }
}
