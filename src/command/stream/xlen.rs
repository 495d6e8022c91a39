//! XLEN: the number of entries of a stream.

use crate::command::prelude::*;
use crate::keyspace::Stream;

pub(super) const XLEN: DataCommand = DataCommand::read(&SPEC, xlen);

const SPEC: Spec = Spec {
    name: "xlen",
    group: Group::Stream,
    since: "5.0.0",
    summary: "Returns the number of entries of a stream, 0 when the key is missing.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

fn xlen<'k>(keyspace: &'k Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    let key = args.next_key(keyspace)?;
    Ok(Reply::count(keyspace.stream(context.at, key)?.map_or(0, Stream::len)))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_stream_has_no_entries() {
        check("XLEN s => :0; XADD s * f v; XADD s * f v; XLEN s => :2");
    }
}
