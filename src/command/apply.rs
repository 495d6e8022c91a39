//! Runs a data command on a keyspace: the one entrance for writes.
//!
//! Runs on every replica for each committed write. What comes out depends on the keyspace's logical state,
//! argv and the [`Context`] alone. Nothing a client can send may panic here: it would panic everywhere.

use super::args::Args;
use super::context::Context;
use super::invocation::Invocation;
use super::spec::Spec;
use crate::keyspace::{At, Keyspace, WrongType};
use crate::resp::{ErrorReply, Reply};

/// What a command answers; may borrow from the keyspace for `'k`.
pub type Outcome<'k> = Result<Reply<'k>, ErrorReply>;

/// A command that only looks.
pub type ReadFn = for<'k> fn(&'k Keyspace, &mut Args<'_>, &Context) -> Outcome<'k>;

/// A command that may change keys.
pub type WriteFn = for<'k> fn(&'k mut Keyspace, &mut Args<'_>, &Context) -> Outcome<'k>;

/// How many elements a command with its words looks at, at most, about: see [`weight`](super::weight()).
pub type WeighFn = fn(&Keyspace, &Invocation<'_>, At) -> usize;

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
    /// With so many words or fewer it looks at nothing else that may be much.
    pub light_words: usize,
    /// What it looks at beside its words, where it has more.
    pub weigh: WeighFn,
}

/// What most commands look at beside their words.
fn nothing(_keyspace: &Keyspace, _invocation: &Invocation<'_>, _at: At) -> usize {
    0
}

impl DataCommand {
    /// A command that only looks.
    pub const fn read(spec: &'static Spec, function: ReadFn) -> Self {
        Self { spec, execute: Execute::Read(function), light_words: usize::MAX, weigh: nothing }
    }

    /// A command that may change keys.
    pub const fn write(spec: &'static Spec, function: WriteFn) -> Self {
        Self { spec, execute: Execute::Write(function), light_words: usize::MAX, weigh: nothing }
    }

    /// The same command, which looks at as many elements as `weigh` says.
    #[must_use]
    pub const fn weighed(self, weigh: WeighFn) -> Self {
        self.weighed_beyond(0, weigh)
    }

    /// The same command, which looks at as many elements as `weigh` says if it has more than `words`, its name among them.
    #[must_use]
    pub const fn weighed_beyond(self, words: usize, weigh: WeighFn) -> Self {
        Self { light_words: words, weigh, ..self }
    }

    /// Whether its function may change keys.
    pub const fn is_write(&self) -> bool {
        matches!(self.execute, Execute::Write(_))
    }
}

/// Runs `invocation`, of a read or a write, on `keyspace`.
///
/// A refusal is a reply like any other: the same on every replica.
pub fn run<'k>(
    invocation: &Invocation<'_>,
    keyspace: &'k mut Keyspace,
    context: &Context,
) -> Reply<'k> {
    let mut cursor = Args::of(invocation);
    match invocation.command.execute {
        Execute::Read(function) => function(keyspace, &mut cursor, context),
        Execute::Write(function) => function(keyspace, &mut cursor, context),
    }
    .unwrap_or_else(Reply::Error)
}

/// Runs `invocation`, of a read, on `keyspace`.
///
/// # Panics
/// When it is of a write: the caller has mistaken its way around the log.
pub fn run_read<'k>(
    invocation: &Invocation<'_>,
    keyspace: &'k Keyspace,
    context: &Context,
) -> Reply<'k> {
    let Execute::Read(function) = invocation.command.execute else {
        panic!("{} changes keys and must go through the log", invocation.command.spec.name)
    };
    let mut cursor = Args::of(invocation);
    function(keyspace, &mut cursor, context).unwrap_or_else(Reply::Error)
}

impl From<WrongType> for ErrorReply {
    fn from(_: WrongType) -> Self {
        Self::WRONG_TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;
    use crate::ids::DbIndex;
    use crate::stdx::clock::UnixMillis;
    use crate::stdx::hash_key::HashKey;

    fn context() -> Context {
        Context::new(At::new(DbIndex(0), UnixMillis(1)), 1)
    }

    #[test]
    fn a_read_gives_the_same_reply_through_either_entrance() {
        let mut keyspace = Keyspace::new(0..=16_383, HashKey::new([1, 2]));
        let set = Invocation::new(lookup(b"SET").unwrap(), &[b"SET", b"k", b"v"]);
        let get = Invocation::new(lookup(b"get").unwrap(), &[b"GET", b"k"]);
        assert_eq!(run(&set, &mut keyspace, &context()), Reply::OK);
        let reply = run_read(&get, &keyspace, &context()).into_owned();
        assert_eq!(reply, Reply::bulk(&b"v"[..]));
        assert_eq!(run(&get, &mut keyspace, &context()), reply);
    }

    #[test]
    #[should_panic(expected = "set changes keys and must go through the log")]
    fn a_write_never_runs_as_a_read() {
        let set = lookup(b"set").unwrap();
        let keyspace = Keyspace::new(0..=16_383, HashKey::new([1, 2]));
        let set = Invocation::new(set, &[b"SET", b"k", b"v"]);
        drop(run_read(&set, &keyspace, &context()));
    }

    #[test]
    fn a_context_can_be_handed_to_another_thread() {
        fn is_send<T: Send>(_: &T) {}
        is_send(&context());
    }
}
