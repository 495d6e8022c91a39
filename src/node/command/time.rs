//! TIME: this node's wall clock.
//!
//! Not the time that commands are applied at: that one is in their log entry.

use super::{NodeCommand, Outcome};
use crate::command::{Arity, Flag, Group, Spec, Tip};
use crate::node::{Client, Node};
use crate::resp::Reply;

pub(super) const TIME: NodeCommand = NodeCommand::new(&SPEC, time);

const SPEC: Spec = Spec {
    name: "time",
    group: Group::Server,
    since: "2.6.0",
    summary: "Returns the node's Unix time: seconds, and microseconds in multiples of a thousand.",
    complexity: "O(1)",
    arity: Arity::Exactly(1),
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    tips: &[Tip::NondeterministicOutput],
    ..Spec::EMPTY
};

fn time(node: &Node, _client: &Client, _argv: &[&[u8]]) -> Outcome {
    let now = node.clock().now().0;
    let seconds = (now / 1000).to_string();
    let micros = (now % 1000 * 1000).to_string();
    Ok(Reply::bulks([seconds.into_bytes(), micros.into_bytes()]))
}

#[cfg(test)]
mod tests {
    use crate::node::testing::TestNode;

    #[tokio::test(flavor = "current_thread")]
    async fn seconds_and_microseconds_are_told_apart() {
        let bench = TestNode::start(&[]).await;
        let before = bench.started.node.clock().now().0;
        let text = bench.run("TIME");
        let parts: Vec<&str> = text.split(" $").collect();
        let [header, seconds, micros] = parts[..] else { panic!("{text}") };
        let number = |text: &str| text.trim_matches('"').parse::<u64>().unwrap();
        let told = number(seconds) * 1000 + number(micros) / 1000;
        assert_eq!(header, "*2");
        assert!((before..before + 60_000).contains(&told), "{text}");
    }
}
