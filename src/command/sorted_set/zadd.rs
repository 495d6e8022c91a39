//! ZADD: add members to a sorted set, or change their scores.

use crate::command::prelude::*;
use crate::keyspace::{Insertion, ZSet};
use crate::stdx::num;

pub(super) const ZADD: DataCommand = DataCommand::write(&SPEC, zadd);

const SPEC: Spec = Spec {
    name: "zadd",
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Adds members with their scores to a sorted set, or changes their scores.",
    complexity: "O(log(N)) per member, N being the number of members of the sorted set",
    arity: Arity::AtLeast(4),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Update])],
    args: &[
        Arg::key("key"),
        Arg::one_of("condition", &[Arg::pure_token("nx", "NX"), Arg::pure_token("xx", "XX")])
            .optional()
            .since("3.0.2"),
        Arg::one_of("comparison", &[Arg::pure_token("gt", "GT"), Arg::pure_token("lt", "LT")])
            .optional()
            .since("6.2.0"),
        Arg::pure_token("change", "CH").optional().since("3.0.2"),
        Arg::pure_token("increment", "INCR").optional().since("3.0.2"),
        Arg::block("data", &[Arg::double("score"), Arg::string("member")]).multiple(),
    ],
    history: &[
        ("2.4.0", "Accepts several members."),
        ("3.0.2", "Knows XX, NX, CH and INCR."),
        ("6.2.0", "Knows GT and LT."),
    ],
    ..Spec::EMPTY
};

fn zadd<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let options = Options::parse(args);
    if args.is_empty() || args.remaining() % 2 == 1 {
        return Err(ErrorReply::SYNTAX);
    }
    options.check(args.remaining() / 2)?;
    let members = args
        .pairs()?
        .map(|(score, member)| Ok((num::parse_f64(score).ok_or(ErrorReply::NOT_FLOAT)?, member)))
        .collect::<Result<Vec<_>, ErrorReply>>()?;

    let is_there = keyspace.zset(context.at, key)?.is_some();
    if options.existing_only && !is_there {
        return Ok(if options.increment { Reply::Null } else { Reply::Integer(0) });
    }
    let zset = keyspace.zset_or_create(context.at, key)?;
    let (mut added, mut changed) = (0, 0);
    for (score, member) in members {
        let placed = options.place(zset, member, score)?;
        if options.increment {
            return Ok(placed.map_or(Reply::Null, |(score, _)| Reply::Double(score)));
        }
        match placed.map(|(_, insertion)| insertion) {
            Some(Insertion::Added) => added += 1,
            Some(Insertion::Updated) => changed += 1,
            Some(Insertion::Unchanged) | None => {}
        }
    }
    Ok(Reply::count(if options.count_changed { added + changed } else { added }))
}

#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "six independent words of the command")]
struct Options {
    new_only: bool,
    existing_only: bool,
    greater_only: bool,
    less_only: bool,
    count_changed: bool,
    increment: bool,
}

impl Options {
    /// Takes the options in front of the first score.
    fn parse(args: &mut Args<'_>) -> Self {
        let mut options = Self::default();
        loop {
            let option = if args.token("NX") {
                &mut options.new_only
            } else if args.token("XX") {
                &mut options.existing_only
            } else if args.token("GT") {
                &mut options.greater_only
            } else if args.token("LT") {
                &mut options.less_only
            } else if args.token("CH") {
                &mut options.count_changed
            } else if args.token("INCR") {
                &mut options.increment
            } else {
                return options;
            };
            *option = true;
        }
    }

    /// Refuses options that contradict one another or the number of members.
    fn check(self, members: usize) -> Result<(), ErrorReply> {
        if self.new_only && self.existing_only {
            return Err(ErrorReply::ZADD_NX_WITH_XX);
        }
        let exclusive = [self.new_only, self.greater_only, self.less_only];
        if exclusive.into_iter().filter(|given| *given).count() > 1 {
            return Err(ErrorReply::ZADD_GT_LT_NX);
        }
        if self.increment && members > 1 {
            return Err(ErrorReply::ZADD_INCR_ONE_PAIR);
        }
        Ok(())
    }

    /// Places one member. Returns its score and what happened, `None` when a condition forbade it.
    fn place(
        self,
        zset: &mut ZSet,
        member: &[u8],
        score: f64,
    ) -> Result<Option<(f64, Insertion)>, ErrorReply> {
        let old = zset.score(member);
        let score = if self.increment { score + old.unwrap_or_default() } else { score };
        let is_forbidden = match old {
            None => self.existing_only,
            Some(_) if self.new_only => true,
            Some(_) if score.is_nan() => return Err(ErrorReply::SCORE_NAN),
            Some(old) => self.greater_only && score <= old || self.less_only && score >= old,
        };
        if is_forbidden {
            return Ok(None);
        }
        Ok(Some((score, zset.insert(member, score))))
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn new_members_count_and_with_ch_changed_ones() {
        check("ZADD z 1 a 2 b => :2; ZADD z 1 a 3 b 4 c => :1; ZADD z CH 1 a 5 b 6 d => :2");
    }

    #[test]
    fn conditions_hold_back() {
        check(
            "ZADD z XX 1 a => :0; GET z => $-1; ZADD z 1 a; ZADD z NX 9 a 2 b => :1; ZSCORE z a => $1",
        );
        check(
            "ZADD z 5 a; ZADD z GT CH 4 a => :0; ZADD z GT CH 6 a => :1; ZADD z LT CH 7 a 1 b => :1",
        );
    }

    #[test]
    fn incr_replies_the_score_or_nil() {
        check("ZADD z INCR 1.5 a => $1.5; ZADD z INCR 2 a => $3.5; ZADD z NX INCR 1 a => $-1");
        check("ZADD z XX INCR 1 a => $-1; ZADD z inf a; ZADD z GT INCR -1 a => $-1");
        check("ZADD z inf a; ZADD z INCR -inf a => -ERR resulting score is not a number (NaN)");
    }

    #[test]
    fn the_last_score_of_a_member_counts() {
        check("ZADD z CH 1 a 2 a 2 a => :2; ZSCORE z a => $2");
    }
}
