//! SELECT: the database that later commands of the connection work on.

use crate::command::{Arg, Arity, Flag, Group, Spec, parse_i64};
use crate::ids::DbIndex;
use crate::resp::{ErrorReply, Reply};
use crate::session::state::{ClientState, Door};
use crate::session::table::{Outcome, Row};

pub(super) const SELECT: Row = Row::new(&SPEC, select);

const SPEC: Spec = Spec {
    name: "select",
    group: Group::Connection,
    since: "1.0.0",
    summary: "Changes the database of the connection.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    args: &[Arg::integer("index")],
    ..Spec::EMPTY
};

fn select(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    let index = parse_i64(argv[1])?;
    if i32::try_from(index).is_err() {
        let text = "value is out of range, value must between -2147483648 and 2147483647";
        return Err(ErrorReply::new("ERR", text));
    }
    // Redis Cluster has one database only, and clients that compute slots count on it.
    if state.door == Door::Cluster && index != 0 {
        return Err(ErrorReply::new("ERR", "SELECT is not allowed in cluster mode"));
    }
    let db = u8::try_from(index).ok().filter(|db| *db < DbIndex::COUNT);
    let db = db.ok_or(ErrorReply::DB_INDEX_OUT_OF_RANGE)?;
    state.db = DbIndex(db);
    state.client.update(|state| state.db = db);
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::testing::{Bench, check};

    #[tokio::test(flavor = "current_thread")]
    async fn databases_are_apart() {
        let script = "SET a 1 => +OK; SELECT 15 => +OK; GET a => $-1; SET a 2 => +OK; SELECT 0 => +OK; GET a => $1";
        check(&[], script).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_databases_are_refused() {
        let range = "-ERR DB index is out of range";
        let script = format!(
            "SELECT 16 => {range}; SELECT -1 => {range}; \
            SELECT x => -ERR value is not an integer or out of range; \
            SELECT 99999999999 => -ERR value is out of range, value must between -2147483648 and 2147483647"
        );
        check(&[], &script).await;
        let mut bench = Bench::start(&[], Door::Cluster).await;
        bench
            .check("SELECT 1 => -ERR SELECT is not allowed in cluster mode; SELECT 0 => +OK")
            .await;
    }
}
