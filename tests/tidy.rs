//! The house rules as tests: who may import whom, what pure rooms may not touch, what every file says first.
//!
//! Reads the sources as text and starts no server. Each rule is a function from text to complaints, tried on bad text
//! too, so that it is seen to fail. The rules and their reasons are in ARCHITECTURE.md and CONTRIBUTING.md.

#![expect(clippy::unwrap_used, reason = "the whole crate is tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In a list of places: everywhere in `src/`.
const ANY_ROOM: &[&str] = &["*"];

/// Rooms that compute and do nothing else: the same on every replica, for ever.
const PURE_ROOMS: &[&str] = &["slot", "resp", "ring", "keyspace", "command"];

/// Which places in `src/` may use an external crate: a room, or a folder of one.
const CRATES: &[(&str, &[&str])] = &[
    ("anyhow", &["main"]),
    (
        "bytes",
        &[
            "stdx",
            "resp",
            "keyspace",
            "wal",
            "transport",
            "raft",
            "shard",
            "meta",
            "node",
            "session",
            "server",
        ],
    ),
    ("crc32fast", &["wal", "transport"]),
    ("futures", &["raft", "meta", "node"]),
    ("hashbrown", &["keyspace"]),
    ("hmac", &["transport"]),
    ("http_body_util", &["server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("itoa", &["stdx", "resp", "keyspace"]),
    ("libmimalloc_sys", &["stdx"]),
    ("mimalloc", &["stdx"]),
    ("openraft", &["raft"]),
    ("openraft_rt_tokio", &["raft"]),
    ("parking_lot", &["stdx", "wal", "transport", "raft", "shard", "meta", "config", "node"]),
    ("postcard", &["ring", "raft", "meta"]),
    ("rand", &["raft"]),
    ("rustix", &["stdx", "server", "main"]),
    ("serde", &["ids", "ring", "raft", "meta", "server"]),
    ("serde_json", &["server"]),
    ("sha2", &["transport"]),
    ("smallvec", &["raft", "keyspace", "command", "shard", "router", "session"]),
    ("socket2", &["stdx"]),
    ("strsim", &["config"]),
    ("thiserror", ANY_ROOM),
    ("tokio", &["wal", "transport", "raft", "shard", "meta", "node", "session", "server"]),
    (
        "tracing",
        &["wal", "transport", "raft", "shard", "meta", "node", "session", "server", "main"],
    ),
    ("tracing_subscriber", &["main"]),
    ("xxhash_rust", &["ids", "keyspace", "ring", "raft", "shard"]),
];

/// What a pure room's code may not contain, and why.
const IMPURE: &[(&str, &str)] = &[
    ("std::time::Instant", "a clock"),
    ("std::time::SystemTime", "a clock"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    ("SystemClock", "a clock"),
    ("std::thread", "threads"),
    ("thread_local!", "state beside the arguments"),
    ("std::fs", "files"),
    ("std::io::Read", "input"),
    ("std::io::Write", "output"),
    ("std::net::Tcp", "sockets"),
    ("std::net::Udp", "sockets"),
    ("std::env", "the environment"),
    ("std::process", "processes"),
    ("RandomState", "entropy"),
    ("HashMap", "an order that differs from run to run"),
    ("HashSet", "an order that differs from run to run"),
    ("async fn", "waiting"),
    ("async move", "waiting"),
    (".await", "waiting"),
    ("static mut", "state beside the arguments"),
    ("Mutex<", "state shared with others"),
    ("RwLock<", "state shared with others"),
    ("OnceLock<", "state beside the arguments"),
    ("LazyLock<", "state beside the arguments"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file by its path from the package's root.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

/// Every file that git tracks or would, as text; all but `target/`, `data/` and `.git` where there is no git.
fn files() -> Vec<Source> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let mut paths: Vec<String> = match git {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        _ => walk(root()).iter().map(|path| relative(path)).collect(),
    };
    paths.sort();
    paths.dedup();
    let text = |path: String| {
        let text =
            fs::read(root().join(&path)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(|text| Source { path, text })
    };
    let files: Vec<Source> = paths.into_iter().filter_map(text).collect();
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_left_out = ["target", "data", ".git"].iter().any(|name| path.ends_with(name));
        if path.is_dir() && !is_left_out {
            found.extend(walk(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// The files of the program itself.
fn sources() -> Vec<Source> {
    let is_source = |file: &Source| file.path.starts_with("src/") && is_rust(&file.path);
    files().into_iter().filter(is_source).collect()
}

/// The room of a file: `src/ring/token.rs` → `ring`, `src/slot.rs` → `slot`.
fn room(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let end = path.find(['/', '.']).unwrap_or(path.len());
    &path[..end]
}

/// The code of a file: without comments, and without what is compiled for tests only.
///
/// By the house's style, an inline `mod tests` ends its file.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.fold(String::new(), |mut code, line| {
        let _infallible = writeln!(code, "{}", line.split(" // ").next().unwrap_or_default());
        code
    })
}

/// True for a file that a `mod` line under `#[cfg(test)]` declares.
fn is_test_only(path: &str, all: &[Source]) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let (parent, module) = match name {
        "mod.rs" => match folder.rsplit_once('/') {
            Some((above, module)) => (above, module),
            None => return false,
        },
        _ => (folder, name.trim_end_matches(".rs")),
    };
    let declares = |text: &str| {
        ["mod", "pub mod", "pub(crate) mod", "pub(super) mod"]
            .iter()
            .any(|word| text.contains(&format!("#[cfg(test)]\n{word} {module};")))
    };
    let front_page = |folder: &str| {
        let pages = [format!("{folder}/mod.rs"), format!("{folder}/lib.rs")];
        all.iter().find(|file| pages.contains(&file.path))
    };
    let is_declared = front_page(parent).is_some_and(|page| declares(&page.text));
    is_declared
        || (parent.matches('/').count() > 0 && is_test_only(&format!("{parent}/mod.rs"), all))
}

/// The first names of every path that begins with `crate::`, also in a group: `crate::{ids::X, slot}`.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                found.insert(first_name(rest));
            }
            Some(group) => found.extend(names_of_group(group)),
        }
    }
    found.remove("");
    found
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of each element of `ids::X, slot::{A, B}} …`.
fn names_of_group(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                return names;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// What a room may import.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Imports {
    Named(BTreeSet<String>),
    Anything,
}

/// A room and its permissions.
type Row = (String, Imports);

/// The line above the table of ARCHITECTURE.md that gives permissions.
const TABLE_HEAD: &str = "| room | may import |\n| --- | --- |\n";

/// The rows of that table in the order of the floors; the front page of the library declares the rooms and imports none.
fn table(text: &str) -> Vec<Row> {
    let (_, body) = text.split_once(TABLE_HEAD).expect("ARCHITECTURE.md has the table of imports");
    let mut rows = Vec::new();
    for line in body.lines().take_while(|line| line.starts_with('|')) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (rooms, imports) = (cells.next().unwrap(), cells.next().expect("two cells"));
        let words = imports.split('(').next().unwrap_or_default().split_whitespace();
        let imports = match imports {
            "anything" => Imports::Anything,
            _ => Imports::Named(words.filter(|word| *word != "std").map(str::to_owned).collect()),
        };
        for room in rooms.split('`').filter(|room| !room.trim_matches([',', ' ']).is_empty()) {
            rows.push((room.to_owned(), imports.clone()));
        }
    }
    rows.push(("lib".to_owned(), Imports::Named(BTreeSet::new())));
    rows
}

/// The table as it stands.
fn rooms() -> Vec<Row> {
    table(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap())
}

/// Imports of `room` that its row does not name.
fn forbidden_imports(rows: &[Row], room: &str, code: &str) -> Vec<String> {
    let Some((_, allowed)) = rows.iter().find(|(name, _)| name == room) else {
        return vec![format!("the room {room} has no row in ARCHITECTURE.md §5")];
    };
    let is_room = |name: &String| rows.iter().any(|(room, _)| room == name);
    let is_allowed = |used: &String| match allowed {
        Imports::Anything => true,
        Imports::Named(names) => names.contains(used),
    };
    rooms_used(code)
        .into_iter()
        .filter(|used| used != room && is_room(used) && !is_allowed(used))
        .map(|used| format!("{room} may not import {used}"))
        .collect()
}

/// Permissions of rows that do not go down, and those that no code of the room makes use of; `used` says what it imports.
fn idle_or_upward(rows: &[Row], used: impl Fn(&str) -> BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, (room, imports)) in rows.iter().enumerate() {
        let Imports::Named(names) = imports else { continue };
        let used = used(room);
        for name in names {
            if !rows[..index].iter().any(|(above, _)| above == name) {
                complaints.push(format!("{room} → {name} does not go down"));
            } else if !used.contains(name) {
                complaints.push(format!("{room} → {name}: nobody uses this permission"));
            }
        }
    }
    complaints
}

