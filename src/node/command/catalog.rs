//! COMMAND: what commands there are, and what is known about them.
//!
//! Everything comes from the registry of specs; nothing here knows a command by name.

use super::{NodeCommand, NodeFn, Outcome};
use crate::command::{AclCategory, Arg, Arity, Flag, Group, Row, Spec, Tip, specs};
use crate::node::{Client, Node};
use crate::resp::{ErrorReply, Reply};
use crate::stdx::glob;

pub(super) const COMMAND: NodeCommand = NodeCommand::container(&SPEC, &SUBCOMMANDS).bare(all);

const SUBCOMMANDS: [Row<NodeFn>; 7] = [
    Row::new(&COUNT, count),
    Row::new(&DOCS, docs),
    Row::new(&GETKEYS, getkeys),
    Row::new(&GETKEYSANDFLAGS, getkeysandflags),
    Row::new(&HELP, help),
    Row::new(&INFO, info),
    Row::new(&LIST, list),
];

const FLAGS: &[Flag] = &[Flag::Loading, Flag::Stale];

const SPEC: Spec = Spec {
    name: "command",
    group: Group::Server,
    since: "2.8.13",
    summary: "Returns what is known about all commands.",
    complexity: "O(N) for N commands",
    arity: Arity::AtLeast(1),
    flags: FLAGS,
    tips: &[Tip::NondeterministicOutputOrder],
    acl: ACL,
    subcommands: &specs(&SUBCOMMANDS),
    ..Spec::EMPTY
};

const COUNT: Spec = Spec {
    name: "command|count",
    summary: "Returns how many commands there are.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    tips: &[],
    subcommands: &[],
    ..BASE
};

/// What the subcommands have in common.
const BASE: Spec =
    Spec { group: Group::Server, since: "2.8.13", flags: FLAGS, acl: ACL, ..Spec::EMPTY };

const ACL: crate::command::AclRule = crate::command::AclRule::Also(&[AclCategory::Connection]);

const DOCS: Spec = Spec {
    name: "command|docs",
    since: "7.0.0",
    summary: "Returns documents about the commands named, or about all.",
    complexity: "O(N) for N commands asked for",
    arity: Arity::AtLeast(2),
    tips: &[Tip::NondeterministicOutputOrder],
    args: &[Arg::string("command-name").optional().multiple()],
    ..BASE
};

const GETKEYS: Spec = Spec {
    name: "command|getkeys",
    summary: "Returns the keys of a whole command.",
    complexity: "O(N) for N arguments",
    arity: Arity::AtLeast(3),
    args: CALL,
    ..BASE
};

const GETKEYSANDFLAGS: Spec = Spec {
    name: "command|getkeysandflags",
    since: "7.0.0",
    summary: "Returns the keys of a whole command and what it does to each.",
    ..GETKEYS
};

const CALL: &[Arg] = &[Arg::string("command"), Arg::string("arg").optional().multiple()];

const HELP: Spec = Spec {
    name: "command|help",
    since: "5.0.0",
    summary: "Returns what the subcommands do.",
    complexity: "O(1)",
    arity: Arity::Exactly(2),
    ..BASE
};

const INFO: Spec = Spec {
    name: "command|info",
    summary: "Returns what is known about the commands named, or about all.",
    complexity: "O(N) for N commands asked for",
    arity: Arity::AtLeast(2),
    tips: &[Tip::NondeterministicOutputOrder],
    args: &[Arg::string("command-name").optional().multiple()],
    history: &[("7.0.0", "Returns all commands when none is named.")],
    ..BASE
};

const LIST: Spec = Spec {
    name: "command|list",
    since: "7.0.0",
    summary: "Returns the names of all commands, or of those that pass a filter.",
    complexity: "O(N) for N commands",
    arity: Arity::AtLeast(2),
    tips: &[Tip::NondeterministicOutputOrder],
    args: &[Arg::one_of(
        "filterby",
        &[
            Arg::string("module-name").token("MODULE"),
            Arg::string("category").token("ACLCAT"),
            Arg::pattern("pattern").token("PATTERN"),
        ],
    )
    .token("FILTERBY")
    .optional()],
    ..BASE
};

