//! RESET: the connection as it was when it was new.

use crate::command::{Arity, Flag, Group, Spec};
use crate::resp::Reply;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const RESET: Row = Row::new(&SPEC, reset);

const SPEC: Spec = Spec {
    name: "reset",
    group: Group::Connection,
    since: "6.2.0",
    summary: "Makes the connection as it was when it was new: database, name, protocol, password.",
    complexity: "O(1)",
    arity: Arity::Exactly(1),
    flags: &[Flag::AllowBusy, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth],
    ..Spec::EMPTY
};

fn reset(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    state.reset();
    Ok(Reply::Simple("RESET"))
}

#[cfg(test)]
mod tests {
    use crate::session::testing::check;

    #[tokio::test(flavor = "current_thread")]
    async fn everything_set_on_the_connection_is_gone() {
        let script = "CLIENT SETNAME me => +OK; SELECT 3 => +OK; SET a 1 => +OK; RESET => +RESET; \
            CLIENT GETNAME => $-1; GET a => $-1";
        check(&[], script).await;
        check(
            &["--requirepass", "pw"],
            "AUTH pw => +OK; PING => +PONG; RESET => +RESET; \
            PING => -NOAUTH Authentication required.",
        )
        .await;
    }
}
