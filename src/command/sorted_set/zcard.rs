//! ZCARD: the number of members of a sorted set.

use crate::command::prelude::*;
use crate::keyspace::ZSet;

pub(super) const ZCARD: DataCommand = DataCommand::read(&SPEC, zcard);

const SPEC: Spec = Spec {
    name: "zcard",
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Returns the number of members of a sorted set, 0 when the key is missing.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn zcard<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    Ok(Reply::count(keyspace.zset(context.at, key)?.map_or(0, ZSet::len)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_sorted_set_has_no_members() {
        check("ZCARD z => :0; ZADD z 1 a 2 b; ZCARD z => :2");
    }
}
