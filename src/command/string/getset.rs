//! GETSET: put a string at a key and return the one that was there.

use super::reply_of;
use crate::command::prelude::*;
use crate::command::weight;

pub(super) const GETSET: DataCommand =
    DataCommand::write(&SPEC, getset).weighed(weight::whole_value);

const SPEC: Spec = Spec {
    name: "getset",
    group: Group::String,
    since: "1.0.0",
    summary: "Puts a string at a key and returns the old one.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Update])],
    args: &[Arg::key("key"), Arg::string("value")],
    deprecated: Some(Deprecated { since: "6.2.0", replaced_by: "`SET` with the `GET` argument" }),
    ..Spec::EMPTY
};

fn getset(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, value) = (args.next_key(keyspace)?, args.next_bytes()?);
    let old = keyspace.string(context.at, key)?.map(|old| reply_of(old).into_owned());
    keyspace.put(context.at, key, Str::from_bytes(value).into(), None);
    Ok(old.into())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_old_string_is_returned_and_its_deadline_dropped() {
        check("GETSET k 1 => $-1; EXPIRE k 10; GETSET k 2 => $1; TTL k => :-1; GET k => $2");
    }
}
