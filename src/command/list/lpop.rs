//! LPOP and RPOP: remove elements from an end of a list and return them.

use crate::command::count::parse_count;
use crate::command::prelude::*;
use crate::keyspace::End;

pub(super) const LPOP: DataCommand = DataCommand::write(&LPOP_SPEC, lpop);
pub(super) const RPOP: DataCommand = DataCommand::write(&RPOP_SPEC, rpop);

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
    let key = args.next_key()?;
    if args.remaining() > 1 {
        return Err(args.wrong_number());
    }
    let count = args.next().map(parse_count).transpose()?;
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

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

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
