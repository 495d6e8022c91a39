//! The `kvorum` program: arguments, log, then the server.

use std::process::ExitCode;

use anyhow::Context as _;
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
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let level = match options.loglevel {
        LogLevel::Debug => tracing::Level::TRACE,
        LogLevel::Verbose => tracing::Level::DEBUG,
        LogLevel::Notice => tracing::Level::INFO,
        LogLevel::Warning => tracing::Level::WARN,
    };
    // openraft tells its whole inner life at INFO and every unreachable peer at WARN, many times a second.
    let openraft = match options.loglevel {
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Verbose => tracing::Level::INFO,
        LogLevel::Notice | LogLevel::Warning => tracing::Level::ERROR,
    };
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(level)
        .with_target("openraft", openraft);
    let format = tracing_subscriber::fmt::layer().with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    match &options.logfile {
        None => registry.with(format).init(),
        Some(path) => {
            let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let file =
                open.with_context(|| format!("cannot open the logfile {}", path.display()))?;
            registry.with(format.with_writer(std::sync::Mutex::new(file))).init();
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
