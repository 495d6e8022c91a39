//! PING: is anybody there.

use crate::command::{Arg, Arity, Flag, Group, RequestPolicy, ResponsePolicy, Spec, Tip};
use crate::resp::{ErrorReply, Reply};
use crate::session::state::Session;
use crate::session::table::Row;

pub(super) const PING: Row = Row::session(&SPEC, ping);

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

fn ping(_session: &mut Session, argv: &[&[u8]]) -> Result<Reply<'static>, ErrorReply> {
    match argv {
        [_] => Ok(Reply::Simple("PONG")),
        [_, message] => Ok(Reply::bulk(message.to_vec())),
        _ => Err(ErrorReply::wrong_arity(SPEC.name)),
    }
}
