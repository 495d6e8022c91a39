//! What COMMAND INFO and COMMAND DOCS say of a command, derived from its [`Spec`] alone.
//!
//! Source: Redis docs, COMMAND (the ten elements of a reply) and COMMAND DOCS.

use super::arg::{Arg, ArgKind};
use super::key_spec::{BeginSearch, FindKeys, KeyFlag, KeySpec};
use super::spec::{Flag, Spec};
use crate::resp::Reply;

impl Spec {
    /// Its element of COMMAND's reply: name, arity, flags, first key, last key, step, ACL categories, tips,
    /// key specs, subcommands.
    pub fn describe(&self) -> Reply<'static> {
        let range = self.legacy_range();
        let categories = self.acl_categories().map(|category| Reply::Simple(category.label()));
        Reply::Array(vec![
            text(self.name),
            Reply::Integer(self.arity.number()),
            Reply::Set(self.flag_names().into_iter().map(Reply::Simple).collect()),
            Reply::Integer(range.first),
            Reply::Integer(range.last),
            Reply::Integer(range.step),
            Reply::Set(categories.collect()),
            Reply::Set(self.tips.iter().map(|tip| text(tip.text())).collect()),
            Reply::Set(self.keys.iter().map(describe_key_spec).collect()),
            Reply::Array(self.subcommands.iter().map(|spec| spec.describe()).collect()),
        ])
    }

    /// The flags COMMAND shows, in Redis' order, the derived one included.
    pub fn flag_names(&self) -> Vec<&'static str> {
        let mut flags = self.flags.to_vec();
        if self.legacy_range().is_movable {
            flags.push(Flag::MovableKeys);
        }
        flags.sort_unstable();
        flags.dedup();
        flags.into_iter().filter_map(Flag::name).collect()
    }

    /// Its entry of COMMAND DOCS: summary, since, group, complexity, and where there are any deprecation,
    /// history, arguments and subcommands.
    pub fn docs(&self) -> Reply<'static> {
        let mut docs = vec![
            (text("summary"), text(self.summary)),
            (text("since"), text(self.since)),
            (text("group"), text(self.group.name())),
        ];
        if !self.complexity.is_empty() {
            docs.push((text("complexity"), text(self.complexity)));
        }
        if let Some(deprecated) = self.deprecated {
            docs.push((text("doc_flags"), Reply::Set(vec![Reply::Simple("deprecated")])));
            docs.push((text("deprecated_since"), text(deprecated.since)));
            docs.push((text("replaced_by"), text(deprecated.replaced_by)));
        }
        if !self.history.is_empty() {
            let changes = self.history.iter();
            let changes =
                changes.map(|&(since, change)| Reply::Array(vec![text(since), text(change)]));
            docs.push((text("history"), Reply::Set(changes.collect())));
        }
        if !self.args.is_empty() {
            docs.push((text("arguments"), describe_args(self.args)));
        }
        if !self.subcommands.is_empty() {
            let subcommands = self.subcommands.iter().map(|spec| (text(spec.name), spec.docs()));
            docs.push((text("subcommands"), Reply::Map(subcommands.collect())));
        }
        Reply::Map(docs)
    }

    /// What its HELP subcommand answers: a line per subcommand with its arguments, and one with its summary.
    pub fn help(&self) -> Reply<'static> {
        let name = self.name.to_uppercase();
        let mut lines =
            vec![Reply::text(format!("{name} <subcommand> [<arg> [value] ...]. Subcommands are:"))];
        for spec in self.subcommands {
            let mut line = spec.short_name().to_uppercase();
            for arg in spec.args {
                line.push(' ');
                line.push_str(&arg.usage());
            }
            lines.push(Reply::text(line));
            lines.push(Reply::text(format!("    {}", spec.summary)));
        }
        Reply::Array(lines)
    }
}

