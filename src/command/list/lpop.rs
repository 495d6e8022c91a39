//! LPOP and RPOP: remove elements from an end of a list and return them.

use crate::command::count::{is_all_of_large, parse_count};
use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::{End, List};

pub(super) const LPOP: DataCommand = DataCommand::write(&LPOP_SPEC, lpop).weighed(weight::counted);
pub(super) const RPOP: DataCommand = DataCommand::write(&RPOP_SPEC, rpop).weighed(weight::counted);

const LPOP_SPEC: Spec = Spec {
    name: "lpop",
    group: Group::List,
    since: "1.0.0",
    summary: "Removes the first elements of a list and returns them; the list goes with its last one.",
    complexity: "O(1) per element",
    arity: Arity::AtLeast(2),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Delete])],
    history: &[("6.2.0", "Accepts a count.")],
    args: &[Arg::key("key"), Arg::integer("count").optional().since("6.2.0")],
    ..Spec::EMPTY
};

const RPOP_SPEC: Spec = Spec {
    name: "rpop",
    summary: "Removes the last elements of a list and returns them; the list goes with its last one.",
    ..LPOP_SPEC
};

fn lpop<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    pop(keyspace, args, context, End::Left)
}

fn rpop<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    pop(keyspace, args, context, End::Right)
}

fn pop<'k>(
    keyspace: &'k mut Keyspace,
    args: &mut Args<'_>,
    context: &Context,
    end: End,
) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    if args.remaining() > 1 {
        return Err(args.wrong_number());
    }
    let count = args.next().map(parse_count).transpose()?;
    let len = || Ok(keyspace.list(context.at, key)?.map(List::len));
    if is_all_of_large(count, len)? {
        return Ok(pop_all(keyspace, key, context, end));
    }
    let Some(list) = keyspace.list_mut(context.at, key)? else {
        return Ok(if count.is_some() { Reply::NullArray } else { Reply::Null });
    };
    let reply = match count {
        Some(count) => {
            let count = count.min(list.len());
            Reply::bulks(std::iter::from_fn(|| list.pop(end)).take(count))
        }
        None => list.pop(end).map_or(Reply::Null, Reply::bulk),
    };
    keyspace.remove_if_empty(context.at, key);
    Ok(reply)
}

/// A large list goes whole, and is replied from where it waits to be freed.
fn pop_all<'k>(keyspace: &'k mut Keyspace, key: Key<'_>, context: &Context, end: End) -> Reply<'k> {
    let list = match keyspace.remove_and_lend(context.at, key) {
        Some(Value::List(list)) => list,
        Some(
            Value::Str(_) | Value::Hash(_) | Value::Set(_) | Value::ZSet(_) | Value::Stream(_),
        )
        | None => return Reply::Array(Vec::new()),
    };
    match end {
        End::Left => Reply::bulks(list.iter()),
        End::Right => Reply::bulks(list.iter().rev()),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Pops, check};
    use crate::keyspace::VALUE_PARTS_SMALL_MAX;

    /// faults.md B4.
    #[test]
    fn a_large_list_goes_whole() {
        let element = |number: usize| number.to_string();
        let last = 2 * VALUE_PARTS_SMALL_MAX - 1;
        for (pop, first) in [("LPOP", "$0".to_owned()), ("RPOP", format!("${last}"))] {
            let pops = Pops { fill: "RPUSH", element, pop, count: "LLEN", width: 1 };
            assert_eq!(pops.check(), first);
        }
    }

    #[test]
    fn elements_come_from_either_end() {
        check("RPUSH l a b c d; LPOP l => $a; RPOP l => $d; RPOP l 9 => *2 $c $b; GET l => $-1");
    }

    #[test]
    fn nothing_is_nil_or_an_empty_array() {
        check("LPOP l => $-1; LPOP l 1 => *-1; RPUSH l a; LPOP l 0 => *0; LLEN l => :1");
    }

    #[test]
    fn a_count_is_a_positive_number() {
        check(
            "LPOP l x => -ERR value is out of range, must be positive; LPOP l -1 => -ERR value is out of range, must be positive",
        );
        check("LPOP l 1 2 => -ERR wrong number of arguments for 'lpop' command");
    }
}