/// A chain of `super` that leaves the room: `depth` is how many folders and files deep the module lies in `src/`.
fn escapes_by_super(path: &str, code: &str) -> bool {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let parts = inner.split('/').filter(|part| *part != "mod.rs").count();
    code.contains(&"super::".repeat(parts))
}

/// Names of external crates used in `code`, of those that have a row.
fn crates_used(code: &str) -> Vec<&'static str> {
    let is_used = |name: &str| {
        let path = format!("{name}::");
        code.match_indices(&path).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        })
    };
    CRATES.iter().map(|(name, _)| *name).filter(|name| is_used(name)).collect()
}

fn forbidden_crates(path: &str, code: &str) -> Vec<String> {
    let room = room(path);
    let is_allowed = |name: &str| {
        let (_, places) = CRATES.iter().find(|(krate, _)| *krate == name).unwrap();
        *places == ANY_ROOM || places.contains(&room)
    };
    crates_used(code)
        .into_iter()
        .filter(|name| !is_allowed(name))
        .map(|name| format!("{path} may not use the crate {name}"))
        .collect()
}

/// Permissions of [`CRATES`] that no pair of crate and room in `used` needs.
fn unused_permissions(used: &BTreeSet<(&'static str, &str)>) -> impl Iterator<Item = String> {
    CRATES.iter().filter(|(_, places)| *places != ANY_ROOM).flat_map(|(name, places)| {
        let is_unused = |place: &&&str| !used.contains(&(*name, **place));
        places.iter().filter(is_unused).map(move |place| format!("{place} does not use {name}"))
    })
}

fn impurities(path: &str, code: &str) -> Vec<String> {
    IMPURE
        .iter()
        .filter(|(word, _)| code.contains(word))
        .map(|(word, what)| format!("{path} is in a pure room, and {word} is {what}"))
        .collect()
}

/// Rooms that touch the data directory, which is reached through `stdx::disk` alone.
const ROOMS_ON_THE_SEAM: &[&str] = &["wal", "raft", "shard", "meta", "node"];

/// Their files that read or write something else: a tool beside a stopped node, and what the system tells in `/proc`.
const BESIDE_THE_SEAM: &[&str] = &["src/wal/cut.rs", "src/wal/opening.rs", "src/node/process.rs"];

fn passes_the_seam_by(path: &str, code: &str) -> Option<String> {
    let is_held = ROOMS_ON_THE_SEAM.contains(&room(path)) && !BESIDE_THE_SEAM.contains(&path);
    (is_held && code.contains("std::fs")).then(|| format!("{path} passes the seam stdx::disk by"))
}

/// Below the doors of clients every socket leads to a peer, and comes from one file.
fn passes_the_net_by(path: &str, code: &str) -> Option<String> {
    let is_below = room(path) == "transport" || ROOMS_ON_THE_SEAM.contains(&room(path));
    let is_held = is_below && path != "src/transport/net.rs";
    let is_bad = is_held && (code.contains("tokio::net") || code.contains("std::net::Tcp"));
    is_bad.then(|| format!("{path} passes the seam transport::net by"))
}

/// Where work may be handed to tokio's blocking threads: behind the seam `stdx::workers`, and above all that is simulated.
const BESIDE_THE_WORKERS: &[&str] = &["src/raft/workers.rs", "src/server/", "src/main.rs"];

fn passes_the_workers_by(path: &str, code: &str) -> Vec<String> {
    if BESIDE_THE_WORKERS.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let words = ["spawn_blocking", "block_in_place"].into_iter().filter(|word| code.contains(word));
    words.map(|word| format!("{path} passes the seam stdx::workers by: {word}")).collect()
}

/// Places where chance decides which branch of a `select!` goes first: no seed of a node repeats that.
fn selects_by_chance(path: &str, code: &str) -> Vec<String> {
    let of_chance = |from: usize| !code[from..].trim_start().starts_with("biased;");
    let selects = code.match_indices("select! {").filter(|(at, word)| of_chance(at + word.len()));
    let line = |at: usize| code[at..].lines().nth(1).unwrap_or_default().trim().to_owned();
    selects.map(|(at, _)| format!("{path}: a select! that is not biased: {}", line(at))).collect()
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn stairs_go_down() {
    let rows = rooms();
    let all = sources();
    let mut complaints = Vec::new();
    for file in all.iter().filter(|file| !is_test_only(&file.path, &all)) {
        let code = code(&file.text);
        let of = |complaint: String| format!("{}: {complaint}", file.path);
        complaints.extend(forbidden_imports(&rows, room(&file.path), &code).into_iter().map(of));
        if escapes_by_super(&file.path, &code) {
            complaints.push(format!("{}: a chain of super:: leaves the room", file.path));
        }
    }
    assert_none(&complaints);
}

#[test]
fn rooms_import_rooms_below_and_all_that_they_may() {
    let (all, rows) = (sources(), rooms());
    assert!(rows.len() > 10, "{rows:?}");
    let of_room = |wanted: &str| {
        let files = all.iter().filter(|file| room(&file.path) == wanted);
        let files = files.filter(|file| !is_test_only(&file.path, &all));
        files.flat_map(|file| rooms_used(&code(&file.text))).collect()
    };
    assert_none(&idle_or_upward(&rows, of_room));
    for (name, _) in &rows {
        assert!(all.iter().any(|file| room(&file.path) == name), "the room {name} is not there");
    }
    let takes = |imports: &Imports, other: &str| match imports {
        Imports::Anything => false,
        Imports::Named(names) => names.contains(other),
    };
    let both: Vec<&str> = rows
        .iter()
        .filter(|(_, imports)| takes(imports, "command") && takes(imports, "raft"))
        .map(|(room, _)| &room[..])
        .collect();
    assert_eq!(both, ["shard", "node"], "the wings meet once; node only wires them together");
}

/// Asserts that `rule`, given the path and the code of each source that is not for tests alone, has nothing to complain of.
fn keep_to<C: IntoIterator<Item = String>>(rule: impl Fn(&str, &str) -> C) {
    let all = sources();
    let held = all.iter().filter(|file| !is_test_only(&file.path, &all));
    let complaints: Vec<String> =
        held.flat_map(|file| rule(&file.path, &code(&file.text))).collect();
    assert_none(&complaints);
}

#[test]
fn crates_stay_in_their_rooms() {
    keep_to(forbidden_crates);
}

#[test]
fn every_dependency_has_a_row() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, after) = manifest.split_once("\n[dependencies]\n").unwrap();
    let section = after.split("\n[").next().unwrap();
    let mut names = BTreeSet::new();
    let mut has_reason = false;
    for line in section.lines() {
        if line.starts_with('#') {
            has_reason = true;
        } else if let Some((name, _)) = line.split_once(" = ") {
            let is_companion = name.starts_with("hyper") || name.starts_with("openraft");
            assert!(has_reason || is_companion, "{name} does not say why it is here");
            names.insert(name.replace('-', "_"));
            has_reason = false;
        }
    }
    let rows: BTreeSet<String> = CRATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, rows, "Cargo.toml left, tests/tidy.rs right");
}

