//! Golden scripts of what this program is made of, `tests/golden/<room>/<part>.txt`: one story a block, told to one machine.
//!
//! In the manner of etcd's raft and of toydb: the text says what is done, the program what comes of it, and a reader sees both.
//! `UPDATE_GOLDEN=1` records the answers anew; a difference is committed only by who can explain it.

use std::path::Path;

use super::script::Script;

/// Plays the script `name` of `tests/golden` to a machine, which answers each command with lines.
///
/// # Panics
/// When an answer is another than the script's.
pub(crate) fn check(name: &str, mut answer: impl FnMut(&[&str]) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let answer = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().collect();
        let mut lines = answer(&words);
        if !lines.is_empty() && !lines.ends_with('\n') {
            lines.push('\n');
        }
        lines
    };
    let script = Script::read(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        script.record(answer);
        return;
    }
    let differences = script.replay(answer);
    assert!(differences.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites it", differences.join("\n"));
}

/// The number that `word` spells.
pub(crate) fn number<N: std::str::FromStr>(word: &str) -> N {
    word.parse().unwrap_or_else(|_| panic!("no number: {word}"))
}
