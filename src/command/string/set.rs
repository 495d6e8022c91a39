//! SET: put a string at a key, with conditions and a deadline.

use super::expiry::{self, Expiry};
use super::reply_of;
use crate::command::prelude::*;
use crate::command::weight;
use crate::keyspace::{At, Entry};

pub(super) const SET: DataCommand =
    DataCommand::write(&SPEC, set).weighed_beyond(PLAIN_WORDS, weigh);

/// Words of a SET without options.
const PLAIN_WORDS: usize = 3;

const SPEC: Spec = Spec {
    name: "set",
    group: Group::String,
    since: "1.0.0",
    summary: "Puts a string at a key, in place of whatever is there.",
    complexity: "O(1)",
    arity: Arity::AtLeast(3),
    flags: &[Write, DenyOom],
    keys: &[KeySpec::at(1)
        .access(&[Rw, Access, Update, VariableFlags])
        .notes("RW and ACCESS because of the optional `GET` argument")],
    args: &[
        Arg::key("key"),
        Arg::string("value"),
        Arg::one_of("condition", &[Arg::pure_token("nx", "NX"), Arg::pure_token("xx", "XX")])
            .since("2.6.12")
            .optional(),
        Arg::pure_token("get", "GET").since("6.2.0").optional(),
        Arg::one_of(
            "expiration",
            &[
                expiry::SECONDS.since("2.6.12"),
                expiry::MILLISECONDS.since("2.6.12"),
                expiry::UNIX_SECONDS.since("6.2.0"),
                expiry::UNIX_MILLISECONDS.since("6.2.0"),
                Arg::pure_token("keepttl", "KEEPTTL").since("6.0.0"),
            ],
        )
        .optional(),
    ],
    history: &[
        ("2.6.12", "Takes `EX`, `PX`, `NX` and `XX`."),
        ("6.0.0", "Takes `KEEPTTL`."),
        ("6.2.0", "Takes `GET`, `EXAT` and `PXAT`."),
        ("7.0.0", "Takes `NX` and `GET` together."),
    ],
    ..Spec::EMPTY
};

fn set(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, value) = (args.next_key(keyspace)?, args.next_bytes()?);
    if args.is_empty() {
        keyspace.put(context.at, key, Str::from_bytes(value).into(), None);
        return Ok(Reply::OK);
    }
    let options = Options::parse(args)?;
    let deadline =
        options.expiry.map(|expiry| expiry.deadline(context.now(), "set")).transpose()?;

    let old = if options.gets {
        let old = keyspace.string(context.at, key)?;
        Some(old.map_or(Reply::Null, |old| reply_of(old).into_owned()))
    } else {
        None
    };
    let found = keyspace.entry(context.at, key);
    let is_met = match options.condition {
        None => true,
        Some(Condition::Missing) => found.is_none(),
        Some(Condition::Present) => found.is_some(),
    };
    if !is_met {
        return Ok(old.unwrap_or(Reply::Null));
    }
    let kept = found.filter(|_| options.keeps_deadline).and_then(Entry::expire_at);
    keyspace.put(context.at, key, Str::from_bytes(value).into(), deadline.or(kept));
    Ok(old.unwrap_or(Reply::OK))
}

/// The old string, where that is the reply: every replica hashes what it replies.
fn weigh(keyspace: &Keyspace, invocation: &Invocation<'_>, at: At) -> usize {
    let gets =
        invocation.argv.iter().skip(PLAIN_WORDS).any(|word| word.eq_ignore_ascii_case(b"GET"));
    if gets { weight::whole_value(keyspace, invocation, at) } else { 0 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// NX
    Missing,
    /// XX
    Present,
}

#[derive(Clone, Copy, Debug, Default)]
struct Options<'a> {
    condition: Option<Condition>,
    gets: bool,
    keeps_deadline: bool,
    expiry: Option<Expiry<'a>>,
}

impl<'a> Options<'a> {
    /// An option may be repeated, but neither of two that exclude one another.
    fn parse(args: &mut Args<'a>) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        while !args.is_empty() {
            if args.token("NX") {
                options.set_condition(Condition::Missing)?;
            } else if args.token("XX") {
                options.set_condition(Condition::Present)?;
            } else if args.token("GET") {
                options.gets = true;
            } else if args.token("KEEPTTL") {
                options.keeps_deadline = true;
            } else {
                let expiry = Expiry::parse_option(args, options.expiry)?;
                options.expiry = Some(expiry.ok_or(ErrorReply::SYNTAX)?);
            }
            if options.keeps_deadline && options.expiry.is_some() {
                return Err(ErrorReply::SYNTAX);
            }
        }
        Ok(options)
    }

    fn set_condition(&mut self, condition: Condition) -> Result<(), ErrorReply> {
        if self.condition.is_some_and(|earlier| earlier != condition) {
            return Err(ErrorReply::SYNTAX);
        }
        self.condition = Some(condition);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn conditions_look_at_the_key() {
        check(
            "SET k 1 XX => $-1; SET k 1 NX => +OK; SET k 2 nx => $-1; SET k 3 xx => +OK; GET k => $3",
        );
    }

    #[test]
    fn get_returns_the_old_string_whether_it_was_replaced_or_not() {
        check("SET k 1 GET => $-1; SET k 2 GET => $1; SET k 3 NX GET => $2; GET k => $2");
        check("SET k 1 NX GET => $-1; GET k => $1; SET x 1 XX GET => $-1; EXISTS x => :0");
    }

    #[test]
    fn a_deadline_is_set_kept_or_dropped() {
        check("SET k 1 PX 100 => +OK; PTTL k => :100; SET k 2 KEEPTTL => +OK; PTTL k => :100");
        check("SET k 1 EX 10 => +OK; SET k 2 => +OK; TTL k => :-1");
        check("SET k 1 EXAT 1700000001 => +OK; PTTL k => :1000; @+1000; GET k => $-1");
        check("SET k 1 PXAT 1700000000007 => +OK; PTTL k => :7");
        check("SET k 1 PX 10; @+10; SET k 2 NX KEEPTTL => +OK; TTL k => :-1");
        check("SET k 1 PXAT 1 => +OK; GET k => $-1; EXISTS k => :0");
    }

    #[test]
    fn options_that_exclude_one_another_are_refused() {
        for options in [
            "NX XX",
            "XX NX",
            "EX 1 PX 1",
            "EX 1 KEEPTTL",
            "KEEPTTL PX 1",
            "EX",
            "FOO",
            "EXAT 1 PXAT 1",
            "PERSIST",
            "GET EX",
        ] {
            check(&format!("SET k v {options} => -ERR syntax error; EXISTS k => :0"));
        }
        check(
            "SET k v EX 1 EX 2 NX NX GET GET => $-1; TTL k => :2; SET k v KEEPTTL KEEPTTL => +OK",
        );
    }

    #[test]
    fn impossible_deadlines_are_refused_before_the_key_is_looked_at() {
        let invalid = "-ERR invalid expire time in 'set' command";
        for time in ["EX 0", "PX -1", "EX 9223372036854775807", "PX 9223372036854775807", "EXAT 0"]
        {
            check(&format!("SET k v {time} => {invalid}; SET k v {time} GET => {invalid}"));
        }
        let not_integer = "-ERR value is not an integer or out of range";
        check(&format!("SET k v EX x => {not_integer}; SET k v PX 1.5 => {not_integer}"));
    }
}
