//! `/metrics`: what Prometheus scrapes, in its text format.

use std::fmt::{Display, Write};

use crate::node::Node;

/// All metrics of this node.
pub(super) fn render(node: &Node) -> String {
    let mut text = Text::default();
    let (clients, wal, stats) = (node.clients(), node.wal(), node.wal().stats());
    text.metric("kvorum_up", "gauge", "1 while the node serves.", 1);
    text.metric(
        "kvorum_uptime_seconds",
        "gauge",
        "Seconds since the start.",
        node.uptime().as_secs(),
    );
    text.metric("kvorum_clients", "gauge", "Connected clients.", clients.count());
    text.metric("kvorum_connections_total", "counter", "Clients let in.", clients.total());
    text.metric(
        "kvorum_connections_rejected_total",
        "counter",
        "Clients turned away for maxclients or protected mode, or dismissed for another.",
        clients.rejected(),
    );
    text.metric(
        "kvorum_auth_failures_total",
        "counter",
        "Wrong passwords.",
        node.counters().auth_failures(),
    );
    text.metric(
        "kvorum_commands_total",
        "counter",
        "Commands taken from clients.",
        node.counters().commands(),
    );
    text.metric("kvorum_wal_bytes", "gauge", "Bytes of log kept.", wal.live_bytes());
    text.metric("kvorum_wal_writes_total", "counter", "Writes to the log.", stats.writes);
    text.metric("kvorum_wal_syncs_total", "counter", "Syncs of the log.", stats.syncs);
    text.metric(
        "kvorum_wal_failed",
        "gauge",
        "1 once the log has failed and writes are refused.",
        u8::from(wal.failure().is_some()),
    );
    shards(node, &mut text);
    text.out
}

fn shards(node: &Node, text: &mut Text) {
    let switchboard: Vec<_> = node
        .shards()
        .iter()
        .filter_map(|shard| Some((shard.id().0, shard.leader(), shard.status()?)))
        .collect();
    text.head("kvorum_shard_leader", "gauge", "1 where this node leads the shard.");
    for (shard, leader, _) in &switchboard {
        text.shard("kvorum_shard_leader", *shard, u8::from(*leader == Some(node.id())));
    }
    text.head("kvorum_shard_has_leader", "gauge", "1 where a leader of the shard is known.");
    for (shard, leader, _) in &switchboard {
        text.shard("kvorum_shard_has_leader", *shard, u8::from(leader.is_some()));
    }
    text.head("kvorum_shard_session_bytes", "gauge", "Bytes of replies kept for retries.");
    for shard in node.shards().iter().filter(|shard| shard.is_replica()) {
        let bytes = shard.gauges().sessions.bytes;
        text.shard("kvorum_shard_session_bytes", shard.id().0, bytes);
    }
    text.head("kvorum_shard_stopped", "gauge", "1 where the replica here has stopped for good.");
    for (shard, _, status) in &switchboard {
        text.shard("kvorum_shard_stopped", *shard, u8::from(status.stopped.is_some()));
    }
    text.head("kvorum_shard_term", "gauge", "Raft term of the shard.");
    for (shard, _, status) in &switchboard {
        text.shard("kvorum_shard_term", *shard, status.term);
    }
    text.head("kvorum_shard_applied_index", "gauge", "Index of the last entry applied here.");
    for (shard, _, status) in &switchboard {
        text.shard("kvorum_shard_applied_index", *shard, status.applied_index.unwrap_or(0));
    }
}

/// Lines under construction. Writing to a String cannot fail.
#[derive(Default)]
struct Text {
    out: String,
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _infallible = writeln!(self.out, "{name} {value}");
    }

    fn shard(&mut self, name: &str, shard: u32, value: impl Display) {
        let _infallible = writeln!(self.out, "{name}{{shard=\"{shard}\"}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TestNode;

    #[tokio::test(flavor = "current_thread")]
    async fn every_line_is_a_comment_or_a_number() {
        let bench = TestNode::start(&[]).await;
        bench.started.node.counters().count_commands(3);
        let text = render(&bench.started.node);
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok() && name.starts_with("kvorum_"), "{line}");
        }
        for line in
            ["kvorum_up 1", "kvorum_clients 1", "kvorum_commands_total 3", "kvorum_wal_failed 0"]
        {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
        }
        assert!(text.contains("\nkvorum_shard_leader{shard=\"1\"} 1\n"), "{text}");
    }
}
