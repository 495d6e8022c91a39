//! CLUSTER INFO: how the cluster is, a line for each figure.

use std::fmt::Write;

use super::BASE;
use crate::command::{Spec, Tip};
use crate::node::command::Outcome;
use crate::node::{Client, ClusterView, Node};
use crate::resp::Reply;
use crate::slot::Slot;

pub(super) const INFO: Spec = Spec {
    name: "cluster|info",
    summary: "Returns the state of the cluster as this node sees it.",
    complexity: "O(N) for N shards",
    tips: &[Tip::NondeterministicOutput],
    ..BASE
};

pub(super) fn info(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    Ok(Reply::verbatim_text(info_text(&ClusterView::of(node))))
}

fn info_text(view: &ClusterView) -> String {
    let led = view.slots_led();
    let lines = [
        ("cluster_state", if led == usize::from(Slot::COUNT) { "ok" } else { "fail" }.to_owned()),
        ("cluster_slots_assigned", Slot::COUNT.to_string()),
        ("cluster_slots_ok", led.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", (usize::from(Slot::COUNT) - led).to_string()),
        ("cluster_known_nodes", view.members.len().to_string()),
        ("cluster_size", view.masters().to_string()),
        ("cluster_current_epoch", view.epoch.to_string()),
        ("cluster_my_epoch", view.epoch.to_string()),
        ("kvorum_groups_stopped", view.stopped.to_string()),
    ];
    lines.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _infallible = write!(text, "{name}:{value}\r\n");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::view;

    #[test]
    fn the_state_is_ok_only_when_every_slot_is_led() {
        let text = info_text(&view(&["n1", "n2"]));
        assert!(text.starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"), "{text}");
        assert!(text.contains("cluster_size:2\r\n") && text.contains("cluster_known_nodes:3\r\n"));
        let text = info_text(&view(&["n1", ""]));
        assert!(text.starts_with("cluster_state:fail\r\n"), "{text}");
        assert!(text.contains("cluster_slots_fail:8192\r\n"), "{text}");
    }
}
