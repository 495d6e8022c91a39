//! HEXISTS: whether a hash has a field.

use crate::command::prelude::*;

pub(super) const HEXISTS: DataCommand = DataCommand::read(&SPEC, hexists);

const SPEC: Spec = Spec {
    name: "hexists",
    group: Group::Hash,
    since: "2.0.0",
    summary: "Tells whether a hash has a field.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key"), Arg::string("field")],
    ..Spec::EMPTY
};

fn hexists<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let field = args.next_bytes()?;
    let hash = keyspace.hash(context.at, key)?;
    Ok(Reply::bool_int(hash.is_some_and(|hash| hash.contains(field))))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn fields_are_there_or_not() {
        check("HEXISTS h f => :0; HSET h f 1; HEXISTS h f => :1; HEXISTS h g => :0");
    }
}
