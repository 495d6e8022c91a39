//! STRLEN: how long the string at a key is.

use crate::command::prelude::*;

pub(super) const STRLEN: DataCommand = DataCommand::read(&SPEC, strlen);

const SPEC: Spec = Spec {
    name: "strlen",
    group: Group::String,
    since: "2.2.0",
    summary: "Returns the length of the string at a key, in bytes.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn strlen(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let string = keyspace.string(context.at, args.next_key(keyspace)?)?;
    Ok(Reply::count(string.map_or(0, Str::len)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn integers_count_their_digits() {
        check("STRLEN k => :0; SET k -12345; STRLEN k => :6; SET k \"a\\x00b\"; STRLEN k => :3");
    }
}
