//! TTL, PTTL, EXPIRETIME and PEXPIRETIME: the deadline of a key.
//!
//! They differ in unit and origin: the time left, or the time since 1970. −2 stands for no key, −1 for no
//! deadline.

use crate::command::prelude::*;
use crate::keyspace::Entry;

pub(super) const TTL: DataCommand = DataCommand::read(&SPEC, ttl);
pub(super) const PTTL: DataCommand = DataCommand::read(&PTTL_SPEC, pttl);
pub(super) const EXPIRETIME: DataCommand = DataCommand::read(&EXPIRETIME_SPEC, expiretime);
pub(super) const PEXPIRETIME: DataCommand = DataCommand::read(&PEXPIRETIME_SPEC, pexpiretime);

const SPEC: Spec = Spec {
    name: "ttl",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Returns how many seconds a key has left.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[ReadOnly, Fast],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    tips: &[Tip::NondeterministicOutput],
    args: &[Arg::key("key")],
    history: &[("2.8.0", "Returns -2 for a key that does not exist.")],
    ..Spec::EMPTY
};

const PTTL_SPEC: Spec = Spec {
    name: "pttl",
    since: "2.6.0",
    summary: "Returns how many milliseconds a key has left.",
    ..SPEC
};

const EXPIRETIME_SPEC: Spec = Spec {
    name: "expiretime",
    since: "7.0.0",
    summary: "Returns when a key expires, in seconds since 1970.",
    tips: &[],
    history: &[],
    ..SPEC
};

const PEXPIRETIME_SPEC: Spec = Spec {
    name: "pexpiretime",
    summary: "Returns when a key expires, in milliseconds since 1970.",
    ..EXPIRETIME_SPEC
};

const MISSING: i64 = -2;
const WITHOUT_DEADLINE: i64 = -1;

fn ttl(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let now = context.now();
    deadline_as(|deadline| to_seconds(deadline.saturating_sub(now.0)), keyspace, args, context)
}

fn pttl(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let now = context.now();
    deadline_as(|deadline| deadline.saturating_sub(now.0), keyspace, args, context)
}

fn expiretime(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    deadline_as(to_seconds, keyspace, args, context)
}

fn pexpiretime(keyspace: &Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    deadline_as(|deadline| deadline, keyspace, args, context)
}

fn deadline_as(
    form: impl FnOnce(u64) -> u64,
    keyspace: &Keyspace,
    args: &mut Args,
    context: &Context,
) -> Outcome<'static> {
    let entry = keyspace.entry(context.at, args.next_key(keyspace)?);
    Ok(Reply::Integer(match entry.map(Entry::expire_at) {
        None => MISSING,
        Some(None) => WITHOUT_DEADLINE,
        Some(Some(deadline)) => i64::try_from(form(deadline.0)).unwrap_or(i64::MAX),
    }))
}

/// Redis rounds to the nearest second.
fn to_seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn missing_keys_and_missing_deadlines_are_negative() {
        for name in ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"] {
            check(&format!(
                "{name} k => :-2; SET k v; {name} k => :-1; PEXPIRE k 5; @+5; {name} k => :-2"
            ));
        }
    }

    #[test]
    fn seconds_are_rounded() {
        check(
            "SET k v PX 1499; TTL k => :1; PTTL k => :1499; SET k v PX 1500; TTL k => :2; @+1001; TTL k => :0",
        );
    }

    #[test]
    fn deadlines_are_told_as_they_were_given() {
        check(
            "SET k v PXAT 1700000000600; PEXPIRETIME k => :1700000000600; EXPIRETIME k => :1700000001",
        );
        check("SET k v; PEXPIREAT k 9223372036854775807; PEXPIRETIME k => :9223372036854775807");
    }
}
