//! HELLO: protocol, password and name in one go; tells the client whom it speaks to.

use super::auth::authenticate;
use super::client::set_name;
use crate::command::{Arg, Arity, Flag, Group, Spec};
use crate::node::REDIS_VERSION;
use crate::resp::{ErrorReply, Protocol, Reply};
use crate::session::state::ClientState;
use crate::session::table::{Outcome, Row};
use crate::stdx::num;

pub(super) const HELLO: Row = Row::new(&SPEC, hello);

const SPEC: Spec = Spec {
    name: "hello",
    group: Group::Connection,
    since: "6.0.0",
    summary: "Greets the server, and may choose the protocol, authenticate and set a name.",
    complexity: "O(1)",
    arity: Arity::AtLeast(1),
    flags: &[Flag::AllowBusy, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth],
    args: &[Arg::block(
        "arguments",
        &[
            Arg::integer("protover"),
            Arg::block("auth", &[Arg::string("username"), Arg::string("password")])
                .token("AUTH")
                .optional(),
            Arg::string("clientname").token("SETNAME").optional(),
        ],
    )
    .optional()],
    history: &[("6.2.0", "Without a version it tells the one in use.")],
    ..Spec::EMPTY
};

/// What was asked for.
#[derive(Default)]
struct Options<'a> {
    protocol: Option<Protocol>,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

/// Nothing changes unless everything that was asked for can be had; a right password counts all the same.
fn hello(state: &mut ClientState, argv: &[&[u8]]) -> Outcome {
    let options = parse(argv)?;
    if let Some((user, password)) = options.credentials {
        authenticate(state, user, password)?;
    }
    if state.must_authenticate() {
        return Err(ErrorReply::HELLO_NOAUTH);
    }
    if let Some(name) = options.name {
        set_name(state, name)?;
    }
    if let Some(protocol) = options.protocol {
        state.protocol = protocol;
        state.client.update(|state| state.protocol = number(protocol));
    }
    Ok(greeting(state))
}

fn parse<'a>(argv: &[&'a [u8]]) -> Result<Options<'a>, ErrorReply> {
    let mut options = Options::default();
    let [_, version, rest @ ..] = argv else { return Ok(options) };
    options.protocol = Some(match num::parse_i64(version).ok_or(ErrorReply::HELLO_VERSION)? {
        2 => Protocol::Resp2,
        3 => Protocol::Resp3,
        _ => return Err(ErrorReply::NOPROTO),
    });
    let mut rest = rest;
    loop {
        rest = match rest {
            [] => return Ok(options),
            [word, user, password, rest @ ..] if word.eq_ignore_ascii_case(b"AUTH") => {
                options.credentials = Some((user, password));
                rest
            }
            [word, name, rest @ ..] if word.eq_ignore_ascii_case(b"SETNAME") => {
                super::client::check_name(name)?;
                options.name = Some(name);
                rest
            }
            [word, ..] => return Err(ErrorReply::hello_option(word)),
        };
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

fn greeting(state: &ClientState) -> Reply<'static> {
    let text = |text: &'static str| Reply::bulk(text.as_bytes());
    let id = i64::try_from(state.client.id).unwrap_or(i64::MAX);
    Reply::Map(vec![
        (text("server"), text("redis")),
        (text("version"), text(REDIS_VERSION)),
        (text("proto"), Reply::Integer(number(state.protocol).into())),
        (text("id"), Reply::Integer(id)),
        (text("mode"), text(state.door.mode())),
        (text("role"), text("master")),
        (text("modules"), Reply::Array(Vec::new())),
    ])
}

#[cfg(test)]
mod tests {
    use crate::node::Door;
    use crate::session::testing::{Bench, check};

    fn greeting(protocol: u8, mode: &str) -> String {
        format!(
            "$server $redis $version $7.2.6 $proto :{protocol} $id :ID $mode ${mode} $role $master $modules *0"
        )
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_protocol_changes_before_the_greeting() {
        for (door, mode) in [(Door::Plain, "standalone"), (Door::Cluster, "cluster")] {
            let mut bench = Bench::start(&[], door).await;
            let id = format!("$id :{}", bench.state.client.id);
            let mut run = async |line: &str| bench.run(line).await.replace(&id, "$id :ID");
            assert_eq!(run("HELLO").await, format!("*14 {}", greeting(2, mode)));
            assert_eq!(run("HELLO 3").await, format!("%7 {}", greeting(3, mode)));
            assert_eq!(run("HELLO").await, format!("%7 {}", greeting(3, mode)));
            assert_eq!(run("GET nosuch").await, "_");
            assert_eq!(run("HELLO 2 SETNAME me").await, format!("*14 {}", greeting(2, mode)));
            assert_eq!(run("CLIENT GETNAME").await, "$me");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn refusals_have_redis_words() {
        let script = "HELLO 4 => -NOPROTO unsupported protocol version; \
            HELLO 1 => -NOPROTO unsupported protocol version; \
            HELLO x => -ERR Protocol version is not an integer or out of range; \
            HELLO 3 foo => -ERR Syntax error in HELLO option 'foo'; \
            HELLO 3 auth default => -ERR Syntax error in HELLO option 'auth'; \
            HELLO 3 SETNAME => -ERR Syntax error in HELLO option 'SETNAME'; \
            HELLO 3 SETNAME \"a b\" => -ERR Client names cannot contain spaces, newlines or special characters.; \
            HELLO 3 AUTH foo bar => -WRONGPASS invalid username-password pair or user is disabled.; \
            GET nosuch => $-1";
        check(&[], script).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_password_may_come_along() {
        let mut bench = Bench::start(&["--requirepass", "pw"], Door::Plain).await;
        bench.check(
            "HELLO => -NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time; \
             HELLO 9 => -NOPROTO unsupported protocol version; \
             HELLO 3 AUTH default bad => -WRONGPASS invalid username-password pair or user is disabled.; \
             GET a => -NOAUTH Authentication required.").await;
        assert!(bench.run("HELLO 3 AUTH default pw").await.starts_with("%7 "));
        bench.check("GET a => _").await;
    }
}
