//! One kvorum process: start, signals, death, restart, and its log when a test fails.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use super::client::{Client, Value};
use super::ports::Port;
use super::preload::Change;
use super::slow_disk::SLOW_DISK;
use super::small_machine::SMALL_MACHINE;
use super::wall_clock::WALL_CLOCK;
use super::{PATIENCE, damage, preload, wait_for};

/// How much of a node's log a failed test prints, in bytes.
const LOG_TAIL_BYTES: usize = 6_000;

/// The doors of one node.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) plain: Port,
    pub(crate) cluster: Port,
    pub(crate) peer: Port,
    pub(crate) admin: Port,
}

impl Doors {
    /// Four free ports.
    pub(crate) fn reserve() -> Self {
        Self {
            plain: Port::reserve(),
            cluster: Port::reserve(),
            peer: Port::reserve(),
            admin: Port::reserve(),
        }
    }
}

/// A node: its place on disk, its doors and, while it runs, its process.
#[derive(Debug)]
pub(crate) struct TestServer {
    folder: Option<TempDir>,
    doors: Doors,
    directives: Vec<String>,
    child: Option<Child>,
    is_paused: bool,
    /// What it sees otherwise than the machine has it.
    changes: Vec<&'static Change>,
    /// It reads its boot id from a file of its own: see [`TestServer::act_boot`].
    has_own_boot: bool,
    /// How many files it may have open, from its next start on.
    descriptors_max: Option<u64>,
    /// How much memory it may take, in bytes, from its next start on.
    memory_bytes_max: Option<u64>,
}

impl TestServer {
    /// One node alone, serving. `directives` are appended: `["--appendfsync", "always"]`.
    pub(crate) fn start(directives: &[&str]) -> Self {
        let mut server = Self::new(Doors::reserve(), directives);
        server.spawn();
        server.await_ready();
        server
    }

    /// A node that does not run yet.
    pub(crate) fn new<D: AsRef<str>>(doors: Doors, directives: &[D]) -> Self {
        let folder = tempfile::Builder::new().prefix("kvorum-it-").tempdir().expect("a folder");
        let directives = directives.iter().map(|text| text.as_ref().to_owned()).collect();
        Self {
            folder: Some(folder),
            doors,
            directives,
            child: None,
            is_paused: false,
            changes: Vec::new(),
            has_own_boot: false,
            descriptors_max: None,
            memory_bytes_max: None,
        }
    }

    /// Directives that the next start gets after all others.
    pub(crate) fn also(&mut self, directives: &[&str]) {
        self.directives.extend(directives.iter().map(|text| (*text).to_owned()));
    }

    /// Has the process, from its next start on, find `id` where the kernel says which start of the machine this is:
    /// another one than before acts a restart of the machine. See [`damage::can_act_boots`].
    pub(crate) fn act_boot(&mut self, id: &str) {
        assert!(self.child.is_none(), "a machine that runs is not started");
        fs::write(self.boot_id_path(), format!("{id}\n")).expect("a folder of the test");
        self.has_own_boot = true;
    }

    /// The boot id as the running process sees it.
    #[track_caller]
    pub(crate) fn boot_id_seen(&self) -> String {
        let path = format!("/proc/{}/root{}", self.pid().as_raw_nonzero(), damage::BOOT_ID);
        fs::read_to_string(path).expect("own child").trim().to_owned()
    }

    fn boot_id_path(&self) -> PathBuf {
        self.folder().join("boot-id")
    }

    /// Lets each fsync of the process take `delay` longer, from now on and after every restart. The first time it
    /// must not run yet.
    pub(crate) fn delay_syncs(&mut self, delay: Duration) {
        self.change(&SLOW_DISK, i64::try_from(delay.as_millis()).expect("a short delay"));
    }

    /// Sets the wall clock of the process `ms` ahead of the machine's from now on, also after every restart. The first
    /// time it must not run yet.
    pub(crate) fn shift_wall(&mut self, ms: i64) {
        self.change(&WALL_CLOCK, ms);
    }

    /// Lets the process have at most `count` files open, from its next start on.
    pub(crate) fn limit_descriptors(&mut self, count: u64) {
        self.descriptors_max = Some(count);
    }

    /// Lets the process take at most `bytes` of memory, from its next start on: it dies of more, as of a control group's
    /// limit.
    pub(crate) fn limit_memory(&mut self, bytes: u64) {
        self.memory_bytes_max = Some(bytes);
    }

    /// Has the process take the machine for one of `bytes` of memory: nothing is refused, it is what the node says of itself
    /// that changes. It must not run yet.
    pub(crate) fn shrink_machine(&mut self, bytes: i64) {
        self.change(&SMALL_MACHINE, bytes);
    }

    fn change(&mut self, change: &'static Change, number: i64) {
        if self.changes.iter().all(|known| known.name != change.name) {
            assert!(self.child.is_none(), "it was started with the machine as it is");
            self.changes.push(change);
        }
        preload::set(&preload::file_of(change, self.folder()), number);
    }

