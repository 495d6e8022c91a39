//! ASKING: accepted and without effect. Slots never migrate between shards here, so no client is ever sent ASK.

use crate::command::{Arity, Flag, Group, Spec};
use crate::resp::Reply;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const ASKING: Row = Row::new(&SPEC, asking);

const SPEC: Spec = Spec {
    name: "asking",
    group: Group::Cluster,
    since: "3.0.0",
    summary: "Is accepted and changes nothing: there is no slot migration to ask through.",
    complexity: "O(1)",
    arity: Arity::Exactly(1),
    flags: &[Flag::Fast],
    acl: super::CONNECTION,
    ..Spec::EMPTY
};

fn asking(_session: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "current_thread")]
    async fn asking_changes_nothing() {
        crate::session::testing::check(&[], "ASKING => +OK; SET a 1 => +OK; GET a => $1").await;
    }
}
