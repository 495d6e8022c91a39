//! GETEX: the string at a key, and a new deadline for it.

use super::expiry::{self, Expiry};
use super::reply_of;
use crate::command::prelude::*;
use crate::command::weight;

pub(super) const GETEX: DataCommand = DataCommand::write(&SPEC, getex).weighed(weight::whole_value);

const SPEC: Spec = Spec {
    name: "getex",
    group: Group::String,
    since: "6.2.0",
    summary: "Returns the string at a key and sets or removes its deadline.",
    complexity: "O(1)",
    arity: Arity::AtLeast(2),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1)
        .access(&[Rw, Access, Update])
        .notes("RW and UPDATE because it changes the deadline")],
    args: &[
        Arg::key("key"),
        Arg::one_of(
            "expiration",
            &[
                expiry::SECONDS,
                expiry::MILLISECONDS,
                expiry::UNIX_SECONDS,
                expiry::UNIX_MILLISECONDS,
                Arg::pure_token("persist", "PERSIST"),
            ],
        )
        .optional(),
    ],
    ..Spec::EMPTY
};

fn getex(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let key = args.next_key(keyspace)?;
    let (mut expiry, mut persists) = (None, false);
    while !args.is_empty() {
        if args.token("PERSIST") {
            persists = true;
        } else {
            let option = Expiry::parse_option(args, expiry)?;
            expiry = Some(option.ok_or(ErrorReply::SYNTAX)?);
        }
        if persists && expiry.is_some() {
            return Err(ErrorReply::SYNTAX);
        }
    }
    let Some(value) = keyspace.string(context.at, key)? else { return Ok(Reply::Null) };
    let reply = reply_of(value).into_owned();
    if let Some(expiry) = expiry {
        let deadline = expiry.deadline(context.now(), "getex")?;
        // Only a time since 1970 can already be over; the key goes then.
        if expiry.is_absolute() && deadline <= context.now() {
            keyspace.remove(context.at, key);
        } else {
            keyspace.set_expiry(context.at, key, Some(deadline));
        }
    } else if persists {
        keyspace.set_expiry(context.at, key, None);
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_deadline_changes_only_when_asked() {
        check("SET k v EX 10; GETEX k => $v; TTL k => :10; GETEX k PX 5 => $v; PTTL k => :5");
        check(
            "SET k v EX 10; GETEX k PERSIST => $v; TTL k => :-1; GETEX k EXAT 1700000002 => $v; TTL k => :2",
        );
    }

    #[test]
    fn a_deadline_that_is_over_removes_the_key() {
        check("SET k v; GETEX k PXAT 1700000000000 => $v; EXISTS k => :0; DBSIZE => :0");
    }

    #[test]
    fn a_missing_key_is_nil_before_the_time_is_judged() {
        check(
            "GETEX x EX 0 => $-1; SET k v; GETEX k EX 0 => -ERR invalid expire time in 'getex' command",
        );
        check(
            "GETEX x EX a => $-1; SET k v; GETEX k EX a => -ERR value is not an integer or out of range",
        );
    }

    #[test]
    fn options_exclude_one_another() {
        for options in ["EX 1 PX 1", "PERSIST EX 1", "EX 1 PERSIST", "KEEPTTL", "EX", "NX"] {
            check(&format!("GETEX x {options} => -ERR syntax error"));
        }
        check("SET k v; GETEX k PERSIST PERSIST => $v; GETEX k EX 1 EX 2 => $v; TTL k => :2");
    }
}
