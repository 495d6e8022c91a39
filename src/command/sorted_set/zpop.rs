//! ZPOPMIN and ZPOPMAX: remove the members with the lowest or highest scores and return them.

use crate::command::count::parse_count;
use crate::command::prelude::*;
use crate::keyspace::ZSet;

pub(super) const ZPOPMIN: DataCommand = DataCommand::write(&ZPOPMIN_SPEC, zpopmin);
pub(super) const ZPOPMAX: DataCommand = DataCommand::write(&ZPOPMAX_SPEC, zpopmax);

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

/// Removes the member at one end.
type PopOne = fn(&mut ZSet) -> Option<(Vec<u8>, f64)>;

fn zpopmin<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    pop(keyspace, args, context, ZSet::pop_min)
}

fn zpopmax<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    pop(keyspace, args, context, ZSet::pop_max)
}

fn pop<'k>(
    keyspace: &'k mut Keyspace,
    args: &mut Args<'_>,
    context: &Context,
    pop_one: PopOne,
) -> Outcome<'k> {
    let key = args.next_key()?;
    if args.remaining() > 1 {
        return Err(ErrorReply::SYNTAX);
    }
    let count = args.next().map(parse_count).transpose()?;
    let Some(zset) = keyspace.zset_mut(context.at, key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let popped = std::iter::from_fn(|| pop_one(zset))
        .take(count.unwrap_or(1))
        .map(|(member, score)| (Reply::bulk(member), Reply::Double(score)));
    let reply = match count {
        Some(_) => Reply::Pairs(popped.collect()),
        // Without a count RESP3 has the pair flat, too.
        None => Reply::Array(popped.flat_map(|(member, score)| [member, score]).collect()),
    };
    keyspace.remove_if_empty(context.at, key);
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

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
