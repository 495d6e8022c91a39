//! SISMEMBER: whether a set has a member.

use crate::command::prelude::*;

pub(super) const SISMEMBER: DataCommand = DataCommand::read(&SPEC, sismember);

const SPEC: Spec = Spec {
    name: "sismember",
    group: Group::Set,
    since: "1.0.0",
    summary: "Tells whether a set has a member.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key"), Arg::string("member")],
    ..Spec::EMPTY
};

fn sismember<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let member = args.next_bytes()?;
    let set = keyspace.set(context.at, key)?;
    Ok(Reply::bool_int(set.is_some_and(|set| set.contains(member))))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn members_are_bytes() {
        check(
            "SADD s 1 a; SISMEMBER s 1 => :1; SISMEMBER s 01 => :0; SISMEMBER s a => :1; SISMEMBER none a => :0",
        );
    }
}
