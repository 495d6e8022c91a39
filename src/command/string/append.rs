//! APPEND: lengthen the string at a key.

use super::limits::check_length;
use crate::command::prelude::*;
use crate::command::weight;

pub(super) const APPEND: DataCommand =
    DataCommand::write(&SPEC, append).weighed(weight::whole_value);

const SPEC: Spec = Spec {
    name: "append",
    group: Group::String,
    since: "2.0.0",
    summary: "Appends to the string at a key, which is created when it is missing.",
    complexity: "O(1) amortized, for what is appended is short and the string grows by doubling",
    arity: Arity::Exactly(3),
    flags: &[Write, DenyOom, Fast],
    keys: &[KeySpec::at(1).access(&[Rw, Insert])],
    args: &[Arg::key("key"), Arg::string("value")],
    ..Spec::EMPTY
};

fn append(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    let (key, more) = (args.next_key(keyspace)?, args.next_bytes()?);
    let Some(string) = keyspace.string_mut(context.at, key)? else {
        keyspace.put(context.at, key, Str::from_bytes(more).into(), None);
        return Ok(Reply::count(more.len()));
    };
    check_length(string.len(), more.len())?;
    string.edit(more.len(), |bytes| bytes.extend_from_slice(more));
    Ok(Reply::count(string.len()))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn the_new_length_is_returned_and_the_deadline_stays() {
        check("APPEND k ab => :2; EXPIRE k 9; APPEND k c => :3; GET k => $abc; TTL k => :9");
        check("SET n 10; APPEND n 5 => :3; INCR n => :106");
    }
}
