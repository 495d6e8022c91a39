//! What the simulation shares with the tests of processes: replies as clients read them, operations, their judge.

#[path = "../it/support/checker.rs"]
pub(crate) mod checker;
#[path = "../it/support/operation.rs"]
pub(crate) mod operation;
#[path = "../../src/resp/testing.rs"]
#[expect(dead_code, unused_imports, reason = "only what reads replies is of use here")]
pub(crate) mod reply;
