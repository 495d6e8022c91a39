//! LPUSH and RPUSH: add elements at an end of a list.

use crate::command::prelude::*;
use crate::keyspace::End;

pub(super) const LPUSH: DataCommand = DataCommand::write(&LPUSH_SPEC, lpush);
pub(super) const RPUSH: DataCommand = DataCommand::write(&RPUSH_SPEC, rpush);

const LPUSH_SPEC: Spec = Spec {
    name: "lpush",
    group: Group::List,
    since: "1.0.0",
    summary: "Adds elements at the head of a list and creates the list when the key is missing.",
    complexity: "O(1) per element",
    arity: Arity::AtLeast(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Insert])],
    history: &[("2.4.0", "Accepts several elements.")],
    args: &[Arg::key("key"), Arg::string("element").multiple()],
    ..Spec::EMPTY
};

const RPUSH_SPEC: Spec = Spec {
    name: "rpush",
    summary: "Adds elements at the tail of a list and creates the list when the key is missing.",
    ..LPUSH_SPEC
};

fn lpush<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    push(keyspace, args, context, End::Left)
}

fn rpush<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    push(keyspace, args, context, End::Right)
}

fn push<'k>(
    keyspace: &'k mut Keyspace,
    args: &mut Args<'_>,
    context: &Context,
    end: End,
) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    // Without one, an empty list would stay behind.
    let first = args.next_bytes()?;
    let list = keyspace.list_or_create(context.at, key)?;
    list.push(end, first);
    for element in args.rest() {
        list.push(end, element);
    }
    Ok(Reply::count(list.len()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn elements_are_pushed_one_after_the_other() {
        check("LPUSH l a b => :2; RPUSH l c d => :4; LRANGE l 0 -1 => *4 $b $a $c $d");
    }

    #[test]
    fn another_type_is_refused() {
        check(
            "SET s 1; RPUSH s a => -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }
}
