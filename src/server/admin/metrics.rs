//! `/metrics`: what Prometheus scrapes, in its text format.

use std::fmt::Write;

use crate::node::{Node, samples};

/// All metrics of this node.
pub(super) fn render(node: &Node) -> String {
    let mut text = String::new();
    for sample in samples(node) {
        let (name, kind, help) =
            (sample.metric.name, sample.metric.kind.name(), sample.metric.help);
        // Writing to a String cannot fail.
        let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (shard, figure) in sample.figures {
            let label =
                shard.map_or_else(String::new, |shard| format!("{{shard=\"{}\"}}", shard.0));
            let _infallible = writeln!(text, "{name}{label} {figure}");
        }
    }
    text
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
        let described = "# HELP kvorum_wal_syncs_total Syncs of the log.\n# TYPE kvorum_wal_syncs_total counter\n";
        assert!(text.contains(described), "{text}");
    }
}
