//! HDEL: remove fields of a hash.

use crate::command::prelude::*;

pub(super) const HDEL: DataCommand = DataCommand::write(&SPEC, hdel);

const SPEC: Spec = Spec {
    name: "hdel",
    group: Group::Hash,
    since: "2.0.0",
    summary: "Removes fields of a hash; the hash goes with its last one.",
    complexity: "O(1) per field",
    arity: Arity::AtLeast(3),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Delete])],
    history: &[("2.4.0", "Accepts several fields.")],
    args: &[Arg::key("key"), Arg::string("field").multiple()],
    ..Spec::EMPTY
};

fn hdel<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let Some(hash) = keyspace.hash_mut(context.at, key)? else { return Ok(Reply::Integer(0)) };
    let removed = args.rest().iter().filter(|field| hash.remove(field)).count();
    keyspace.remove_if_empty(context.at, key);
    Ok(Reply::count(removed))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_hash_goes_with_its_last_field() {
        check("HDEL h f => :0; HSET h f 1 g 2; HDEL h f x f => :1; HDEL h g => :1; GET h => $-1");
    }
}
