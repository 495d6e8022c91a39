//! GET: the string at a key.

use super::reply_of;
use crate::command::prelude::*;

pub(super) const GET: DataCommand = DataCommand::read(&SPEC, get);

const SPEC: Spec = Spec {
    name: "get",
    group: Group::String,
    since: "1.0.0",
    summary: "Returns the string at a key.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn get<'k>(keyspace: &'k Keyspace, args: &mut Args, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    Ok(keyspace.string(context.at, key)?.map(reply_of).into())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_key_is_nil() {
        check("GET x => $-1; SET x 1 => +OK; GET x => $1");
    }
}
