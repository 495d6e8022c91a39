//! The command line: `kvorum [FILE | -] [--directive value ...]`, as redis-server has it.

use super::error::{ConfigError, shortened};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandLine {
    /// To start.
    Run {
        /// The configuration file; `-` is standard input.
        file: Option<String>,
        /// Name and values of each flag, in order.
        flags: Vec<Vec<String>>,
    },
    /// To explain itself.
    Help,
    /// To tell its version.
    Version,
}

/// Reads the words after the program's name.
///
/// As in Redis, help and version are asked for by the first word alone. A value that begins with two dashes cannot be
/// given on the command line; a file can.
pub(super) fn parse(args: impl Iterator<Item = String>) -> Result<CommandLine, ConfigError> {
    let mut args = args.peekable();
    match args.peek().map(String::as_str) {
        Some("--help" | "-h") => return Ok(CommandLine::Help),
        Some("--version" | "-v") => return Ok(CommandLine::Version),
        Some(_) | None => {}
    }
    let file = args.next_if(|word| word == "-" || !word.starts_with('-'));
    let mut flags: Vec<Vec<String>> = Vec::new();
    for word in args {
        match (word.strip_prefix("--"), flags.last_mut()) {
            (Some(name), _) => flags.push(vec![name.to_owned()]),
            (None, Some(flag)) => flag.push(word),
            (None, None) => return Err(ConfigError::NotFlag { word: shortened(&word) }),
        }
    }
    Ok(CommandLine::Run { file, flags })
}