#[test]
fn no_room_may_use_a_crate_that_it_does_not() {
    let all = sources();
    let used: BTreeSet<(&str, &str)> = all
        .iter()
        .flat_map(|file| {
            crates_used(&code(&file.text)).into_iter().map(|name| (name, room(&file.path)))
        })
        .collect();
    let complaints: Vec<String> = unused_permissions(&used).collect();
    assert_none(&complaints);
}

#[test]
fn pure_rooms_are_pure() {
    keep_to(
        |path, code| {
            if PURE_ROOMS.contains(&room(path)) { impurities(path, code) } else { Vec::new() }
        },
    );
}

#[test]
fn what_blocks_is_handed_to_the_workers() {
    keep_to(passes_the_workers_by);
}

#[test]
fn a_data_directory_is_reached_through_the_seam() {
    keep_to(passes_the_seam_by);
}

#[test]
fn peers_are_reached_through_the_seam() {
    keep_to(passes_the_net_by);
}

#[test]
fn no_select_goes_by_chance() {
    keep_to(selects_by_chance);
}

#[test]
fn every_file_says_what_it_is() {
    let complaints: Vec<String> = files()
        .iter()
        .filter(|file| is_rust(&file.path) && !says_what_it_is(&file.text))
        .map(|file| format!("{} does not open with //! and a sentence", file.path))
        .collect();
    assert_none(&complaints);
}

