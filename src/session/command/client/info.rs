//! CLIENT ID, INFO and LIST: who this connection is, and who else is connected to this node.
//!
//! Fields of Redis whose values nobody keeps here (descriptor, buffers, memory) are left out; `cmd` is the last
//! command that was no data command.

use std::fmt::Write;

use super::{BASE, OPERATORS, is_normal};
use crate::command::{Arg, Arity, Spec, Tip};
use crate::node::Client;
use crate::resp::{ErrorReply, Reply};
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};
use crate::stdx::clock::MonotonicMicros;
use crate::stdx::num;

pub(super) const ID: Row = Row::new(&ID_SPEC, id);
pub(super) const INFO: Row = Row::new(&INFO_SPEC, info);
pub(super) const LIST: Row = Row::new(&LIST_SPEC, list);

const ID_SPEC: Spec = Spec {
    name: "client|id",
    since: "5.0.0",
    summary: "Returns the number of the connection on this node.",
    ..BASE
};

const INFO_SPEC: Spec = Spec {
    name: "client|info",
    since: "6.2.0",
    summary: "Returns what is known about the connection.",
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

const LIST_SPEC: Spec = Spec {
    name: "client|list",
    since: "2.4.0",
    summary: "Returns what is known about the clients of this node, a line each.",
    complexity: "O(N) for N clients",
    arity: Arity::AtLeast(2),
    flags: OPERATORS,
    tips: &[Tip::NondeterministicOutput],
    args: &[
        Arg::one_of(
            "client-type",
            &[
                Arg::pure_token("normal", "NORMAL"),
                Arg::pure_token("master", "MASTER"),
                Arg::pure_token("replica", "REPLICA"),
                Arg::pure_token("pubsub", "PUBSUB"),
            ],
        )
        .token("TYPE")
        .optional()
        .since("5.0.0"),
        Arg::integer("client-id").token("ID").optional().multiple().since("6.2.0"),
    ],
    history: &[("5.0.0", "Takes `TYPE`."), ("6.2.0", "Takes `ID`.")],
    ..BASE
};

fn id(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::Integer(i64::try_from(state.client.id).unwrap_or(i64::MAX)))
}

fn info(state: &mut ClientState, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::verbatim_text(line(&state.client, state.node.clock().monotonic())))
}

fn list(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    let mut clients = state.node.clients().all();
    match &argv[2..] {
        [] => {}
        [word, kind] if word.eq_ignore_ascii_case(b"TYPE") => {
            if !is_normal(kind)? {
                clients.clear();
            }
        }
        [word, ids @ ..] if word.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let wanted: Option<Vec<i64>> = ids.iter().map(|id| num::parse_i64(id)).collect();
            let wanted = wanted.ok_or_else(|| ErrorReply::new("ERR", "Invalid client ID"))?;
            clients.retain(|client| wanted.iter().any(|id| u64::try_from(*id) == Ok(client.id)));
        }
        _ => return Err(ErrorReply::SYNTAX),
    }
    let now = state.node.clock().monotonic();
    Ok(Reply::verbatim_text(clients.iter().map(|client| line(client, now)).collect::<String>()))
}

/// A client's line, its line feed included.
fn line(client: &Client, now: MonotonicMicros) -> String {
    let state = client.state();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut line = String::new();
    let _infallible = writeln!(
        line,
        "id={} addr={} laddr={} name={} age={} idle={} flags=N db={} sub=0 psub=0 ssub=0 multi=-1 cmd={} \
         user=default redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.arrival.peer,
        client.arrival.local,
        text(&state.name),
        now.since(client.arrival.since) / 1_000_000,
        now.since(client.last_seen()) / 1_000_000,
        state.db,
        if state.last_command.is_empty() { "NULL" } else { state.last_command },
        state.protocol,
        text(&state.library),
        text(&state.library_version),
    );
    line
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::node::testing::enter;
    use crate::session::testing::Bench;

    #[tokio::test(flavor = "current_thread")]
    async fn a_line_says_who_the_client_is() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        let id = bench.state.client.id;
        bench
            .check(&format!("CLIENT ID => :{id}; SELECT 2 => +OK; CLIENT SETNAME me => +OK"))
            .await;
        let line = bench.run("CLIENT INFO").await;
        let start = format!("$\"id={id} addr=127.0.0.1:40000 laddr=127.0.0.1:6379 name=me age=");
        assert!(line.starts_with(&start), "{line}");
        let end = " flags=N db=2 sub=0 psub=0 ssub=0 multi=-1 cmd=client|info user=default redir=-1 resp=2 lib-name= lib-ver=\\n\"";
        assert!(line.ends_with(end), "{line}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn clients_are_listed_and_chosen() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        let other = enter(&bench.state.node, Door::Cluster);
        let (mine, theirs) = (bench.state.client.id, other.client.id);
        let count =
            async |bench: &mut Bench, line: &str| bench.run(line).await.matches("id=").count();
        let all = bench.state.node.clients().count();
        // `id=` stands in no other field.
        assert_eq!(count(&mut bench, "CLIENT LIST").await, all);
        assert_eq!(count(&mut bench, "CLIENT LIST TYPE normal").await, all);
        assert_eq!(count(&mut bench, "CLIENT LIST TYPE pubsub").await, 0);
        assert_eq!(count(&mut bench, &format!("CLIENT LIST ID {theirs} {mine} 999")).await, 2);
        bench.check(
            "CLIENT LIST TYPE foo => -ERR Unknown client type 'foo'; CLIENT LIST foo => -ERR syntax error; \
             CLIENT LIST ID => -ERR syntax error; CLIENT LIST ID x => -ERR Invalid client ID; \
             CLIENT LIST TYPE => -ERR syntax error",
        )
        .await;
    }
}
