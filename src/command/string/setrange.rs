//! SETRANGE: overwrite a part of the string at a key.

use super::limits::check_length;
use crate::command::prelude::*;
use crate::command::weight;

pub(super) const SETRANGE: DataCommand =
    DataCommand::write(&SPEC, setrange).weighed(weight::to_offset);

const SPEC: Spec = Spec {
    name: "setrange",
    group: Group::String,
    since: "2.2.0",
    summary: "Overwrites the string at a key from an offset on, filling a gap with zero bytes.",
    complexity: "O(N) for N bytes written and the gap before them",
    arity: Arity::Exactly(4),
    flags: &[Write, DenyOom],
    keys: &[KeySpec::at(1).access(&[Rw, Update])],
    args: &[Arg::key("key"), Arg::integer("offset"), Arg::string("value")],
    ..Spec::EMPTY
};

fn setrange(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, offset, part) = (args.next_key(keyspace)?, args.next_i64()?, args.next_bytes()?);
    if offset < 0 {
        return Err(ErrorReply::OFFSET_OUT_OF_RANGE);
    }
    let offset = usize::try_from(offset).map_err(|_| ErrorReply::STRING_TOO_BIG)?;
    let length = keyspace.string(context.at, key)?.map_or(0, Str::len);
    if part.is_empty() {
        return Ok(Reply::count(length));
    }
    check_length(offset, part.len())?;
    let string = keyspace.string_or_create(context.at, key)?;
    let end = offset + part.len();
    string.edit(end.saturating_sub(length), |bytes| {
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(part);
    });
    Ok(Reply::count(string.len()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn a_gap_is_filled_with_zeros() {
        check(
            "SETRANGE k 2 ab => :4; GET k => $\"\\x00\\x00ab\"; SETRANGE k 1 x => :4; GET k => $\"\\x00xab\"",
        );
        check("SET n 12345 EX 9; SETRANGE n 1 99 => :5; GET n => $19945; TTL n => :9");
    }

    #[test]
    fn nothing_to_write_changes_nothing() {
        check(
            "SETRANGE k 5 \"\" => :0; EXISTS k => :0; SET k abc; SETRANGE k 9 \"\" => :3; GET k => $abc",
        );
    }

    #[test]
    fn impossible_offsets_are_refused() {
        let big = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        check(
            "SETRANGE k -1 a => -ERR offset is out of range; SETRANGE k x a => -ERR value is not an integer or out of range",
        );
        check(&format!(
            "SETRANGE k 536870912 a => {big}; SETRANGE k 9223372036854775807 a => {big}; EXISTS k => :0"
        ));
    }
}
