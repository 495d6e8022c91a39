//! What INFO tells of this node: sections of `name:value` lines, as Redis writes them.
//!
//! Lines whose number nobody keeps here are left out rather than shown as 0; lines that begin with `kvorum_` are
//! not of Redis. Memory is what the process has resident: that includes the log's buffers and the allocator's slack.
//!
//! Source: Redis docs, INFO.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::clients::Client;
use super::cluster_view::ClusterView;
use super::node::Node;
use super::process::{Process, is_strained, machine_bytes};
use crate::ids::DbIndex;
use crate::raft::Leadership;
use crate::stdx::memory;
use crate::stdx::prng::SplitMix64;

/// The version of Redis whose commands and replies kvorum has; clients choose by it what they may use.
pub const REDIS_VERSION: &str = "7.2.6";

type Section = fn(&Node, &Client, &mut Lines);

/// The sections in the order in which they are shown.
const SECTIONS: &[(&str, Section)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

/// The text of INFO with the arguments `asked`: the sections they name, each once; all when there are none.
pub(super) fn render(node: &Node, client: &Client, asked: &[&[u8]]) -> String {
    let asked: BTreeSet<String> =
        asked.iter().map(|name| String::from_utf8_lossy(name).to_lowercase()).collect();
    let is_all = asked.is_empty()
        || ["all", "default", "everything"].into_iter().any(|word| asked.contains(word));
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if !is_all && !asked.contains(&name.to_lowercase()) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let mut lines = Lines { text: format!("# {name}\r\n") };
        section(node, client, &mut lines);
        text.push_str(&lines.text);
    }
    text
}

/// Lines of a section.
struct Lines {
    text: String,
}

impl Lines {
    fn put(&mut self, name: &str, value: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _infallible = write!(self.text, "{name}:{value}\r\n");
    }
}

