//! MSET and MSETNX: put strings at several keys.
//!
//! MSETNX puts all or none. Both put the pairs in order: of a key given twice the last string stays.

use crate::command::prelude::*;

pub(super) const MSET: DataCommand = DataCommand::write(&SPEC, mset);
pub(super) const MSETNX: DataCommand = DataCommand::write(&IF_MISSING_SPEC, msetnx);

const SPEC: Spec = Spec {
    name: "mset",
    group: Group::String,
    since: "1.0.1",
    summary: "Puts strings at several keys at once.",
    complexity: "O(N) for N keys",
    arity: Arity::AtLeast(3),
    flags: &[Write, DenyOom],
    keys: &[KeySpec::at(1).to_end().step(2).access(&[Ow, Update])],
    tips: &[Tip::Request(RequestPolicy::MultiShard), Tip::Response(ResponsePolicy::AllSucceeded)],
    args: &[Arg::block("data", &[Arg::key("key"), Arg::string("value")]).multiple()],
    ..Spec::EMPTY
};

const IF_MISSING_SPEC: Spec = Spec {
    name: "msetnx",
    summary: "Puts strings at several keys at once unless one of the keys exists.",
    keys: &[KeySpec::at(1).to_end().step(2).access(&[Ow, Insert])],
    tips: &[],
    ..SPEC
};

fn mset(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    for (key, value) in args.pairs()? {
        keyspace.put(context.at, args.key(key, keyspace), Str::from_bytes(value).into(), None);
    }
    Ok(Reply::OK)
}

fn msetnx(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let pairs = args.pairs()?;
    let is_there = |key| keyspace.entry(context.at, args.key(key, keyspace)).is_some();
    if pairs.clone().any(|(key, _)| is_there(key)) {
        return Ok(Reply::Integer(0));
    }
    for (key, value) in pairs {
        keyspace.put(context.at, args.key(key, keyspace), Str::from_bytes(value).into(), None);
    }
    Ok(Reply::Integer(1))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_last_of_equal_keys_counts() {
        check("MSET a 1 b 2 a 3 => +OK; MGET a b => *2 $3 $2");
        check("MSETNX a 1 a 2 => :1; GET a => $2");
    }

    #[test]
    fn msetnx_puts_all_or_none() {
        check("SET b 0; MSETNX a 1 b 2 => :0; EXISTS a => :0; MSETNX a 1 c 2 => :1; GET c => $2");
    }

    #[test]
    fn half_a_pair_is_refused() {
        check("MSET a 1 b => -ERR wrong number of arguments for 'mset' command; EXISTS a => :0");
        check("MSETNX a 1 b => -ERR wrong number of arguments for 'msetnx' command");
    }
}
