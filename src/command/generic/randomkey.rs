//! RANDOMKEY: any key.

use crate::command::prelude::*;

pub(super) const RANDOMKEY: DataCommand = DataCommand::read(&SPEC, randomkey);

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

fn randomkey<'k>(keyspace: &'k Keyspace, _args: &mut Args, context: &Context) -> Outcome<'k> {
    Ok(keyspace.random_key(context.at, context.random()).into())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_a_live_key_is_returned() {
        check("RANDOMKEY => $-1; SET k v; RANDOMKEY => $k; PEXPIRE k 1; @+1; RANDOMKEY => $-1");
    }
}
