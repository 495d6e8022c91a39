//! Holds the texts for people to the code: the command table of README.md and the files that texts name.
//!
//! `UPDATE_GOLDEN=1` rewrites the table. It stands in this room because only here all commands are in sight.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{self, Group, Spec};
use crate::{node, session};

/// Between these lines of README.md stands the table.
const BEGIN: &str = "<!-- commands:begin -->\n";
const END: &str = "<!-- commands:end -->\n";

/// The groups in the order of the table, with their headings.
const GROUPS: &[(Group, &str)] = &[
    (Group::String, "strings"),
    (Group::Bitmap, "bitmaps"),
    (Group::HyperLogLog, "HyperLogLog"),
    (Group::List, "lists"),
    (Group::Set, "sets"),
    (Group::Hash, "hashes"),
    (Group::SortedSet, "sorted sets"),
    (Group::Geo, "geo"),
    (Group::Stream, "streams"),
    (Group::Generic, "keys of any type"),
    (Group::Transactions, "transactions"),
    (Group::Scripting, "scripts"),
    (Group::PubSub, "publish and subscribe"),
    (Group::Connection, "connection"),
    (Group::Server, "server"),
    (Group::Cluster, "cluster"),
    (Group::Module, "kvorum's own"),
];

/// Every command of the house.
fn specs() -> Vec<&'static Spec> {
    let data = command::all().map(|command| command.spec);
    let node = node::COMMANDS.iter().map(|command| command.spec);
    let mut specs: Vec<_> = data.chain(node).chain(session::specs()).collect();
    specs.sort_unstable_by_key(|spec| spec.name);
    specs
}

/// A row for each group that has commands: their number and their names, subcommands after their container.
fn table(specs: &[&Spec]) -> String {
    let mut table = String::from("| group | commands |\n| --- | --- |\n");
    for (group, heading) in GROUPS {
        let names: Vec<String> =
            specs.iter().filter(|spec| spec.group == *group).map(|spec| cell(spec)).collect();
        if !names.is_empty() {
            let _infallible = writeln!(table, "| {heading} | {} |", names.join(", "));
        }
    }
    let _infallible = writeln!(table, "\n{} commands, subcommands not counted.", specs.len());
    table
}

/// `GET`, or `CONFIG` (`GET`, `SET`).
fn cell(spec: &Spec) -> String {
    let shown = |name: &str| format!("`{}`", name.to_uppercase());
    let mut names: Vec<&str> = spec.subcommands.iter().map(|spec| spec.short_name()).collect();
    names.sort_unstable();
    let subcommands: Vec<String> = names.into_iter().map(shown).collect();
    match &subcommands[..] {
        [] => shown(spec.short_name()),
        subcommands => format!("{} ({})", shown(spec.short_name()), subcommands.join(", ")),
    }
}

/// `text` with what stands between the marks replaced by `table`; `None` when the marks are not there.
fn with_table(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

/// Files of `src/` that `text` names: code spans such as `room/file.rs` and `src/room/file.rs`.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
        Path::new(span).extension().is_some_and(|extension| extension == "rs")
            && span.contains('/')
            && !span.starts_with("tests/")
            && span.chars().all(is_plain)
    })
}

#[test]
fn readme_holds_the_table_of_commands() {
    let readme = read("README.md");
    let expected = with_table(&readme, &table(&specs())).expect("README.md has both marks");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(repository().join("README.md"), &expected).unwrap();
    } else {
        assert!(readme == expected, "README.md is out of date; UPDATE_GOLDEN=1 rewrites its table");
    }
}

#[test]
fn every_command_is_in_the_table_once() {
    let specs = specs();
    for pair in specs.windows(2) {
        assert_ne!(pair[0].name, pair[1].name);
    }
    let shown: usize = GROUPS
        .iter()
        .map(|(group, _)| specs.iter().filter(|spec| spec.group == *group).count())
        .sum();
    assert_eq!(shown, specs.len(), "a group has no heading");
    assert!(shown > 60, "only {shown} commands found");
}

#[test]
fn texts_name_files_that_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = read(document);
        for name in named_files(&text) {
            let path = repository().join("src").join(name.trim_start_matches("src/"));
            assert!(path.is_file(), "{document} names {name}, which is not there");
        }
    }
}

#[test]
fn rows_show_subcommands_after_their_container() {
    const GET: Spec = Spec { name: "demo|get", ..Spec::EMPTY };
    const DEMO: Spec =
        Spec { name: "demo", group: Group::Server, subcommands: &[&GET], ..Spec::EMPTY };
    const ALONE: Spec = Spec { name: "alone", group: Group::String, ..Spec::EMPTY };
    let expected = "| group | commands |\n| --- | --- |\n| strings | `ALONE` |\n\
                    | server | `DEMO` (`GET`) |\n\n2 commands, subcommands not counted.\n";
    assert_eq!(table(&[&ALONE, &DEMO]), expected);
}

#[test]
fn only_what_stands_between_the_marks_is_replaced() {
    let text = format!("a\n{BEGIN}old\n{END}b\n");
    assert_eq!(with_table(&text, "new\n"), Some(format!("a\n{BEGIN}new\n{END}b\n")));
    for broken in ["", BEGIN, END, "a\n<!-- commands:end -->\n<!-- commands:begin -->\n"] {
        assert_eq!(with_table(broken, "new\n"), None, "{broken:?}");
    }
}

#[test]
fn names_of_files_are_found_in_code_spans() {
    let text =
        "see `ring/token.rs`, `src/a/b.rs` and `mod.rs`,\n`tests/it/x.rs`, `a/<b>.rs`, c/d.rs";
    assert_eq!(named_files(text).collect::<Vec<_>>(), ["ring/token.rs", "src/a/b.rs"]);
}
