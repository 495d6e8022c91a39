//! SCARD: the number of members of a set.

use crate::command::prelude::*;
use crate::keyspace::Set;

pub(super) const SCARD: DataCommand = DataCommand::read(&SPEC, scard);

const SPEC: Spec = Spec {
    name: "scard",
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns the number of members of a set, 0 when the key is missing.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn scard<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    Ok(Reply::count(keyspace.set(context.at, key)?.map_or(0, Set::len)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_set_has_no_members() {
        check("SCARD s => :0; SADD s a b => :2; SCARD s => :2");
    }
}
