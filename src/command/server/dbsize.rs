//! DBSIZE: how many keys the database holds.

use crate::command::prelude::*;

pub(super) const DBSIZE: DataCommand = DataCommand::read(&SPEC, dbsize);

const SPEC: Spec = Spec {
    name: "dbsize",
    group: Group::Server,
    since: "1.0.0",
    summary: "Returns the number of keys in the database, expired ones not yet removed included.",
    complexity: "O(1)",
    arity: Arity::Exactly(1),
    flags: &[ReadOnly, Fast],
    tips: &[Tip::Request(RequestPolicy::AllShards), Tip::Response(ResponsePolicy::AggSum)],
    acl: AclRule::Also(&[AclCategory::Keyspace]),
    ..Spec::EMPTY
};

fn dbsize(keyspace: &Keyspace, _args: &mut Args, context: &Context) -> Outcome<'static> {
    Ok(Reply::count(keyspace.len(context.db())))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn databases_are_counted_apart() {
        check("DBSIZE => :0; MSET a 1 b 2; DBSIZE => :2; @db 1; DBSIZE => :0");
    }
}
