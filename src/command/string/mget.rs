//! MGET: the strings at several keys.

use super::reply_of;
use crate::command::prelude::*;

pub(super) const MGET: DataCommand = DataCommand::read(&SPEC, mget);

const SPEC: Spec = Spec {
    name: "mget",
    group: Group::String,
    since: "1.0.0",
    summary: "Returns the strings at several keys, nil for what is missing or no string.",
    complexity: "O(N) for N keys",
    arity: Arity::AtLeast(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).to_end().access(&[Ro, Access])],
    tips: &[Tip::Request(RequestPolicy::MultiShard)],
    args: &[Arg::key("key").multiple()],
    ..Spec::EMPTY
};

fn mget<'k>(keyspace: &'k Keyspace, args: &mut Args, context: &Context) -> Outcome<'k> {
    let keys = args.rest().iter().map(|key| args.key(key, keyspace));
    let strings = keys.map(|key| keyspace.string(context.at, key).ok().flatten());
    let strings = strings.map(|string| string.map(reply_of).into());
    Ok(Reply::Array(strings.collect()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn what_is_missing_is_nil() {
        check("MSET a 1 b 2; MGET a x b a => *4 $1 $-1 $2 $1");
    }
}
