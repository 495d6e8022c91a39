//! A load generator for any server that speaks Redis' protocol, and for etcd: throughput and latencies of one command.
//!
//! `cargo bench --bench load -- --addr 127.0.0.1:6379[,…] --clients 50 --pipeline 16 --requests 200000
//! --command set|get|incr --keys 1000000 [--order random|rising] [--key NAME] [--wait 1] [--value-bytes 3]
//! [--seed 1] [--etcd] [--json]`
//!
//! Connections take turns among several addresses. `--order rising` asks for each key once, to fill a server;
//! `--key` asks for one key only. `--etcd` speaks to etcd's JSON gateway instead: one `POST /v3/kv/put` per SET on
//! connections that are kept.
//!
//! One thread drives all connections, so that on a small machine the servers get what is left. `--wait N` ends each
//! pipeline with `WAIT N 0`, as a client of Redis does that wants N replicas to have what it wrote. A latency is the
//! time from sending a pipeline to its last reply. An error reply ends the run: a measurement of errors is none.

#![expect(clippy::print_stdout, reason = "printing results is what this program is for")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::str::FromStr;

use kvorum::resp::frame::reply_length;
use kvorum::stdx::clock::{Clock, SystemClock};
use kvorum::stdx::prng::SplitMix64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// What to ask for, how often, and how.
#[derive(Clone, Debug)]
struct Options {
    protocol: Protocol,
    addrs: Vec<String>,
    clients: usize,
    pipeline: usize,
    requests: usize,
    command: Kind,
    keys: u64,
    order: Order,
    /// Asks for this key only.
    key: Option<String>,
    wait: Option<u32>,
    value_bytes: usize,
    seed: u64,
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Set,
    Get,
    Incr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Redis,
    Etcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Random,
    Rising,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "rising" => Ok(Self::Rising),
            _ => Err(format!("--order is random or rising, not {text}")),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "set" => Ok(Self::Set),
            "get" => Ok(Self::Get),
            "incr" => Ok(Self::Incr),
            _ => Err(format!("--command is set, get or incr, not {text}")),
        }
    }
}

impl Options {
    /// Reads the command line. Cargo itself adds `--bench`.
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            protocol: Protocol::Redis,
            addrs: vec!["127.0.0.1:6379".into()],
            clients: 50,
            pipeline: 1,
            requests: 100_000,
            command: Kind::Set,
            keys: 1_000_000,
            order: Order::Random,
            key: None,
            wait: None,
            value_bytes: 3,
            seed: 1,
            json: false,
        };
        let mut args = args.filter(|arg| arg != "--bench");
        while let Some(name) = args.next() {
            match name.as_str() {
                "--json" => {
                    options.json = true;
                    continue;
                }
                "--etcd" => {
                    options.protocol = Protocol::Etcd;
                    continue;
                }
                _ => {}
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--addr" => options.addrs = value.split(',').map(str::to_owned).collect(),
                "--clients" => options.clients = number(&name, &value)?,
                "--pipeline" => options.pipeline = number(&name, &value)?,
                "--requests" => options.requests = number(&name, &value)?,
                "--command" => options.command = value.parse()?,
                "--keys" => options.keys = number(&name, &value)?,
                "--order" => options.order = value.parse()?,
                "--key" => options.key = Some(value),
                "--wait" => options.wait = Some(number(&name, &value)?),
                "--value-bytes" => options.value_bytes = number(&name, &value)?,
                "--seed" => options.seed = number(&name, &value)?,
                _ => return Err(format!("there is no option {name}")),
            }
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), String> {
        if self.clients == 0 || self.pipeline == 0 || self.requests == 0 {
            return Err("--clients, --pipeline and --requests are at least 1".into());
        }
        let is_put = self.command == Kind::Set && self.pipeline == 1 && self.wait.is_none();
        if self.protocol == Protocol::Etcd && !is_put {
            return Err("--etcd goes with --command set and --pipeline 1, without --wait".into());
        }
        Ok(())
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} needs a number, not {value}"))
}

/// What all connections share; they take turns on one thread.
#[derive(Debug)]
struct Shared {
    options: Options,
    clock: SystemClock,
    /// Requests not sent yet.
    left: usize,
    prng: SplitMix64,
    next_rising: u64,
    /// The key of the request being written; its memory is used again.
    key: String,
    value: String,
    /// Latencies of pipelines, in µs, each with the number of requests in it.
    latencies: Vec<(u64, usize)>,
}

impl Shared {
    fn new(options: &Options) -> Self {
        Self {
            clock: SystemClock::new(),
            left: options.requests,
            prng: SplitMix64::new(options.seed),
            next_rising: 0,
            key: options.key.clone().unwrap_or_default(),
            value: "x".repeat(options.value_bytes),
            latencies: Vec::with_capacity(options.requests / options.pipeline + 1),
            options: options.clone(),
        }
    }

    /// Writes the next pipeline to `out`; returns how many requests it has, 0 when all are sent.
    fn next_pipeline(&mut self, out: &mut Vec<u8>) -> usize {
        let count = self.options.pipeline.min(self.left);
        self.left -= count;
        out.clear();
        for _ in 0..count {
            self.next_key();
            match self.options.protocol {
                Protocol::Redis => self.write_command(out),
                Protocol::Etcd => self.write_put(out),
            }
        }
        if let Some(replicas) = self.options.wait.filter(|_| count > 0) {
            let replicas = replicas.to_string();
            let length = replicas.len();
            write!(out, "*3\r\n$4\r\nWAIT\r\n${length}\r\n{replicas}\r\n$1\r\n0\r\n")
                .expect("a Vec takes everything");
        }
        count
    }

