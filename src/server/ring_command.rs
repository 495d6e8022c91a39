//! `kvorum ring …`: where keys lie and what a change of nodes would move, computed without any node running.
//!
//! The topology is the one that a fresh cluster of the same configuration begins with.

use super::server::default_threads;
use crate::config::{Config, ConfigError, Start};
use crate::node::{self, NodeError};
use crate::ring::NodeSpecError;
use crate::ring::cli::{self, Change, PlanError};

/// What `kvorum --help` says of it.
pub const RING_USAGE: &str = "\
Placement, computed from the same directives without starting a node:
  kvorum ring locate KEY           the slot, shard, leader and replicas of a key
  kvorum ring show                 all nodes and shards
  kvorum ring plan --add ID[:weight[:zone]]
  kvorum ring plan --remove ID     what a change would move
  each with: [--conf FILE] [--cluster-nodes \"...\"] [--cluster-shards N] [--replication-factor N]
";

/// Why `kvorum ring` has no answer, in one line.
#[derive(Debug, thiserror::Error)]
pub enum RingCommandError {
    /// The words are not understood.
    #[error("ring: {0}; write ring locate KEY, ring show, or ring plan --add ID | --remove ID")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It describes no cluster.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The newcomer cannot be.
    #[error("--add: {0}")]
    Newcomer(#[from] NodeSpecError),
    /// The change cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What is asked.
enum Question {
    Locate(String),
    Show,
    Plan(Change),
}

/// Answers `kvorum ring` followed by `words`.
///
/// # Errors
/// [`RingCommandError`]: one line for people.
pub fn ring(words: impl Iterator<Item = String>) -> Result<String, RingCommandError> {
    let mut words = words.peekable();
    let usage = |text: &str| RingCommandError::Usage(text.to_owned());
    let what = words.next().ok_or_else(|| usage("nothing is asked"))?;
    let key = match &*what {
        "locate" => {
            let key = words.next().filter(|word| !word.starts_with("--"));
            Some(key.ok_or_else(|| usage("locate has no KEY"))?)
        }
        "show" | "plan" => None,
        _ => return Err(usage("the question is not known")),
    };
    let (change, words) = take_change(words)?;
    let question = match (&*what, key, change) {
        ("locate", Some(key), None) => Question::Locate(key),
        ("show", None, None) => Question::Show,
        ("plan", None, Some(change)) => Question::Plan(change),
        ("plan", None, None) => return Err(usage("plan has no --add and no --remove")),
        _ => return Err(usage("only plan has --add or --remove")),
    };
    let Start::Run(config) = Config::load(words.into_iter())? else {
        return Err(usage("--help and --version come before ring"));
    };
    let topology = node::planned_topology(&config.options(), default_threads())?;
    Ok(match question {
        Question::Locate(key) => cli::locate(&topology, key.as_bytes()),
        Question::Show => cli::show(&topology),
        Question::Plan(change) => cli::plan(&topology, &change)?,
    })
}

/// The change that `words` ask for, and the other words in the form of an ordinary start: file first.
fn take_change(
    mut words: impl Iterator<Item = String>,
) -> Result<(Option<Change>, Vec<String>), RingCommandError> {
    let (mut change, mut file, mut rest) = (None, None, Vec::new());
    while let Some(word) = words.next() {
        if !["--add", "--remove", "--conf"].contains(&&*word) {
            rest.push(word);
            continue;
        }
        let missing = || RingCommandError::Usage(format!("{word} has no value"));
        let value = words.next().ok_or_else(missing)?;
        let previous = match &*word {
            "--conf" => file.replace(value).is_some(),
            "--add" => change.replace(Change::parse_add(&value)?).is_some(),
            _ => change.replace(Change::Remove(value)).is_some(),
        };
        if previous {
            return Err(RingCommandError::Usage("one change and one file at a time".to_owned()));
        }
    }
    // Whose view it is does not matter here: any of the nodes does for `node-id`.
    if file.is_none()
        && !rest.iter().any(|word| word == "--node-id")
        && let Some(first) = first_node(&rest)
    {
        rest.extend(["--node-id".to_owned(), first]);
    }
    Ok((change, file.into_iter().chain(rest).collect()))
}

/// The name of the first node of `--cluster-nodes`.
fn first_node(words: &[String]) -> Option<String> {
    let flag = words.iter().position(|word| word == "--cluster-nodes")?;
    let (name, _) = words.get(flag + 1)?.split_once('=')?;
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "a=h1:1 b=h2:1 c=h3:1 d=h4:1";

    fn run(words: &[&str]) -> Result<String, String> {
        ring(words.iter().map(|word| (*word).to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn questions_are_answered_from_the_configuration() {
        let flags = ["--cluster-nodes", NODES, "--cluster-shards", "8"];
        let ask = |words: &[&str]| run(&[words, &flags].concat()).unwrap();
        let located = ask(&["locate", "foo"]);
        assert!(located.contains("12182") && located.contains("leader"), "{located}");
        assert!(ask(&["show"]).starts_with("epoch 1, 4 nodes, 8 shards, replication factor 3"));
        let plan = ask(&["plan", "--add", "e:2:west"]);
        assert!(plan.contains("add e (weight 2, zone west)"), "{plan}");
        assert!(ask(&["plan", "--remove", "b"]).contains("remove b"));
        // A node alone needs no flags.
        assert!(run(&["show"]).unwrap().starts_with("epoch 1, 1 nodes"));
    }

    #[test]
    fn a_file_and_flags_are_read_as_at_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kvorum.conf");
        std::fs::write(&path, format!("node-id b\ncluster-nodes \"{NODES}\"\ncluster-shards 4\n"))
            .unwrap();
        let shown = run(&["show", "--replication-factor", "2", "--conf", path.to_str().unwrap()]);
        assert!(shown.unwrap().starts_with("epoch 1, 4 nodes, 4 shards, replication factor 2"));
    }

    #[test]
    fn wrong_words_say_what_to_write() {
        let usage = "; write ring locate KEY, ring show, or ring plan --add ID | --remove ID";
        let table: [(&[&str], &str); 8] = [
            (&[], "ring: nothing is asked"),
            (&["zork"], "ring: the question is not known"),
            (&["locate"], "ring: locate has no KEY"),
            (&["locate", "--add", "x"], "ring: locate has no KEY"),
            (&["plan"], "ring: plan has no --add and no --remove"),
            (&["plan", "--add"], "ring: --add has no value"),
            (&["plan", "--add", "x", "--remove", "y"], "ring: one change and one file at a time"),
            (&["show", "--add", "x"], "ring: only plan has --add or --remove"),
        ];
        for (words, text) in table {
            assert_eq!(run(words), Err(format!("{text}{usage}")), "{words:?}");
        }
        assert_eq!(run(&["plan", "--remove", "zz"]).unwrap_err(), "no node is called \"zz\"");
        for words in [
            &["show", "--zork", "1"][..],
            &["plan", "--add", "x:y"],
            &["show", "--conf", "/nosuch"],
        ] {
            assert!(!run(words).unwrap_err().contains('\n'), "{words:?}");
        }
    }
}
