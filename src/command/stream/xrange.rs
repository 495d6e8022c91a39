//! XRANGE and XREVRANGE: entries between two ids, in either direction.

use super::id::{RangeEnd, parse_range_end};
use crate::command::count::parse_count;
use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::{At, StreamEntry, StreamId};

pub(super) const XRANGE: DataCommand = DataCommand::read(&XRANGE_SPEC, xrange).weighed(weigh);
pub(super) const XREVRANGE: DataCommand =
    DataCommand::read(&XREVRANGE_SPEC, xrevrange).weighed(weigh);

const XRANGE_SPEC: Spec = Spec {
    name: "xrange",
    group: Group::Stream,
    since: "5.0.0",
    summary: "Returns the entries of a stream between two ids, the lower id first.",
    complexity: "O(log(N)+M), N being the number of entries and M the number of those returned",
    arity: Arity::AtLeast(4),
    flags: &[ReadOnly],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[
        Arg::key("key"),
        Arg::string("start"),
        Arg::string("end"),
        Arg::integer("count").token("COUNT").optional(),
    ],
    history: &[("6.2.0", "Accepts ids that are excluded.")],
    ..Spec::EMPTY
};

const XREVRANGE_SPEC: Spec = Spec {
    name: "xrevrange",
    summary: "Returns the entries of a stream between two ids, the higher id first.",
    args: &[
        Arg::key("key"),
        Arg::string("end"),
        Arg::string("start"),
        Arg::integer("count").token("COUNT").optional(),
    ],
    ..XRANGE_SPEC
};

fn xrange<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let (start, end) = (args.next_bytes()?, args.next_bytes()?);
    let request = Request::parse(start, end, args)?;
    let Some(stream) = keyspace.stream(context.at, key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    Ok(request.reply(stream.range(request.start..=request.end)))
}

fn xrevrange<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let (end, start) = (args.next_bytes()?, args.next_bytes()?);
    let request = Request::parse(start, end, args)?;
    let Some(stream) = keyspace.stream(context.at, key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    Ok(request.reply(stream.range(request.start..=request.end).rev()))
}

/// The whole stream, or as many entries as are asked for.
fn weigh(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let count = match invocation.argv {
        [_, _, _, _, _, count] => parse_count(count).unwrap_or(0),
        _ => usize::MAX,
    };
    weight::whole_value(keyspace, invocation, at).min(count)
}

struct Request {
    start: StreamId,
    end: StreamId,
    count: usize,
}

impl Request {
    /// Reads the ends, in the order of Redis' checks, and the options behind them.
    fn parse(start: &[u8], end: &[u8], args: &mut Args<'_>) -> Result<Self, ErrorReply> {
        let start = first_of(parse_range_end(start, 0)?)?;
        let end = last_of(parse_range_end(end, u64::MAX)?)?;
        let mut count = usize::MAX;
        while !args.is_empty() {
            if args.remaining() < 2 || !args.token("COUNT") {
                return Err(ErrorReply::SYNTAX);
            }
            // A negative count is none at all.
            count = usize::try_from(args.next_i64()?).unwrap_or(0);
        }
        Ok(Self { start, end, count })
    }

    fn reply<'k>(&self, entries: impl Iterator<Item = StreamEntry<'k>>) -> Reply<'k> {
        if self.count == 0 {
            return Reply::NullArray;
        }
        Reply::Array(entries.take(self.count).map(entry_reply).collect())
    }
}

fn first_of(end: RangeEnd) -> Result<StreamId, ErrorReply> {
    let id = if end.is_excluded { end.id.next() } else { Some(end.id) };
    id.ok_or(ErrorReply::STREAM_RANGE_START)
}

fn last_of(end: RangeEnd) -> Result<StreamId, ErrorReply> {
    let id = if end.is_excluded { end.id.previous() } else { Some(end.id) };
    id.ok_or(ErrorReply::STREAM_RANGE_END)
}

/// An entry as every command of streams replies it: its id, then its fields and values as one flat array.
fn entry_reply(entry: StreamEntry<'_>) -> Reply<'_> {
    let fields = entry.fields.flat_map(|(name, value)| [Reply::bulk(name), Reply::bulk(value)]);
    Reply::Array(vec![Reply::text(entry.id.to_string()), Reply::Array(fields.collect())])
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn ends_are_included_unless_excluded() {
        check(
            "XADD s 1 f a; XADD s 2 f b; XADD s 2-1 f c; XRANGE s 2 2 => *2 *2 $2-0 *2 $f $b *2 $2-1 *2 $f $c",
        );
        check(
            "XADD s 1 f a; XADD s 2 f b; XRANGE s (1 + => *1 *2 $2-0 *2 $f $b; XRANGE s - (2-0 => *1 *2 $1-0 *2 $f $a",
        );
    }

    #[test]
    fn both_directions_take_a_count() {
        check("XADD s 1 f a; XADD s 2 f b; XRANGE s - + COUNT 1 => *1 *2 $1-0 *2 $f $a");
        check("XADD s 1 f a; XADD s 2 f b; XREVRANGE s + - COUNT 1 => *1 *2 $2-0 *2 $f $b");
        check(
            "XADD s 1 f a; XRANGE s - + COUNT 0 => *-1; XRANGE s - + COUNT -1 => *-1; XRANGE none - + COUNT 0 => *0",
        );
    }
}
