//! SPOP: remove random members from a set and return them.

use crate::command::count::{is_all_of_large, parse_count};
use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::Set;

pub(super) const SPOP: DataCommand = DataCommand::write(&SPEC, spop).weighed(weight::counted);

const SPEC: Spec = Spec {
    name: "spop",
    group: Group::Set,
    since: "1.0.0",
    summary: "Removes random members from a set and returns them; the set goes with its last one.",
    complexity: "O(1) per member",
    arity: Arity::AtLeast(2),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Delete])],
    tips: &[Tip::NondeterministicOutput],
    history: &[("3.2.0", "Accepts a count.")],
    args: &[Arg::key("key"), Arg::integer("count").optional().since("3.2.0")],
    ..Spec::EMPTY
};

fn spop<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    if args.remaining() > 1 {
        return Err(ErrorReply::SYNTAX);
    }
    let count = args.next().map(parse_count).transpose()?;
    let len = || Ok(keyspace.set(context.at, key)?.map(Set::len));
    if is_all_of_large(count, len)? {
        return Ok(pop_all(keyspace, key, context));
    }
    let Some(set) = keyspace.set_mut(context.at, key)? else {
        return Ok(if count.is_some() { Reply::Set(Vec::new()) } else { Reply::Null });
    };
    // The order of the set and the bits of the log entry choose: every replica removes the same members.
    let reply = match count {
        Some(count) => {
            let taken = set.take_picked(count, |len| context.random_below(len));
            Reply::Set(taken.into_iter().map(Reply::bulk).collect())
        }
        None => set.take_nth(context.random_below(set.len())).map_or(Reply::Null, Reply::bulk),
    };
    keyspace.remove_if_empty(context.at, key);
    Ok(reply)
}

/// A large set goes whole, and is replied from where it waits to be freed.
fn pop_all<'k>(keyspace: &'k mut Keyspace, key: Key<'_>, context: &Context) -> Reply<'k> {
    let members = match keyspace.remove_and_lend(context.at, key) {
        Some(Value::Set(set)) => set.picked(|len| context.random_below(len)),
        Some(
            Value::Str(_) | Value::List(_) | Value::Hash(_) | Value::ZSet(_) | Value::Stream(_),
        )
        | None => Vec::new(),
    };
    Reply::Set(members.into_iter().map(Reply::Bulk).collect())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, Pops, check};

    /// faults.md B4. Whether some of a large set go or all of it, the same members go in the same order.
    #[test]
    fn a_large_set_goes_whole() {
        let element = |number: usize| number.to_string();
        Pops { fill: "SADD", element, pop: "SPOP", count: "SCARD", width: 1 }.check();
    }

    #[test]
    fn the_set_goes_with_its_last_member() {
        check("SADD s a; SPOP s => $a; GET s => $-1; SPOP s => $-1; SPOP s 3 => *0");
        check("SADD s a b c; SPOP s 0 => *0; SPOP s 9; GET s => $-1");
    }

    #[test]
    fn the_count_is_read_before_the_key() {
        check("SET s 1; SPOP s x => -ERR value is out of range, must be positive");
        check("SPOP s -1 => -ERR value is out of range, must be positive");
        check("SPOP s 1 2 => -ERR syntax error");
    }

    /// Two replicas with the same history and the same entries answer alike, and every member has its chance.
    #[test]
    fn every_member_is_chosen_and_replicas_agree() {
        let (mut left, mut right) = (Bench::default(), Bench::default());
        let mut times = [0; 3];
        for _ in 0..600 {
            for bench in [&mut left, &mut right] {
                bench.run_line("SADD s 0 1 2");
            }
            let picked = left.run_line("SPOP s").compact();
            assert_eq!(picked, right.run_line("SPOP s").compact());
            times[picked.trim_start_matches('$').parse::<usize>().unwrap()] += 1;
            assert_eq!(left.run_line("SPOP s 1").compact(), right.run_line("SPOP s 1").compact());
        }
        assert!(times.iter().all(|&times| times > 150), "{times:?}");
        assert_eq!(left.run_line("SMEMBERS s").compact(), right.run_line("SMEMBERS s").compact());
    }
}
