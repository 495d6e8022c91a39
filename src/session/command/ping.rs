//! PING: is anybody there.

use crate::command::{Arg, Arity, Flag, Group, RequestPolicy, ResponsePolicy, Spec, Tip};
use crate::resp::{ErrorReply, Reply};
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const PING: Row = Row::new(&SPEC, ping);

const SPEC: Spec = Spec {
    name: "ping",
    group: Group::Connection,
    since: "1.0.0",
    summary: "Answers PONG, or the message it was given.",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: &[Flag::Fast],
    tips: &[Tip::Request(RequestPolicy::AllShards), Tip::Response(ResponsePolicy::AllSucceeded)],
    args: &[Arg::string("message").optional()],
    ..Spec::EMPTY
};

fn ping(_session: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    match argv {
        [_] => Ok(Reply::Simple("PONG")),
        [_, message] => Ok(Reply::bulk(message.to_vec())),
        _ => Err(ErrorReply::wrong_arity(SPEC.name)),
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "current_thread")]
    async fn a_message_comes_back() {
        let script = "PING => +PONG; ping hi => $hi; \
            PING a b => -ERR wrong number of arguments for 'ping' command";
        crate::session::testing::check(&[], script).await;
    }
}
