//! LPUSHX and RPUSHX: add elements at an end of a list that exists.

use crate::command::prelude::*;
use crate::keyspace::End;

pub(super) const LPUSHX: DataCommand = DataCommand::write(&LPUSHX_SPEC, lpushx);
pub(super) const RPUSHX: DataCommand = DataCommand::write(&RPUSHX_SPEC, rpushx);

const LPUSHX_SPEC: Spec = Spec {
    name: "lpushx",
    group: Group::List,
    since: "2.2.0",
    summary: "Adds elements at the head of a list, only when the list exists.",
    complexity: "O(1) per element",
    arity: Arity::AtLeast(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Insert])],
    history: &[("4.0.0", "Accepts several elements.")],
    args: &[Arg::key("key"), Arg::string("element").multiple()],
    ..Spec::EMPTY
};

const RPUSHX_SPEC: Spec = Spec {
    name: "rpushx",
    summary: "Adds elements at the tail of a list, only when the list exists.",
    ..LPUSHX_SPEC
};

fn lpushx<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    push(keyspace, args, context, End::Left)
}

fn rpushx<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    push(keyspace, args, context, End::Right)
}

fn push<'k>(
    keyspace: &'k mut Keyspace,
    args: &mut Args<'_>,
    context: &Context,
    end: End,
) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let Some(list) = keyspace.list_mut(context.at, key)? else { return Ok(Reply::Integer(0)) };
    for element in args.rest() {
        list.push(end, element);
    }
    Ok(Reply::count(list.len()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_list_is_not_created() {
        check("LPUSHX l a => :0; RPUSHX l a => :0; GET l => $-1");
        check("RPUSH l a; LPUSHX l b c => :3; RPUSHX l d => :4; LRANGE l 0 -1 => *4 $c $b $a $d");
    }
}
