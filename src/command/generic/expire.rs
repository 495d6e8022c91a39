//! EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT: give a key a deadline.
//!
//! They differ in unit and origin of the number. A deadline that is over removes the key.

use crate::command::deadline::TimeForm;
use crate::command::prelude::*;
use crate::stdx::clock::UnixMillis;

pub(super) const EXPIRE: DataCommand = DataCommand::write(&SPEC, expire);
pub(super) const PEXPIRE: DataCommand = DataCommand::write(&PEXPIRE_SPEC, pexpire);
pub(super) const EXPIREAT: DataCommand = DataCommand::write(&EXPIREAT_SPEC, expireat);
pub(super) const PEXPIREAT: DataCommand = DataCommand::write(&PEXPIREAT_SPEC, pexpireat);

const SPEC: Spec = Spec {
    name: "expire",
    group: Group::Generic,
    since: "1.0.0",
    summary: "Lets a key expire after some seconds.",
    complexity: "O(1)",
    arity: Arity::AtLeast(3),
    flags: &[Write, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Update])],
    args: &[Arg::key("key"), Arg::integer("seconds"), CONDITION],
    history: &[OPTIONS_CAME],
    ..Spec::EMPTY
};

const PEXPIRE_SPEC: Spec = Spec {
    name: "pexpire",
    since: "2.6.0",
    summary: "Lets a key expire after some milliseconds.",
    args: &[Arg::key("key"), Arg::integer("milliseconds"), CONDITION],
    ..SPEC
};

const EXPIREAT_SPEC: Spec = Spec {
    name: "expireat",
    since: "1.2.0",
    summary: "Lets a key expire at a time in seconds since 1970.",
    args: &[Arg::key("key"), Arg::unix_time("unix-time-seconds"), CONDITION],
    ..SPEC
};

const PEXPIREAT_SPEC: Spec = Spec {
    name: "pexpireat",
    since: "2.6.0",
    summary: "Lets a key expire at a time in milliseconds since 1970.",
    args: &[Arg::key("key"), Arg::unix_time("unix-time-milliseconds"), CONDITION],
    ..SPEC
};

const CONDITION: Arg = Arg::one_of(
    "condition",
    &[
        Arg::pure_token("nx", "NX"),
        Arg::pure_token("xx", "XX"),
        Arg::pure_token("gt", "GT"),
        Arg::pure_token("lt", "LT"),
    ],
)
.since("7.0.0")
.optional();

const OPTIONS_CAME: (&str, &str) = ("7.0.0", "Takes `NX`, `XX`, `GT` and `LT`.");

fn expire(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    set_deadline(TimeForm::Seconds, keyspace, args, context)
}

fn pexpire(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    set_deadline(TimeForm::Millis, keyspace, args, context)
}

fn expireat(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    set_deadline(TimeForm::UnixSeconds, keyspace, args, context)
}

fn pexpireat(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    set_deadline(TimeForm::UnixMillis, keyspace, args, context)
}

