//! SETNX: put a string at a key that does not exist yet.

use crate::command::prelude::*;

pub(super) const SETNX: DataCommand = DataCommand::write(&SPEC, setnx);

const SPEC: Spec = Spec {
    name: "setnx",
    group: Group::String,
    since: "1.0.0",
    summary: "Puts a string at a key unless the key exists.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Ow, Insert])],
    args: &[Arg::key("key"), Arg::string("value")],
    deprecated: Some(Deprecated { since: "2.6.12", replaced_by: "`SET` with the `NX` argument" }),
    ..Spec::EMPTY
};

fn setnx(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, value) = (args.next_key(keyspace)?, args.next_bytes()?);
    if keyspace.entry(context.at, key).is_some() {
        return Ok(Reply::Integer(0));
    }
    keyspace.put(context.at, key, Str::from_bytes(value).into(), None);
    Ok(Reply::Integer(1))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn an_expired_key_does_not_block() {
        check(
            "SETNX k 1 => :1; SETNX k 2 => :0; GET k => $1; PEXPIRE k 5; @+5; SETNX k 3 => :1; TTL k => :-1",
        );
    }
}
