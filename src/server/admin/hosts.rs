//! Under which names the admin door may be asked.
//!
//! A web page can have its own name resolve to the address of this door, and then its scripts may read what is answered:
//! to the browser it is the page's own site. The browser still says which name it asked for. So only names are answered that no
//! stranger's page can have: addresses, those of this machine, and those the configuration knows.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::Options;

/// The names that are answered.
#[derive(Debug)]
pub(in crate::server) struct Hosts {
    /// In small letters; `*` for any.
    names: BTreeSet<String>,
}

impl Hosts {
    /// Those of `admin-hosts`, `cluster-announce-hostname` and `cluster-nodes`, and `localhost`.
    pub(in crate::server) fn of(options: &Options) -> Self {
        let nodes = options.cluster_nodes.split_ascii_whitespace();
        let nodes = nodes.filter_map(|node| Some(node.split_once('=')?.1.split_once(':')?.0));
        let names = nodes
            .chain(options.admin_hosts.iter().map(String::as_str))
            .chain(options.cluster_announce_hostname.as_deref())
            .chain(["localhost"])
            .map(str::to_ascii_lowercase);
        Self { names: names.collect() }
    }

    /// Whether `host`, the text of a Host header, is one of them or an address; its port does not matter.
    pub(super) fn allow(&self, host: &str) -> bool {
        if self.names.contains("*") {
            return true;
        }
        let name = without_port(host);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Some(address) = address {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name.parse::<IpAddr>().is_ok() || self.names.contains(&name.to_ascii_lowercase())
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::options;

    fn hosts(words: &[&str]) -> Hosts {
        Hosts::of(&options(words))
    }

    #[test]
    fn addresses_and_known_names_are_allowed() {
        let words = ["--cluster-nodes", "n1=Node-1.lan:1:2:west n2=10.0.0.2:1"];
        let hosts = hosts(
            &[&words[..], &["--cluster-announce-hostname", "kv.lan", "--admin-hosts", "A", "b.c"]]
                .concat(),
        );
        let allowed = [
            "localhost",
            "LOCALHOST:9100",
            "localhost.",
            "127.0.0.1:80",
            "192.0.2.7",
            "[::1]",
            "[::1]:9100",
            "node-1.lan:9100",
            "kv.lan",
            "a:1",
            "B.C.:1",
        ];
        for host in allowed {
            assert!(hosts.allow(host), "{host}");
        }
        let refused = [
            "",
            ":80",
            "evil.example.com",
            "evil.example.com:80",
            "n1",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "[localhost]",
            "[127.0.0.1]",
            "c",
            "b.c:x",
            "*",
        ];
        for host in refused {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn a_star_allows_all() {
        assert!(hosts(&["--admin-hosts", "*"]).allow("evil.example.com"));
    }
}
