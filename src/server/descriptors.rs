//! Who gets how many of the process's file descriptors: the log, the peers and the operators before any client.
//!
//! A log that cannot open its next segment takes no more writes, and then a thousand idle strangers have stopped the node.
//! So `maxclients` never exceeds what the limit of open files leaves when everybody else has had theirs. Where that is
//! little, strangers at the other doors get less too, and then there are fewer threads: a machine of many cores with the
//! usual 1024 serves some hundred clients rather than nobody. Where even one thread leaves clients less than their part,
//! everybody has the least that a node of little data needs, and it says so; only below that there is no start.

use super::admin;
use super::server::ServerError;
use crate::config::{Config, Options};
use crate::stdx::descriptors::raise_limit;
use crate::transport;

/// Of one runtime: its epoll, its wake-up, its signals and timers.
const OF_THREAD: u64 = 8;

/// Clients that others make room for: one in so many of all descriptors.
const CLIENTS_LEAST_DIVISOR: u64 = 4;

/// Standard input and output, the log file, the locks of the directory, the resolver's sockets; and the least of them, of
/// which a node alone has seven open and one or two for a moment.
const OF_PROCESS: u64 = 32;
const OF_PROCESS_LEAST: u64 = 12;

/// Segments of the log, snapshots that are written, sent and read; and the least of them: the log that is kept (five), what
/// is written while a snapshot is made, and that one.
const OF_LOG: u64 = 128;
const OF_LOG_LEAST: u64 = 16;

/// Connections that are told that there is no room, or are about to end. Where more are, the log waits for them
/// (`wal/descriptors.rs`).
const OF_LEAVERS: u64 = 64;
const OF_LEAVERS_LEAST: u64 = 8;

/// Operators' connections, and peers that shake hands, where there are hardly any descriptors.
const DOOR_LEAST: usize = 8;

/// Of the connections that peers' and operators' doors hold, what is left of each so many where there are few descriptors.
const LEAN_DIVISOR: usize = 8;

/// How many of each there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Runtimes, each with a thread.
    pub(super) threads: usize,
    /// Connections at the door for operators.
    pub(super) operators_max: usize,
    /// What the door for peers may hold.
    pub(super) peers: transport::Limits,
    /// What nobody connects to: of the process, of the log, and of who is about to end.
    process: u64,
    log: u64,
    leavers: u64,
}

impl Shares {
    /// As many as anybody may want.
    fn full(threads: usize) -> Self {
        let peers = transport::Limits::default();
        let (process, log, leavers) = (OF_PROCESS, OF_LOG, OF_LEAVERS);
        Self { threads, operators_max: admin::CONNECTIONS_MAX, peers, process, log, leavers }
    }

    /// Fewer of those who need not prove anything before they take one.
    fn lean(threads: usize) -> Self {
        let full = Self::full(threads);
        let peers = transport::Limits {
            handshakes_max: full.peers.handshakes_max / LEAN_DIVISOR,
            handshakes_per_address_max: full.peers.handshakes_per_address_max / LEAN_DIVISOR,
            ..full.peers
        };
        Self { operators_max: full.operators_max / LEAN_DIVISOR, peers, ..full }
    }

    /// What one thread needs where there is hardly anything; the log gets what clients leave of their part.
    fn least(limit: u64, options: &Options, wanted: u64) -> Self {
        let full = Self::full(1);
        let peers = transport::Limits {
            handshakes_max: DOOR_LEAST,
            handshakes_per_address_max: DOOR_LEAST,
            ..full.peers
        };
        let least = Self {
            operators_max: DOOR_LEAST,
            peers,
            process: OF_PROCESS_LEAST,
            log: 0,
            leavers: OF_LEAVERS_LEAST,
            ..full
        };
        let left = limit.saturating_sub(least.reserve(options)).saturating_sub(wanted);
        Self { log: left.clamp(OF_LOG_LEAST, OF_LOG), ..least }
    }

    /// The most that leave clients a good part of `limit` descriptors, or else the least there can be.
    fn of(limit: u64, options: &Options, threads: usize) -> Self {
        let wanted = u64::from(options.maxclients).min(limit / CLIENTS_LEAST_DIVISOR);
        let leaves_enough = |shares: &Self| {
            shares.reserve(options).checked_add(wanted).is_some_and(|all| all <= limit)
        };
        let fewer = (1..=threads).rev().map(Self::lean);
        std::iter::once(Self::full(threads))
            .chain(fewer)
            .find(leaves_enough)
            .unwrap_or_else(|| Self::least(limit, options, wanted))
    }

