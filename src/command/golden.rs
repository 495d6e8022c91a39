//! Replays the golden scripts of `tests/golden/command/**` in this process.
//!
//! The replies in them are Redis' own: `scripts/capture-redis` compares them with a running redis-server.

use std::fs;
use std::path::{Path, PathBuf};

use super::testing::Bench;
use super::{Group, all};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/command")
}

fn scripts() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root())
        .expect("the golden scripts are there")
        .flat_map(|group| fs::read_dir(group.expect("a readable folder").path()).expect("a folder"))
        .map(|file| file.expect("a readable file").path())
        .collect();
    files.sort();
    files
}

/// One script: each `> command` with the reply lines below it must get these lines.
fn replay(path: &Path) {
    let text = fs::read_to_string(path).expect("a text file");
    let mut bench = Bench::default();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let Some(command) = line.strip_prefix("> ") else {
            assert!(line.is_empty() || line.starts_with('#'), "{}:{}", path.display(), number + 1);
            continue;
        };
        let mut expected = String::new();
        let is_reply = |line: &str| !line.is_empty() && !line.starts_with(['#', '>']);
        while let Some((_, line)) = lines.next_if(|(_, line)| is_reply(line)) {
            expected.push_str(line);
            expected.push('\n');
        }
        let got = bench.run_line(command).golden();
        assert_eq!(got, expected, "{}:{}: {command}", path.display(), number + 1);
    }
}

#[test]
fn golden_scripts_replay() {
    let scripts = scripts();
    assert!(!scripts.is_empty());
    for path in &scripts {
        replay(path);
    }
}

#[test]
fn strings_and_keys_have_golden_scripts() {
    for spec in all().map(|command| command.spec) {
        if matches!(spec.group, Group::String | Group::Generic | Group::Server) {
            let path = root().join(spec.group.name()).join(format!("{}.txt", spec.name));
            assert!(path.is_file(), "{} is missing", path.display());
        }
    }
}
