//! Replays `tests/golden/command/**` on running servers: kvorum's doors, and redis-server where it is installed.
//!
//! With `GOLDEN_ORACLE=HOST:PORT` that redis-server is asked, otherwise one is started; `UPDATE_GOLDEN=1` makes the replies
//! in the scripts its own, `GOLDEN_SCRIPTS` names those that count: see `scripts/capture-redis`.

use std::env;
use std::process::{Child, Command, Stdio};

use kvorum::stdx::words;

use crate::support::client::Client;
use crate::support::cluster::TestCluster;
use crate::support::node::TestServer;
use crate::support::ports::Port;
use crate::support::script::Script;
use crate::support::{PATIENCE, wait_for};

/// What the server behind `client` answers to a line.
fn answer(client: &mut Client, line: &str) -> String {
    let argv = words::of(line.as_bytes()).unwrap_or_else(|| panic!("quotes in {line}"));
    client.cmd(&argv).golden()
}

/// Every script begins on empty databases.
fn begin(client: &mut Client) {
    client.line("FLUSHALL");
    client.line("SELECT 0");
}

/// Replays every script at `client`.
fn replay(client: &mut Client) {
    let mut differences = Vec::new();
    for script in Script::all() {
        begin(client);
        differences.extend(script.replay(|line| answer(client, line)));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn one_node_answers_as_the_scripts_say() {
    let server = TestServer::start(&["--cluster-shards", "1"]);
    replay(&mut server.client());
}

#[test]
fn a_node_that_leads_nothing_answers_as_the_scripts_say() {
    let cluster = TestCluster::start(3, &["--cluster-shards", "1"]);
    replay(&mut cluster.client(cluster.follower_of("k")));
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
    let asked = env::var("GOLDEN_ORACLE").ok();
    let own = if asked.is_none() { Redis::start() } else { None };
    let own_address = own.as_ref().map(|redis| format!("127.0.0.1:{}", redis.port.number()));
    let Some(address) = asked.or(own_address) else {
        eprintln!(
            "SKIPPED: no redis-server 7 is installed, so the golden scripts have no oracle here"
        );
        return;
    };
    let mut client = wait_for("redis-server", PATIENCE, || {
        let mut client = Client::connect_to(&address).map_err(|error| error.to_string())?;
        client.try_cmd(&["PING"]).map_err(|error| error.to_string())?;
        Ok(client)
    });
    let names = env::var("GOLDEN_SCRIPTS").unwrap_or_default();
    let names: Vec<&str> = names.split_whitespace().collect();
    let is_asked =
        |script: &Script| names.is_empty() || names.iter().any(|name| script.is_named(name));
    let scripts: Vec<Script> = Script::all().into_iter().filter(is_asked).collect();
    assert!(!scripts.is_empty(), "no script is called {names:?}");
    let is_update = env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1");
    let (count, mut differences, mut changed) = (scripts.len(), Vec::new(), 0);
    for script in scripts {
        begin(&mut client);
        if is_update {
            changed += script.record(|line| answer(&mut client, line));
        } else {
            differences.extend(script.replay(|line| answer(&mut client, line)));
        }
    }
    eprintln!("{count} scripts, {changed} replies updated, {} differ", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
