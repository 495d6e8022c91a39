//! SREM: remove members from a set.

use crate::command::prelude::*;

pub(super) const SREM: DataCommand = DataCommand::write(&SPEC, srem);

const SPEC: Spec = Spec {
    name: "srem",
    group: Group::Set,
    since: "1.0.0",
    summary: "Removes members from a set; the set goes with its last one.",
    complexity: "O(1) per member",
    arity: Arity::AtLeast(3),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Delete])],
    history: &[("2.4.0", "Accepts several members.")],
    args: &[Arg::key("key"), Arg::string("member").multiple()],
    ..Spec::EMPTY
};

fn srem<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let Some(set) = keyspace.set_mut(context.at, key)? else { return Ok(Reply::Integer(0)) };
    let removed = args.rest().iter().filter(|member| set.remove(member)).count();
    keyspace.remove_if_empty(context.at, key);
    Ok(Reply::count(removed))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_set_goes_with_its_last_member() {
        check("SREM s a => :0; SADD s a b 1; SREM s a x a => :1; SREM s b 1 => :2; GET s => $-1");
    }
}
