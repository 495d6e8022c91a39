//! ZSCORE: the score of a member.

use crate::command::prelude::*;

pub(super) const ZSCORE: DataCommand = DataCommand::read(&SPEC, zscore);

const SPEC: Spec = Spec {
    name: "zscore",
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Returns the score of a member of a sorted set.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[Arg::key("key"), Arg::string("member")],
    ..Spec::EMPTY
};

fn zscore<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let member = args.next_bytes()?;
    let score = keyspace.zset(context.at, key)?.and_then(|zset| zset.score(member));
    Ok(score.map_or(Reply::Null, Reply::Double))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_member_is_nil() {
        check(
            "ZSCORE z a => $-1; ZADD z -0 a inf b; ZSCORE z a => $0; ZSCORE z b => $inf; ZSCORE z c => $-1",
        );
    }
}
