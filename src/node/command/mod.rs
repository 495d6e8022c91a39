//! Commands that ask or change this process or the cluster: one file each, containers with their subcommands.

#![expect(
    clippy::unnecessary_wraps,
    reason = "all commands have one signature, also those that never fail"
)]

mod catalog;
mod cluster;
mod config;
mod info;
mod time;

use super::clients::Client;
use super::node::Node;
use crate::command::{Row, Spec};
use crate::resp::{ErrorReply, Reply};

/// What a command of the node does, given who asks and the whole argv.
pub type NodeFn = fn(&Node, &Client, &[&[u8]]) -> Outcome;

/// A command of the node.
pub type NodeCommand = Row<NodeFn>;

/// What it answers.
type Outcome = Result<Reply<'static>, ErrorReply>;

/// All commands of the node.
pub const COMMANDS: &[NodeCommand] =
    &[catalog::COMMAND, cluster::CLUSTER, config::CONFIG, info::INFO, time::TIME];

/// Their specs, for the registry.
pub fn specs() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter().map(|row| row.spec)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::check_spec;

    #[test]
    fn specs_agree_with_redis() {
        super::specs().for_each(check_spec);
    }
}