    /// Descriptors that clients never get.
    fn reserve(&self, options: &Options) -> u64 {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let threads = count(self.threads);
        // Client doors have a socket per runtime, the peer and the admin door one.
        let doors = count(options.bind.len()) * (2 * threads + 2);
        // Each dials all others and is dialled by them; a new connection may come before the old one has ended.
        let peers = 4 * count(options.cluster_nodes.split_ascii_whitespace().count());
        self.process
            + OF_THREAD * threads
            + self.log
            + self.leavers
            + doors
            + peers
            + count(self.peers.handshakes_max)
            + count(self.operators_max)
    }
}

/// Raises the process's limit, shares out what it allows and lowers `maxclients` to what is left.
///
/// # Errors
/// [`ServerError::Descriptors`] when it allows no client at all.
pub(super) fn provide(config: &Config, threads: usize) -> Result<Shares, ServerError> {
    let limit = raise_limit();
    let options = config.options();
    let shares = Shares::of(limit, &options, threads);
    let reserve = shares.reserve(&options);
    let Some(left) = limit.checked_sub(reserve).filter(|left| *left > 0) else {
        return Err(ServerError::Descriptors { limit, least: reserve + 1 });
    };
    if shares.log < OF_LOG {
        tracing::warn!(
            limit,
            "the log and snapshots have {} files, not {OF_LOG}: the process may not open more, and much data needs them",
            shares.log
        );
    }
    if shares.threads < threads {
        tracing::warn!(
            limit,
            "io-threads is {}, not {threads}: the process may not open more files",
            shares.threads
        );
    }
    let clients_max = u32::try_from(left).unwrap_or(u32::MAX);
    if let Some(asked) = config.bound_clients(clients_max) {
        tracing::warn!(
            limit,
            reserve,
            "maxclients is {clients_max}, not {asked}: the process may not open more files; raise its limit (ulimit -n) to {} or more",
            Shares::full(threads).reserve(&options) + u64::from(asked)
        );
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::options;

    #[test]
    fn everybody_else_has_theirs() {
        let reserve = |words: &[&str], threads| Shares::full(threads).reserve(&options(words));
        let alone = reserve(&[], 1);
        assert_eq!(alone, 32 + 8 + 128 + 64 + 4 + 256 + 64);
        let nodes = ["--cluster-nodes", "n1=h1:1 n2=h2:1 n3=h3:1"];
        assert_eq!(reserve(&nodes, 1), alone + 12);
        assert_eq!(reserve(&["--bind", "127.0.0.1", "::1"], 3), alone + 16 + 16 - 4);
    }

    /// A limit of 1024 was too low to start for every machine with more than 47 cores.
    #[test]
    fn clients_keep_a_part_whatever_the_threads() {
        let options = options(&[]);
        for (limit, threads, given, operators_max) in [
            (20_000, 128, 128, 64),
            (1024, 1, 1, 64),
            (1024, 22, 22, 64),
            (1024, 23, 23, 8),
            (1024, 47, 47, 8),
            (1024, 128, 50, 8),
            (400, 8, 3, 8),
            (367, 8, 1, 8),
            (128, 8, 1, 8),
        ] {
            let shares = Shares::of(limit, &options, threads);
            assert_eq!(
                (shares.threads, shares.operators_max),
                (given, operators_max),
                "{limit} {threads}"
            );
        }
        let few = self::options(&["--maxclients", "50"]);
        assert_eq!(Shares::of(400, &few, 8).threads, 8, "no more than clients may be");
    }
    /// Below 277 it did not start, where redis-server takes less: the rest had more than a node of little data needs.
    #[test]
    fn where_hardly_any_are_the_log_has_what_clients_leave() {
        let alone = options(&[]);
        let nodes = options(&["--cluster-nodes", "n1=h1:1 n2=h2:1 n3=h3:1", "--node-id", "n1"]);
        for (limit, options, log, left) in [
            // A quarter is left for clients with all that others want, and just not.
            (367, &alone, 128, 91),
            (366, &alone, 128, 190),
            (234, &alone, 128, 58),
            (200, &alone, 102, 50),
            (128, &alone, 48, 32),
            (65, &alone, 16, 1),
            (64, &alone, 16, 0),
            (77, &nodes, 16, 1),
            (76, &nodes, 16, 0),
        ] {
            let shares = Shares::of(limit, options, 8);
            let reserve = shares.reserve(options);
            assert_eq!((shares.log, limit - reserve), (log, left), "{limit}");
        }
    }
}
