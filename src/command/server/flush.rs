//! FLUSHDB and FLUSHALL: remove every key of the database, or of all.
//!
//! With SYNC and ASYNC the client says whether it waits for the memory to be freed. The keys are gone at the
//! same log entry on every replica either way.

use crate::command::prelude::*;

pub(super) const FLUSHDB: DataCommand = DataCommand::write(&SPEC, flushdb);
pub(super) const FLUSHALL: DataCommand = DataCommand::write(&ALL_SPEC, flushall);

const SPEC: Spec = Spec {
    name: "flushdb",
    group: Group::Server,
    since: "1.0.0",
    summary: "Removes every key of the database.",
    complexity: "O(N) for N keys in the database",
    arity: Arity::AtLeast(1),
    flags: &[Write],
    tips: &[Tip::Request(RequestPolicy::AllShards), Tip::Response(ResponsePolicy::AllSucceeded)],
    acl: AclRule::Also(&[AclCategory::Keyspace, AclCategory::Dangerous]),
    args: &[Arg::one_of(
        "flush-type",
        &[
            Arg::pure_token("async", "ASYNC").since("4.0.0"),
            Arg::pure_token("sync", "SYNC").since("6.2.0"),
        ],
    )
    .optional()],
    history: &[("4.0.0", "Takes `ASYNC`."), ("6.2.0", "Takes `SYNC`.")],
    ..Spec::EMPTY
};

const ALL_SPEC: Spec = Spec {
    name: "flushall",
    summary: "Removes every key of every database.",
    complexity: "O(N) for N keys in all databases",
    ..SPEC
};

fn flushdb(keyspace: &mut Keyspace, args: &mut Args, context: &Context) -> Outcome<'static> {
    parse_mode(args)?;
    let flushed = keyspace.flush_db(context.db());
    keyspace.bury(flushed);
    Ok(Reply::OK)
}

fn flushall(keyspace: &mut Keyspace, args: &mut Args, _context: &Context) -> Outcome<'static> {
    parse_mode(args)?;
    let flushed = keyspace.flush_all();
    keyspace.bury(flushed);
    Ok(Reply::OK)
}

/// SYNC or ASYNC or nothing, and nothing after it.
fn parse_mode(args: &mut Args) -> Result<(), ErrorReply> {
    if !args.token("SYNC") {
        args.token("ASYNC");
    }
    args.end()
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check;

    #[test]
    fn one_database_or_all_are_emptied() {
        check("SET a 1; @db 1; SET b 2; FLUSHDB => +OK; DBSIZE => :0; @db 0; DBSIZE => :1");
        check("SET a 1; @db 1; SET b 2; FLUSHALL ASYNC => +OK; DBSIZE => :0; @db 0; DBSIZE => :0");
    }

    #[test]
    fn at_most_one_mode_is_taken() {
        for options in ["FOO", "SYNC ASYNC", "ASYNC ASYNC", "SYNC FOO"] {
            check(&format!(
                "SET a 1; FLUSHALL {options} => -ERR syntax error; FLUSHDB {options} => -ERR syntax error; GET a => $1"
            ));
        }
        check("FLUSHDB sync => +OK; FLUSHDB async => +OK; FLUSHALL sync => +OK");
    }
}
