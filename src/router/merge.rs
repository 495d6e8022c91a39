//! Joins the encoded replies of several shards as a command's spec says.

use crate::resp::encode::encode_array_header;
use crate::resp::frame;
use crate::resp::{ErrorReply, Protocol, Reply, encode};

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

/// Appends to `out` the one reply that `pieces` make. An error among them is the reply.
///
/// `random` picks where there is a choice.
pub fn merge(how: &Merge, pieces: &[&[u8]], protocol: Protocol, random: u64, out: &mut Vec<u8>) {
    if let Some(error) = pieces.iter().find(|piece| piece.first() == Some(&b'-')) {
        return out.extend_from_slice(error);
    }
    let start = out.len();
    if try_merge(how, pieces, random, out).is_none() {
        // The pieces are encoded by this program; only a defect or a foreign peer makes others.
        out.truncate(start);
        encode(&Reply::Error(ErrorReply::INTERNAL), protocol, out);
    }
}

fn try_merge(how: &Merge, pieces: &[&[u8]], random: u64, out: &mut Vec<u8>) -> Option<()> {
    match how {
        Merge::AllSucceeded => out.extend_from_slice(pieces.first()?),
        Merge::Sum => {
            let sum =
                pieces.iter().try_fold(0_i64, |sum, piece| sum.checked_add(integer(piece)?))?;
            crate::resp::encode::encode_integer(out, sum);
        }
        Merge::InKeyOrder(ordinals) => {
            let count = ordinals.iter().map(Vec::len).sum();
            let mut elements: Vec<&[u8]> = vec![&[]; count];
            for (piece, ordinals) in pieces.iter().zip(ordinals) {
                let values = frame::array_elements(piece).ok()?;
                for (value, &ordinal) in values.iter().zip(ordinals) {
                    *elements.get_mut(ordinal)? = value;
                }
            }
            put_array(&elements, out);
        }
        Merge::Concatenation => {
            let mut elements = Vec::new();
            for piece in pieces {
                elements.append(&mut frame::array_elements(piece).ok()?);
            }
            put_array(&elements, out);
        }
        Merge::AnyPresent => {
            let is_null = |piece: &&&[u8]| piece.starts_with(b"$-1") || piece.starts_with(b"_");
            let present: Vec<_> = pieces.iter().filter(|piece| !is_null(piece)).collect();
            match present.len() {
                0 => out.extend_from_slice(pieces.first()?),
                count => out.extend_from_slice(
                    present[usize::try_from(random % count as u64).unwrap_or(0)],
                ),
            }
        }
    }
    Some(())
}

fn put_array(elements: &[&[u8]], out: &mut Vec<u8>) {
    encode_array_header(out, elements.len());
    for element in elements {
        out.extend_from_slice(element);
    }
}

fn integer(piece: &[u8]) -> Option<i64> {
    let digits = piece.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    crate::stdx::num::parse_i64(digits)
}

/// Appends a SCAN reply of one shard, with `next` as cursor in place of the shard's own 0: the walk goes on in
/// the next shard.
pub fn continue_scan(reply: &[u8], next: Option<u64>, out: &mut Vec<u8>) {
    const FINISHED: &[u8] = b"*2\r\n$1\r\n0\r\n";
    match (reply.strip_prefix(FINISHED), next) {
        (Some(elements), Some(next)) => {
            encode_array_header(out, 2);
            crate::resp::encode::encode_bulk(out, next.to_string().as_bytes());
            out.extend_from_slice(elements);
        }
        (Some(_), None) | (None, _) => out.extend_from_slice(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(how: &Merge, pieces: &[&str], expected: &str) {
        let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let mut out = Vec::new();
        merge(how, &pieces, Protocol::Resp2, 1, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{how:?}");
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
        let mut out = Vec::new();
        continue_scan(b"*2\r\n$1\r\n0\r\n*0\r\n", Some(8192), &mut out);
        assert_eq!(out, b"*2\r\n$4\r\n8192\r\n*0\r\n");
        out.clear();
        continue_scan(b"*2\r\n$2\r\n17\r\n*0\r\n", Some(8192), &mut out);
        assert_eq!(out, b"*2\r\n$2\r\n17\r\n*0\r\n");
    }
}
