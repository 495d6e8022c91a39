//! Commands that are not data commands, by name: those of the node and those of the session.

use super::command;
use super::state::Session;
use crate::command::Spec;
use crate::node::{self, NodeFn};
use crate::resp::{ErrorReply, Reply};

/// A command of the session: it sees and changes the connection's state.
pub(super) type SessionFn = fn(&mut Session, &[&[u8]]) -> Result<Reply<'static>, ErrorReply>;

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handler {
    /// Asks or changes the node.
    Node(NodeFn),
    /// Asks or changes the connection.
    Session(SessionFn),
}

/// A command and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) spec: &'static Spec,
    pub(super) handler: Handler,
}

impl Row {
    pub(super) const fn session(spec: &'static Spec, run: SessionFn) -> Self {
        Self { spec, handler: Handler::Session(run) }
    }
}

/// The command called `name`, in any case. A short list: these are not on the hot path.
pub(super) fn lookup(name: &[u8]) -> Option<Row> {
    let is_named = |spec: &Spec| spec.name.as_bytes().eq_ignore_ascii_case(name);
    let session = command::COMMANDS.iter().find(|row| is_named(row.spec)).copied();
    session.or_else(|| {
        let found = node::COMMANDS.iter().find(|command| is_named(command.spec))?;
        Some(Row { spec: found.spec, handler: Handler::Node(found.run) })
    })
}

/// The specs of the session's commands, for the registry.
pub fn specs() -> impl Iterator<Item = &'static Spec> {
    command::COMMANDS.iter().map(|row| row.spec)
}