fn text(text: &'static str) -> Reply<'static> {
    Reply::bulk(text.as_bytes())
}

fn describe_key_spec(spec: &KeySpec) -> Reply<'static> {
    let mut described = Vec::with_capacity(4);
    if !spec.notes.is_empty() {
        described.push((text("notes"), text(spec.notes)));
    }
    let flags = spec.flags.iter().map(|flag| Reply::Simple(KeyFlag::name(*flag)));
    described.push((text("flags"), Reply::Set(flags.collect())));
    described.push((text("begin_search"), describe_begin_search(spec.begin)));
    described.push((text("find_keys"), describe_find_keys(spec.find)));
    Reply::Map(described)
}

fn describe_begin_search(begin: BeginSearch) -> Reply<'static> {
    match begin {
        BeginSearch::Index(index) => {
            typed("index", vec![(text("index"), Reply::Integer(index.into()))])
        }
        BeginSearch::Keyword { keyword, start_from } => typed(
            "keyword",
            vec![
                (text("keyword"), text(keyword)),
                (text("startfrom"), Reply::Integer(start_from.into())),
            ],
        ),
        BeginSearch::Unknown => typed("unknown", Vec::new()),
    }
}

fn describe_find_keys(find: FindKeys) -> Reply<'static> {
    let number = |name, number: i64| (text(name), Reply::Integer(number));
    match find {
        FindKeys::Range { last, step, limit } => typed(
            "range",
            vec![
                number("lastkey", last.into()),
                number("keystep", step.into()),
                number("limit", limit.into()),
            ],
        ),
        FindKeys::KeyNum { count_at, first, step } => typed(
            "keynum",
            vec![
                number("keynumidx", count_at.into()),
                number("firstkey", first.into()),
                number("keystep", step.into()),
            ],
        ),
        FindKeys::Unknown => typed("unknown", Vec::new()),
    }
}

fn typed(kind: &'static str, spec: Vec<(Reply<'static>, Reply<'static>)>) -> Reply<'static> {
    Reply::Map(vec![(text("type"), text(kind)), (text("spec"), Reply::Map(spec))])
}

fn describe_args(args: &[Arg]) -> Reply<'static> {
    Reply::Array(args.iter().map(describe_arg).collect())
}

