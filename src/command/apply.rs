//! Runs a data command on a keyspace: the one entrance for writes.
//!
//! Runs on every replica for each committed write. What comes out depends on the keyspace's logical state,
//! argv and the [`Context`] alone. Nothing a client can send may panic here: it would panic everywhere.

use super::args::Args;
use super::context::Context;
use super::spec::Spec;
use crate::keyspace::{Keyspace, WrongType};
use crate::resp::{ErrorReply, Reply};

/// What a command answers; may borrow from the keyspace for `'k`.
pub type Outcome<'k> = Result<Reply<'k>, ErrorReply>;

/// A command that only looks.
pub type ReadFn = for<'k> fn(&'k Keyspace, &mut Args<'_>, &Context) -> Outcome<'k>;

/// A command that may change keys.
pub type WriteFn = for<'k> fn(&'k mut Keyspace, &mut Args<'_>, &Context) -> Outcome<'k>;

/// What a data command does.
#[derive(Clone, Copy, Debug)]
pub enum Execute {
    /// Looks.
    Read(ReadFn),
    /// May change keys.
    Write(WriteFn),
}

/// A command that touches keys: its declaration and its function.
#[derive(Clone, Copy, Debug)]
pub struct DataCommand {
    /// What it declares.
    pub spec: &'static Spec,
    /// What it does.
    pub execute: Execute,
}

impl DataCommand {
    /// A command that only looks.
    pub const fn read(spec: &'static Spec, function: ReadFn) -> Self {
        Self { spec, execute: Execute::Read(function) }
    }

    /// A command that may change keys.
    pub const fn write(spec: &'static Spec, function: WriteFn) -> Self {
        Self { spec, execute: Execute::Write(function) }
    }

    /// Whether its function may change keys.
    pub const fn is_write(&self) -> bool {
        matches!(self.execute, Execute::Write(_))
    }
}

/// Runs `command`, read or write, with `argv` (its name first) on `keyspace`.
///
/// A refusal is a reply like any other: the same on every replica.
pub fn run<'k>(
    command: &DataCommand,
    keyspace: &'k mut Keyspace,
    argv: &[&[u8]],
    context: &Context,
) -> Reply<'k> {
    let mut cursor = Args::new(command.spec.name, argv);
    match command.execute {
        Execute::Read(function) => function(keyspace, &mut cursor, context),
        Execute::Write(function) => function(keyspace, &mut cursor, context),
    }
    .unwrap_or_else(Reply::Error)
}

/// Runs the read `command` with `argv` (its name first) on `keyspace`.
///
/// # Panics
/// When `command` is a write: the caller has mistaken its way around the log.
pub fn run_read<'k>(
    command: &DataCommand,
    keyspace: &'k Keyspace,
    argv: &[&[u8]],
    context: &Context,
) -> Reply<'k> {
    let Execute::Read(function) = command.execute else {
        panic!("{} changes keys and must go through the log", command.spec.name)
    };
    let mut cursor = Args::new(command.spec.name, argv);
    function(keyspace, &mut cursor, context).unwrap_or_else(Reply::Error)
}

impl From<WrongType> for ErrorReply {
    fn from(_: WrongType) -> Self {
        Self::WRONG_TYPE
    }
}