#[test]
fn every_fixed_error_is_answered_by_something() {
    let (page, others): (Vec<_>, Vec<_>) =
        files().into_iter().partition(|file| file.path == "src/resp/error.rs");
    let code: Vec<String> =
        others.into_iter().filter(|file| is_rust(&file.path)).map(|file| file.text).collect();
    assert_none(&errors_without_a_caller(&page[0].text, &code));
}

/// The fixed errors of `page` that no text of `code` names.
fn errors_without_a_caller(page: &str, code: &[String]) -> Vec<String> {
    let names = page.lines().filter_map(|line| {
        let (name, text) = line.trim_start().split_once(" = \"")?;
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit());
        (is_name && text.ends_with("\";")).then_some(name)
    });
    let is_word = |text: &str, name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let around = [text[..at].chars().next_back(), text[at + name.len()..].chars().next()];
            around.iter().flatten().all(|c| !c.is_ascii_alphanumeric() && *c != '_')
        })
    };
    names
        .filter(|name| !code.iter().any(|text| is_word(text, name)))
        .map(|name| format!("nothing answers {name}"))
        .collect()
}

/// The front page of the library includes ARCHITECTURE.md instead.
fn says_what_it_is(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let sentence = first.strip_prefix("//! ").is_some_and(|sentence| sentence.len() > 10);
    sentence || first.starts_with("#![doc = include_str!(")
}

