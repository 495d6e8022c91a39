//! Commands that concern the connection itself: one file each, CLIENT with its subcommands in a folder.

#![expect(
    clippy::unnecessary_wraps,
    reason = "all commands have one signature, also those that never fail"
)]

mod asking;
mod auth;
mod client;
mod echo;
mod hello;
mod ping;
mod quit;
mod readonly;
mod reset;
mod select;
mod shutdown;
mod wait;

mod limits;

use super::table::Row;
use crate::command::{AclCategory, AclRule};

pub(super) const COMMANDS: &[Row] = &[
    asking::ASKING,
    auth::AUTH,
    client::CLIENT,
    echo::ECHO,
    hello::HELLO,
    ping::PING,
    quit::QUIT,
    readonly::READONLY,
    readonly::READWRITE,
    reset::RESET,
    select::SELECT,
    shutdown::SHUTDOWN,
    wait::WAIT,
];

/// The category of commands that are about the connection although their group is another.
const CONNECTION: AclRule = AclRule::Only(&[AclCategory::Connection]);

#[cfg(test)]
mod tests {
    use crate::command::testing::check_spec;
    use crate::command::{self, Registry};
    use crate::node;
    use crate::session;

    #[test]
    fn specs_agree_with_redis() {
        session::specs().for_each(check_spec);
    }

    /// Building the registry refuses two commands with one name, whichever rooms they are in.
    #[test]
    fn all_rooms_together_have_each_name_once() {
        let data = command::all().map(|command| command.spec);
        let registry = Registry::new(data.chain(node::specs()).chain(session::specs()));
        assert!(registry.find(b"client|list").is_some() && registry.find(b"get").is_some());
    }
}
