//! ZPOPMIN and ZPOPMAX: remove the members with the lowest or highest scores and return them.

use crate::command::count::{is_all_of_large, parse_count};
use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::{Extreme, ZSet};

pub(super) const ZPOPMIN: DataCommand =
    DataCommand::write(&ZPOPMIN_SPEC, zpopmin).weighed(weight::counted);
pub(super) const ZPOPMAX: DataCommand =
    DataCommand::write(&ZPOPMAX_SPEC, zpopmax).weighed(weight::counted);

const ZPOPMIN_SPEC: Spec = Spec {
    name: "zpopmin",
    group: Group::SortedSet,
    since: "5.0.0",
    summary: "Removes the members with the lowest scores and returns them with their scores.",
    complexity: "O(log(N)) per member, N being the number of members of the sorted set",
    arity: Arity::AtLeast(2),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Delete])],
    args: &[Arg::key("key"), Arg::integer("count").optional()],
    ..Spec::EMPTY
};

const ZPOPMAX_SPEC: Spec = Spec {
    name: "zpopmax",
    summary: "Removes the members with the highest scores and returns them with their scores.",
    ..ZPOPMIN_SPEC
};

fn zpopmin<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    pop(keyspace, args, context, Extreme::Lowest)
}

fn zpopmax<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    pop(keyspace, args, context, Extreme::Highest)
}

fn pop<'k>(
    keyspace: &'k mut Keyspace,
    args: &mut Args<'_>,
    context: &Context,
    from: Extreme,
) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    if args.remaining() > 1 {
        return Err(ErrorReply::SYNTAX);
    }
    let count = args.next().map(parse_count).transpose()?;
    let len = || Ok(keyspace.zset(context.at, key)?.map(ZSet::len));
    if is_all_of_large(count, len)? {
        return Ok(pop_all(keyspace, key, context, from));
    }
    let Some(zset) = keyspace.zset_mut(context.at, key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let popped = zset.pop_many(count.unwrap_or(1), from).into_iter();
    let popped = popped.map(|(member, score)| (Reply::bulk(member), Reply::Double(score)));
    let reply = match count {
        Some(_) => Reply::Pairs(popped.collect()),
        // Without a count RESP3 has the pair flat, too.
        None => Reply::Array(popped.flat_map(|(member, score)| [member, score]).collect()),
    };
    keyspace.remove_if_empty(context.at, key);
    Ok(reply)
}

/// A large sorted set goes whole, and is replied from where it waits to be freed.
fn pop_all<'k>(
    keyspace: &'k mut Keyspace,
    key: Key<'_>,
    context: &Context,
    from: Extreme,
) -> Reply<'k> {
    let zset = match keyspace.remove_and_lend(context.at, key) {
        Some(Value::ZSet(zset)) => zset,
        Some(
            Value::Str(_) | Value::List(_) | Value::Hash(_) | Value::Set(_) | Value::Stream(_),
        )
        | None => return Reply::Pairs(Vec::new()),
    };
    let reply = |(member, score)| (Reply::bulk(member), Reply::Double(score));
    Reply::Pairs(match from {
        Extreme::Lowest => zset.iter().map(reply).collect(),
        Extreme::Highest => zset.iter().rev().map(reply).collect(),
    })
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Pops, check};

    /// faults.md B4.
    #[test]
    fn a_large_sorted_set_goes_whole() {
        let element = |number: usize| format!("{} {number}", number % 7);
        for (pop, first) in [("ZPOPMIN", "$0"), ("ZPOPMAX", "$993")] {
            let pops = Pops { fill: "ZADD", element, pop, count: "ZCARD", width: 2 };
            assert_eq!(pops.check(), first);
        }
    }

    #[test]
    fn members_come_from_either_end() {
        check("ZADD z 1 a 2 b 2 c 3 d; ZPOPMIN z => *2 $a $1; ZPOPMAX z 2 => *4 $d $3 $c $2");
        check("ZADD z 1 a 1 b; ZPOPMIN z 9 => *4 $a $1 $b $1; GET z => $-1; ZPOPMIN z => *0");
    }

    #[test]
    fn the_count_is_read_before_the_key() {
        check("SET s 1; ZPOPMIN s x => -ERR value is out of range, must be positive");
        check("ZPOPMAX s -1 => -ERR value is out of range, must be positive");
        check("ZPOPMIN s 1 2 => -ERR syntax error; ZADD z 1 a; ZPOPMIN z 0 => *0; ZCARD z => :1");
    }
}
