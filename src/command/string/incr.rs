//! INCR, INCRBY, DECR and DECRBY: count in the string at a key.
//!
//! They differ in what they add. The deadline stays.

use crate::command::prelude::*;

pub(super) const INCR: DataCommand = DataCommand::write(&SPEC, incr);
pub(super) const DECR: DataCommand = DataCommand::write(&DECR_SPEC, decr);
pub(super) const INCRBY: DataCommand = DataCommand::write(&INCRBY_SPEC, incrby);
pub(super) const DECRBY: DataCommand = DataCommand::write(&DECRBY_SPEC, decrby);

const SPEC: Spec = Spec {
    name: "incr",
    group: Group::String,
    since: "1.0.0",
    summary: "Adds one to the integer at a key; a missing key counts as 0.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Update])],
    args: &[Arg::key("key")],
    ..Spec::EMPTY
};

const DECR_SPEC: Spec = Spec {
    name: "decr",
    summary: "Takes one from the integer at a key; a missing key counts as 0.",
    ..SPEC
};

const INCRBY_SPEC: Spec = Spec {
    name: "incrby",
    summary: "Adds to the integer at a key; a missing key counts as 0.",
    arity: Arity::Exactly(3),
    args: &[Arg::key("key"), Arg::integer("increment")],
    ..SPEC
};

const DECRBY_SPEC: Spec = Spec {
    name: "decrby",
    summary: "Takes from the integer at a key; a missing key counts as 0.",
    arity: Arity::Exactly(3),
    args: &[Arg::key("key"), Arg::integer("decrement")],
    ..SPEC
};

fn incr(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    add(1, args.next_key(keyspace)?, keyspace, context)
}

fn decr(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    add(-1, args.next_key(keyspace)?, keyspace, context)
}

fn incrby(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, increment) = (args.next_key(keyspace)?, args.next_i64()?);
    add(increment, key, keyspace, context)
}

fn decrby(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, decrement) = (args.next_key(keyspace)?, args.next_i64()?);
    let increment = decrement.checked_neg().ok_or(ErrorReply::DECREMENT_OVERFLOW)?;
    add(increment, key, keyspace, context)
}

fn add(
    increment: i64,
    key: Key<'_>,
    keyspace: &mut Keyspace,
    context: &Context,
) -> Outcome<'static> {
    let Some(string) = keyspace.string_mut(context.at, key)? else {
        keyspace.put(context.at, key, Str::from_i64(increment).into(), None);
        return Ok(Reply::Integer(increment));
    };
    let number = string.as_i64().ok_or(ErrorReply::NOT_INTEGER)?;
    let sum = number.checked_add(increment).ok_or(ErrorReply::OVERFLOW)?;
    *string = Str::from_i64(sum);
    Ok(Reply::Integer(sum))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_missing_key_counts_as_zero() {
        check(
            "INCR a => :1; DECR b => :-1; INCRBY c 5 => :5; DECRBY d 5 => :-5; INCRBY c -7 => :-2",
        );
    }

    #[test]
    fn counting_keeps_the_deadline() {
        check("SET k 9 EX 50; INCR k => :10; TTL k => :50; GET k => $10");
    }

    #[test]
    fn only_canonical_integers_count() {
        let not = "-ERR value is not an integer or out of range";
        for text in ["\" 1\"", "01", "1.0", "\"\"", "9223372036854775808", "+1"] {
            check(&format!(
                "SET k {text}; INCR k => {not}; INCRBY n {text} => {not}; EXISTS n => :0"
            ));
        }
    }

    #[test]
    fn overflow_changes_nothing() {
        let overflow = "-ERR increment or decrement would overflow";
        check(&format!(
            "SET k 9223372036854775807; INCR k => {overflow}; GET k => $9223372036854775807"
        ));
        check(&format!(
            "SET k -9223372036854775808; DECR k => {overflow}; INCRBY k -1 => {overflow}"
        ));
        check("DECRBY k -9223372036854775808 => -ERR decrement would overflow; EXISTS k => :0");
    }
}
