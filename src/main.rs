//! The `kvorum` program: arguments, log, then the server.

use std::process::ExitCode;

use anyhow::Context as _;
use kvorum::config::{Config, LogLevel, Options, Start};
use kvorum::server;
use kvorum::stdx::entropy::Entropy;
use kvorum::stdx::memory::Counted;
use kvorum::stdx::natural::Natural;

#[global_allocator]
static ALLOCATOR: Counted<Natural> = Counted(Natural);

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
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == "ring").is_some() {
        print!("{}", server::ring(words)?);
        return Ok(());
    }
    let config = match Config::load(words)? {
        Start::Run(config) => config,
        Start::Help => {
            print!("{}\n{}", kvorum::config::usage(), server::RING_USAGE);
            return Ok(());
        }
        Start::Version => {
            println!("kvorum {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
    };
    let set_log_level = start_log(&config.options())?;
    disable_transparent_huge_pages();
    server::run(config, Entropy::system(), set_log_level)?;
    Ok(())
}

/// Starts the process' log; what it returns changes the level.
fn start_log(options: &Options) -> anyhow::Result<server::SetLogLevel> {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let (filter, handle) = tracing_subscriber::reload::Layer::new(log_filter(options.loglevel));
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
    Ok(Box::new(move |level| {
        if let Err(error) = handle.reload(log_filter(level)) {
            tracing::warn!(%error, "cannot change the level of the log");
        }
    }))
}

/// What is logged at `level`.
fn log_filter(level: LogLevel) -> tracing_subscriber::filter::Targets {
    let default = match level {
        LogLevel::Debug => tracing::Level::TRACE,
        LogLevel::Verbose => tracing::Level::DEBUG,
        LogLevel::Notice => tracing::Level::INFO,
        LogLevel::Warning => tracing::Level::WARN,
    };
    // openraft tells its whole inner life at INFO and every unreachable peer at WARN, many times a second.
    let openraft = match level {
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Verbose => tracing::Level::INFO,
        LogLevel::Notice | LogLevel::Warning => tracing::Level::ERROR,
    };
    tracing_subscriber::filter::Targets::new()
        .with_default(default)
        .with_target("openraft", openraft)
}

/// Zeroing a 2 MiB page takes milliseconds where small pages take microseconds, just when a command waits.
fn disable_transparent_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "cannot disable transparent huge pages; expect latency spikes");
    }
}