/// Words that no file may contain; written in two parts, or this file would.
fn forbidden_words() -> Vec<(String, &'static str)> {
    [
        ("#[all", "ow(", "use #[expect(…, reason = …)]"),
        ("#![all", "ow(", "use #![expect(…, reason = …)]"),
        ("TO", "DO", "open an issue"),
        ("FIX", "ME", "open an issue"),
        ("unimple", "mented!(", "a stub"),
        ("/wo", "rk/", "a path of one machine"),
        ("/ro", "ot/", "a path of one machine"),
        ("/ho", "me/", "a path of one machine"),
    ]
    .map(|(one, other, why)| (format!("{one}{other}"), why))
    .to_vec()
}

fn unwanted(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (word, why) in forbidden_words() {
            if line.contains(&word) {
                complaints.push(format!("{path}:{}: {word} ({why})", number + 1));
            }
        }
    }
    complaints
}

#[test]
fn no_file_holds_what_belongs_elsewhere() {
    let complaints: Vec<String> = files()
        .iter()
        .filter(|file| file.path != "Cargo.lock")
        .flat_map(|file| unwanted(&file.path, &file.text))
        .collect();
    assert_none(&complaints);
}

/// The files of a command group that hold commands or help them, by the `mod` lines of its front page.
fn modules(front_page: &str) -> BTreeSet<String> {
    let lines = code(front_page);
    let name = |line: &str| {
        let rest = line.trim().strip_suffix(';')?;
        let rest = rest.strip_prefix("pub(super) ").unwrap_or(rest);
        rest.strip_prefix("mod ").map(str::to_owned)
    };
    lines.lines().filter_map(name).collect()
}

/// The `file::COMMAND` rows of a group's table.
fn rows(front_page: &str) -> Vec<(String, String)> {
    let code = code(front_page);
    let row = |word: &str| {
        let (file, name) = word.trim().strip_prefix('&')?.split_once("::")?;
        Some((file.to_owned(), name.to_owned()))
    };
    code.split(['[', ',', ']']).filter_map(row).collect()
}

/// Command files without a row, and rows without a file. A file that declares no command is a helper.
fn rows_and_files_differ(front_page: &str, file: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let rows = rows(front_page);
    for module in modules(front_page) {
        let Some(text) = file(&module) else {
            complaints.push(format!("{module}.rs is missing"));
            continue;
        };
        let declared = code(&text);
        let constants = declared.lines().filter_map(|line| {
            let rest = line.trim().strip_prefix("pub(super) const ")?;
            let (name, value) = rest.split_once(": DataCommand")?;
            value.contains('=').then(|| name.to_owned())
        });
        for constant in constants {
            if !rows.contains(&(module.clone(), constant.clone())) {
                complaints.push(format!("{module}::{constant} has no row"));
            }
        }
    }
    for (module, name) in &rows {
        if !modules(front_page).contains(module) {
            complaints.push(format!("the row {module}::{name} has no file"));
        }
    }
    complaints
}

