//! Protected mode: a node without a password serves nobody but its own machine, whatever its doors listen on.
//!
//! Whoever starts one to look at it, or moves `bind` and forgets the rest, would else serve all keys to everyone who finds
//! the port. As in Redis, but for the addresses: all of 127.0.0.0/8 are the machine itself.
//!
//! Source: Redis 7.0 `clientAcceptHandler`.

use std::net::IpAddr;

use crate::config::Options;

/// Whether clients from other machines are refused.
pub(super) fn is_on(options: &Options) -> bool {
    options.protected_mode && !options.requirepass.is_set()
}

/// Whether a client from `peer` is refused.
pub(super) fn refuses(options: &Options, peer: IpAddr) -> bool {
    // Doors for both families see IPv4 addresses in IPv6 ones.
    is_on(options) && !peer.to_canonical().is_loopback()
}

/// Says at the start what protected mode, or the lack of it, means with the addresses there are.
pub(super) fn warn(options: &Options) {
    if options.requirepass.is_set() || options.bind.iter().all(|bind| bind.ip.is_loopback()) {
        return;
    }
    if options.protected_mode {
        tracing::warn!(
            "no password is set: clients of other machines are refused; set requirepass, or protected-mode no where the network is trusted"
        );
    } else {
        tracing::warn!(
            "no password is set and protected-mode is off: everybody who reaches the doors can read and change all keys"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::options;

    #[test]
    fn only_the_machine_itself_is_let_in_without_a_password() {
        let here = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"];
        let elsewhere = ["10.0.0.1", "0.0.0.0", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"];
        let table: [(&[&str], bool); 4] = [
            (&["--bind", "*"], true),
            (&[], true),
            (&["--requirepass", "p"], false),
            (&["--protected-mode", "no"], false),
        ];
        for (words, is_refused) in table {
            let options = options(words);
            for peer in here {
                assert!(!refuses(&options, peer.parse().unwrap()), "{words:?} {peer}");
            }
            for peer in elsewhere {
                assert_eq!(
                    refuses(&options, peer.parse().unwrap()),
                    is_refused,
                    "{words:?} {peer}"
                );
            }
        }
    }
}
