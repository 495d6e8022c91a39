//! ECHO: the message it was given.

use crate::command::{Arg, Arity, Flag, Group, Spec};
use crate::resp::Reply;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const ECHO: Row = Row::new(&SPEC, echo);

const SPEC: Spec = Spec {
    name: "echo",
    group: Group::Connection,
    since: "1.0.0",
    summary: "Returns the message it was given.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    args: &[Arg::string("message")],
    ..Spec::EMPTY
};

fn echo(_session: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    Ok(Reply::bulk(argv[1].to_vec()))
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "current_thread")]
    async fn the_message_comes_back() {
        let script = r#"ECHO "a\r\n\x00" => $"a\r\n\x00"; ECHO "" => $""; ECHO hi => $hi; ECHO => -ERR wrong number of arguments for 'echo' command"#;
        crate::session::testing::check(&[], script).await;
    }
}
