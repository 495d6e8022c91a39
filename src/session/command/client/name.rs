//! CLIENT SETNAME and GETNAME.

use super::BASE;
use crate::command::{Arg, Arity, RequestPolicy, ResponsePolicy, Spec, Tip};
use crate::resp::{ErrorReply, Reply};
use crate::session::command::limits::NAME_BYTES_MAX;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const GETNAME: Row = Row::new(&GETNAME_SPEC, getname);
pub(super) const SETNAME: Row = Row::new(&SPEC, setname);

const SPEC: Spec = Spec {
    name: "client|setname",
    since: "2.6.9",
    summary: "Names the connection; an empty name takes its name away.",
    arity: Arity::Exactly(3),
    tips: &[Tip::Request(RequestPolicy::AllNodes), Tip::Response(ResponsePolicy::AllSucceeded)],
    args: &[Arg::string("connection-name")],
    ..BASE
};

const GETNAME_SPEC: Spec = Spec {
    name: "client|getname",
    since: "2.6.9",
    summary: "Returns the name of the connection.",
    ..BASE
};

fn setname(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    set_name(state, argv[2])?;
    Ok(Reply::OK)
}

fn getname(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    let name = state.client.state().name;
    Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name) })
}

/// Names the connection.
pub(in crate::session::command) fn set_name(
    state: &mut ClientState,
    name: &[u8],
) -> Result<(), ErrorReply> {
    check_name(name)?;
    state.client.update(|state| state.name = name.to_vec());
    Ok(())
}

/// Refuses names that would break the lines of CLIENT LIST.
pub(in crate::session::command) fn check_name(name: &[u8]) -> Result<(), ErrorReply> {
    if !is_plain(name) {
        return Err(ErrorReply::CLIENT_NAME);
    }
    if name.len() > NAME_BYTES_MAX {
        let text = format!("Client names cannot be longer than {NAME_BYTES_MAX} bytes.");
        return Err(ErrorReply::new("ERR", text));
    }
    Ok(())
}

/// Whether `text` has neither blanks nor control characters nor bytes beyond ASCII.
pub(super) fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use crate::session::testing::check;

    #[tokio::test(flavor = "current_thread")]
    async fn names_are_plain_and_short() {
        let bad = "-ERR Client names cannot contain spaces, newlines or special characters.";
        let script = format!(
            "CLIENT GETNAME => $-1; CLIENT SETNAME \"a b\" => {bad}; CLIENT SETNAME \"a\\n\" => {bad}; \
             CLIENT SETNAME \"\\xc3\\xa4\" => {bad}; CLIENT SETNAME a-b! => +OK; CLIENT GETNAME => $\"a-b!\"; \
             CLIENT SETNAME {} => -ERR Client names cannot be longer than 1024 bytes.; \
             CLIENT GETNAME => $\"a-b!\"; CLIENT SETNAME \"\" => +OK; CLIENT GETNAME => $-1",
            "x".repeat(1025)
        );
        check(&[], &script).await;
    }
}
