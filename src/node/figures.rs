//! What this node tells of itself, a row for each figure: where INFO shows it, what Prometheus calls it, how it is read.
//!
//! What nobody keeps here is left out rather than shown as 0; names that begin with `kvorum_` are not of Redis. A row says
//! where it is shown by what it has: a field for INFO, a [`Metric`] for `/metrics`, or both.
//!
//! Source: Redis docs, INFO; Prometheus docs, metric and label naming.

use std::cell::OnceCell;
use std::fmt;
use std::time::Duration;

use super::clients::Client;
use super::node::Node;
use super::process::{Process, is_strained, machine_bytes};
use crate::ids::{DbIndex, ShardId};
use crate::raft::{GroupStatus, Leadership};
use crate::shard::Shard;
use crate::stdx::memory;
use crate::stdx::prng::SplitMix64;

/// The version of Redis whose commands and replies kvorum has; clients choose by it what they may use.
pub const REDIS_VERSION: &str = "7.2.6";

/// A figure as Prometheus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it is, in a sentence.
    pub help: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Up and down.
    Gauge,
    /// Up, and back to 0 at a start.
    Counter,
}

impl MetricKind {
    /// The word of Prometheus for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// A number.
    Number(u64),
    /// Seconds, shown with six digits behind the point.
    Time(Duration),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Time(time) => write!(f, "{}.{:06}", time.as_secs(), time.subsec_micros()),
        }
    }
}

/// A metric and what it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What it is.
    pub metric: Metric,
    /// One figure of the node, or one of each replica here.
    pub figures: Vec<(Option<ShardId>, Figure)>,
}

/// All metrics of `node`, in the order of the rows.
pub fn samples(node: &Node) -> Vec<Sample> {
    let sight = Sight::of(node);
    let rows = SECTIONS.iter().flat_map(|section| section.rows);
    rows.filter_map(|row| Some(Sample { metric: row.metric?, figures: row.figures(&sight) }))
        .collect()
}

/// What rows look at, as of one moment; what takes a look at the kernel or at every shard is looked at once.
pub(super) struct Sight<'a> {
    pub(super) node: &'a Node,
    process: OnceCell<Process>,
    replicas: OnceCell<Vec<Replica<'a>>>,
}

impl<'a> Sight<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        Self { node, process: OnceCell::new(), replicas: OnceCell::new() }
    }

    fn process(&self) -> &Process {
        self.process.get_or_init(Process::read)
    }

    fn replicas(&self) -> &[Replica<'a>] {
        self.replicas.get_or_init(|| {
            let replica = |shard: &'a std::sync::Arc<Shard>| {
                let leader = shard.leader();
                Some(Replica {
                    shard,
                    status: shard.status()?,
                    has_leader: leader.is_some(),
                    leads: leader == Some(self.node.id()),
                })
            };
            self.node.shards().iter().filter_map(replica).collect()
        })
    }
}

/// A replica on this node.
pub(super) struct Replica<'a> {
    shard: &'a Shard,
    status: GroupStatus,
    has_leader: bool,
    leads: bool,
}