fn server(node: &Node, client: &Client, lines: &mut Lines) {
    let uptime = node.uptime().as_secs();
    let options = node.config().options();
    lines.put("redis_version", REDIS_VERSION);
    lines.put("kvorum_version", env!("CARGO_PKG_VERSION"));
    lines.put("redis_mode", client.arrival.door.mode());
    lines.put("os", format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    lines.put("arch_bits", usize::BITS);
    lines.put("process_id", std::process::id());
    lines.put("run_id", run_id(node));
    lines.put("tcp_port", client.arrival.local.port());
    lines.put("server_time_usec", node.clock().now().0.saturating_mul(1000));
    lines.put("uptime_in_seconds", uptime);
    lines.put("uptime_in_days", uptime / 86_400);
    if let Ok(executable) = std::env::current_exe() {
        lines.put("executable", executable.display());
    }
    lines.put("kvorum_node_id", node.name());
    lines.put("kvorum_incarnation", node.incarnation());
    lines.put("kvorum_session", node.session());
    lines.put("kvorum_port", options.port.unwrap_or(0));
    lines.put("kvorum_cluster_port", options.cluster_port.unwrap_or(0));
}

/// 40 hexadecimal digits that no other start of any node has.
fn run_id(node: &Node) -> String {
    let mut random = SplitMix64::new(node.run_seed());
    let numbers = [random.next_u64(), random.next_u64(), random.next_u64()];
    let digits = format!("{:016x}{:016x}{:016x}", numbers[0], numbers[1], numbers[2]);
    digits[..40].to_owned()
}

fn clients(node: &Node, _client: &Client, lines: &mut Lines) {
    lines.put("connected_clients", node.clients().count());
    lines
        .put("cluster_connections", node.peers().all().iter().filter(|p| p.is_connected()).count());
    lines.put("maxclients", node.config().options().maxclients);
    lines.put("blocked_clients", 0);
    lines.put("tracking_clients", 0);
}

fn memory(node: &Node, _client: &Client, lines: &mut Lines) {
    let process = Process::read();
    let mut put = |name: &str, bytes: Option<u64>| {
        if let Some(bytes) = bytes {
            lines.put(name, bytes);
            lines.put(&format!("{name}_human"), human(bytes));
        }
    };
    put("used_memory", Some(memory::used()));
    put("used_memory_rss", process.resident_bytes);
    put("used_memory_peak", process.resident_bytes_max);
    put("total_system_memory", machine_bytes());
    put("maxmemory", Some(node.config().options().maxmemory));
    let kept: usize = node.shards().iter().map(|shard| shard.gauges().sessions.bytes).sum();
    lines.put("kvorum_session_bytes", kept);
    lines.put("maxmemory_policy", "noeviction");
    let is_short = is_strained(process.resident_bytes, machine_bytes());
    lines.put("kvorum_memory_strained", u8::from(is_short));
    lines.put("mem_allocator", "mimalloc");
}

fn persistence(node: &Node, _client: &Client, lines: &mut Lines) {
    let wal = node.wal();
    let stats = wal.stats();
    lines.put("loading", 0);
    lines.put("async_loading", 0);
    lines.put("rdb_bgsave_in_progress", 0);
    lines.put("rdb_last_bgsave_status", "ok");
    lines.put("aof_enabled", 1);
    lines.put("aof_rewrite_in_progress", 0);
    lines.put("aof_last_write_status", if wal.failure().is_none() { "ok" } else { "err" });
    lines.put("aof_current_size", wal.live_bytes());
    lines.put("kvorum_wal_syncs", stats.syncs);
    lines.put("kvorum_wal_writes", stats.writes);
}

fn stats(node: &Node, _client: &Client, lines: &mut Lines) {
    lines.put("total_connections_received", node.clients().total());
    lines.put("total_commands_processed", node.counters().commands());
    lines.put("rejected_connections", node.clients().rejected());
    lines.put("acl_access_denied_auth", node.counters().auth_failures());
    lines.put("evicted_keys", 0);
    lines.put("pubsub_channels", 0);
    lines.put("pubsub_patterns", 0);
}

/// A plain client sees one big Redis: a master that has its replicas inside.
fn replication(node: &Node, _client: &Client, lines: &mut Lines) {
    let shards = node.shards();
    lines.put("role", "master");
    lines.put("connected_slaves", 0);
    lines.put("master_failover_state", "no-failover");
    lines.put("master_replid", format_args!("{:040x}", node.topology().cluster_id()));
    lines.put("master_repl_offset", 0);
    lines.put("repl_backlog_active", 0);
    lines.put("kvorum_replicas_per_shard", node.topology().replica_count());
    lines.put("kvorum_shards_hosted", shards.iter().filter(|shard| shard.is_replica()).count());
    let leads = |shard: &&std::sync::Arc<crate::shard::Shard>| shard.leader() == Some(node.id());
    lines.put("kvorum_shards_led", shards.iter().filter(leads).count());
    let meta = match node.meta().leadership() {
        Some(Leadership::Here) => "leader",
        Some(Leadership::There(_)) => "follower",
        Some(Leadership::Unknown) => "no-leader",
        None => "none",
    };
    lines.put("kvorum_meta_role", meta);
    let stopped = node.stopped_groups();
    lines.put("kvorum_groups_stopped", stopped.len());
    for (group, why) in stopped {
        lines.put(&format!("kvorum_stopped_{group}"), why.replace(['\r', '\n'], " "));
    }
}

fn cpu(_node: &Node, _client: &Client, lines: &mut Lines) {
    let process = Process::read();
    for (name, time) in [("used_cpu_sys", process.system), ("used_cpu_user", process.user)] {
        if let Some(time) = time {
            lines.put(name, format_args!("{}.{:06}", time.as_secs(), time.subsec_micros()));
        }
    }
}

/// The CLUSTER commands are answered at either door.
fn cluster(node: &Node, _client: &Client, lines: &mut Lines) {
    let view = ClusterView::of(node);
    lines.put("cluster_enabled", 1);
    lines.put("kvorum_nodes", node.topology().nodes().len());
    lines.put("kvorum_shards", view.shards.len());
}

/// Keys of the replicas on this node: all there are, unless the cluster has more nodes than replicas.
fn keyspace(node: &Node, _client: &Client, lines: &mut Lines) {
    for db in (0..DbIndex::COUNT).map(DbIndex) {
        let (mut keys, mut expires) = (0, 0);
        for shard in node.shards() {
            let of_shard = shard.gauges().keys[usize::from(db.0)];
            keys += of_shard.keys;
            expires += of_shard.expires;
        }
        if keys > 0 {
            let name = format!("db{}", db.0);
            lines.put(&name, format_args!("keys={keys},expires={expires},avg_ttl=0"));
        }
    }
}

/// `bytes` as Redis shows them to people: `1.51M`.
fn human(bytes: u64) -> String {
    let units = [("B", 0_u32), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let (unit, shift) =
        units.into_iter().rev().find(|(_, shift)| bytes >> shift > 0).unwrap_or(("B", 0));
    if shift == 0 {
        return format!("{bytes}B");
    }
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TestNode;

    #[test]
    fn sizes_are_shown_to_people() {
        let table = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_584_104, "1.51M"),
            (u64::from(u32::MAX) + 1, "4.00G"),
        ];
        for (bytes, text) in table {
            assert_eq!(human(bytes), text);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sections_are_chosen_by_name() {
        let test = TestNode::start(&[]).await;
        let (node, client) = (&test.started.node, &test.client);
        let all = render(node, client, &[]);
        for line in [
            "redis_version:7.2.6",
            "redis_mode:standalone",
            "loading:0",
            "role:master",
            "connected_slaves:0",
            "maxmemory_policy:noeviction",
            "tcp_port:6379",
            "connected_clients:1",
            "total_connections_received:1",
            "cluster_enabled:1",
        ] {
            assert!(all.contains(&format!("{line}\r\n")), "{line} in {all}");
        }
        let headers = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(headers(&all), SECTIONS.len());
        assert_eq!(
            render(node, client, &[b"Everything", b"cpu"]).lines().count(),
            all.lines().count()
        );
        let two = render(node, client, &[b"CLUSTER", b"clients", b"cluster", b"nosuch"]);
        assert!(two.starts_with("# Clients\r\n") && two.contains("\r\n\r\n# Cluster\r\n"), "{two}");
        assert_eq!(headers(&two), 2);
        assert_eq!(render(node, client, &[b"nosuch"]), "");
        assert_eq!(run_id(node).len(), 40);
    }
}
