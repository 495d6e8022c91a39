//! HGETALL: all fields of a hash with their values.

use crate::command::prelude::*;
use crate::command::weight;

pub(super) const HGETALL: DataCommand =
    DataCommand::read(&SPEC, hgetall).weighed(weight::whole_value);

const SPEC: Spec = Spec {
    name: "hgetall",
    group: Group::Hash,
    since: "2.0.0",
    summary: "Returns all fields of a hash with their values.",
    complexity: "O(N), N being the number of fields",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    tips: &[Tip::NondeterministicOutputOrder],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn hgetall<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    let fields = keyspace.hash(context.at, key)?.into_iter().flatten();
    Ok(Reply::Map(fields.map(|(field, value)| (Reply::bulk(field), Reply::bulk(value))).collect()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn fields_are_in_the_order_of_the_hash() {
        check(
            "HGETALL h => *0; HSET h b 1 a 2; HGETALL h => *4 $b $1 $a $2; HDEL h b; HGETALL h => *2 $a $2",
        );
    }
}
