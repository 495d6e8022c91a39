//! CLIENT SETINFO: which library the client is made of.

use super::BASE;
use super::name::is_plain;
use crate::command::{Arg, Arity, RequestPolicy, ResponsePolicy, Spec, Tip};
use crate::resp::{ErrorReply, Reply};
use crate::session::command::limits::NAME_BYTES_MAX;
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};

pub(super) const SETINFO: Row = Row::new(&SPEC, setinfo);

const SPEC: Spec = Spec {
    name: "client|setinfo",
    since: "7.2.0",
    summary: "Tells the name or the version of the client's library.",
    arity: Arity::Exactly(4),
    tips: &[Tip::Request(RequestPolicy::AllNodes), Tip::Response(ResponsePolicy::AllSucceeded)],
    args: &[Arg::one_of(
        "attr",
        &[Arg::string("libname").token("LIB-NAME"), Arg::string("libver").token("LIB-VER")],
    )],
    ..BASE
};

/// Source of the texts: Redis 7.2 `clientSetinfoCommand`.
fn setinfo(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    let (attribute, value) = (argv[2], argv[3]);
    let name = String::from_utf8_lossy(&attribute[..attribute.len().min(128)]).into_owned();
    let refuse = |text: String| Err(ErrorReply::new("ERR", text));
    let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
        return refuse(format!("Unrecognized option '{name}'"));
    }
    if !is_plain(value) {
        return refuse(format!("{name} cannot contain spaces, newlines or special characters."));
    }
    if value.len() > NAME_BYTES_MAX {
        return refuse(format!("{name} cannot be longer than {NAME_BYTES_MAX} bytes."));
    }
    state.client.update(|state| {
        *(if is_name { &mut state.library } else { &mut state.library_version }) = value.to_vec();
    });
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::testing::Bench;

    #[tokio::test(flavor = "current_thread")]
    async fn the_library_is_remembered() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        bench.check(
            "CLIENT SETINFO LIB-NAME redis-py(x_v1) => +OK; CLIENT SETINFO lib-ver 5.0 => +OK; \
             CLIENT SETINFO lib-ver \"5 0\" => -ERR lib-ver cannot contain spaces, newlines or special characters.; \
             CLIENT SETINFO zork 1 => -ERR Unrecognized option 'zork'; \
             CLIENT SETINFO lib-name => -ERR wrong number of arguments for 'client|setinfo' command",
        )
        .await;
        let line = bench.run("CLIENT INFO").await;
        assert!(line.contains(" lib-name=redis-py(x_v1) lib-ver=5.0"), "{line}");
    }
}
