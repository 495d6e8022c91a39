//! What a command means: its declaration (Spec) and its effect on a keyspace.
//!
//! Each data command is one file of its group's folder: [`Spec`] first, then the function, then tests.
//! Commands of the node and of the session declare themselves with the same [`Spec`] in their own rooms.
//!
//! **Invariant:** what [`run`] does depends on the keyspace's logical state, argv and [`Context`] alone. No
//! command fans out, forwards, checks rights or counts: the spec declares, other rooms act.

#![expect(
    clippy::unnecessary_wraps,
    reason = "all commands have one signature, also those that never fail"
)]

mod acl_category;
mod apply;
mod arg;
mod args;
mod context;
mod count;
mod deadline;
mod describe;
mod growth;
mod invocation;
mod key_spec;
mod prelude;
mod registry;
mod row;
mod spec;
mod table;
mod weight;

mod generic;
mod hash;
mod list;
mod server;
mod set;
mod sorted_set;
mod stream;
mod string;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod laws;
#[cfg(test)]
pub(crate) mod testing;

pub use acl_category::{AclCategory, AclRule};
pub use apply::{DataCommand, Execute, Outcome, ReadFn, WeighFn, WriteFn, run, run_read};
pub use arg::{Arg, ArgKind};
pub use args::{Args, Pairs, parse_i64};
pub use context::Context;
pub use growth::growth;
pub use invocation::Invocation;
pub use key_spec::{
    BeginSearch, FindKeys, KeyFlag, KeyPositionError, KeyPositions, KeySpec, LegacyRange,
    LocateKeys,
};
pub use registry::Registry;
pub use row::{Row, find, specs};
pub use spec::{Arity, Deprecated, Flag, Group, RequestPolicy, ResponsePolicy, Spec, Tip};
pub use table::{all, lookup};
pub use weight::{WEIGHT_HEAVY, weight};
