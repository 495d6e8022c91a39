//! ZRANK and ZREVRANK: the rank of a member, counted from the lowest or the highest score.

use crate::command::prelude::*;

pub(super) const ZRANK: DataCommand = DataCommand::read(&ZRANK_SPEC, zrank);
pub(super) const ZREVRANK: DataCommand = DataCommand::read(&ZREVRANK_SPEC, zrevrank);

const ZRANK_SPEC: Spec = Spec {
    name: "zrank",
    group: Group::SortedSet,
    since: "2.0.0",
    summary: "Returns how many members have a lower place than a member, and its score when asked.",
    complexity: "O(log(N)), N being the number of members",
    arity: Arity::AtLeast(3),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[
        Arg::key("key"),
        Arg::string("member"),
        Arg::pure_token("withscore", "WITHSCORE").optional().since("7.2.0"),
    ],
    history: &[("7.2.0", "Knows WITHSCORE.")],
    ..Spec::EMPTY
};

const ZREVRANK_SPEC: Spec = Spec {
    name: "zrevrank",
    summary: "Returns how many members have a higher place than a member, and its score when asked.",
    ..ZRANK_SPEC
};

fn zrank<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    rank(keyspace, args, context, |rank, _| rank)
}

fn zrevrank<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    rank(keyspace, args, context, |rank, len| len - 1 - rank)
}

fn rank<'k>(
    keyspace: &'k Keyspace,
    args: &mut Args<'_>,
    context: &Context,
    counted: fn(usize, usize) -> usize,
) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let member = args.next_bytes()?;
    let with_score = args.token("WITHSCORE");
    args.end()?;
    let missing = if with_score { Reply::NullArray } else { Reply::Null };
    let Some(zset) = keyspace.zset(context.at, key)? else { return Ok(missing) };
    let Some((rank, score)) = zset.rank(member).zip(zset.score(member)) else {
        return Ok(missing);
    };
    let rank = Reply::count(counted(rank, zset.len()));
    Ok(if with_score { Reply::Array(vec![rank, Reply::Double(score)]) } else { rank })
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn ranks_count_from_either_end() {
        check(
            "ZADD z 1 a 2 b 2 c; ZRANK z a => :0; ZRANK z c => :2; ZREVRANK z c => :0; ZREVRANK z a => :2",
        );
    }

    #[test]
    fn the_score_comes_when_asked() {
        check(
            "ZADD z 1 a 2.5 b; ZRANK z b withscore => *2 :1 $2.5; ZREVRANK z b WITHSCORE => *2 :0 $2.5",
        );
        check(
            "ZRANK z b WITHSCORE => *-1; ZRANK z b => $-1; ZADD z 1 a; ZRANK z b WITHSCORE => *-1",
        );
        check(
            "SET s 1; ZRANK s a x => -ERR syntax error; ZRANK s a WITHSCORE x => -ERR syntax error",
        );
    }
}
