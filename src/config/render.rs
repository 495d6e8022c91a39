//! What is written out of the table: `conf/kvorum.conf` and the text of `--help`.

use std::fmt::Write;

use crate::stdx::size;

use super::directive::{DefaultValue, Directive, Mutability};
use super::file::quote;
use super::kind::Kind;
use super::table::DIRECTIVES;

const HEAD: &str = "\
# The configuration of a kvorum node: every directive with its default.
# This file is made from src/config/table.rs; a test holds the two equal.
#
# Start a node with it, and override what it says by flags:
#     kvorum conf/kvorum.conf --port 7001 --bind 127.0.0.1 ::1
#
# A line is a directive and its values. A line that begins with # is a comment. A value with blanks
# stands in quotes, and \"\" is the empty value. Names and words such as yes take upper case too.
#
# Amounts of memory take a unit in any case:
#     1k = 1000, 1kb = 1024, 1m = 1000000, 1mb = 1048576, 1g = 1000000000, 1gb = 1073741824 bytes
#
# CONFIG GET shows every directive. CONFIG SET changes those that say so, until the node stops.
";

/// The whole text of `conf/kvorum.conf`.
pub fn conf_file() -> String {
    let mut text = HEAD.to_owned();
    let mut section = None;
    for directive in DIRECTIVES {
        if section != Some(directive.section) {
            section = Some(directive.section);
            let title = directive.section.title();
            let _infallible = write!(text, "\n{} {title} {}\n", "#".repeat(8), "#".repeat(8));
        }
        text.push('\n');
        text.push_str(&entry(directive));
    }
    text
}

/// The text of `--help`.
pub fn usage() -> String {
    let mut text = String::from(
        "Usage: kvorum [FILE | -] [--directive value ...]\n       \
         kvorum --help | --version\n\n\
         FILE has the syntax of redis.conf, and - reads it from standard input. Flags override it:\n    \
         kvorum conf/kvorum.conf --port 7001 --bind 127.0.0.1 ::1\n\n\
         Directives, with what they take and [their default]:\n",
    );
    for directive in DIRECTIVES.iter().filter(|directive| !directive.is_fixed()) {
        let (name, takes, default) = (directive.name, directive.takes(), default_text(directive));
        let _infallible = write!(text, "  --{name}\n      {takes} [{default}]\n");
    }
    text
}

fn entry(directive: &Directive) -> String {
    let mut text = String::new();
    for line in directive.doc {
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
    let when = match directive.mutability {
        Mutability::Runtime if !directive.is_fixed() => " CONFIG SET changes it.",
        Mutability::Runtime | Mutability::Startup => "",
    };
    let _infallible = writeln!(text, "# It takes {}.{when}", directive.takes());
    // A derived port stays a comment: written out, it would not follow `--port`.
    let comment = match directive.default {
        DefaultValue::Text(_) => "",
        DefaultValue::AbovePort(_) => "# ",
    };
    let _infallible = writeln!(text, "{comment}{} {}", directive.name, default_text(directive));
    text
}

/// The default as one writes it.
fn default_text(directive: &Directive) -> String {
    match (directive.default, directive.kind) {
        (DefaultValue::Text(text), Kind::Bytes { .. }) => {
            text.parse().map_or_else(|_| text.to_owned(), size::format)
        }
        (DefaultValue::Text(text), _) => quote(text),
        (DefaultValue::AbovePort(above), _) => {
            let port = DIRECTIVES.iter().find(|directive| directive.name == "port");
            let port: Option<u32> = port.and_then(|port| default_text(port).parse().ok());
            port.map_or_else(String::new, |port| (port + u32::from(above)).to_string())
        }
    }
}
