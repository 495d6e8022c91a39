//! The `kvorum` program: arguments, log, then the server.

use std::process::ExitCode;

use kvorum::config::{Config, LogLevel, Options, Start};
use kvorum::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one line a failed start says, log or no log")]
fn complain(what: &str) {
    eprintln!("kvorum: {what}");
}

#[expect(clippy::print_stdout, reason = "what --help and --version are for")]
fn run() -> anyhow::Result<()> {
    let config = match Config::load(std::env::args().skip(1))? {
        Start::Run(config) => config,
        Start::Help => {
            print!("{}", kvorum::config::usage());
            return Ok(());
        }
        Start::Version => {
            println!("kvorum {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
    };
    start_log(&config.options())?;
    disable_transparent_huge_pages();
    server::run(config, entropy())?;
    Ok(())
}

fn start_log(options: &Options) -> anyhow::Result<()> {
    let level = match options.loglevel {
        LogLevel::Debug => tracing::Level::TRACE,
        LogLevel::Verbose => tracing::Level::DEBUG,
        LogLevel::Notice => tracing::Level::INFO,
        LogLevel::Warning => tracing::Level::WARN,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
    match &options.logfile {
        None => builder.init(),
        Some(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(
                |error| anyhow::anyhow!("cannot open the logfile {}: {error}", path.display()),
            )?;
            builder.with_writer(std::sync::Mutex::new(file)).init();
        }
    }
    Ok(())
}

/// Zeroing a 2 MiB page takes milliseconds where small pages take microseconds, just when a command waits.
fn disable_transparent_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "cannot disable transparent huge pages; expect latency spikes");
    }
}

/// Random bits that differ from start to start: std seeds its hash maps from the operating system.
fn entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
