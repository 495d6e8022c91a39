//! HLEN: the number of fields of a hash.

use crate::command::prelude::*;
use crate::keyspace::Hash;

pub(super) const HLEN: DataCommand = DataCommand::read(&SPEC, hlen);

const SPEC: Spec = Spec {
    name: "hlen",
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns the number of fields of a hash, 0 when the key is missing.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn hlen<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    Ok(Reply::count(keyspace.hash(context.at, key)?.map_or(0, Hash::len)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_hash_has_no_fields() {
        check("HLEN h => :0; HSET h f 1 g 2; HLEN h => :2");
    }
}
