//! Builds the house bottom-up, runs it, tears it down top-down.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::admin::{self, Hosts, Visits};
use super::descriptors::{self, Shares};
use super::house::House;
use super::listener::{self, Sharing};
use super::lobby::Lobby;
use super::protection;
use crate::command::{self, Registry};
use crate::config::{Config, LogLevel, Options};
use crate::node::{self, LogWork, Node, NodeError, NodeOptions, Progress, Sizes};
use crate::raft::BlockingPool;
use crate::ring::Doors;
use crate::session::{self, Door};
use crate::stdx::clock::{Clock, SystemClock};
use crate::stdx::entropy::Entropy;
use crate::stdx::fs::SystemDisk;
use crate::transport::Net;
use crate::wal::BootId;

/// Why the server cannot run: one line that says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process may open too few files.
    #[error(
        "the limit of {limit} open files is too low to serve anybody: raise it to {least} or more (ulimit -n)"
    )]
    Descriptors {
        /// How many it may open.
        limit: u64,
        /// How many it must.
        least: u64,
    },
    /// The node cannot start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The operating system refused a thread or a runtime.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// Makes the process log at another level.
pub type SetLogLevel = Box<dyn Fn(LogLevel) + Send>;

/// A listening socket per door and address, for one runtime.
type Listeners = Vec<(TcpListener, Door)>;

/// Runs a node until it is asked to stop (SIGTERM, SIGINT, SHUTDOWN). `set_log_level` is called when CONFIG SET
/// changes `loglevel`.
///
/// # Errors
/// [`ServerError`] when it cannot start.
pub fn run(
    config: Config,
    entropy: Entropy,
    set_log_level: SetLogLevel,
) -> Result<(), ServerError> {
    let options = config.options();
    let threads = options.io_threads.map_or_else(default_threads, usize::from);
    let shares = descriptors::provide(&config, threads)?;
    let threads = shares.threads;
    let runtime = runtime().map_err(ServerError::Runtime)?;
    let (stop, stopping) = watch::channel(false);
    let mut handles = vec![runtime.handle().clone()];
    let mut workers = Vec::new();
    for index in 1..threads {
        let (handle, worker) =
            spawn_worker(index, stopping.clone()).map_err(ServerError::Runtime)?;
        handles.push(handle);
        workers.push(worker);
    }
    let outcome =
        runtime.block_on(serve(Arc::new(config), shares, entropy, handles, set_log_level));
    stop.send_replace(true);
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("a runtime's thread panicked");
        }
    }
    outcome
}

/// One on one or two cores, where the kernel and the log need the rest; else one less than there are.
pub(super) fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).max(1)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A thread with a runtime of its own that runs until the server stops.
fn spawn_worker(
    index: usize,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let runtime = runtime()?;
    let handle = runtime.handle().clone();
    let thread =
        std::thread::Builder::new().name(format!("kvorum-io-{index}")).spawn(move || {
            runtime.block_on(async {
                // Ends when the server says so, or when it is gone.
                let _stopped = stopping.wait_for(|stopping| *stopping).await;
            });
        })?;
    Ok((handle, thread))
}

