//! What one GET and one SET cost in heap allocations, through the whole server: socket, session, Raft, log, reply.
//!
//! `cargo bench --bench cost -- [--commands 20000] [--json]`
//!
//! A node with the default configuration runs in this process, in a temporary directory. The allocator counts what
//! every thread allocates but the one that plays the client. The node's timers allocate too; measured over thousands
//! of commands that is a rounding error.

#![expect(unsafe_code, reason = "an allocator can only be watched by being one; it forwards all")]
#![expect(clippy::print_stdout, reason = "printing results is what this program is for")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use kvorum::config::{Config, Start};
use kvorum::server;
use kvorum::stdx::entropy::Entropy;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What threads other than the client's asked the allocator for since the start.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread plays the client. Has no destructor and needs no memory of its own, so that the allocator
    /// may look at it at any time.
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

/// The allocator of the kvorum program, with a counter before it.
struct Counting;

impl Counting {
    fn count(bytes: usize) {
        if !IS_CLIENT.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes to MiMalloc unchanged, and counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's promises are MiMalloc's demands.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's promises are MiMalloc's demands.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size);
        // SAFETY: the caller's promises are MiMalloc's demands, and `old` came from it.
        unsafe { MiMalloc.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are MiMalloc's demands, and `old` came from it.
        unsafe { MiMalloc.dealloc(old, layout) }
    }
}

/// What to ask for, and what each answer is.
const WORK: [(&str, &[u8], &[u8]); 2] = [
    ("SET", b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$3\r\nxxx\r\n", b"+OK\r\n"),
    ("GET", b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n", b"$3\r\nxxx\r\n"),
];

const PIPELINES: [usize; 2] = [1, 16];

/// How long the node may take to serve, and a reply to come.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Starts a node on a thread of its own, which ends with the process.
fn start(folder: &std::path::Path) -> Result<u16, String> {
    let port = free_port()?;
    let dir = folder.join("data").display().to_string();
    let port_text = port.to_string();
    // Peer and cluster doors are not needed; 0 keeps them from taking ports that others use.
    let words = ["--port", &port_text, "--cluster-port", "0", "--peer-port", "0", "--dir", &dir];
    let words = words.map(str::to_owned).into_iter();
    let config = match Config::load(words).map_err(|error| error.to_string())? {
        Start::Run(config) => config,
        Start::Help | Start::Version => return Err("the words above start a node".into()),
    };
    thread::spawn(move || {
        if let Err(error) = server::run(config, Entropy::seeded(1), Box::new(|_level| {})) {
            eprintln!("cost: the node ended: {error}");
        }
    });
    Ok(port)
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

/// A connection to the node once it answers a SET.
fn connect(port: u16) -> Result<TcpStream, String> {
    let (_, request, answer) = WORK[0];
    let mut last = String::new();
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        match TcpStream::connect(("127.0.0.1", port)).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        }) {
            Ok(mut stream) => match exchange(&mut stream, request, answer) {
                Ok(()) => return Ok(stream),
                Err(error) => last = error,
            },
            Err(error) => last = error.to_string(),
        }
        thread::sleep(POLL);
    }
    Err(format!("the node does not serve: {last}"))
}

fn exchange(stream: &mut TcpStream, request: &[u8], answer: &[u8]) -> Result<(), String> {
    let mut received = vec![0; answer.len()];
    stream.write_all(request).map_err(|error| error.to_string())?;
    stream.read_exact(&mut received).map_err(|error| error.to_string())?;
    if received == answer {
        Ok(())
    } else {
        Err(format!("unexpected reply {}", String::from_utf8_lossy(&received)))
    }
}

/// Allocations and their bytes per command over `commands` of them, hundredths.
fn measure(
    stream: &mut TcpStream,
    (request, answer): (&[u8], &[u8]),
    pipeline: usize,
    commands: usize,
) -> Result<(u64, u64), String> {
    let (request, answer) = (request.repeat(pipeline), answer.repeat(pipeline));
    let turns = commands.div_ceil(pipeline);
    // Buffers and tables grow to their size first.
    for _ in 0..turns.div_ceil(10) {
        exchange(stream, &request, &answer)?;
    }
    let before = (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    for _ in 0..turns {
        exchange(stream, &request, &answer)?;
    }
    let hundredths = |counter: &AtomicU64, before: u64| {
        let count = u64::try_from(turns * pipeline).unwrap_or(u64::MAX);
        (counter.load(Ordering::Relaxed) - before) * 100 / count
    };
    Ok((hundredths(&ALLOCATIONS, before.0), hundredths(&BYTES, before.1)))
}

fn run(commands: usize, is_json: bool) -> Result<(), String> {
    IS_CLIENT.set(true);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut stream = connect(start(folder.path())?)?;
    let mut json = String::new();
    for (name, request, answer) in WORK {
        for pipeline in PIPELINES {
            let (allocations, bytes) = measure(&mut stream, (request, answer), pipeline, commands)?;
            let [allocations, bytes] =
                [allocations, bytes].map(|value| format!("{}.{:02}", value / 100, value % 100));
            if is_json {
                let comma = if json.is_empty() { "" } else { "," };
                write!(
                    json,
                    "{comma}{{\"command\":\"{name}\",\"pipeline\":{pipeline},\
                     \"allocations\":{allocations},\"bytes\":{bytes}}}"
                )
                .map_err(|error| error.to_string())?;
            } else {
                println!("{name} P={pipeline}: {allocations} allocations, {bytes} bytes each");
            }
        }
    }
    if is_json {
        println!("[{json}]");
    }
    Ok(())
}

fn main() -> ExitCode {
    // Cargo itself adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // The test runner asks every binary for its tests; this one has none.
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let mut commands = 20_000;
    let mut is_json = false;
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--json" => is_json = true,
            "--commands" => match args.next().and_then(|value| value.parse().ok()) {
                Some(number) if number > 0 => commands = number,
                Some(_) | None => return complain("--commands needs a number above 0"),
            },
            other => return complain(&format!("there is no option {other}")),
        }
    }
    match run(commands, is_json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn complain(what: &str) -> ExitCode {
    eprintln!("cost: {what}");
    ExitCode::FAILURE
}
