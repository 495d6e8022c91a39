//! RANDOMKEY: any key.

use crate::command::prelude::*;
use crate::keyspace::At;

pub(super) const RANDOMKEY: DataCommand = DataCommand::read(&SPEC, randomkey).weighed(weigh);

const SPEC: Spec = Spec {
    name: "randomkey",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns any key of the database.",
    complexity: "O(1)",
    arity: Arity::Exactly(1),
    flags: &[ReadOnly],
    tips: &[
        Tip::Request(RequestPolicy::AllShards),
        Tip::Response(ResponsePolicy::Special),
        Tip::NondeterministicOutput,
    ],
    ..Spec::EMPTY
};

/// Keys that are looked at to see whether a live one is near.
const LOOKS_MAX: usize = 100;

fn randomkey<'k>(keyspace: &'k Keyspace, _args: &mut Args, context: &Context) -> Outcome<'k> {
    Ok(keyspace.random_key(context.at, context.random()).into())
}

/// All keys, unless one that has not expired is near: whoever draws expired ones goes on until there is one.
fn weigh(keyspace: &Keyspace, _invocation: &Invocation<'_>, at: At) -> usize {
    keyspace.keys_to_a_live_one(at, LOOKS_MAX).unwrap_or_else(|| keyspace.len(at.db()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_a_live_key_is_returned() {
        check("RANDOMKEY => $-1; SET k v; RANDOMKEY => $k; PEXPIRE k 1; @+1; RANDOMKEY => $-1");
    }
}
