//! WAIT: how many replicas hold every write that was acknowledged on this connection.
//!
//! A write is acknowledged once a majority of its shard's replicas has it in its log, so beside the leader half of
//! them (rounded down) surely hold all of them, before anyone asks. Whether more do is not known here and waiting
//! would not tell, so the answer comes at once: 1 with three replicas, 2 with five, 0 with one.

use crate::command::{Arg, Arity, Group, RequestPolicy, ResponsePolicy, Spec, Tip, parse_i64};
use crate::resp::{ErrorReply, Reply};
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const WAIT: Row = Row::new(&SPEC, wait);

const SPEC: Spec = Spec {
    name: "wait",
    group: Group::Generic,
    since: "3.0.0",
    summary: "Returns how many replicas beside the leader surely hold the writes acknowledged so far.",
    complexity: "O(1)",
    arity: Arity::Exactly(3),
    tips: &[Tip::Request(RequestPolicy::AllShards), Tip::Response(ResponsePolicy::AggMin)],
    acl: super::CONNECTION,
    args: &[Arg::integer("numreplicas"), Arg::integer("timeout")],
    ..Spec::EMPTY
};

fn wait(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    parse_i64(argv[1])?;
    let timeout = parse_i64(argv[2]).map_err(|_| ErrorReply::TIMEOUT_NOT_INTEGER)?;
    if timeout < 0 {
        return Err(ErrorReply::TIMEOUT_NEGATIVE);
    }
    Ok(Reply::count(state.topology.replica_count() / 2))
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "current_thread")]
    async fn a_node_alone_has_no_replicas() {
        let script = "SET a 1 => +OK; WAIT 0 0 => :0; WAIT 1 0 => :0; WAIT -1 1 => :0; \
            WAIT x 0 => -ERR value is not an integer or out of range; \
            WAIT 0 x => -ERR timeout is not an integer or out of range; \
            WAIT 0 -1 => -ERR timeout is negative; \
            WAIT => -ERR wrong number of arguments for 'wait' command";
        crate::session::testing::check(&[], script).await;
    }
}
