//! LRANGE: elements between two indexes.

use super::range::range_of;
use crate::command::parse_i64;
use crate::command::prelude::*;
use crate::keyspace::At;

pub(super) const LRANGE: DataCommand = DataCommand::read(&SPEC, lrange).weighed(weigh);

const SPEC: Spec = Spec {
    name: "lrange",
    group: Group::List,
    since: "1.0.0",
    summary: "Returns the elements of a list between two indexes, both included.",
    complexity: "O(S+N), S being the distance from the nearer end and N the number of elements returned",
    arity: Arity::Exactly(4),
    flags: &[ReadOnly],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[Arg::key("key"), Arg::integer("start"), Arg::integer("stop")],
    ..Spec::EMPTY
};

fn lrange<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let (start, stop) = (args.next_i64()?, args.next_i64()?);
    let Some(list) = keyspace.list(context.at, key)? else { return Ok(Reply::Array(Vec::new())) };
    Ok(Reply::bulks(list.range(range_of(start, stop, list.len()))))
}

fn weigh(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let (&[_, _, start, stop], Some(key)) = (invocation.argv, invocation.first_key(keyspace))
    else {
        return 0;
    };
    let (Ok(Some(list)), Ok(start), Ok(stop)) =
        (keyspace.list(at, key), parse_i64(start), parse_i64(stop))
    else {
        return 0;
    };
    range_of(start, stop, list.len()).len()
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn both_indexes_are_included() {
        check(
            "RPUSH l a b c; LRANGE l 0 0 => *1 $a; LRANGE l -2 -1 => *2 $b $c; LRANGE l 5 9 => *0",
        );
    }

    #[test]
    fn indexes_are_read_before_the_key() {
        check("SET s 1; LRANGE s 0 x => -ERR value is not an integer or out of range");
    }
}
