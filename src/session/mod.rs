//! One connected client: bytes in, replies out.
//!
//! Reading order: `connection` is the loop around the socket, `socket` what it asks of it; `dispatch` decides what a command is and where it
//! goes; `batch` carries the commands of one socket read to their shards and the replies back in order;
//! `state` is what the connection is; `command` holds the commands that concern the connection itself; `web`
//! tells browsers from clients.

mod limits;

mod connection;
mod socket;

mod dispatch;

mod batch;
mod state;

mod table;

mod command;

mod web;

#[cfg(test)]
pub(crate) mod memory_socket;
#[cfg(test)]
pub(crate) mod testing;

pub use connection::serve;
pub use socket::Socket;
pub use state::{ClientState, Door};
pub use table::specs;
pub use web::{is_of_the_web, report_web};
