//! SETEX and PSETEX: put a string with a time to live at a key.
//!
//! Older spellings of SET with EX and PX; they differ in the unit.

use super::expiry::Expiry;
use crate::command::deadline::TimeForm;
use crate::command::prelude::*;

pub(super) const SETEX: DataCommand = DataCommand::write(&SPEC, setex);
pub(super) const PSETEX: DataCommand = DataCommand::write(&MILLIS_SPEC, psetex);

const SPEC: Spec = Spec {
    name: "setex",
    group: Group::String,
    since: "2.0.0",
    summary: "Puts a string at a key, to live for some seconds.",
    complexity: "O(1)",
    arity: Arity::Exactly(4),
    flags: &[Write, DenyOom],
    keys: &[KeySpec::at(1).access(&[Ow, Update])],
    args: &[Arg::key("key"), Arg::integer("seconds"), Arg::string("value")],
    deprecated: Some(Deprecated { since: "2.6.12", replaced_by: "`SET` with the `EX` argument" }),
    ..Spec::EMPTY
};

const MILLIS_SPEC: Spec = Spec {
    name: "psetex",
    since: "2.6.0",
    summary: "Puts a string at a key, to live for some milliseconds.",
    args: &[Arg::key("key"), Arg::integer("milliseconds"), Arg::string("value")],
    deprecated: Some(Deprecated { since: "2.6.12", replaced_by: "`SET` with the `PX` argument" }),
    ..SPEC
};

fn setex(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    set_for(TimeForm::Seconds, keyspace, args, context)
}

fn psetex(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    set_for(TimeForm::Millis, keyspace, args, context)
}

fn set_for(
    form: TimeForm,
    keyspace: &mut Keyspace,
    args: &mut Args,
    context: &Context,
) -> Outcome<'static> {
    let (key, time, value) = (args.next_key(keyspace)?, args.next_bytes()?, args.next_bytes()?);
    let deadline = Expiry::new(form, time).deadline(context.now(), args.command_name())?;
    keyspace.put(context.at, key, Str::from_bytes(value).into(), Some(deadline));
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_unit_is_in_the_name() {
        check("SETEX k 10 v => +OK; PTTL k => :10000; PSETEX k 10 v => +OK; PTTL k => :10");
    }

    #[test]
    fn errors_name_the_command() {
        check("SETEX k 0 v => -ERR invalid expire time in 'setex' command; EXISTS k => :0");
        check("PSETEX k -5 v => -ERR invalid expire time in 'psetex' command");
        check("SETEX k x v => -ERR value is not an integer or out of range");
    }
}
