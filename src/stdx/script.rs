//! Golden scripts: their form, their reader and their recorder.
//!
//! A script is lines of `> COMMAND args`, each followed by the lines of its reply; `#` begins a comment. Those of Redis'
//! commands, `tests/golden/command/<group>/<name>.txt`, are quoted as in redis-cli and start on empty databases, with replies in
//! the golden spelling; Redis is their oracle: `scripts/capture-redis` records what it answers. Those of the program's own
//! parts are played by `stdx/golden.rs`.
//!
//! `tests/it` takes this file in by its path, so it names nothing of the crate.

use std::fs;
use std::path::{Path, PathBuf};

/// A script.
#[derive(Debug)]
pub(crate) struct Script {
    path: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A comment or an empty line.
    Remark(String),
    /// A command, the number of its line, and the lines of the reply it must get.
    Step { line: usize, command: String, reply: String },
}

impl Script {
    /// All scripts of commands, by name.
    pub(crate) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/command");
        let files = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).expect("a readable folder");
            entries.map(|entry| entry.expect("a readable folder").path()).collect()
        };
        let mut paths: Vec<PathBuf> = files(&root).iter().flat_map(|group| files(group)).collect();
        paths.sort();
        assert!(!paths.is_empty(), "no script in {}", root.display());
        paths.into_iter().map(Self::read).collect()
    }

    /// Whether it stands in a file whose path ends so.
    pub(crate) fn is_named(&self, end: &str) -> bool {
        self.path.ends_with(end)
    }

    /// The script in the file `path`.
    pub(crate) fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a text file");
        let parts = parse(&text).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        let has_steps = parts.iter().any(|part| matches!(part, Part::Step { .. }));
        assert!(has_steps, "{} has no command", path.display());
        Self { path, parts }
    }

    /// Asks `answer` for the reply to each command; what differs, in words.
    pub(crate) fn replay(&self, mut answer: impl FnMut(&str) -> String) -> Vec<String> {
        let mut differences = Vec::new();
        for part in &self.parts {
            let Part::Step { line, command, reply } = part else { continue };
            let found = answer(command);
            if found != *reply {
                let path = self.path.display();
                differences.push(format!("{path}:{line}: {command}\n  is {found}  not {reply}"));
            }
        }
        differences
    }

    /// Makes the replies those of `answer`, in the file too; how many were others.
    pub(crate) fn record(mut self, mut answer: impl FnMut(&str) -> String) -> usize {
        let mut changed = 0;
        for part in &mut self.parts {
            let Part::Step { command, reply, .. } = part else { continue };
            let found = answer(command);
            changed += usize::from(found != *reply);
            *reply = found;
        }
        if changed > 0 {
            fs::write(&self.path, text(&self.parts)).expect("a file that can be written");
        }
        changed
    }
}

/// The parts of a script; a line that belongs to none is an error.
fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        if let Some(command) = content.strip_prefix("> ") {
            parts.push(Part::Step { line, command: command.to_owned(), reply: String::new() });
        } else if content.is_empty() || content.starts_with('#') {
            parts.push(Part::Remark(content.to_owned()));
        } else if let Some(Part::Step { reply, .. }) = parts.last_mut() {
            reply.push_str(content);
            reply.push('\n');
        } else {
            return Err(format!("line {line} belongs to no command: {content}"));
        }
    }
    Ok(parts)
}

/// The text whose parts these are.
fn text(parts: &[Part]) -> String {
    let of = |part: &Part| match part {
        Part::Remark(text) => format!("{text}\n"),
        Part::Step { command, reply, .. } => format!("> {command}\n{reply}"),
    };
    parts.iter().map(of).collect()
}

mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_and_written_as_they_stand() {
        let script = "# c\n> GET k\n*1\n  \"v\"\n\n> PING\n+PONG\n";
        let parts = parse(script).expect("a script");
        let (command, reply) = ("GET k".to_owned(), "*1\n  \"v\"\n".to_owned());
        assert_eq!(parts[1], Part::Step { line: 2, command, reply });
        assert_eq!(parts.len(), 4);
        assert_eq!(text(&parts), script);
        assert!(parse("+OK\n").is_err());
        assert!(parse("> PING\n\n+PONG\n").is_err());
    }

    #[test]
    fn a_difference_names_its_line_and_recording_mends_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.txt");
        fs::write(&path, "# c\n> GET k\n(nil)\n> PING\n+PONG\n").expect("a file");
        let answer = |command: &str| {
            if command == "PING" { "+PONG\n".to_owned() } else { "\"v\"\n".to_owned() }
        };
        let script = Script::read(path.clone());
        assert!(script.is_named("x.txt") && !script.is_named("y.txt"));
        let differences = script.replay(answer);
        assert_eq!(differences.len(), 1);
        assert!(
            differences[0].contains("x.txt:2: GET k\n  is \"v\"\n  not (nil)\n"),
            "{differences:?}"
        );
        assert_eq!(script.record(answer), 1);
        assert!(Script::read(path).replay(answer).is_empty());
    }
}
