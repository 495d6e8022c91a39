//! ZREM: remove members from a sorted set.

use crate::command::prelude::*;

pub(super) const ZREM: DataCommand = DataCommand::write(&SPEC, zrem);

const SPEC: Spec = Spec {
    name: "zrem",
    group: Group::SortedSet,
    since: "1.2.0",
    summary: "Removes members from a sorted set; the sorted set goes with its last one.",
    complexity: "O(log(N)) per member, N being the number of members of the sorted set",
    arity: Arity::AtLeast(3),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Delete])],
    args: &[Arg::key("key"), Arg::string("member").multiple()],
    history: &[("2.4.0", "Accepts several members.")],
    ..Spec::EMPTY
};

fn zrem<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let Some(zset) = keyspace.zset_mut(context.at, key)? else { return Ok(Reply::Integer(0)) };
    let removed = args.rest().iter().filter(|member| zset.remove(member).is_some()).count();
    keyspace.remove_if_empty(context.at, key);
    Ok(Reply::count(removed))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_sorted_set_goes_with_its_last_member() {
        check("ZREM z a => :0; ZADD z 1 a 2 b; ZREM z a x a => :1; ZREM z b => :1; GET z => $-1");
    }
}