    fn next_key(&mut self) {
        if self.options.key.is_some() {
            return;
        }
        let number = match self.options.order {
            Order::Random => self.prng.below(self.options.keys),
            Order::Rising => {
                self.next_rising += 1;
                (self.next_rising - 1) % self.options.keys.max(1)
            }
        };
        self.key.clear();
        write!(self.key, "key:{number:012}").expect("a String takes everything");
    }

    fn write_command(&self, out: &mut Vec<u8>) {
        let Self { key, value, .. } = self;
        let (key_length, length) = (key.len(), value.len());
        let written = match self.options.command {
            Kind::Set => {
                write!(out, "*3\r\n$3\r\nSET\r\n${key_length}\r\n{key}\r\n${length}\r\n{value}\r\n")
            }
            Kind::Get => write!(out, "*2\r\n$3\r\nGET\r\n${key_length}\r\n{key}\r\n"),
            Kind::Incr => write!(out, "*2\r\n$4\r\nINCR\r\n${key_length}\r\n{key}\r\n"),
        };
        written.expect("a Vec takes everything");
    }

    /// One request to etcd's gateway, which takes bytes in base64.
    fn write_put(&self, out: &mut Vec<u8>) {
        let [key, value] = [&self.key, &self.value].map(|text| base64(text.as_bytes()));
        let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
        let length = body.len();
        write!(
            out,
            "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("a Vec takes everything");
    }
}

/// `bytes` in base64 with padding. Source: RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| usize::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// One connection: a pipeline, its replies, the next one, until all requests are sent.
async fn drive(shared: Rc<RefCell<Shared>>, addr: String) -> Result<(), String> {
    let protocol = shared.borrow().options.protocol;
    let failed = |error: std::io::Error| format!("{addr}: {error}");
    let mut stream = TcpStream::connect(&addr).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let mut out = Vec::new();
    let mut received = Vec::with_capacity(64 << 10);
    loop {
        let (count, start) = {
            let mut shared = shared.borrow_mut();
            (shared.next_pipeline(&mut out), shared.clock.monotonic())
        };
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&out).await.map_err(failed)?;
        let mut open = count + usize::from(shared.borrow().options.wait.is_some());
        received.clear();
        let mut at = 0;
        while open > 0 {
            let length = match protocol {
                Protocol::Redis => reply_bytes(&received[at..])?,
                Protocol::Etcd => response_bytes(&received[at..])?,
            };
            match length {
                Some(length) => {
                    at += length;
                    open -= 1;
                }
                None => {
                    if stream.read_buf(&mut received).await.map_err(failed)? == 0 {
                        return Err(format!("{addr} closed the connection"));
                    }
                }
            }
        }
        let mut shared = shared.borrow_mut();
        let latency = shared.clock.monotonic().since(start);
        shared.latencies.push((latency, count));
    }
}

/// The length of the reply at the start of `bytes`, when all of it is there.
fn reply_bytes(bytes: &[u8]) -> Result<Option<usize>, String> {
    match reply_length(bytes).map_err(|error| error.to_string())? {
        Some(length) if bytes[0] == b'-' => {
            Err(format!("unexpected reply {}", String::from_utf8_lossy(&bytes[..length])))
        }
        length => Ok(length),
    }
}

/// The length of the HTTP response at the start of `bytes`, when all of it is there.
fn response_bytes(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("unexpected response {}", String::from_utf8_lossy(bytes)));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let Some(Ok(length)) = length else { return Err(format!("a response without length: {head}")) };
    let total = end + 4 + length;
    Ok((bytes.len() >= total).then_some(total))
}

/// The latency below which `part` of 1000 requests stayed, in µs. `latencies` is sorted.
fn percentile(latencies: &[(u64, usize)], part: usize) -> u64 {
    let total: usize = latencies.iter().map(|(_, count)| count).sum();
    let mut before = 0;
    for &(latency, count) in latencies {
        before += count;
        if before * 1000 >= total * part {
            return latency;
        }
    }
    0
}

fn run(options: &Options) -> Result<(), String> {
    let shared = Rc::new(RefCell::new(Shared::new(options)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| error.to_string())?;
    let start = shared.borrow().clock.monotonic();
    runtime.block_on(async {
        let local = LocalSet::new();
        let addrs = options.addrs.iter().cycle().take(options.clients);
        let connections: Vec<_> =
            addrs.map(|addr| local.spawn_local(drive(Rc::clone(&shared), addr.clone()))).collect();
        local.await;
        for connection in connections {
            connection.await.map_err(|error| error.to_string())??;
        }
        Ok::<(), String>(())
    })?;
    let us = shared.borrow().clock.monotonic().since(start).max(1);
    let mut latencies = std::mem::take(&mut shared.borrow_mut().latencies);
    latencies.sort_unstable();
    let per_second = u64::try_from(options.requests).unwrap_or(u64::MAX) * 1_000_000 / us;
    let [p50, p99, p999] = [500, 990, 999].map(|part| percentile(&latencies, part));
    let longest = latencies.last().map_or(0, |(latency, _)| *latency);
    if options.json {
        println!(
            "{{\"per_second\":{per_second},\"p50_us\":{p50},\"p99_us\":{p99},\"p999_us\":{p999},\
             \"max_us\":{longest}}}"
        );
    } else {
        println!(
            "{:?} -c {} -P {}: {per_second} per second; p50 {p50} µs, p99 {p99} µs, \
             p99.9 {p999} µs, longest {longest} µs",
            options.command, options.clients, options.pipeline
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    // The test runner asks every binary for its tests; this one has none.
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
