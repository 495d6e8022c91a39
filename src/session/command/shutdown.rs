//! SHUTDOWN: this node stops in order. Other nodes go on.
//!
//! The log holds every acknowledged write whatever is asked for, so SAVE and NOSAVE are the same here, and there
//! is nothing that NOW could skip or FORCE override.

use crate::command::{Arg, Arity, Flag, Group, Spec};
use crate::resp::{ErrorReply, Reply};
use crate::session::state::{ClientState, Verdict};
use crate::session::table::{Outcome, Row};

pub(super) const SHUTDOWN: Row = Row::new(&SPEC, shutdown);

const SPEC: Spec = Spec {
    name: "shutdown",
    group: Group::Server,
    since: "1.0.0",
    summary: "Stops this node; what was acknowledged is in its log.",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: &[
        Flag::Admin,
        Flag::NoMulti,
        Flag::AllowBusy,
        Flag::NoScript,
        Flag::Loading,
        Flag::Stale,
    ],
    args: &[
        Arg::one_of(
            "save-selector",
            &[Arg::pure_token("nosave", "NOSAVE"), Arg::pure_token("save", "SAVE")],
        )
        .optional(),
        Arg::pure_token("now", "NOW").optional().since("7.0.0"),
        Arg::pure_token("force", "FORCE").optional().since("7.0.0"),
        Arg::pure_token("abort", "ABORT").optional().since("7.0.0"),
    ],
    history: &[("7.0.0", "Takes `NOW`, `FORCE` and `ABORT`.")],
    ..Spec::EMPTY
};

/// No reply: as with Redis the client sees its connection close.
fn shutdown(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    check_words(&argv[1..])?;
    tracing::warn!(client = state.client.id, "told to stop by SHUTDOWN");
    state.is_silent = true;
    state.verdict = Verdict::Close;
    state.node.stop();
    Ok(Reply::OK)
}

/// SAVE or NOSAVE, NOW and FORCE in any order; ABORT alone, and then there is nothing to abort.
fn check_words(words: &[&[u8]]) -> Result<(), ErrorReply> {
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let has = |name: &str| words.iter().any(|word| is(word, name));
    let all_known = words
        .iter()
        .all(|word| ["SAVE", "NOSAVE", "NOW", "FORCE", "ABORT"].iter().any(|name| is(word, name)));
    let clash = (has("SAVE") && has("NOSAVE")) || (has("ABORT") && words.len() > 1);
    if !all_known || clash {
        return Err(ErrorReply::SYNTAX);
    }
    if has("ABORT") {
        return Err(ErrorReply::new("ERR", "No shutdown in progress."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::testing::Bench;

    #[tokio::test(flavor = "current_thread")]
    async fn the_node_is_told_to_stop_without_a_reply() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        bench.check(
            "SHUTDOWN foo => -ERR syntax error; SHUTDOWN SAVE NOSAVE => -ERR syntax error; \
             SHUTDOWN ABORT NOW => -ERR syntax error; SHUTDOWN ABORT => -ERR No shutdown in progress.",
        )
        .await;
        assert_eq!(bench.run("SHUTDOWN nosave NOW").await, "");
        bench.state.node.stopped().await;
    }
}
