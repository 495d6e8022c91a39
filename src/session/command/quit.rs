//! QUIT: the connection closes after the reply.

use crate::command::{Arity, Deprecated, Flag, Group, Spec};
use crate::resp::Reply;
use crate::session::state::{ClientState, Verdict};
use crate::session::table::{Outcome, Row};

pub(super) const QUIT: Row = Row::new(&SPEC, quit);

const SPEC: Spec = Spec {
    name: "quit",
    group: Group::Connection,
    since: "1.0.0",
    summary: "Closes the connection once all replies are out.",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: &[Flag::AllowBusy, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth],
    deprecated: Some(Deprecated { since: "7.2.0", replaced_by: "just closing the connection" }),
    ..Spec::EMPTY
};

fn quit(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    state.verdict = Verdict::Close;
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::state::Verdict;
    use crate::session::testing::Bench;

    #[tokio::test(flavor = "current_thread")]
    async fn quitting_needs_no_password() {
        let mut bench = Bench::start(&["--requirepass", "pw"], Door::Plain).await;
        bench.check("PING => -NOAUTH Authentication required.; QUIT now => +OK").await;
        assert_eq!(bench.state.verdict, Verdict::Close);
    }
}
