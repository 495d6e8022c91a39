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

/// The longest string of which the reply has a copy: that takes less than to let others free it.
const COPIED_BYTES_MAX: usize = 16 * 1024;

fn getdel<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let Some(value) = keyspace.string(context.at, key)? else { return Ok(Reply::Null) };
    if value.len() <= COPIED_BYTES_MAX {
        let reply = Reply::bulk(value.as_bytes().into_owned());
        keyspace.remove(context.at, key);
        return Ok(reply);
    }
    match keyspace.remove_and_lend(context.at, key) {
        Some(Value::Str(value)) => Ok(Reply::from(value.as_bytes())),
        Some(
            Value::List(_) | Value::Hash(_) | Value::Set(_) | Value::ZSet(_) | Value::Stream(_),
        )
        | None => unreachable!("the key was just found to hold a string"),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, check};

    #[test]
    fn the_key_is_gone_afterwards() {
        check("GETDEL k => $-1; SET k v; GETDEL k => $v; EXISTS k => :0; GETDEL k => $-1");
        check("SET n 12; GETDEL n => $12");
    }

    #[test]
    fn a_long_string_is_replied_from_where_it_waits_to_be_freed() {
        let mut bench = Bench::default();
        let long = "x".repeat(super::COPIED_BYTES_MAX + 1);
        for (text, waiting) in [(&long[1..], 0), (&long[..], 1)] {
            bench.run_line(&format!("SET k {text}"));
            assert_eq!(bench.run_line("GETDEL k").compact(), format!("${text}"));
            assert_eq!(bench.run_line("EXISTS k").compact(), ":0");
            assert_eq!(bench.keyspace.take_graveyard().len(), waiting);
        }
    }
}
