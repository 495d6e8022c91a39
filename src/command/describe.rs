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
