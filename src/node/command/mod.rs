//! Commands that ask or change this process or the cluster.

use super::node::Node;
use crate::command::Spec;
use crate::resp::{ErrorReply, Reply};

/// What a command of the node does.
pub type NodeFn = fn(&Node, &[&[u8]]) -> Result<Reply<'static>, ErrorReply>;

/// A command of the node.
#[derive(Clone, Copy, Debug)]
pub struct NodeCommand {
    /// What it declares.
    pub spec: &'static Spec,
    /// What it does.
    pub run: NodeFn,
}

/// All commands of the node.
pub const COMMANDS: &[NodeCommand] = &[];
