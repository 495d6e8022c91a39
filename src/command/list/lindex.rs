//! LINDEX: the element at an index.

use super::range::index_of;
use crate::command::prelude::*;

pub(super) const LINDEX: DataCommand = DataCommand::read(&SPEC, lindex);

const SPEC: Spec = Spec {
    name: "lindex",
    group: Group::List,
    since: "1.0.0",
    summary: "Returns the element of a list at an index.",
    complexity: "O(N), N being the distance from the nearer end",
    arity: Arity::Exactly(3),
    flags: &[ReadOnly],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[Arg::key("key"), Arg::integer("index")],
    ..Spec::EMPTY
};

fn lindex<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    // The list comes first: a missing one is nil whatever the index says.
    let Some(list) = keyspace.list(context.at, key)? else { return Ok(Reply::Null) };
    let index = index_of(args.next_i64()?, list.len());
    Ok(index.and_then(|index| list.get(index)).map_or(Reply::Null, Reply::bulk))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn indexes_count_from_either_end() {
        check(
            "RPUSH l a b c; LINDEX l 0 => $a; LINDEX l -1 => $c; LINDEX l 3 => $-1; LINDEX l -4 => $-1",
        );
    }

    #[test]
    fn the_index_of_a_missing_list_is_not_read() {
        check(
            "LINDEX l x => $-1; RPUSH l a; LINDEX l x => -ERR value is not an integer or out of range",
        );
    }
}
