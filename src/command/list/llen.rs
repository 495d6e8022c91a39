//! LLEN: the length of a list.

use crate::command::prelude::*;
use crate::keyspace::List;

pub(super) const LLEN: DataCommand = DataCommand::read(&SPEC, llen);

const SPEC: Spec = Spec {
    name: "llen",
    group: Group::List,
    since: "1.0.0",
    summary: "Returns the number of elements of a list, 0 when the key is missing.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn llen<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    Ok(Reply::count(keyspace.list(context.at, key)?.map_or(0, List::len)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_list_has_no_elements() {
        check("LLEN l => :0; RPUSH l a b => :2; LLEN l => :2");
    }
}
