//! GETDEL: the string at a key, which is removed.

use super::reply_of;
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

fn getdel(keyspace: &mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'static> {
    let key = args.next_key(keyspace)?;
    let Some(value) = keyspace.string(context.at, key)? else { return Ok(Reply::Null) };
    let reply = reply_of(value).into_owned();
    keyspace.remove(context.at, key);
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, check};
    use crate::stdx::rope::LENT_BYTES_MIN;

    #[test]
    fn the_key_is_gone_afterwards() {
        check("GETDEL k => $-1; SET k v; GETDEL k => $v; EXISTS k => :0; GETDEL k => $-1");
        check("SET n 12; GETDEL n => $12");
    }

    /// And nothing waits to be freed: the reply has it.
    #[test]
    fn a_long_string_goes_with_the_reply() {
        let mut bench = Bench::default();
        for length in [1000, LENT_BYTES_MIN] {
            let text = "x".repeat(length);
            bench.run_line(&format!("SET k {text}"));
            assert_eq!(bench.run_line("GETDEL k").compact(), format!("${text}"));
            assert_eq!(bench.run_line("EXISTS k").compact(), ":0");
            assert!(bench.keyspace.take_graveyard().is_empty());
        }
    }
}
