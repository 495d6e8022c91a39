//! CLIENT NO-EVICT and NO-TOUCH: promises that hold anyway.
//!
//! No client is evicted here for the memory it takes, and no access data is kept that commands could touch.

use super::{BASE, OPERATORS};
use crate::command::{Arg, Arity, Spec};
use crate::resp::{ErrorReply, Reply};
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const NO_EVICT: Row = Row::new(&SPEC, on_or_off);
pub(super) const NO_TOUCH: Row = Row::new(&NO_TOUCH_SPEC, on_or_off);

const SPEC: Spec = Spec {
    name: "client|no-evict",
    since: "7.0.0",
    summary: "Is accepted: no client is ever disconnected to save memory.",
    arity: Arity::Exactly(3),
    flags: OPERATORS,
    args: &[Arg::one_of("enabled", &[Arg::pure_token("on", "ON"), Arg::pure_token("off", "OFF")])],
    ..BASE
};

const NO_TOUCH_SPEC: Spec = Spec {
    name: "client|no-touch",
    since: "7.2.0",
    summary: "Is accepted: commands never change when a key was used last.",
    flags: BASE.flags,
    ..SPEC
};

fn on_or_off(_session: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    if argv[2].eq_ignore_ascii_case(b"on") || argv[2].eq_ignore_ascii_case(b"off") {
        return Ok(Reply::OK);
    }
    Err(ErrorReply::SYNTAX)
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "current_thread")]
    async fn on_and_off_are_accepted() {
        let script = "CLIENT NO-EVICT on => +OK; CLIENT NO-EVICT OFF => +OK; CLIENT NO-TOUCH on => +OK; \
            CLIENT NO-EVICT foo => -ERR syntax error; CLIENT NO-TOUCH foo => -ERR syntax error";
        crate::session::testing::check(&[], script).await;
    }
}
