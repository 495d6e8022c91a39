//! Replays `tests/golden/command/**` on running servers: kvorum's doors, and redis-server where it is installed.
//!
//! A script is lines of `> COMMAND args`, quoted as in redis-cli, each followed by its reply; `#` begins a comment.
//! It starts on empty databases. Redis is the oracle, the script is the record.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kvorum::stdx::words;

use crate::support::client::Client;
use crate::support::cluster::TestCluster;
use crate::support::node::TestServer;
use crate::support::ports::Port;
use crate::support::{PATIENCE, wait_for};

/// Where kvorum means to differ from redis-server 7.0: the script and the command; the reason is in README.
const DIFFERENCES: [(&str, &str); 0] = [];

/// A command of a script and the reply it must get.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    reply: String,
}

fn scripts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/command");
    let files = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut found: Vec<PathBuf> = files(&root).iter().flat_map(|group| files(group)).collect();
    found.sort();
    assert!(!found.is_empty(), "no script in {}", root.display());
    found
}

/// The steps of a script; a line that belongs to none is an error.
fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut takes_reply = false;
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        if let Some(command) = content.strip_prefix("> ") {
            steps.push(Step { line, command: command.to_owned(), reply: String::new() });
            takes_reply = true;
        } else if content.is_empty() || content.starts_with('#') {
            takes_reply = false;
        } else if let Some(step) = steps.last_mut().filter(|_| takes_reply) {
            step.reply.push_str(content);
            step.reply.push('\n');
        } else {
            return Err(format!("line {line} belongs to no command: {content}"));
        }
    }
    Ok(steps)
}

/// Replays every script at `client`; returns what differs.
fn replay(client: &mut Client) -> Vec<String> {
    let mut differences = Vec::new();
    for path in scripts() {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        let steps =
            parse(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!steps.is_empty(), "{name} has no command");
        client.line("FLUSHALL");
        client.line("SELECT 0");
        for step in steps {
            let argv = words::of(step.command.as_bytes())
                .unwrap_or_else(|| panic!("{name}:{}: quotes", step.line));
            client.send(&argv).unwrap();
            let (_, raw) =
                client.read_raw().unwrap_or_else(|e| panic!("{name}:{}: {e}", step.line));
            let reply = golden(&raw);
            if reply != step.reply {
                let Step { line, command, reply: expected } = step;
                differences.push(format!("{name}:{line}: {command}\n  is {reply}  not {expected}"));
            }
        }
    }
    differences
}

#[test]
fn one_node_answers_as_the_scripts_say() {
    let server = TestServer::start(&["--cluster-shards", "1"]);
    let differences = replay(&mut server.client());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_node_that_leads_nothing_answers_as_the_scripts_say() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    let mut client = cluster.client(cluster.follower_of("k"));
    let differences = replay(&mut client);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A redis-server for the length of a test.
struct Redis {
    child: Child,
    port: Port,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// `None` when no redis-server 7 is installed.
    fn start() -> Option<Self> {
        let version = Command::new("redis-server").arg("--version").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("v=7.") {
            return None;
        }
        let port = Port::reserve();
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.number().to_string(), "--save", "", "--appendonly", "no"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, port, _folder: folder })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().expect("own child");
        self.child.wait().expect("own child");
    }
}

#[test]
fn redis_answers_as_the_scripts_say() {
    let Some(redis) = Redis::start() else {
        eprintln!(
            "SKIPPED: no redis-server 7 is installed, so the golden scripts have no oracle here"
        );
        return;
    };
    let mut client = wait_for("redis-server", PATIENCE, || {
        let mut client = Client::connect(redis.port.number()).map_err(|error| error.to_string())?;
        client.try_cmd(&["PING"]).map_err(|error| error.to_string())?;
        Ok(client)
    });
    let mut differences = replay(&mut client);
    differences.retain(|difference| {
        !DIFFERENCES.iter().any(|(script, command)| {
            difference.contains(script) && difference.contains(&format!(": {command}\n"))
        })
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A reply as scripts spell it, from its RESP2 bytes.
fn golden(raw: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = raw;
    write_golden(&mut rest, 0, &mut text);
    assert!(rest.is_empty(), "one reply and nothing after it");
    text
}

fn write_golden(bytes: &mut &[u8], depth: usize, out: &mut String) {
    let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line ends with CRLF");
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    *bytes = &bytes[end + 2..];
    out.push_str(&"  ".repeat(depth));
    let (kind, rest) = line.split_at(1);
    match (kind, rest) {
        ("$", "-1") => out.push_str("(nil)\n"),
        ("*", "-1") => out.push_str("(nil array)\n"),
        ("$", length) => {
            let length: usize = length.parse().expect("a length");
            out.push_str(&quoted(&bytes[..length]));
            out.push('\n');
            *bytes = &bytes[length + 2..];
        }
        ("*", count) => {
            out.push_str(&format!("{line}\n"));
            for _ in 0..count.parse().expect("a count") {
                write_golden(bytes, depth + 1, out);
            }
        }
        _ => out.push_str(&format!("{line}\n")),
    }
}

/// `bytes` in quotes, as redis-cli shows them.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

#[test]
fn scripts_are_read_as_written() {
    let steps = parse("# c\n> GET k\n*1\n  \"v\"\n> PING\n+PONG\n").unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!((steps[0].line, &steps[0].reply[..]), (2, "*1\n  \"v\"\n"));
    assert!(parse("+OK\n").is_err());
    assert!(parse("> PING\n\n+PONG\n").is_err());
    assert_eq!(
        golden(b"*3\r\n$1\r\n\xff\r\n$-1\r\n*1\r\n*-1\r\n"),
        "*3\n  \"\\xff\"\n  (nil)\n  *1\n    (nil array)\n"
    );
    assert_eq!(golden(b"-ERR x\r\n"), "-ERR x\n");
}
