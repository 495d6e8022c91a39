//! HGET: the value of a field.

use crate::command::prelude::*;

pub(super) const HGET: DataCommand = DataCommand::read(&SPEC, hget);

const SPEC: Spec = Spec {
    name: "hget",
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the value of a field of a hash.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[Arg::key("key"), Arg::string("field")],
    ..Spec::EMPTY
};

fn hget<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let field = args.next_bytes()?;
    let hash = keyspace.hash(context.at, key)?;
    Ok(hash.and_then(|hash| hash.get(field)).map_or(Reply::Null, Reply::bulk))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_field_is_nil() {
        check("HGET h f => $-1; HSET h f v; HGET h f => $v; HGET h g => $-1");
    }
}
