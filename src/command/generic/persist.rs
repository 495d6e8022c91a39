//! PERSIST: take a key's deadline away.

use crate::command::prelude::*;

pub(super) const PERSIST: DataCommand = DataCommand::write(&SPEC, persist);

const SPEC: Spec = Spec {
    name: "persist",
    group: Group::Generic,
    since: "2.2.0",
    summary: "Lets a key live for ever.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Update])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn persist(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let key = args.next_key(keyspace)?;
    let has_deadline =
        keyspace.entry(context.at, key).is_some_and(|entry| entry.expire_at().is_some());
    if has_deadline {
        keyspace.set_expiry(context.at, key, None);
    }
    Ok(Reply::bool_int(has_deadline))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_a_deadline_that_was_there_counts() {
        check(
            "PERSIST k => :0; SET k v; PERSIST k => :0; EXPIRE k 5; PERSIST k => :1; TTL k => :-1",
        );
        check("SET k v PX 5; @+5; PERSIST k => :0; EXISTS k => :0");
    }
}