fn describe_arg(arg: &Arg) -> Reply<'static> {
    let mut described = vec![(text("name"), text(arg.name)), (text("type"), text(arg.kind.name()))];
    if !matches!(arg.kind, ArgKind::OneOf(_) | ArgKind::Block(_)) {
        described.push((text("display_text"), text(arg.name)));
    }
    if let ArgKind::Key(index) = arg.kind {
        described.push((text("key_spec_index"), Reply::Integer(index.into())));
    }
    if !arg.token.is_empty() {
        described.push((text("token"), text(arg.token)));
    }
    if !arg.since.is_empty() {
        described.push((text("since"), text(arg.since)));
    }
    let flags: Vec<_> = [
        (arg.is_optional, "optional"),
        (arg.is_multiple, "multiple"),
        (arg.is_multiple_token, "multiple_token"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(Reply::Simple(name)))
    .collect();
    if !flags.is_empty() {
        described.push((text("flags"), Reply::Set(flags)));
    }
    if let ArgKind::OneOf(parts) | ArgKind::Block(parts) = arg.kind {
        described.push((text("arguments"), describe_args(parts)));
    }
    Reply::Map(described)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::spec::{Arity, Deprecated, Flag, Group, RequestPolicy, Tip};
    use crate::resp::testing::Value;

    const HELP: Spec = Spec {
        name: "demo|help",
        group: Group::Server,
        since: "1.0.0",
        summary: "Helps.",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale, Flag::Loading],
        ..Spec::EMPTY
    };

    const DEMO: Spec = Spec {
        name: "demo",
        group: Group::SortedSet,
        since: "1.2.0",
        summary: "Shows.",
        complexity: "O(1)",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast, Flag::Write, Flag::MayReplicate],
        keys: &[
            KeySpec::at(1).access(&[KeyFlag::Rw, KeyFlag::Update]).notes("why"),
            KeySpec::after_keyword("STORE", -2).counted(),
        ],
        tips: &[Tip::Request(RequestPolicy::MultiShard)],
        args: &[
            Arg::key("key"),
            Arg::one_of(
                "how",
                &[
                    Arg::pure_token("a", "A"),
                    Arg::double("b").token("B").since("2.0.0").multiple_token(),
                ],
            )
            .optional(),
        ],
        history: &[("1.3.0", "Shows more.")],
        deprecated: Some(Deprecated { since: "3.0.0", replaced_by: "`OTHER`" }),
        subcommands: &[&HELP],
        ..Spec::EMPTY
    };

    #[test]
    fn a_description_has_the_ten_elements_of_command_info() {
        let expected = "*10 $demo :-3 *3 +write +fast +movablekeys :1 :1 :1 *2 +@write +@fast \
             *1 $request_policy:multi_shard \
             *2 \
             *8 $notes $why $flags *2 +RW +update \
             $begin_search *4 $type $index $spec *2 $index :1 \
             $find_keys *4 $type $range $spec *6 $lastkey :0 $keystep :1 $limit :0 \
             *6 $flags *0 \
             $begin_search *4 $type $keyword $spec *4 $keyword $STORE $startfrom :-2 \
             $find_keys *4 $type $keynum $spec *6 $keynumidx :0 $firstkey :1 $keystep :1 \
             *1 *10 $demo|help :2 *2 +loading +stale :0 :0 :0 *1 +@slow *0 *0 *0";
        let compact = Value::of(&DEMO.describe()).compact();
        assert_eq!(compact.replace("$\"demo|help\"", "$demo|help"), expected);
    }

    #[test]
    fn help_lists_subcommands_with_their_arguments() {
        const SET: Spec = Spec {
            name: "demo|set",
            summary: "Sets.",
            args: &[
                Arg::string("name"),
                Arg::one_of("how", &[Arg::pure_token("on", "ON"), Arg::pure_token("off", "OFF")]),
                Arg::block("limit", &[Arg::integer("count").token("LIMIT")]).optional(),
                Arg::integer("id").token("ID").multiple(),
            ],
            ..Spec::EMPTY
        };
        const CONTAINER: Spec = Spec { name: "demo", subcommands: &[&SET, &HELP], ..Spec::EMPTY };
        let Reply::Array(lines) = CONTAINER.help() else { panic!("an array") };
        let expected = [
            "DEMO <subcommand> [<arg> [value] ...]. Subcommands are:",
            "SET name ON|OFF [LIMIT count] ID id [id ...]",
            "    Sets.",
            "HELP",
            "    Helps.",
        ];
        assert_eq!(lines, expected.map(Reply::text));
    }

    #[test]
    fn docs_say_all_that_is_declared() {
        let expected = "*20 $summary $Shows. $since $1.2.0 $group $sorted-set $complexity $O(1) \
             $doc_flags *1 +deprecated $deprecated_since $3.0.0 $replaced_by `OTHER` \
             $history *1 *2 $1.3.0 Shows_more. \
             $arguments *2 \
             *8 $name $key $type $key $display_text $key $key_spec_index :0 \
             *8 $name $how $type $oneof $flags *1 +optional $arguments *2 \
             *8 $name $a $type $pure-token $display_text $a $token $A \
             *12 $name $b $type $double $display_text $b $token $B $since $2.0.0 \
             $flags *2 +multiple +multiple_token \
             $subcommands *2 demo|help *6 $summary $Helps. $since $1.0.0 $group $server";
        let compact = Value::of(&DEMO.docs()).compact();
        let compact = compact
            .replace("$\"Shows more.\"", "Shows_more.")
            .replace("$\"`OTHER`\"", "`OTHER`")
            .replace("$\"demo|help\"", "demo|help");
        assert_eq!(compact, expected);
    }
}