fn all(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::Array(node.registry().all().iter().map(|spec| spec.describe()).collect()))
}

fn count(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::count(node.registry().all().len()))
}

fn info(node: &Node, client: &Client, argv: &[&[u8]]) -> Outcome {
    if argv.len() == 2 {
        return all(node, client, argv);
    }
    let described = argv[2..]
        .iter()
        .map(|name| node.registry().find(name).map_or(Reply::NullArray, Spec::describe));
    Ok(Reply::Array(described.collect()))
}

fn docs(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let found: Vec<&'static Spec> = match &argv[2..] {
        [] => node.registry().all().to_vec(),
        names => names.iter().filter_map(|name| node.registry().find(name)).collect(),
    };
    let docs = found.into_iter().map(|spec| (Reply::bulk(spec.name.as_bytes()), spec.docs()));
    Ok(Reply::Map(docs.collect()))
}

fn help(_node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(SPEC.help())
}

/// Which commands LIST lets through.
enum Filter<'a> {
    /// Those of a module: there are none.
    Module,
    /// Those of an ACL category; `None` stands for one that does not exist.
    Category(Option<AclCategory>),
    /// Those whose names match.
    Pattern(&'a [u8]),
}

impl<'a> Filter<'a> {
    fn parse(kind: &[u8], value: &'a [u8]) -> Result<Self, ErrorReply> {
        if kind.eq_ignore_ascii_case(b"MODULE") {
            Ok(Self::Module)
        } else if kind.eq_ignore_ascii_case(b"ACLCAT") {
            Ok(Self::Category(AclCategory::from_name(value)))
        } else if kind.eq_ignore_ascii_case(b"PATTERN") {
            Ok(Self::Pattern(value))
        } else {
            Err(ErrorReply::SYNTAX)
        }
    }

    fn passes(&self, spec: &Spec) -> bool {
        match self {
            Self::Module => false,
            Self::Category(category) => {
                category.is_some_and(|category| spec.acl_categories().any(|c| c == category))
            }
            Self::Pattern(pattern) => glob::matches_nocase(pattern, spec.name.as_bytes()),
        }
    }
}

/// Subcommands are listed only when a filter lets them through, as in Redis.
fn list(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let commands = node.registry().all().iter().copied();
    let names: Vec<&'static str> = match argv[2..] {
        [] => commands.map(|spec| spec.name).collect(),
        [word, kind, value] if word.eq_ignore_ascii_case(b"FILTERBY") => {
            let filter = Filter::parse(kind, value)?;
            let with_subcommands =
                |spec: &'static Spec| std::iter::once(spec).chain(spec.subcommands.iter().copied());
            let every = commands.flat_map(with_subcommands);
            every.filter(|spec| filter.passes(spec)).map(|spec| spec.name).collect()
        }
        _ => return Err(ErrorReply::SYNTAX),
    };
    Ok(Reply::bulks(names.into_iter().map(str::as_bytes)))
}

fn getkeys(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let call = &argv[2..];
    let spec = callable(node, call)?;
    let positions = spec.key_positions(call).map_err(|_| invalid_arguments())?;
    check_keys_found(spec, positions.len())?;
    Ok(Reply::bulks(positions.iter().map(|&position| call[position].to_vec())))
}

fn getkeysandflags(node: &Node, _client: &Client, argv: &[&[u8]]) -> Outcome {
    let call = &argv[2..];
    let spec = callable(node, call)?;
    let mut keys = Vec::new();
    let mut found = |position: usize, flags: Vec<Reply<'static>>| {
        keys.push(Reply::Array(vec![Reply::bulk(call[position].to_vec()), Reply::Set(flags)]));
    };
    match spec.locate_keys {
        Some(locate) => locate(call, &mut |position| found(position, Vec::new())),
        None => spec
            .for_each_key(call, &mut |position, key| {
                let flags = key.flags.iter().map(|flag| Reply::Simple(flag.name()));
                found(position, flags.collect());
            })
            .map_err(|_| invalid_arguments())?,
    }
    check_keys_found(spec, keys.len())?;
    Ok(Reply::Array(keys))
}

