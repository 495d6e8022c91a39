//! EXISTS and TOUCH: how many of some keys there are.
//!
//! A key named twice counts twice. TOUCH differs in its purpose: it is a use of the keys.

use crate::command::prelude::*;

pub(super) const EXISTS: DataCommand = DataCommand::read(&SPEC, exists);
pub(super) const TOUCH: DataCommand = DataCommand::read(&TOUCH_SPEC, exists);

const SPEC: Spec = Spec {
    name: "exists",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns how many of some keys exist.",
    complexity: "O(N) for N keys",
    arity: Arity::AtLeast(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).to_end().access(&[Ro])],
    tips: &[Tip::Request(RequestPolicy::MultiShard), Tip::Response(ResponsePolicy::AggSum)],
    args: &[Arg::key("key").multiple()],
    history: &[("3.0.3", "Takes several keys.")],
    ..Spec::EMPTY
};

const TOUCH_SPEC: Spec = Spec {
    name: "touch",
    since: "3.2.1",
    summary: "Returns how many of some keys exist, counting as a use of them.",
    history: &[],
    ..SPEC
};

fn exists(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let keys = args.rest().iter();
    let is_there = |key: &&&[u8]| keyspace.entry(context.at, args.key(key, keyspace)).is_some();
    Ok(Reply::count(keys.filter(is_there).count()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_key_named_twice_counts_twice() {
        check("EXISTS a => :0; MSET a 1 b 2; EXISTS a a b x => :3; TOUCH a x => :1");
    }
}