#[test]
fn command_rows_have_files_and_files_have_rows() {
    let all = sources();
    let mut groups = 0;
    let mut complaints = Vec::new();
    for page in &all {
        let is_group = page.path.starts_with("src/command/")
            && page.path.matches('/').count() == 3
            && page.path.ends_with("/mod.rs");
        if !is_group {
            continue;
        }
        groups += 1;
        let folder = page.path.trim_end_matches("mod.rs");
        let text = |module: &str| {
            let path = format!("{folder}{module}.rs");
            all.iter().find(|file| file.path == path).map(|file| file.text.clone())
        };
        assert!(!rows(&page.text).is_empty(), "{} has no row", page.path);
        let of = |complaint: String| format!("{folder}: {complaint}");
        complaints.extend(rows_and_files_differ(&page.text, text).into_iter().map(of));
        for file in all.iter().filter(|file| file.path.starts_with(folder)) {
            let name = file.path[folder.len()..].trim_end_matches(".rs");
            let is_known = name == "mod"
                || name.contains('/')
                || modules(&page.text).contains(name)
                || is_test_only(&file.path, &all);
            if !is_known {
                complaints.push(format!("{} is in no mod line", file.path));
            }
        }
    }
    assert!(groups >= 3, "{groups} groups found");
    assert_none(&complaints);
}

#[test]
fn every_command_has_a_golden_script_and_every_script_a_command() {
    let golden = root().join("tests/golden/command");
    let mut expected = BTreeSet::new();
    for command in kvorum::command::all() {
        let spec = command.spec;
        assert!(!spec.summary.is_empty(), "{} has no summary", spec.name);
        expected.insert(format!("{}/{}.txt", spec.group.name(), spec.name));
    }
    let folder =
        |path: &Path| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let found: BTreeSet<String> = walk(&golden)
        .iter()
        .map(|path| format!("{}/{}", folder(path), path.file_name().unwrap().to_str().unwrap()))
        .collect();
    let missing: Vec<&String> = expected.difference(&found).collect();
    let unknown: Vec<&String> = found.difference(&expected).collect();
    assert!(missing.is_empty(), "commands without a script: {missing:?}");
    assert!(unknown.is_empty(), "scripts of no command: {unknown:?}");
}

/// The line above the table of ARCHITECTURE.md that says which tests fail if a fault comes back.
const FAULTS_HEAD: &str = "| | what happened | tests |\n| --- | --- | --- |\n";

/// The tests in that table that are not in the file it names, and rows that name none.
fn missing_tests(text: &str, file: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let (_, body) = text.split_once(FAULTS_HEAD).expect("ARCHITECTURE.md has the table of faults");
    let mut complaints = Vec::new();
    for line in body.lines().take_while(|line| line.starts_with('|')) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (row, tests) = (cells.next().unwrap(), cells.nth(1).unwrap_or_default());
        let mut named = 0;
        for part in tests.split("; ") {
            let mut words = part.split('`').skip(1).step_by(2);
            let place = words.next().unwrap_or_default();
            let is_outside = place.starts_with("tests/");
            let path = if is_outside { place.to_owned() } else { format!("src/{place}") };
            let text = file(&path).unwrap_or_default();
            for test in words {
                named += 1;
                if !text.contains(&format!("fn {test}(")) {
                    complaints.push(format!("{row}: no test {test} in {path}"));
                }
            }
        }
        if named == 0 {
            complaints.push(format!("{row} has no test"));
        }
    }
    complaints
}

#[test]
fn every_fault_has_the_tests_that_it_is_said_to_have() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert_none(&missing_tests(&text, |path| fs::read_to_string(root().join(path)).ok()));
}

mod the_rules_can_fail {
    use super::*;

    #[test]
    fn imports_are_seen_in_every_form() {
        for (text, rooms) in [
            ("use crate::raft::Group;", &["raft"][..]),
            ("use crate::{ids::NodeId, raft::{Group, Log}, slot};", &["ids", "raft", "slot"]),
            ("use crate::{\n    ids::NodeId,\n    wal,\n};", &["ids", "wal"]),
            ("let x = crate::wal::Wal::open();", &["wal"]),
            ("pub(in crate::shard) fn f() {}", &["shard"]),
            ("// use crate::raft::Group;", &[]),
            ("let x = 1; // crate::raft", &[]),
            ("mycrate::raft::x()", &[]),
            ("#[cfg(test)]\nmod tests {\n use crate::raft::Group;\n}", &[]),
        ] {
            let found: Vec<String> = rooms_used(&code(text)).into_iter().collect();
            assert_eq!(found, rooms, "{text}");
        }
    }

