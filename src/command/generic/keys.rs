//! KEYS: all keys that match a glob.

use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::{At, ScanCursor};
use crate::stdx::glob;

pub(super) const KEYS: DataCommand = DataCommand::read(&SPEC, keys).weighed(weigh);

const SPEC: Spec = Spec {
    name: "keys",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns all keys that match a pattern; SCAN does so in small steps.",
    complexity: "O(N) for N keys in the database",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly],
    tips: &[Tip::Request(RequestPolicy::AllShards), Tip::NondeterministicOutputOrder],
    acl: AclRule::Also(&[AclCategory::Dangerous]),
    args: &[Arg::pattern("pattern")],
    ..Spec::EMPTY
};

fn keys<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let pattern = args.next_bytes()?;
    let mut found = Vec::new();
    keyspace.for_each_key(context.at, &mut |entry| {
        if pattern == b"*" || glob::matches(pattern, entry.key()) {
            found.push(Reply::bulk(entry.key()));
        }
    });
    Ok(Reply::Array(found))
}

/// All keys of the database.
fn weigh(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let pattern = invocation.argv.get(1).copied().filter(|&pattern| pattern != b"*");
    weight::keys_scanned(keyspace, at, (ScanCursor::START, usize::MAX), pattern)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_live_keys_that_match_are_returned() {
        check("KEYS * => *0; MSET one 1 two 2 three 3; KEYS t?o => *1 $two; KEYS o* => *1 $one");
        check("SET a 1 PX 5; SET b 2; @+5; KEYS * => *1 $b; @db 1; KEYS * => *0");
    }
}
