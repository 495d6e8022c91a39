//! What operators ask for: directives declared once → redis.conf file, command line, CONFIG GET and SET.
//!
//! A row of the table is the whole declaration of a directive; `conf/kvorum.conf`, `--help` and every message about its
//! values are made from it. Rooms below never see a [`Config`]: the server hands each the plain values it needs.
//!
//! Invariants:
//! - A value in a [`Config`] was accepted by its directive's [`Kind`], and the values fit one another.
//! - A refused CONFIG SET changes nothing.
//! - Passwords and secrets appear in no error and in no `Debug` text.
//!
//! The room opens no socket and creates no directory; it reads one file, or standard input, when it starts.
//!
//! Source: Redis 7, redis.conf, `config.c`, CONFIG GET and CONFIG SET documentation.

mod directive;
mod kind;
mod table;

mod command_line;
mod file;
mod values;

mod options;
mod secret;
mod store;

mod render;

mod error;
mod limits;

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;

pub use directive::{DefaultValue, Directive, Mutability, Section};
pub use error::{ConfigError, Conflict, Origin, Rejection};
pub use file::quote;
pub use kind::Kind;
pub use options::{AppendFsync, BindAddress, LogLevel, Options, ReadConsistency};
pub use render::{conf_file, usage};
pub use secret::Secret;
pub use store::{Changed, Config, Start};
pub use table::{DIRECTIVES, find};
