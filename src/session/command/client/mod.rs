//! CLIENT: who is connected, under which name, and who has to leave.
//!
//! What needs client-side caching, output limits or paused clients does not exist; it answers as an unknown
//! subcommand does in Redis, and the connection stays.

mod eviction;
mod info;
mod kill;
mod name;
mod setinfo;

use crate::command::{Arity, Flag, Group, Spec, specs};
use crate::resp::ErrorReply;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) use name::{check_name, set_name};

pub(super) const CLIENT: Row = Row::container(&SPEC, &SUBCOMMANDS);

const SUBCOMMANDS: [Row; 10] = [
    name::GETNAME,
    Row::new(&HELP, help),
    info::ID,
    info::INFO,
    kill::KILL,
    info::LIST,
    eviction::NO_EVICT,
    eviction::NO_TOUCH,
    setinfo::SETINFO,
    name::SETNAME,
];

const SPEC: Spec = Spec {
    name: "client",
    group: Group::Connection,
    since: "2.4.0",
    summary: "A container of commands about connections.",
    arity: Arity::AtLeast(2),
    subcommands: &specs(&SUBCOMMANDS),
    ..Spec::EMPTY
};

/// What most subcommands have in common.
const BASE: Spec = Spec {
    group: Group::Connection,
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Flag::NoScript, Flag::Loading, Flag::Stale],
    ..Spec::EMPTY
};

/// The flags of those that concern other clients.
const OPERATORS: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];

const HELP: Spec = Spec {
    name: "client|help",
    since: "5.0.0",
    summary: "Returns what the subcommands do.",
    flags: &[Flag::Loading, Flag::Stale],
    ..BASE
};

fn help(_session: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    Ok(SPEC.help())
}

/// Refuses any type of client but those that Redis knows; true for the only one that connects to these doors.
fn is_normal(kind: &[u8]) -> Result<bool, ErrorReply> {
    if kind.eq_ignore_ascii_case(b"normal") {
        return Ok(true);
    }
    let others: [&[u8]; 4] = [b"master", b"replica", b"slave", b"pubsub"];
    if others.iter().any(|other| kind.eq_ignore_ascii_case(other)) {
        return Ok(false);
    }
    let kind = String::from_utf8_lossy(&kind[..kind.len().min(128)]);
    Err(ErrorReply::new("ERR", format!("Unknown client type '{kind}'")))
}

#[cfg(test)]
mod tests {
    use crate::session::testing::check;

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_exist_leaves_the_connection_open() {
        let script = "CLIENT MAINT_NOTIFICATIONS ON => -ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.; \
            CLIENT TRACKING on => -ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.; \
            CLIENT => -ERR wrong number of arguments for 'client' command; \
            CLIENT SETNAME => -ERR wrong number of arguments for 'client|setname' command; PING => +PONG";
        check(&[], script).await;
    }
}
