//! SADD: add members to a set.

use crate::command::prelude::*;

pub(super) const SADD: DataCommand = DataCommand::write(&SPEC, sadd);

const SPEC: Spec = Spec {
    name: "sadd",
    group: Group::Set,
    since: "1.0.0",
    summary: "Adds members to a set and creates the set when the key is missing.",
    complexity: "O(1) per member",
    arity: Arity::AtLeast(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Insert])],
    history: &[("2.4.0", "Accepts several members.")],
    args: &[Arg::key("key"), Arg::string("member").multiple()],
    ..Spec::EMPTY
};

fn sadd<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    // Without one, an empty set would stay behind.
    let first = args.next_bytes()?;
    let set = keyspace.set_or_create(context.at, key)?;
    let is_first_new = set.insert(first);
    let others = args.rest().iter().filter(|member| set.insert(member)).count();
    Ok(Reply::count(others + usize::from(is_first_new)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_new_members_count() {
        check("SADD s a b a => :2; SADD s b c => :1; SCARD s => :3");
    }
}