    #[test]
    fn a_wrong_import_is_refused() {
        let bad = "use crate::raft::Group;\n";
        let rows = rooms();
        let forbidden_imports = |room: &str, code: &str| forbidden_imports(&rows, room, code);
        assert_eq!(forbidden_imports("command", bad), ["command may not import raft"]);
        assert_eq!(
            forbidden_imports("keyspace", "crate::resp::Reply"),
            ["keyspace may not import resp"]
        );
        assert_eq!(
            forbidden_imports("raft", "crate::command::run()"),
            ["raft may not import command"]
        );
        assert!(forbidden_imports("attic", "").concat().contains("no row"));
        assert!(forbidden_imports("shard", bad).is_empty());
        assert!(forbidden_imports("server", bad).is_empty());
        assert!(forbidden_imports("ring", "use crate::ring::Token;").is_empty());
        assert!(escapes_by_super("src/ring/token.rs", "use super::super::raft::X;"));
        assert!(escapes_by_super("src/ring/mod.rs", "use super::raft::X;"));
        assert!(!escapes_by_super("src/ring/token.rs", "use super::Ring;"));
        assert!(!escapes_by_super("src/command/string/get.rs", "use super::super::Spec;"));
    }

    #[test]
    fn the_table_is_the_permission_and_no_row_says_too_much() {
        let text = format!(
            "x\n{TABLE_HEAD}| `ids`, `stdx` | std |\n| `slot` | ids (numbers) |\n| `main` | anything |\n\n| no | row |\n"
        );
        let rows = table(&text);
        let named =
            |names: &[&str]| Imports::Named(names.iter().map(|&name| name.into()).collect());
        let expected = [
            ("ids", named(&[])),
            ("stdx", named(&[])),
            ("slot", named(&["ids"])),
            ("main", Imports::Anything),
            ("lib", named(&[])),
        ];
        assert_eq!(rows, expected.map(|(room, imports)| (room.to_owned(), imports)));
        let of_slot = |used: &str| [used.to_owned()].into();
        assert!(idle_or_upward(&rows, |_| of_slot("ids")).is_empty());
        assert_eq!(
            idle_or_upward(&rows, |_| of_slot("stdx")),
            ["slot → ids: nobody uses this permission"]
        );
        let upward = [("a".to_owned(), named(&["b"])), ("b".to_owned(), named(&[]))];
        assert_eq!(idle_or_upward(&upward, |_| of_slot("b")), ["a → b does not go down"]);
    }

    #[test]
    fn a_crate_in_the_wrong_room_is_refused() {
        assert_eq!(
            forbidden_crates("src/keyspace/x.rs", "tokio::spawn(f);"),
            ["src/keyspace/x.rs may not use the crate tokio"]
        );
        assert_eq!(forbidden_crates("src/session/x.rs", "use openraft::Raft;").len(), 1);
        assert!(forbidden_crates("src/raft/x.rs", "use openraft::Raft;").is_empty());
        assert!(forbidden_crates("src/keyspace/x.rs", "my_tokio::x(); a::tokio::b()").is_empty());
    }

    #[test]
    fn a_permission_that_nobody_needs_is_refused() {
        let needed: BTreeSet<(&str, &str)> = CRATES
            .iter()
            .flat_map(|(name, places)| places.iter().map(|place| (*name, *place)))
            .collect();
        assert_eq!(unused_permissions(&needed).count(), 0);
        let fewer = needed.iter().copied().filter(|pair| *pair != ("bytes", "wal")).collect();
        assert!(unused_permissions(&fewer).eq(["wal does not use bytes"]));
    }

    #[test]
    fn an_impure_line_is_refused() {
        for line in [
            "let now = std::time::SystemTime::now();",
            "std::thread::spawn(f);",
            "std::fs::read(path)",
            "use std::net::TcpStream;",
            "async fn f() {}",
            "static CACHE: Mutex<u8> = Mutex::new(0);",
            "static mut COUNT: u8 = 0;",
            "let map: HashMap<u8, u8>;",
            "f().await",
        ] {
            assert!(!impurities("src/ring/x.rs", &code(line)).is_empty(), "{line}");
        }
        assert!(impurities("src/ring/x.rs", &code("fn pure(a: u8) -> u8 { a }")).is_empty());
    }

    #[test]
    fn a_way_around_the_seam_is_refused() {
        let bad = "use std::fs::File;\n";
        assert!(passes_the_seam_by("src/raft/snapshot.rs", bad).is_some());
        assert!(passes_the_seam_by("src/wal/cut.rs", bad).is_none());
        assert!(passes_the_seam_by("src/config/file.rs", bad).is_none());
        let bad = "use tokio::net::TcpStream;\n";
        assert!(passes_the_net_by("src/transport/client.rs", bad).is_some());
        assert!(passes_the_net_by("src/node/start.rs", bad).is_some());
        assert!(passes_the_net_by("src/transport/net.rs", bad).is_none());
        assert!(passes_the_net_by("src/server/listener.rs", bad).is_none());
    }