    /// Starts the process without waiting for it.
    ///
    /// The shell before it has the process ignore `SIGXFSZ`, so that a limit on file sizes is an error of
    /// `write`, as a full disk is, and not a signal that kills.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let environment = preload::environment(&self.changes, self.folder());
        let boot = self.has_own_boot.then(|| damage::boot_prefix(&self.boot_id_path()));
        let files = self.descriptors_max.map(|count| format!("ulimit -n {count}; "));
        let memory = self.memory_bytes_max.map(|bytes| format!("ulimit -d {}; ", bytes / 1024));
        let limits: String = files.into_iter().chain(memory).collect();
        let script = format!("{limits}trap '' XFSZ; exec \"$0\" \"$@\"");
        let mut before = boot.into_iter().flatten().chain(["/bin/sh".to_owned()]);
        let child = Command::new(before.next().expect("at least the shell"))
            .args(before)
            .envs(environment)
            .args(["-c", &script, env!("CARGO_BIN_EXE_kvorum")])
            .args(["--port", &self.port().to_string()])
            .args(["--cluster-port", &self.cluster_port().to_string()])
            .args(["--peer-port", &self.peer_port().to_string()])
            .args(["--admin-port", &self.admin_port().to_string()])
            .args(["--dir", self.dir().to_str().expect("UTF-8")])
            .args(&self.directives)
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("kvorum starts");
        self.child = Some(child);
        self.is_paused = false;
    }

    /// Waits until the plain door answers PING.
    pub(crate) fn await_ready(&mut self) {
        wait_for("PONG", PATIENCE, || {
            if let Some(status) = self.poll_exit() {
                panic!("kvorum ended with {status}:\n{}", self.log_tail());
            }
            let mut client = Client::connect(self.port()).map_err(|error| error.to_string())?;
            match client.try_cmd(&["PING"]) {
                Ok(Value::Simple(pong)) if pong == "PONG" => Ok(()),
                Ok(Value::Error(text)) if text.starts_with("NOAUTH") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// A connection to the plain door.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.port()).expect("the plain door is open")
    }

    /// The plain door.
    pub(crate) fn port(&self) -> u16 {
        self.doors.plain.number()
    }

    /// The cluster door.
    pub(crate) fn cluster_port(&self) -> u16 {
        self.doors.cluster.number()
    }

    /// The door of the other nodes.
    pub(crate) fn peer_port(&self) -> u16 {
        self.doors.peer.number()
    }

    /// The admin door.
    pub(crate) fn admin_port(&self) -> u16 {
        self.doors.admin.number()
    }

    /// The node's data directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Where the node's write-ahead log lies.
    pub(crate) fn wal_dir(&self) -> PathBuf {
        self.dir().join("wal")
    }

    /// True while there is a process, also a paused one.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// True while there is a process and it is not paused.
    pub(crate) fn is_serving(&self) -> bool {
        self.is_running() && !self.is_paused
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().expect("it ran").wait().expect("it ends");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.await_exit()
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.is_paused = true;
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.is_paused = false;
    }

    /// Starts the killed node again on the same directory and doors, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        self.await_ready();
    }

    /// Lets no file of the running process grow beyond `bytes`; `None` lifts the limit.
    pub(crate) fn limit_file_bytes(&self, bytes: Option<u64>) {
        let limits = Rlimit { current: bytes, maximum: None };
        let _before = prlimit(Some(self.pid()), Resource::Fsize, limits).expect("own child");
    }

    /// How the process ended, once it has.
    pub(crate) fn poll_exit(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("own child")?;
        self.child = None;
        Some(status)
    }

    /// Waits for the process to end by itself.
    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        wait_for("end of the process", PATIENCE, || self.poll_exit().ok_or_else(String::new))
    }

    /// The body that the admin door gives for `GET path`, when its status is 200.
    pub(crate) fn admin(&self, path: &str) -> Result<String, String> {
        http_get(self.admin_port(), path)
    }

    /// The end of what the process wrote to its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = self.log();
        let rest = &text.as_bytes()[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(rest).into_owned()
    }

    /// All that the process wrote to its log, over all its starts.
    pub(crate) fn log(&self) -> String {
        let mut text = Vec::new();
        let _length = File::open(self.log_path()).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("own child");
    }

    /// The running process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the node runs"))
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("until drop").path()
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("log")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if thread::panicking() {
            eprintln!("--- log of the node on port {}:\n{}", self.port(), self.log_tail());
            let kept = self.folder.take().expect("until drop").keep();
            eprintln!("--- its folder is kept: {}", kept.display());
        }
    }
}

/// The body of a 200 reply to `GET path` on a port of this machine.
fn http_get(port: u16, path: &str) -> Result<String, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = exchange().map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {text:?}"))?;
    if head.starts_with("HTTP/1.1 200 ") || head == "HTTP/1.1 200 OK" {
        Ok(body.to_owned())
    } else {
        Err(format!("{} {body}", head.lines().next().unwrap_or_default()))
    }
}
