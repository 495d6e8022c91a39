//! GETRANGE and its old name SUBSTR: a part of the string at a key.

use std::borrow::Cow;
use std::ops::Range;

use crate::command::prelude::*;
use crate::stdx::rope::is_worth_lending;

pub(super) const GETRANGE: DataCommand = DataCommand::read(&SPEC, getrange);
pub(super) const SUBSTR: DataCommand = DataCommand::read(&SUBSTR_SPEC, getrange);

const SPEC: Spec = Spec {
    name: "getrange",
    group: Group::String,
    since: "2.4.0",
    summary: "Returns a part of the string at a key; negative positions count from its end.",
    complexity: "O(N) for N bytes returned",
    arity: Arity::Exactly(4),
    flags: &[ReadOnly],
    keys: &[KeySpec::at(1).access(&[Ro, Access])],
    args: &[Arg::key("key"), Arg::integer("start"), Arg::integer("end")],
    ..Spec::EMPTY
};

const SUBSTR_SPEC: Spec = Spec {
    name: "substr",
    since: "1.0.0",
    summary: "Returns a part of the string at a key, as GETRANGE does.",
    deprecated: Some(Deprecated { since: "2.0.0", replaced_by: "`GETRANGE`" }),
    ..SPEC
};

fn getrange<'k>(keyspace: &'k Keyspace, args: &mut Args, context: &Context) -> Outcome<'k> {
    let (key, start, end) = (args.next_key(keyspace)?, args.next_i64()?, args.next_i64()?);
    let Some(string) = keyspace.string(context.at, key)? else {
        return Ok(Reply::bulk(&b""[..]));
    };
    let part = part(string.len(), start, end);
    if is_worth_lending(part.len(), string.len())
        && let Some(bytes) = string.lent()
    {
        return Ok(Reply::lent(bytes.slice(part)));
    }
    Ok(Reply::Bulk(match string.as_bytes() {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[part]),
        Cow::Owned(bytes) => Cow::Owned(bytes[part].to_vec()),
    }))
}

/// Where the bytes from `start` to `end` are, both included, of so many.
fn part(length: usize, start: i64, end: i64) -> Range<usize> {
    // Redis treats a reversed range of negative positions as empty before it cuts them to the string.
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let first = position(start, length);
    let past = position(end, length).saturating_add(1).min(length);
    if first >= past { 0..0 } else { first..past }
}

/// `position` counted from the front; what lies before the string is its beginning.
fn position(position: i64, length: usize) -> usize {
    let distance = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
    if position < 0 { length.saturating_sub(distance) } else { distance }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn positions_count_from_either_end_and_are_cut_to_the_string() {
        for (range, part) in [
            ("0 3", "$This"),
            ("-3 -1", "$ing"),
            ("0 -1", "$ThisString"),
            ("5 100", "$tring"),
            ("-100 1", "$Th"),
            ("-100 -100", "$T"),
            ("-100 -200", "$\"\""),
            ("10 20", "$\"\""),
            ("3 1", "$\"\""),
            ("-1 -3", "$\"\""),
            ("9223372036854775807 9223372036854775807", "$\"\""),
            ("-9223372036854775808 9223372036854775807", "$ThisString"),
        ] {
            check(&format!(
                "SET k ThisString; GETRANGE k {range} => {part}; SUBSTR k {range} => {part}"
            ));
        }
    }

    #[test]
    fn a_missing_key_is_an_empty_string() {
        check("GETRANGE k 0 -1 => $\"\"; SET n 1234; GETRANGE n 1 2 => $23");
        check("GETRANGE k 0 x => -ERR value is not an integer or out of range");
    }
}
