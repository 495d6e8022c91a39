//! Who gets how many of the process's file descriptors: the log, the peers and the operators before any client.
//!
//! A log that cannot open its next segment takes no more writes, and then a thousand idle strangers have stopped the node.
//! So `maxclients` never exceeds what the limit of open files leaves when everybody else has had theirs.

use super::admin;
use super::server::ServerError;
use crate::config::{Config, Options};
use crate::stdx::descriptors::raise_limit;
use crate::transport;

/// Standard input and output, the log file, the locks of the directory, the resolver's sockets.
const OF_PROCESS: u64 = 32;

/// Of one runtime: its epoll, its wake-up, its signals and timers.
const OF_THREAD: u64 = 8;

/// Segments of the log, snapshots that are written, sent and read.
const OF_LOG: u64 = 128;

/// Connections that are told that there is no room, or are about to end.
const OF_LEAVERS: u64 = 64;

/// Raises the process's limit, and lowers `maxclients` to what it allows.
///
/// # Errors
/// [`ServerError::Descriptors`] when it allows no client at all.
pub(super) fn provide(config: &Config, threads: usize) -> Result<(), ServerError> {
    let limit = raise_limit();
    let reserve = reserve(&config.options(), threads);
    let Some(left) = limit.checked_sub(reserve).filter(|left| *left > 0) else {
        return Err(ServerError::Descriptors { limit, least: reserve + 1 });
    };
    let clients_max = u32::try_from(left).unwrap_or(u32::MAX);
    if let Some(asked) = config.bound_clients(clients_max) {
        tracing::warn!(
            limit,
            reserve,
            "maxclients is {clients_max}, not {asked}: the process may not open more files; raise its limit (ulimit -n) to {} or more",
            reserve + u64::from(asked)
        );
    }
    Ok(())
}

/// Descriptors that clients never get.
fn reserve(options: &Options, threads: usize) -> u64 {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let threads = count(threads);
    // Client doors have a socket per runtime, the peer and the admin door one.
    let doors = count(options.bind.len()) * (2 * threads + 2);
    // Each dials all others and is dialled by them; a new connection may come before the old one has ended.
    let peers = 4 * count(options.cluster_nodes.split_ascii_whitespace().count());
    let strangers_at_peer_door = count(transport::Limits::default().handshakes_max);
    OF_PROCESS
        + OF_THREAD * threads
        + OF_LOG
        + OF_LEAVERS
        + doors
        + peers
        + strangers_at_peer_door
        + count(admin::CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Start;

    fn options(words: &[&str]) -> std::sync::Arc<Options> {
        let words = words.iter().map(|word| (*word).to_owned());
        let Ok(Start::Run(config)) = Config::load(words) else { panic!("a valid configuration") };
        config.options()
    }

    #[test]
    fn everybody_else_has_theirs() {
        let alone = reserve(&options(&[]), 1);
        assert_eq!(alone, 32 + 8 + 128 + 64 + 4 + 256 + 64);
        let nodes = ["--cluster-nodes", "n1=h1:1 n2=h2:1 n3=h3:1"];
        assert_eq!(reserve(&options(&nodes), 1), alone + 12);
        assert_eq!(reserve(&options(&["--bind", "127.0.0.1", "::1"]), 3), alone + 16 + 16 - 4);
    }
}
