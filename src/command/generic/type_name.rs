//! TYPE: of which type the value at a key is.

use crate::command::prelude::*;

pub(super) const TYPE: DataCommand = DataCommand::read(&SPEC, type_name);

const SPEC: Spec = Spec {
    name: "type",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns the type of the value at a key.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn type_name(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let value = keyspace.get(context.at, args.next_key(keyspace)?);
    Ok(Reply::Simple(value.map_or("none", Value::type_name)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_key_has_no_type() {
        check("TYPE k => +none; SET k 1; TYPE k => +string; SET k 1 PX 1; @+1; TYPE k => +none");
    }
}
