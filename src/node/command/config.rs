//! CONFIG: read and change the directives of this node.
//!
//! A change lasts until the node stops; it is not written to the file.

use super::{NodeCommand, NodeFn, Outcome};
use crate::command::{
    Arg, Arity, Flag, Group, RequestPolicy, ResponsePolicy, Row, Spec, Tip, specs,
};
use crate::node::{Client, Node};
use crate::resp::{ErrorReply, Reply};

pub(super) const CONFIG: NodeCommand = NodeCommand::container(&SPEC, &SUBCOMMANDS);

const SUBCOMMANDS: [Row<NodeFn>; 5] = [
    Row::new(&GET, get),
    Row::new(&HELP, help),
    Row::new(&RESETSTAT, resetstat),
    Row::new(&REWRITE, rewrite),
    Row::new(&SET, set),
];

const SPEC: Spec = Spec {
    name: "config",
    group: Group::Server,
    since: "2.0.0",
    summary: "A container of commands for the configuration of this node.",
    arity: Arity::AtLeast(2),
    subcommands: &specs(&SUBCOMMANDS),
    ..Spec::EMPTY
};

const OPERATORS: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];

const ALL_NODES: &[Tip] =
    &[Tip::Request(RequestPolicy::AllNodes), Tip::Response(ResponsePolicy::AllSucceeded)];

const GET: Spec = Spec {
    name: "config|get",
    group: Group::Server,
    since: "2.0.0",
    summary: "Returns the directives whose names match, with their values.",
    complexity: "O(N) for N directives asked for",
    arity: Arity::AtLeast(3),
    flags: OPERATORS,
    args: &[Arg::string("parameter").multiple()],
    history: &[("7.0.0", "Takes several parameters.")],
    ..Spec::EMPTY
};

const SET: Spec = Spec {
    name: "config|set",
    group: Group::Server,
    since: "2.0.0",
    summary: "Changes directives of the running node, all of those given or none.",
    complexity: "O(N) for N directives given",
    arity: Arity::AtLeast(4),
    flags: OPERATORS,
    tips: ALL_NODES,
    args: &[Arg::block("data", &[Arg::string("parameter"), Arg::string("value")]).multiple()],
    history: &[("7.0.0", "Sets several parameters at once.")],
    ..Spec::EMPTY
};

const RESETSTAT: Spec = Spec {
    name: "config|resetstat",
    group: Group::Server,
    since: "2.0.0",
    summary: "Counts the statistics of INFO from zero again.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: OPERATORS,
    tips: ALL_NODES,
    ..Spec::EMPTY
};

const REWRITE: Spec = Spec {
    name: "config|rewrite",
    group: Group::Server,
    since: "2.8.0",
    summary: "Is refused: the configuration file is edited by people.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: OPERATORS,
    tips: ALL_NODES,
    ..Spec::EMPTY
};

const HELP: Spec = Spec {
    name: "config|help",
    group: Group::Server,
    since: "5.0.0",
    summary: "Returns what the subcommands do.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    ..Spec::EMPTY
};

fn get(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let found = node.config().get(&argv[2..]);
    let pairs = found.into_iter().map(|(name, value)| (Reply::text(name), Reply::text(value)));
    Ok(Reply::Map(pairs.collect()))
}

fn set(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let (pairs, []) = argv[2..].as_chunks::<2>() else { return Err(ErrorReply::SYNTAX) };
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|&[name, value]| (name, value)).collect();
    match node.set_config(&pairs) {
        Ok(changed) => {
            if !changed.names.is_empty() {
                tracing::info!(directives = changed.names.join(" "), "configuration changed");
            }
            Ok(Reply::OK)
        }
        Err(error) => Err(ErrorReply::new("ERR", error.to_string())),
    }
}

fn resetstat(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    node.counters().reset();
    node.clients().reset_totals();
    Ok(Reply::OK)
}

fn rewrite(_node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    let why = "CONFIG REWRITE is not supported; edit the configuration file, it counts from the next start";
    Err(ErrorReply::new("ERR", why))
}

fn help(_node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(SPEC.help())
}

#[cfg(test)]
mod tests {
    use crate::node::testing::TestNode;

    #[tokio::test(flavor = "current_thread")]
    async fn a_change_is_seen_and_told() {
        let test = TestNode::start(&["--maxclients", "7"]).await;
        let mut changes = test.started.node.config_changes();
        assert_eq!(test.run("CONFIG GET maxclients PORT"), "*4 $PORT $0 $maxclients $7");
        assert!(!changes.has_changed().unwrap());
        assert_eq!(test.run("CONFIG SET maxclients 9 timeout 3"), "+OK");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(test.started.node.config().options().maxclients, 9);
        assert_eq!(test.run("CONFIG GET timeout"), "*2 $timeout $3");
        assert_eq!(test.run("CONFIG SET maxclients 9"), "+OK");
        assert!(!changes.has_changed().unwrap(), "the same value is no change");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn refusals_have_redis_words_and_change_nothing() {
        let test = TestNode::start(&[]).await;
        let table = [
            (
                "CONFIG SET timeout 5 nosuch 1",
                "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'",
            ),
            ("CONFIG SET timeout 5 maxclients", "ERR syntax error"),
            (
                "CONFIG SET timeout 5 maxclients x",
                "ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer",
            ),
            (
                "CONFIG SET port 1",
                "ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config",
            ),
            ("CONFIG SET", "ERR wrong number of arguments for 'config|set' command"),
            ("CONFIG", "ERR wrong number of arguments for 'config' command"),
            ("CONFIG ZORK", "ERR unknown subcommand 'ZORK'. Try CONFIG HELP."),
        ];
        for (line, error) in table {
            assert_eq!(test.run(line), format!("-{error}"), "{line}");
        }
        assert!(test.run("CONFIG REWRITE").starts_with("-ERR CONFIG REWRITE is not supported"));
        assert_eq!(test.run("CONFIG GET timeout nosuch"), "*2 $timeout $0");
        assert!(test.run("CONFIG HELP").contains("parameter value"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn statistics_start_again() {
        let test = TestNode::start(&[]).await;
        test.started.node.counters().count_commands(5);
        assert_eq!(test.run("CONFIG RESETSTAT"), "+OK");
        assert_eq!(test.started.node.counters().commands(), 0);
        assert_eq!(test.started.node.clients().total(), 0);
    }
}
