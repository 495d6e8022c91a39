//! AUTH: the password, for the one user there is, `default`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::command::{Arg, Arity, Flag, Group, Spec};
use crate::resp::{ErrorReply, Reply};
use crate::session::limits::{AUTH_FAILURE_DELAY, AUTH_FAILURE_LOG_INTERVAL};
use crate::session::state::{ClientState, Verdict};
use crate::session::table::{Outcome, Row};
use crate::stdx::log_limit::LogLimit;

pub(super) const AUTH: Row = Row::new(&SPEC, auth);

const SPEC: Spec = Spec {
    name: "auth",
    group: Group::Connection,
    since: "1.0.0",
    summary: "Authenticates the connection.",
    complexity: "O(1)",
    arity: Arity::AtLeast(2),
    flags: &[Flag::AllowBusy, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth],
    args: &[Arg::string("username").optional().since("6.0.0"), Arg::string("password")],
    history: &[("6.0.0", "Takes a user name.")],
    ..Spec::EMPTY
};

fn auth(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    match argv {
        [_, _] if !state.node.requires_password() => Err(ErrorReply::AUTH_WITHOUT_PASSWORD),
        [_, password] => authenticate(state, b"default", password),
        [_, user, password] => authenticate(state, user, password),
        _ => Err(ErrorReply::SYNTAX),
    }?;
    Ok(Reply::OK)
}

/// Lets the connection in as `user`. A wrong password leaves it as it was, is counted and logged, and the connection has to
/// wait; so have strangers at the same address, by whatever connection (`node/guesses.rs`), and nobody else: guesses keep no
/// client out that knows it and comes from elsewhere.
pub(super) fn authenticate(
    state: &mut ClientState,
    user: &[u8],
    password: &[u8],
) -> Result<(), ErrorReply> {
    let node = Arc::clone(&state.node);
    let peer = state.client.arrival.peer;
    let mut wait = Duration::ZERO;
    let is_stranger = state.must_authenticate();
    if is_stranger {
        let turn = node.clients().guesses().take_turn(peer.ip(), node.clock().monotonic());
        let Some(turn) = turn else {
            fail(state, Duration::ZERO);
            return Err(ErrorReply::TOO_MANY_GUESSES);
        };
        wait = turn;
    }
    let options = node.config().options();
    let secret = &options.requirepass;
    if user != b"default" || (secret.is_set() && !secret.matches(password)) {
        fail(state, wait);
        return Err(ErrorReply::WRONGPASS);
    }
    if is_stranger {
        node.clients().guesses().give_back(peer.ip());
    }
    state.become_known();
    if !wait.is_zero() {
        // Answered at once it would tell all that are not that they are wrong.
        state.verdict = Verdict::Pause(wait);
    }
    Ok(())
}

/// Has the connection wait for its turn and then for the answer to a password that does not let it in.
fn fail(state: &mut ClientState, wait: Duration) {
    state.node.counters().count_auth_failure();
    state.verdict = Verdict::Pause(wait + AUTH_FAILURE_DELAY);
    report_failure(state.client.arrival.peer);
}

/// Logs a wrong password: neither it nor the user, as people put the one in the other's place.
fn report_failure(peer: SocketAddr) {
    static REPORTS: LogLimit = LogLimit::every(AUTH_FAILURE_LOG_INTERVAL);
    if let Some(suppressed) = REPORTS.permit() {
        tracing::warn!(%peer, suppressed, "a client gave a wrong password");
    }
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::testing::{Bench, check};

    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_allowed_before_the_password() {
        let noauth = "-NOAUTH Authentication required.";
        let script = format!(
            "GET a => {noauth}; PING => {noauth}; CLIENT ID => {noauth}; INFO => {noauth}; \
             GET => -ERR wrong number of arguments for 'get' command; \
             ZORK => -ERR unknown command 'ZORK', with args beginning with: ; \
             AUTH bad => {WRONG}; AUTH pwx => {WRONG}; AUTH \"\" => {WRONG}; AUTH other pw => {WRONG}; \
             AUTH a b c => -ERR syntax error; GET a => {noauth}; \
             AUTH default pw => +OK; GET a => $-1; AUTH bad => {WRONG}; GET a => $-1; AUTH pw => +OK"
        );
        check(&["--requirepass", "pw"], &script).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_password_only_the_named_form_is_taken() {
        let script = format!(
            "AUTH x => -ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?; AUTH default x => +OK; AUTH foo x => {WRONG}"
        );
        check(&[], &script).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_new_password_asks_new_clients_only() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        bench.check("CONFIG SET requirepass pw => +OK; PING => +PONG; GET a => $-1").await;
        bench.reconnect();
        bench
            .check("PING => -NOAUTH Authentication required.; AUTH pw => +OK; PING => +PONG")
            .await;
        bench.reconnect();
        let node = std::sync::Arc::clone(&bench.state.node);
        node.set_config(&[(b"requirepass", b"")]).unwrap();
        bench.check("PING => +PONG; GET a => $-1").await;
    }
}