async fn serve(
    config: Arc<Config>,
    allotted: Shares,
    entropy: Entropy,
    runtimes: Vec<Handle>,
    set_log_level: SetLogLevel,
) -> Result<(), ServerError> {
    let options = config.options();
    protection::warn(&options);
    // Ports before data: a port in use must not cost a recovery first.
    let alone = open_doors(&options, Sharing::Alone)?;
    let mut listeners = Vec::new();
    if runtimes.len() == 1 {
        listeners.push(alone);
    } else {
        // A shared port would also be shared with another process that shares it; now it is known to be free.
        drop(alone);
        for runtime in &runtimes {
            let _inside = runtime.enter();
            listeners.push(open_doors(&options, Sharing::AmongRuntimes)?);
        }
    }
    let admin_listeners = open(&options, options.admin_port, Sharing::Alone)?;
    let progress = Arc::new(Progress::new());
    let house = Arc::new(House::new(Arc::clone(&progress)));
    let hosts = Arc::new(Hosts::of(&options));
    for listener in admin_listeners {
        let visits = Visits::new(allotted.operators_max);
        tokio::spawn(admin::accept(listener, Arc::clone(&house), Arc::clone(&hosts), visits));
    }
    let lobby = Arc::new(Lobby::new(Arc::clone(&options), Arc::clone(&progress)));
    for (listeners, runtime) in listeners.into_iter().zip(&runtimes) {
        for (listener, door) in listeners {
            runtime.spawn(serve_door(listener, door, Arc::clone(&house), Arc::clone(&lobby)));
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let started = node::start(NodeOptions {
        config: Arc::clone(&config),
        clock,
        disk: SystemDisk::shared(),
        net: Net::Tcp,
        workers: BlockingPool::shared(),
        log: LogWork::Threads,
        entropy,
        boot_id: BootId::read(),
        sizes: Sizes::DEFAULT,
        runtimes: runtimes.clone(),
        doors: announced_doors(&options),
        peer_limits: allotted.peers,
        registry: registry(),
        progress: Arc::clone(&progress),
    })
    .await?;
    let node = Arc::clone(&started.node);
    house.enter(Arc::clone(&node));
    tokio::spawn(follow_config(Arc::clone(&node), set_log_level));
    let port = options.port.unwrap_or(0);
    let stopped = async {
        tokio::select! {
            biased;
            () = node.stopped() => {}
            () = wait_for_signal() => {}
        }
    };
    let mut stopped = std::pin::pin!(stopped);
    let is_ready = tokio::select! {
        biased;
        () = &mut stopped => false,
        () = progress.finished() => true,
    };
    if is_ready {
        let (node, shards) = (node.name(), node.shards().len());
        tracing::info!(node, port, shards, "ready to accept connections");
        stopped.await;
    }
    tracing::info!("stopping");
    // Before clients are let go: until then this node forwards theirs to the new leaders.
    started.hand_over_leads().await;
    node.stop();
    started.stop().await;
    node.take_failure().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Serves one door on the runtime of its listener: first the lobby, then the node.
async fn serve_door(listener: TcpListener, door: Door, house: Arc<House>, lobby: Arc<Lobby>) {
    let waiting = lobby.hold(&listener).await;
    let node = house.entered().await;
    for (stream, peer) in waiting {
        listener::admit(stream, peer, door, &node);
    }
    listener::accept(listener, door, node).await;
}

/// The commands of all rooms.
fn registry() -> Registry {
    let data = command::all().map(|command| command.spec);
    Registry::new(data.chain(node::specs()).chain(session::specs()))
}

/// Gives changed directives to what does not read them by itself. Never returns.
async fn follow_config(node: Arc<Node>, set_log_level: SetLogLevel) {
    let mut changes = node.config_changes();
    let mut level = node.config().options().loglevel;
    while changes.changed().await.is_ok() {
        let now = node.config().options().loglevel;
        if now != level {
            level = now;
            set_log_level(level);
        }
    }
}

/// A listening socket per address at `port`, on the current runtime; none when the door is closed.
fn open(
    options: &Options,
    port: Option<u16>,
    sharing: Sharing,
) -> Result<Vec<TcpListener>, ServerError> {
    let mut listeners = Vec::new();
    for (bind, port) in options.bind.iter().zip(port.into_iter().cycle()) {
        let address = SocketAddr::new(bind.ip, port);
        match listener::bind(address, options.tcp_backlog, sharing) {
            Ok(listener) => listeners.push(listener),
            Err(error) if bind.is_optional && is_absent(&error) => {
                tracing::warn!(%address, %error, "left out an optional address");
            }
            Err(source) => return Err(ServerError::Listen { address, source }),
        }
    }
    Ok(listeners)
}

fn open_doors(options: &Options, sharing: Sharing) -> Result<Listeners, ServerError> {
    let plain = open(options, options.port, sharing)?.into_iter().map(|door| (door, Door::Plain));
    let cluster = open(options, options.cluster_port, sharing)?;
    Ok(plain.chain(cluster.into_iter().map(|door| (door, Door::Cluster))).collect())
}

/// Whether the machine does not have the address, as opposed to its port being in use.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

/// Where clients find this node.
fn announced_doors(options: &Options) -> Doors {
    let ip = options.cluster_announce_ip.unwrap_or_else(|| reachable(options.bind[0].ip));
    Doors {
        host: options.cluster_announce_hostname.clone().unwrap_or_else(|| ip.to_string()),
        port: options.cluster_announce_port.or(options.port).unwrap_or(0),
        cluster_port: options.cluster_announce_cluster_port.or(options.cluster_port).unwrap_or(0),
    }
}

/// An address one can connect to: a node bound to all addresses is reached by the loopback unless it
/// announces another.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot listen for signals; only kill -9 stops this process");
            std::future::pending::<()>().await;
        }
    }
}
