//! HSET and HMSET: set fields of a hash.
//!
//! HMSET is the older spelling; it differs only in its reply.

use crate::command::prelude::*;

pub(super) const HSET: DataCommand = DataCommand::write(&HSET_SPEC, hset);
pub(super) const HMSET: DataCommand = DataCommand::write(&HMSET_SPEC, hmset);

const HSET_SPEC: Spec = Spec {
    name: "hset",
    group: Group::Hash,
    since: "2.0.0",
    summary: "Sets fields of a hash and creates the hash when the key is missing.",
    complexity: "O(1) per field",
    arity: Arity::AtLeast(4),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Update])],
    history: &[("4.0.0", "Accepts several fields.")],
    args: &[
        Arg::key("key"),
        Arg::block("data", &[Arg::string("field"), Arg::string("value")]).multiple(),
    ],
    ..Spec::EMPTY
};

const HMSET_SPEC: Spec = Spec {
    name: "hmset",
    summary: "Sets fields of a hash and says OK.",
    history: &[],
    deprecated: Some(Deprecated { since: "4.0.0", replaced_by: "HSET with several fields" }),
    ..HSET_SPEC
};

fn hset<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    set(keyspace, args, context).map(Reply::count)
}

fn hmset<'k>(keyspace: &'k mut Keyspace, args: &mut Args<'_>, context: &Context) -> Outcome<'k> {
    set(keyspace, args, context).map(|_| Reply::OK)
}

/// Sets the fields and returns how many of them are new.
fn set(
    keyspace: &mut Keyspace,
    args: &mut Args<'_>,
    context: &Context,
) -> Result<usize, ErrorReply> {
    let key = args.next_key(keyspace)?;
    let pairs = args.pairs()?;
    let hash = keyspace.hash_or_create(context.at, key)?;
    Ok(pairs.filter(|(field, value)| hash.insert(field, value)).count())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn only_new_fields_count() {
        check("HSET h f 1 => :1; HSET h f 2 g 3 => :1; HGET h f => $2; HMSET h f 4 => +OK");
    }

    #[test]
    fn a_field_without_a_value_is_refused_before_the_key_is_looked_at() {
        check("SET s 1; HSET s f 1 g => -ERR wrong number of arguments for 'hset' command");
        check("HMSET h f 1 g => -ERR wrong number of arguments for 'hmset' command; GET h => $-1");
    }
}
