//! GETDEL: the string at a key, which is removed.

use crate::command::prelude::*;
use crate::command::weight;

pub(super) const GETDEL: DataCommand =
    DataCommand::write(&SPEC, getdel).weighed(weight::whole_value);

const SPEC: Spec = Spec {
    name: "getdel",
    group: Group::String,
    since: "6.2.0",
    summary: "Returns the string at a key and removes the key.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Delete])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn getdel(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let key = args.next_key(keyspace)?;
    if keyspace.string(context.at, key)?.is_none() {
        return Ok(Reply::Null);
    }
    match keyspace.remove(context.at, key).map(|entry| entry.value) {
        Some(Value::Str(value)) => Ok(Reply::from(value.into_vec())),
        Some(
            Value::List(_) | Value::Hash(_) | Value::Set(_) | Value::ZSet(_) | Value::Stream(_),
        )
        | None => unreachable!("the key was just found to hold a string"),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_key_is_gone_afterwards() {
        check("GETDEL k => $-1; SET k v; GETDEL k => $v; EXISTS k => :0; GETDEL k => $-1");
        check("SET n 12; GETDEL n => $12");
    }
}
