//! CLIENT KILL: other clients are disconnected at once, this one after the reply.

use std::sync::Arc;

use super::{BASE, OPERATORS, is_normal};
use crate::command::{Arg, Arity, Spec};
use crate::node::Client;
use crate::resp::{ErrorReply, Reply};
use crate::session::state::{ClientState, Verdict};
use crate::session::table::{Outcome, Row};
use crate::stdx::num;

pub(super) const KILL: Row = Row::new(&SPEC, kill);

const SPEC: Spec = Spec {
    name: "client|kill",
    since: "2.4.0",
    summary: "Disconnects the clients of this node that pass all filters.",
    complexity: "O(N) for N clients",
    arity: Arity::AtLeast(3),
    flags: OPERATORS,
    args: &[Arg::one_of(
        "filter",
        &[
            Arg::string("old-format"),
            Arg::one_of(
                "new-format",
                &[
                    Arg::integer("client-id").token("ID").optional(),
                    Arg::string("type").token("TYPE").optional(),
                    Arg::string("username").token("USER").optional(),
                    Arg::string("addr").token("ADDR").optional(),
                    Arg::string("laddr").token("LADDR").optional(),
                    Arg::string("skipme").token("SKIPME").optional(),
                ],
            )
            .multiple(),
        ],
    )],
    history: &[("2.8.12", "Takes filters."), ("6.2.0", "Takes `LADDR`.")],
    ..BASE
};

/// Whom to disconnect. Those that pass all filters given.
#[derive(Debug)]
struct Filters {
    id: Option<u64>,
    address: Option<String>,
    local: Option<String>,
    is_normal: bool,
    skips_me: bool,
}

fn kill(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    if let [_, _, address] = argv {
        let filters =
            Filters { address: Some(text(address)), skips_me: false, ..Filters::default() };
        return match disconnect(state, &filters) {
            0 => Err(ErrorReply::NO_SUCH_CLIENT),
            _ => Ok(Reply::OK),
        };
    }
    let filters = Filters::parse(&argv[2..])?;
    Ok(Reply::count(disconnect(state, &filters)))
}

impl Default for Filters {
    fn default() -> Self {
        Self { id: None, address: None, local: None, is_normal: true, skips_me: true }
    }
}

impl Filters {
    fn parse(words: &[&[u8]]) -> Result<Self, ErrorReply> {
        let (pairs, []) = words.as_chunks::<2>() else { return Err(ErrorReply::SYNTAX) };
        let mut filters = Self::default();
        for &[name, value] in pairs {
            match name.to_ascii_lowercase().as_slice() {
                b"id" => filters.id = Some(parse_id(value)?),
                b"addr" => filters.address = Some(text(value)),
                b"laddr" => filters.local = Some(text(value)),
                b"type" => filters.is_normal &= is_normal(value)?,
                b"user" if value == b"default" => {}
                b"user" => {
                    let name = String::from_utf8_lossy(&value[..value.len().min(128)]);
                    return Err(ErrorReply::new("ERR", format!("No such user '{name}'")));
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filters.skips_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filters.skips_me = false,
                _ => return Err(ErrorReply::SYNTAX),
            }
        }
        Ok(filters)
    }

    fn pass(&self, client: &Client) -> bool {
        let fits = |wanted: &Option<String>, address: std::net::SocketAddr| {
            wanted.as_ref().is_none_or(|wanted| *wanted == address.to_string())
        };
        self.is_normal
            && self.id.is_none_or(|id| id == client.id)
            && fits(&self.address, client.arrival.peer)
            && fits(&self.local, client.arrival.local)
    }
}

fn parse_id(text: &[u8]) -> Result<u64, ErrorReply> {
    let id = num::parse_i64(text).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
    id.ok_or_else(|| ErrorReply::new("ERR", "client-id should be greater than 0"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Disconnects and counts.
fn disconnect(state: &mut ClientState, filters: &Filters) -> usize {
    let me = state.client.id;
    let clients: Vec<Arc<Client>> = state.node.clients().all();
    let mut count = 0;
    for client in clients.iter().filter(|client| filters.pass(client)) {
        if client.id != me {
            client.close();
        } else if filters.skips_me {
            continue;
        } else {
            state.verdict = Verdict::Close;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::node::testing::enter;
    use crate::session::state::Verdict;
    use crate::session::testing::Bench;

    #[tokio::test(flavor = "current_thread")]
    async fn others_are_told_to_close() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        let other = enter(&bench.state.node, Door::Cluster);
        let task = tokio::spawn(std::future::pending::<()>());
        other.client.served_by(task.abort_handle());
        bench.check(&format!("CLIENT KILL ID {} => :1", other.client.id)).await;
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(bench.state.verdict, Verdict::Stay);
        bench
            .check("CLIENT KILL LADDR 127.0.0.1:7379 => :1; CLIENT KILL LADDR 127.0.0.1:1 => :0")
            .await;
        bench
            .check("CLIENT KILL TYPE pubsub => :0; CLIENT KILL ID 999 ADDR 127.0.0.1:40000 => :0")
            .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn this_client_leaves_after_the_reply_and_only_when_meant() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        let id = bench.state.client.id;
        bench.check(&format!("CLIENT KILL ID {id} => :0")).await;
        assert_eq!(bench.state.verdict, Verdict::Stay);
        bench.check(&format!("CLIENT KILL ID {id} SKIPME no => :1")).await;
        assert_eq!(bench.state.verdict, Verdict::Close);
        bench.state.verdict = Verdict::Stay;
        bench.check("CLIENT KILL 127.0.0.1:40000 => +OK").await;
        assert_eq!(bench.state.verdict, Verdict::Close);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn refusals_have_redis_words() {
        let mut bench = Bench::start(&[], Door::Plain).await;
        bench.check(
            "CLIENT KILL => -ERR wrong number of arguments for 'client|kill' command; \
             CLIENT KILL 1.1.1.1:1 => -ERR No such client; CLIENT KILL id => -ERR No such client; \
             CLIENT KILL ID x => -ERR client-id should be greater than 0; \
             CLIENT KILL ID 0 => -ERR client-id should be greater than 0; \
             CLIENT KILL foo bar => -ERR syntax error; CLIENT KILL ID 1 ADDR => -ERR syntax error; \
             CLIENT KILL TYPE foo => -ERR Unknown client type 'foo'; \
             CLIENT KILL USER nosuch => -ERR No such user 'nosuch'; CLIENT KILL SKIPME foo => -ERR syntax error",
        )
        .await;
    }
}
