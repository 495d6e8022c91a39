//! INCRBYFLOAT: count in the string at a key, with fractions.

use crate::command::prelude::*;
use crate::stdx::long_double::LongDouble;

pub(super) const INCRBYFLOAT: DataCommand = DataCommand::write(&SPEC, incrbyfloat);

const SPEC: Spec = Spec {
    name: "incrbyfloat",
    group: Group::String,
    since: "2.6.0",
    summary: "Adds a fraction to the number at a key; a missing key counts as 0.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Access, Update])],
    args: &[Arg::key("key"), Arg::double("increment")],
    ..Spec::EMPTY
};

fn incrbyfloat(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, increment) = (args.next_key(keyspace)?, args.next_bytes()?);
    let string = keyspace.string_mut(context.at, key)?;
    let number = match &string {
        Some(string) => parse(&string.as_bytes())?,
        None => parse(b"0")?,
    };
    let sum = number.checked_add(parse(increment)?).ok_or(ErrorReply::NAN_OR_INFINITY)?.to_text();
    let value = Str::from_bytes(&sum);
    match string {
        Some(string) => *string = value,
        None => keyspace.put(context.at, key, value.into(), None),
    }
    Ok(Reply::from(sum))
}

fn parse(text: &[u8]) -> Result<LongDouble, ErrorReply> {
    LongDouble::parse(text).ok_or(ErrorReply::NOT_FLOAT)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn fractions_add_up_as_people_expect() {
        check(
            "INCRBYFLOAT k 0.1 => $0.1; INCRBYFLOAT k 0.2 => $0.3; INCRBYFLOAT k -0.3 => $0; INCR k => :1",
        );
        check("SET k 5.0e3 EX 7; INCRBYFLOAT k 2.0e2 => $5200; TTL k => :7");
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        check("INCRBYFLOAT k x => -ERR value is not a valid float; EXISTS k => :0");
        check("INCRBYFLOAT k inf => -ERR increment would produce NaN or Infinity");
        check("SET k x; INCRBYFLOAT k 1 => -ERR value is not a valid float; GET k => $x");
    }
}