fn set_deadline(
    form: TimeForm,
    keyspace: &mut Keyspace,
    args: &mut Args,
    context: &Context,
) -> Outcome<'static> {
    let (key, number) = (args.next_key(keyspace)?, args.next_bytes()?);
    let conditions = Conditions::parse(args)?;
    let deadline = form
        .deadline(crate::command::parse_i64(number)?, context.now())
        .ok_or_else(|| ErrorReply::invalid_expire(args.command_name()))?;

    // One before 1970 is as over as one at its beginning.
    let deadline = UnixMillis(u64::try_from(deadline).unwrap_or(0));
    let Some(entry) = keyspace.entry(context.at, key) else { return Ok(Reply::Integer(0)) };
    if !conditions.allow(entry.expire_at(), deadline) {
        return Ok(Reply::Integer(0));
    }
    if deadline <= context.now() {
        keyspace.remove(context.at, key);
    } else {
        keyspace.set_expiry(context.at, key, Some(deadline));
    }
    Ok(Reply::Integer(1))
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent words of the command line")]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &mut Args) -> Result<Self, ErrorReply> {
        let mut conditions = Self::default();
        while let Some(word) = args.peek() {
            if args.token("NX") {
                conditions.nx = true;
            } else if args.token("XX") {
                conditions.xx = true;
            } else if args.token("GT") {
                conditions.gt = true;
            } else if args.token("LT") {
                conditions.lt = true;
            } else {
                return Err(ErrorReply::unsupported_option(word));
            }
        }
        if conditions.nx && (conditions.xx || conditions.gt || conditions.lt) {
            return Err(ErrorReply::EXPIRE_NX_WITH_OTHERS);
        }
        if conditions.gt && conditions.lt {
            return Err(ErrorReply::EXPIRE_GT_WITH_LT);
        }
        Ok(conditions)
    }

    /// Whether `new` may take the place of `old`; no deadline is later than any.
    fn allow(self, old: Option<UnixMillis>, new: UnixMillis) -> bool {
        match old {
            None => !self.xx && !self.gt,
            Some(old) => !self.nx && (!self.gt || new > old) && (!self.lt || new < old),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn each_command_has_its_unit_and_origin() {
        check("SET k v; EXPIRE k 5 => :1; PTTL k => :5000; PEXPIRE k 5 => :1; PTTL k => :5");
        check("SET k v; EXPIREAT k 1700000001 => :1; PTTL k => :1000");
        check("SET k v; PEXPIREAT k 1700000000001 => :1; PTTL k => :1; @+1; GET k => $-1");
        check("EXPIRE x 5 => :0; PEXPIREAT x 5 => :0");
    }

    #[test]
    fn a_deadline_that_is_over_removes_the_key() {
        for time in [
            "EXPIRE k 0",
            "EXPIRE k -1",
            "PEXPIRE k -9223372036854775808",
            "EXPIREAT k 1",
            "PEXPIREAT k 1700000000000",
            "EXPIREAT k -9223372036854775",
        ] {
            check(&format!("SET k v; {time} => :1; DBSIZE => :0"));
        }
    }

    #[test]
    fn conditions_compare_with_the_old_deadline() {
        check(
            "SET k v; EXPIRE k 10 XX => :0; EXPIRE k 10 GT => :0; EXPIRE k 10 LT => :1; TTL k => :10",
        );
        check(
            "SET k v EX 10; EXPIRE k 20 NX => :0; EXPIRE k 20 LT => :0; EXPIRE k 20 GT => :1; TTL k => :20",
        );
        check(
            "SET k v EX 10; EXPIRE k 10 GT => :0; EXPIRE k 10 LT => :0; EXPIRE k 5 xx lt => :1; TTL k => :5",
        );
        check("SET k v; EXPIRE k 7 NX => :1; EXPIRE k -1 LT => :1; EXISTS k => :0");
    }

    #[test]
    fn conditions_that_exclude_one_another_are_refused_before_the_number() {
        let nx = "-ERR NX and XX, GT or LT options at the same time are not compatible";
        check(&format!(
            "EXPIRE k x NX XX => {nx}; EXPIRE k x NX GT => {nx}; EXPIRE k 1 LT NX => {nx}"
        ));
        check("EXPIRE k x GT LT => -ERR GT and LT options at the same time are not compatible");
        check("EXPIRE k x FOO => -ERR Unsupported option FOO");
    }

    #[test]
    fn impossible_deadlines_are_refused() {
        let invalid = |name: &str| format!("-ERR invalid expire time in '{name}' command");
        for (line, name) in [
            ("EXPIRE k 9223372036854775807", "expire"),
            ("EXPIRE k -9223372036854775807", "expire"),
            ("EXPIRE k 9223372036854775", "expire"),
            ("PEXPIRE k 9223372036854775807", "pexpire"),
            ("EXPIREAT k 9223372036854775807", "expireat"),
        ] {
            check(&format!("SET k v; {line} => {}; TTL k => :-1", invalid(name)));
        }
        check(
            "SET k v; PEXPIREAT k 9223372036854775807 => :1; EXPIRE k 1.0 => -ERR value is not an integer or out of range",
        );
    }
}
