//! READONLY and READWRITE: whether this node may answer reads from its own replica, however stale.
//!
//! Matters on the cluster door only. The plain door takes both words as well, since client libraries send them
//! without asking, and goes on answering every read from the leader: that is never worse than what was asked for.

use crate::command::{Arity, Flag, Group, Spec};
use crate::resp::Reply;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const READONLY: Row = Row::new(&SPEC, readonly);
pub(super) const READWRITE: Row = Row::new(&READWRITE_SPEC, readwrite);

const SPEC: Spec = Spec {
    name: "readonly",
    group: Group::Cluster,
    since: "3.0.0",
    summary: "Lets this node answer reads of the connection from its replica, which may lag behind.",
    complexity: "O(1)",
    arity: Arity::Exactly(1),
    flags: &[Flag::Fast, Flag::Loading, Flag::Stale],
    acl: super::CONNECTION,
    ..Spec::EMPTY
};

const READWRITE_SPEC: Spec = Spec {
    name: "readwrite",
    summary: "Takes READONLY back: reads see every write acknowledged before them.",
    ..SPEC
};

fn readonly(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    state.reads_stale = true;
    Ok(Reply::OK)
}

fn readwrite(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    state.reads_stale = false;
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::testing::{Bench, check};

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_word_counts() {
        let mut bench = Bench::start(&[], Door::Cluster).await;
        bench.check("READONLY => +OK").await;
        assert!(bench.state.reads_stale);
        bench.check("READWRITE => +OK").await;
        assert!(!bench.state.reads_stale);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_plain_door_accepts_both() {
        check(&[], "READONLY => +OK; SET a 1 => +OK; GET a => $1; READWRITE => +OK").await;
    }
}
