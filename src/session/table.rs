//! Commands that are not data commands, by name: those of the node and those of the connection.

use super::command;
use super::state::ClientState;
use crate::command::{self as data, Spec};
use crate::node::{self, NodeFn};
use crate::resp::{ErrorReply, Reply};

/// A command of the connection: it sees and changes its state.
pub(super) type SessionFn = fn(&mut ClientState, &[&[u8]]) -> Outcome;

/// What a command of the connection answers.
pub(super) type Outcome = Result<Reply<'static>, ErrorReply>;

/// A row of a table of them.
pub(super) type Row = data::Row<SessionFn>;

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handler {
    /// Asks or changes the node.
    Node(NodeFn),
    /// Asks or changes the connection.
    ClientState(SessionFn),
}

/// What `argv` calls: its spec, which accepts `argv`, and what to do; an error when there is the command but
/// it cannot be called so. Two short lists: these commands are not on the hot path.
pub(super) fn lookup(argv: &[&[u8]]) -> Option<Result<(&'static Spec, Handler), ErrorReply>> {
    if let Some(row) = data::find(command::COMMANDS, argv[0]) {
        return Some(row.resolve(argv).map(|(spec, run)| (spec, Handler::ClientState(run))));
    }
    let row = data::find(node::COMMANDS, argv[0])?;
    Some(row.resolve(argv).map(|(spec, run)| (spec, Handler::Node(run))))
}

/// The specs of these commands, for the registry.
pub fn specs() -> impl Iterator<Item = &'static Spec> {
    command::COMMANDS.iter().map(|row| row.spec)
}