/// The spec that `call` fits, when it has keys at all.
fn callable(node: &Node, call: &[&[u8]]) -> Result<&'static Spec, ErrorReply> {
    let error = |text: &'static str| Err(ErrorReply::new("ERR", text));
    let Some(spec) = node.registry().find_call(call) else {
        return error("Invalid command specified");
    };
    if spec.keys.is_empty() && spec.locate_keys.is_none() {
        return error("The command has no key arguments");
    }
    if !spec.arity.accepts(call.len()) {
        return error("Invalid number of arguments specified for command");
    }
    Ok(spec)
}

fn check_keys_found(spec: &Spec, count: usize) -> Result<(), ErrorReply> {
    if count == 0 && !spec.has(Flag::NoMandatoryKeys) {
        return Err(invalid_arguments());
    }
    Ok(())
}

fn invalid_arguments() -> ErrorReply {
    ErrorReply::new("ERR", "Invalid arguments specified for command")
}

#[cfg(test)]
mod tests {
    use crate::node::testing::TestNode;

    #[tokio::test(flavor = "current_thread")]
    async fn commands_are_described_in_every_form() {
        let test = TestNode::start(&[]).await;
        let count = test.started.node.registry().all().len();
        let get = "*10 $get :2 *2 +readonly +fast :1 :1 :1 *3 +@read +@string +@fast *0 *1 \
             *6 $flags *2 +RO +access $begin_search *4 $type $index $spec *2 $index :1 \
             $find_keys *4 $type $range $spec *6 $lastkey :0 $keystep :1 $limit :0 *0";
        assert_eq!(test.run("COMMAND INFO GET"), format!("*1 {get}"));
        assert_eq!(test.run("COMMAND INFO nosuch get"), format!("*2 *-1 {get}"));
        assert!(test.run("COMMAND INFO config|get").starts_with("*1 *10 $\"config|get\" :-3 "));
        assert_eq!(test.run("COMMAND COUNT"), format!(":{count}"));
        for line in ["COMMAND", "COMMAND INFO", "COMMAND LIST"] {
            assert!(test.run(line).starts_with(&format!("*{count} ")), "{line}");
        }
        assert!(test.run("COMMAND DOCS").starts_with(&format!("*{} ", count * 2)));
        assert!(test.run("COMMAND DOCS nosuch get").starts_with("*2 $get *"));
        assert!(test.run("COMMAND HELP").contains("GETKEYS"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn names_are_filtered() {
        let test = TestNode::start(&[]).await;
        let table = [
            ("COMMAND LIST FILTERBY PATTERN psete?", "*1 $psetex"),
            ("COMMAND LIST FILTERBY pattern CONFIG|G*", "*1 $\"config|get\""),
            ("COMMAND LIST FILTERBY ACLCAT nosuch", "*0"),
            ("COMMAND LIST FILTERBY MODULE x", "*0"),
            ("COMMAND LIST FILTERBY foo x", "-ERR syntax error"),
            ("COMMAND LIST foo", "-ERR syntax error"),
        ];
        for (line, expected) in table {
            assert_eq!(test.run(line), expected, "{line}");
        }
        let dangerous = test.run("COMMAND LIST FILTERBY ACLCAT dangerous");
        assert!(dangerous.contains("$flushall") && dangerous.contains("config|set"), "{dangerous}");
        assert!(!dangerous.contains("$get "), "{dangerous}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn keys_are_found_or_refused_in_redis_words() {
        let test = TestNode::start(&[]).await;
        let table = [
            ("COMMAND GETKEYS MSET a 1 b 2", "*2 $a $b"),
            ("COMMAND GETKEYSANDFLAGS GET a", "*1 *2 $a *2 +RO +access"),
            ("COMMAND GETKEYS foo a", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS config zork", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS time x", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYS get", "-ERR Invalid number of arguments specified for command"),
        ];
        for (line, expected) in table {
            assert_eq!(test.run(line), expected, "{line}");
        }
    }
}
