//! SMEMBERS: all members of a set.

use crate::command::prelude::*;
use crate::command::weight;

pub(super) const SMEMBERS: DataCommand =
    DataCommand::read(&SPEC, smembers).weighed(weight::whole_value);

const SPEC: Spec = Spec {
    name: "smembers",
    group: Group::Set,
    since: "1.0.0",
    summary: "Returns all members of a set.",
    complexity: "O(N), N being the number of members",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    tips: &[Tip::NondeterministicOutputOrder],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn smembers<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let members = keyspace.set(context.at, key)?.into_iter().flatten();
    Ok(Reply::Set(members.map(Reply::Bulk).collect()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn integers_are_in_their_order() {
        check(
            "SADD s 3 1 2; SMEMBERS s => *3 $1 $2 $3; SADD s a; SMEMBERS s => *4 $1 $2 $3 $a; SMEMBERS none => *0",
        );
    }
}