    #[test]
    fn a_way_around_the_workers_is_refused() {
        let bad = "tokio::task::spawn_blocking(f);\n";
        assert_eq!(passes_the_workers_by("src/node/birth.rs", bad).len(), 1);
        assert_eq!(passes_the_workers_by("src/raft/group.rs", "block_in_place(f)").len(), 1);
        assert!(passes_the_workers_by("src/raft/workers.rs", bad).is_empty());
        assert!(passes_the_workers_by("src/server/admin/api.rs", bad).is_empty());
        assert!(passes_the_workers_by("src/node/birth.rs", "tokio::spawn(f);").is_empty());
    }

    #[test]
    fn a_select_by_chance_is_refused() {
        let biased = "tokio::select! {\n    biased;\n    () = a => {}\n}\n";
        assert!(selects_by_chance("src/x.rs", biased).is_empty());
        let complaints = selects_by_chance("src/x.rs", &biased.replace("    biased;\n", ""));
        assert_eq!(complaints, ["src/x.rs: a select! that is not biased: () = a => {}"]);
    }

    #[test]
    fn a_file_without_a_header_or_with_a_leftover_is_refused() {
        assert!(!says_what_it_is("use std::fs;\n"));
        assert!(!says_what_it_is("//!\n"));
        assert!(!says_what_it_is("// Not a header of the file.\n"));
        assert!(says_what_it_is("//! Tokens of the ring.\n"));
        for (word, _) in forbidden_words() {
            assert_eq!(unwanted("x", &format!("a\nb {word} c\n")).len(), 1, "{word}");
        }
        assert!(unwanted("x", "all is well\n").is_empty());
    }

    #[test]
    fn a_row_without_a_file_and_a_file_without_a_row_are_refused() {
        let page = "mod get;\nmod set;\nconst COMMANDS: &[&DataCommand] = &[\n    &get::GET,\n    &gone::GONE,\n];\n";
        let file = |module: &str| {
            let name = module.to_uppercase();
            Some(format!("pub(super) const {name}: DataCommand = DataCommand::read(SPEC, f);\n"))
        };
        assert_eq!(
            rows_and_files_differ(page, file),
            ["set::SET has no row", "the row gone::GONE has no file"]
        );
        let missing = rows_and_files_differ("mod get;\n", |_| None);
        assert_eq!(missing, ["get.rs is missing"]);
    }

    #[test]
    fn an_error_that_nothing_answers_is_refused() {
        let page = "table! {\n    SYNTAX = \"ERR syntax error\";\n    NO_SUCH_KEY = \"ERR no such key\";\n}\n";
        let code =
            ["Err(ErrorReply::SYNTAX)".to_owned(), "const NO_SUCH_KEY_2: u8 = 0;".to_owned()];
        assert_eq!(errors_without_a_caller(page, &code), ["nothing answers NO_SUCH_KEY"]);
    }

    #[test]
    fn a_fault_without_its_test_is_refused() {
        let rows = "| A | x | `tests/it/a.rs`: `here`, `gone`; `b/c.rs`: `here_too` |\n| B | y | later |\n";
        let file = |path: &str| match path {
            "tests/it/a.rs" => Some("fn here() {}\n".to_owned()),
            "src/b/c.rs" => Some("    async fn here_too() {}\n".to_owned()),
            _ => None,
        };
        assert_eq!(
            missing_tests(&format!("{FAULTS_HEAD}{rows}"), file),
            ["A: no test gone in tests/it/a.rs", "B has no test"]
        );
    }

    #[test]
    fn modules_for_tests_are_known() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let all = [
            source(
                "src/ring/mod.rs",
                "mod ring;\n#[cfg(test)]\nmod testing;\n#[cfg(test)]\nmod big;\n",
            ),
            source("src/ring/big/mod.rs", "mod part;\n"),
        ];
        assert!(is_test_only("src/ring/testing.rs", &all));
        assert!(is_test_only("src/ring/big/part.rs", &all));
        assert!(!is_test_only("src/ring/ring.rs", &all));
        assert!(!is_test_only("src/ring/mod.rs", &all));
    }
}
