//! DEL and UNLINK: remove keys.
//!
//! UNLINK promises to free big values elsewhere; here both do.

use crate::command::prelude::*;

pub(super) const DEL: DataCommand = DataCommand::write(&SPEC, del);
pub(super) const UNLINK: DataCommand = DataCommand::write(&UNLINK_SPEC, del);

const SPEC: Spec = Spec {
    name: "del",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Removes keys and returns how many there were.",
    complexity: "O(N) for N keys and the elements of their values",
    arity: Arity::AtLeast(2),
    flags: &[Write],
    keys: &[KeySpec::at(1).to_end().access(&[Rm, Delete])],
    tips: &[Tip::Request(RequestPolicy::MultiShard), Tip::Response(ResponsePolicy::AggSum)],
    args: &[Arg::key("key").multiple()],
    ..Spec::EMPTY
};

const UNLINK_SPEC: Spec = Spec {
    name: "unlink",
    since: "4.0.0",
    summary: "Removes keys as DEL does, meant for big values.",
    flags: &[Write, Fast],
    ..SPEC
};

fn del(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let mut count = 0;
    for key in args.rest() {
        count += usize::from(keyspace.remove(context.at, args.key(key, keyspace)));
    }
    Ok(Reply::count(count))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_keys_that_exist_count() {
        check("MSET a 1 b 2; DEL a x a b => :2; DBSIZE => :0; SET a 1; UNLINK a a => :1");
    }

    #[test]
    fn an_expired_key_does_not_count() {
        check("SET a 1 PX 5; @+5; DEL a => :0");
    }
}