/// How a row is read.
pub(super) enum Read {
    /// The same always.
    Fixed(&'static str),
    Number(fn(&Sight<'_>) -> u64),
    /// A number that the machine may not tell.
    IfKnown(fn(&Sight<'_>) -> Option<u64>),
    Time(fn(&Sight<'_>) -> Option<Duration>),
    /// A number of each replica here; INFO shows their sum.
    Each(fn(&Replica<'_>) -> u64),
    /// For people, and no metric.
    Text(fn(&Sight<'_>, &Client) -> Option<String>),
    /// Lines whose names depend on what there is.
    Lines(fn(&Sight<'_>) -> Vec<(String, String)>),
}

/// A figure, or a few lines.
pub(super) struct Row {
    /// What INFO calls it, unless INFO does not show it.
    pub(super) field: Option<&'static str>,
    /// Whether INFO shows it a second time, for people: `used_memory_human`.
    pub(super) is_size: bool,
    pub(super) metric: Option<Metric>,
    pub(super) read: Read,
}

impl Row {
    const fn new(field: &'static str, read: Read) -> Self {
        Self { field: Some(field), is_size: false, metric: None, read }
    }

    /// What INFO does not show.
    const fn unshown(read: Read) -> Self {
        Self { field: None, is_size: false, metric: None, read }
    }

    const fn size(self) -> Self {
        Self { is_size: true, ..self }
    }

    const fn gauge(self, name: &'static str, help: &'static str) -> Self {
        Self { metric: Some(Metric { name, kind: MetricKind::Gauge, help }), ..self }
    }

    const fn counter(self, name: &'static str, help: &'static str) -> Self {
        Self { metric: Some(Metric { name, kind: MetricKind::Counter, help }), ..self }
    }

    fn figures(&self, sight: &Sight<'_>) -> Vec<(Option<ShardId>, Figure)> {
        match &self.read {
            Read::Each(read) => {
                let figure = |replica: &Replica<'_>| {
                    (Some(replica.shard.id()), Figure::Number(read(replica)))
                };
                sight.replicas().iter().map(figure).collect()
            }
            Read::Fixed(_)
            | Read::Number(_)
            | Read::IfKnown(_)
            | Read::Time(_)
            | Read::Text(_)
            | Read::Lines(_) => {
                self.figure(sight).map(|figure| (None, figure)).into_iter().collect()
            }
        }
    }

    /// The figure of the whole node.
    pub(super) fn figure(&self, sight: &Sight<'_>) -> Option<Figure> {
        match &self.read {
            Read::Number(read) => Some(Figure::Number(read(sight))),
            Read::IfKnown(read) => read(sight).map(Figure::Number),
            Read::Time(read) => read(sight).map(Figure::Time),
            Read::Each(read) => Some(Figure::Number(sight.replicas().iter().map(read).sum())),
            Read::Fixed(_) | Read::Text(_) | Read::Lines(_) => None,
        }
    }
}

/// Rows under one heading of INFO.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) rows: &'static [Row],
}

use Read::{Each, Fixed, IfKnown, Lines, Number, Text, Time};

/// All there is, in the order in which INFO shows it.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "Server",
        rows: &[
            Row::new("redis_version", Fixed(REDIS_VERSION)),
            Row::new("kvorum_version", Fixed(env!("CARGO_PKG_VERSION"))),
            Row::unshown(Number(|_| 1)).gauge("kvorum_up", "1 while the node serves."),
            Row::new("redis_mode", Text(|_, client| Some(client.arrival.door.mode().to_owned()))),
            Row::new("os", Text(|_, _| Some(operating_system()))),
            Row::new("arch_bits", Number(|_| usize::BITS.into())),
            Row::new("process_id", Number(|_| std::process::id().into())),
            Row::new("run_id", Text(|sight, _| Some(run_id(sight.node)))),
            Row::new("tcp_port", Text(|_, client| Some(client.arrival.local.port().to_string()))),
            Row::new(
                "server_time_usec",
                Number(|sight| sight.node.clock().now().0.saturating_mul(1000)),
            ),
            Row::new("uptime_in_seconds", Number(|sight| sight.node.uptime().as_secs()))
                .gauge("kvorum_uptime_seconds", "Seconds since the start."),
            Row::new("uptime_in_days", Number(|sight| sight.node.uptime().as_secs() / 86_400)),
            Row::new("executable", Text(|_, _| Some(std::env::current_exe().ok()?.display().to_string()))),
            Row::new("kvorum_node_id", Text(|sight, _| Some(sight.node.name().to_owned()))),
            Row::new("kvorum_incarnation", Text(|sight, _| Some(sight.node.incarnation().to_string()))),
            Row::new("kvorum_session", Text(|sight, _| Some(sight.node.session().to_string()))),
            Row::new(
                "kvorum_port",
                Number(|sight| sight.node.config().options().port.unwrap_or(0).into()),
            ),
            Row::new(
                "kvorum_cluster_port",
                Number(|sight| sight.node.config().options().cluster_port.unwrap_or(0).into()),
            ),
        ],
    },
    Section {
        name: "Clients",
        rows: &[
            Row::new("connected_clients", Number(|sight| count(sight.node.clients().count())))
                .gauge("kvorum_clients", "Connected clients."),
            Row::new("cluster_connections", Number(peers_connected))
                .gauge("kvorum_peers_connected", "Other nodes that this one has a connection to."),
            Row::new("maxclients", Number(|sight| sight.node.config().options().maxclients.into())),
            Row::new("blocked_clients", Fixed("0")),
            Row::new("tracking_clients", Fixed("0")),
        ],
    },
    Section {
        name: "Memory",
        rows: &[
            Row::new("used_memory", Number(|_| memory::used()))
                .size()
                .gauge("kvorum_memory_used_bytes", "Bytes that the allocator has given out."),
            Row::new("used_memory_rss", IfKnown(|sight| sight.process().resident_bytes))
                .size()
                .gauge("kvorum_memory_resident_bytes", "Bytes that the process has resident."),
            Row::new("used_memory_peak", IfKnown(|sight| sight.process().resident_bytes_max)).size(),
            Row::new("total_system_memory", IfKnown(|_| machine_bytes())).size(),
            Row::new("maxmemory", Number(|sight| sight.node.config().options().maxmemory))
                .size()
                .gauge("kvorum_maxmemory_bytes", "The limit of used memory; 0 for none."),
            Row::new(
                "kvorum_session_bytes",
                Each(|replica| count(replica.shard.gauges().sessions.bytes)),
            )
            .gauge("kvorum_shard_session_bytes", "Bytes of replies kept for retries."),
            Row::new("maxmemory_policy", Fixed("noeviction")),
            Row::new("kvorum_memory_strained", Number(memory_strained)).gauge(
                "kvorum_memory_strained",
                "1 while the process has most of the machine's memory resident.",
            ),
            Row::new("mem_allocator", Fixed("mimalloc")),
        ],
    },
    Section {
        name: "Persistence",
        rows: &[
            Row::new("loading", Fixed("0")),
            Row::new("async_loading", Fixed("0")),
            Row::new("rdb_bgsave_in_progress", Fixed("0")),
            Row::new("rdb_last_bgsave_status", Fixed("ok")),
            Row::new("aof_enabled", Fixed("1")),
            Row::new("aof_rewrite_in_progress", Fixed("0")),
            Row::new("aof_last_write_status", Text(|sight, _| Some(log_status(sight).to_owned()))),
            Row::unshown(Number(|sight| sight.node.wal().failure().is_some().into()))
                .gauge("kvorum_wal_failed", "1 once the log has failed and writes are refused."),
            Row::new("aof_current_size", Number(|sight| sight.node.wal().live_bytes()))
                .gauge("kvorum_wal_bytes", "Bytes of log kept."),
            Row::new("kvorum_wal_syncs", Number(|sight| sight.node.wal().stats().syncs))
                .counter("kvorum_wal_syncs_total", "Syncs of the log."),
            Row::new("kvorum_wal_writes", Number(|sight| sight.node.wal().stats().writes))
                .counter("kvorum_wal_writes_total", "Writes to the log."),
        ],
    },
    Section {
        name: "Stats",
        rows: &[
            Row::new("total_connections_received", Number(|sight| sight.node.clients().total()))
                .counter("kvorum_connections_total", "Clients let in."),
            Row::new("total_commands_processed", Number(|sight| sight.node.counters().commands()))
                .counter("kvorum_commands_total", "Commands taken from clients."),
            Row::new("rejected_connections", Number(|sight| sight.node.clients().rejected())).counter(
                "kvorum_connections_rejected_total",
                "Clients turned away for maxclients or protected mode, or dismissed for another.",
            ),
            Row::new(
                "acl_access_denied_auth",
                Number(|sight| sight.node.counters().auth_failures()),
            )
            .counter("kvorum_auth_failures_total", "Wrong passwords."),
            Row::new("evicted_keys", Fixed("0")),
            Row::new("pubsub_channels", Fixed("0")),
            Row::new("pubsub_patterns", Fixed("0")),
        ],
    },
    // A plain client sees one big Redis: a master that has its replicas inside.
    Section {
        name: "Replication",
        rows: &[
            Row::new("role", Fixed("master")),
            Row::new("connected_slaves", Fixed("0")),
            Row::new("master_failover_state", Fixed("no-failover")),
            Row::new("master_replid", Text(|sight, _| Some(replication_id(sight)))),
            Row::new("master_repl_offset", Fixed("0")),
            Row::new("repl_backlog_active", Fixed("0")),
            Row::new(
                "kvorum_replicas_per_shard",
                Number(|sight| count(sight.node.topology().replica_count())),
            ),
            Row::new("kvorum_shards_hosted", Each(|_| 1)),
            Row::new("kvorum_shards_led", Each(|replica| replica.leads.into()))
                .gauge("kvorum_shard_leader", "1 where this node leads the shard."),
            Row::unshown(Each(|replica| replica.has_leader.into()))
                .gauge("kvorum_shard_has_leader", "1 where a leader of the shard is known."),
            Row::unshown(Each(|replica| replica.status.term))
                .gauge("kvorum_shard_term", "Raft term of the shard."),
            Row::unshown(Each(|replica| replica.status.applied_index.unwrap_or(0)))
                .gauge("kvorum_shard_applied_index", "Index of the last entry applied here."),
            Row::unshown(Each(|replica| replica.status.stopped.is_some().into())).gauge(
                "kvorum_shard_stopped",
                "1 where the replica here has stopped for good.",
            ),
            Row::new("kvorum_meta_role", Text(|sight, _| Some(meta_role(sight).to_owned()))),
            Row::new("kvorum_groups_stopped", Number(|sight| count(sight.node.stopped_groups().len())))
                .gauge(
                    "kvorum_groups_stopped",
                    "Replicas here that have stopped for good, that of the meta group too.",
                ),
            Row::unshown(Lines(reasons_of_stopped)),
        ],
    },
    Section {
        name: "CPU",
        rows: &[
            Row::new("used_cpu_sys", Time(|sight| sight.process().system)).counter(
                "kvorum_cpu_system_seconds_total",
                "Processor time that the kernel has spent for the process.",
            ),
            Row::new("used_cpu_user", Time(|sight| sight.process().user)).counter(
                "kvorum_cpu_user_seconds_total",
                "Processor time that the process has spent itself.",
            ),
        ],
    },
    // The CLUSTER commands are answered at either door.
    Section {
        name: "Cluster",
        rows: &[
            Row::new("cluster_enabled", Fixed("1")),
            Row::new("kvorum_nodes", Number(|sight| count(sight.node.topology().nodes().len()))),
            Row::new("kvorum_shards", Number(|sight| count(sight.node.topology().placements().len()))),
        ],
    },
    Section { name: "Keyspace", rows: &[Row::unshown(Lines(databases))] },
];

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn operating_system() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// 40 hexadecimal digits that no other start of any node has.
fn run_id(node: &Node) -> String {
    let mut random = SplitMix64::new(node.run_seed());
    let numbers = [random.next_u64(), random.next_u64(), random.next_u64()];
    let digits = format!("{:016x}{:016x}{:016x}", numbers[0], numbers[1], numbers[2]);
    digits[..40].to_owned()
}

fn peers_connected(sight: &Sight<'_>) -> u64 {
    count(sight.node.peers().all().iter().filter(|peer| peer.is_connected()).count())
}

fn memory_strained(sight: &Sight<'_>) -> u64 {
    is_strained(sight.process().resident_bytes, machine_bytes()).into()
}

fn log_status(sight: &Sight<'_>) -> &'static str {
    if sight.node.wal().failure().is_none() { "ok" } else { "err" }
}

fn replication_id(sight: &Sight<'_>) -> String {
    format!("{:040x}", sight.node.topology().cluster_id())
}

fn meta_role(sight: &Sight<'_>) -> &'static str {
    match sight.node.meta().leadership() {
        Some(Leadership::Here) => "leader",
        Some(Leadership::There(_)) => "follower",
        Some(Leadership::Unknown) => "no-leader",
        None => "none",
    }
}

fn reasons_of_stopped(sight: &Sight<'_>) -> Vec<(String, String)> {
    let line = |(group, why): (String, String)| {
        (format!("kvorum_stopped_{group}"), why.replace(['\r', '\n'], " "))
    };
    sight.node.stopped_groups().into_iter().map(line).collect()
}

/// Keys of the replicas on this node: all there are, unless the cluster has more nodes than replicas.
fn databases(sight: &Sight<'_>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for db in (0..DbIndex::COUNT).map(DbIndex) {
        let (mut keys, mut expires) = (0, 0);
        for shard in sight.node.shards() {
            let of_shard = shard.gauges().keys[usize::from(db.0)];
            keys += of_shard.keys;
            expires += of_shard.expires;
        }
        if keys > 0 {
            lines.push((format!("db{}", db.0), format!("keys={keys},expires={expires},avg_ttl=0")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::node::testing::TestNode;

    #[test]
    fn every_row_is_shown_somewhere_and_no_name_twice() {
        let (mut fields, mut metrics) = (BTreeSet::new(), BTreeSet::new());
        for row in SECTIONS.iter().flat_map(|section| section.rows) {
            let has_lines = matches!(row.read, Read::Lines(_));
            assert!(row.field.is_some() || row.metric.is_some() || has_lines);
            assert!(row.field.is_none_or(|field| fields.insert(field)), "{:?}", row.field);
            let Some(Metric { name, kind, help }) = row.metric else { continue };
            assert!(metrics.insert(name) && name.starts_with("kvorum_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == MetricKind::Counter, "{name}");
            assert!(help.ends_with('.'), "{help}");
            let is_number = matches!(
                row.read,
                Read::Number(_) | Read::IfKnown(_) | Read::Time(_) | Read::Each(_)
            );
            assert!(is_number, "{name} is read as a number");
        }
        assert!(fields.len() > 50 && metrics.len() > 20, "{} {}", fields.len(), metrics.len());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn replicas_are_told_one_by_one_and_summed_for_info() {
        let test = TestNode::start(&[]).await;
        let sight = Sight::of(&test.started.node);
        let row = |field| {
            let mut rows = SECTIONS.iter().flat_map(|section| section.rows);
            rows.find(|row| row.field == Some(field)).unwrap()
        };
        let led = row("kvorum_shards_led");
        let one = |shard| (Some(ShardId(shard)), Figure::Number(1));
        assert_eq!(led.figures(&sight), [one(0), one(1)]);
        assert_eq!(led.figure(&sight), Some(Figure::Number(2)));
        assert_eq!(row("uptime_in_seconds").figures(&sight).len(), 1);
        assert_eq!(run_id(&test.started.node).len(), 40);
    }

    #[test]
    fn times_have_six_digits_behind_the_point() {
        assert_eq!(Figure::Time(Duration::from_millis(12_050)).to_string(), "12.050000");
    }
}
