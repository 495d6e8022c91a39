//! The values of all directives as plain Rust values, checked against one another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::directive::DefaultValue;
use super::error::{Conflict, shortened};
use super::kind::node_entries;
use super::secret::Secret;
use super::table::DIRECTIVES;
use super::values::Values;

/// Declares an enum whose variants are the words of a directive.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The words of a configuration, in the order of the variants.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The variant that `word` stands for, in any case.
            pub fn from_word(word: &str) -> Option<Self> {
                const VARIANTS: &[$name] = &[$($name::$variant),+];
                let at = Self::WORDS.iter().position(|known| known.eq_ignore_ascii_case(word))?;
                VARIANTS.get(at).copied()
            }
        }
    };
}

choice! {
    /// When the log is forced to the disk (`appendfsync`).
    AppendFsync {
        /// About once a second.
        Everysec = "everysec",
        /// Before an entry counts as written.
        Always = "always",
        /// When the kernel does it.
        No = "no",
    }
}

choice! {
    /// What a leader checks before it answers a read (`read-consistency`).
    ReadConsistency {
        /// That its lease holds: no message.
        Lease = "lease",
        /// That a majority still follows it: one round of messages.
        Quorum = "quorum",
    }
}

choice! {
    /// The least important events that are logged (`loglevel`).
    LogLevel {
        /// Level TRACE and above.
        Debug = "debug",
        /// Level DEBUG and above.
        Verbose = "verbose",
        /// Level INFO and above.
        Notice = "notice",
        /// Level WARN and above.
        Warning = "warning",
    }
}

/// An address of `bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress {
    /// The address; unspecified for all addresses of its family.
    pub ip: IpAddr,
    /// Whether the node starts without it when the machine does not have it.
    pub is_optional: bool,
}

impl BindAddress {
    /// Reads an IP address, `*` or `::*`, each after a `-` when it is optional.
    pub fn parse(word: &str) -> Option<Self> {
        let address = word.strip_prefix('-').unwrap_or(word);
        let ip = match address {
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            "::*" => Ipv6Addr::UNSPECIFIED.into(),
            other => other.parse().ok()?,
        };
        Some(Self { ip, is_optional: address.len() < word.len() })
    }
}

/// The value of every directive that can have more than one. See `conf/kvorum.conf` for what each means.
///
/// Options are read from a configuration only, so they always fit one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `bind`, 1 to 16 addresses.
    pub bind: Vec<BindAddress>,
    /// `protected-mode`.
    pub protected_mode: bool,
    /// `port`, the plain door; `None` when closed.
    pub port: Option<u16>,
    /// `cluster-port`, the cluster door; `None` when closed.
    pub cluster_port: Option<u16>,
    /// `peer-port`; 0 when the system chooses, which happens only while `cluster_nodes` is empty.
    pub peer_port: u16,
    /// `admin-port`; `None` when closed.
    pub admin_port: Option<u16>,
    /// `admin-hosts`: host names, or `*`.
    pub admin_hosts: Vec<String>,
    /// `tcp-backlog` in connections.
    pub tcp_backlog: u32,
    /// `tcp-keepalive`; `None` when off.
    pub tcp_keepalive: Option<Duration>,
    /// `timeout` of an idle client; `None` when it may stay.
    pub timeout: Option<Duration>,
    /// `maxclients`, at least 1.
    pub maxclients: u32,
    /// `requirepass`.
    pub requirepass: Secret,
    /// `proto-max-bulk-len` in bytes, 1 MiB to 512 MiB.
    pub proto_max_bulk_len: usize,
    /// `node-id`, 1 to 64 of `a-z A-Z 0-9 . _ -`; one of the names in `cluster_nodes` unless that is empty.
    pub node_id: String,
    /// `cluster-nodes`, its entries separated by one space. Only names were checked, for form and for doubles.
    pub cluster_nodes: String,
    /// `cluster-shards`, 1 to 1024; `None` for auto.
    pub cluster_shards: Option<u16>,
    /// `replication-factor`, 1 to 7.
    pub replication_factor: u8,
    /// `cluster-secret`.
    pub cluster_secret: Secret,
    /// `cluster-announce-hostname`; `None` when not given.
    pub cluster_announce_hostname: Option<String>,
    /// `cluster-announce-ip`; `None` when not given.
    pub cluster_announce_ip: Option<IpAddr>,
    /// `cluster-announce-port`; `None` for that of the door.
    pub cluster_announce_port: Option<u16>,
    /// `cluster-announce-cluster-port`; `None` for that of the door.
    pub cluster_announce_cluster_port: Option<u16>,
    /// `dir`, not empty. It may not exist yet.
    pub dir: PathBuf,
    /// `appendfsync`.
    pub appendfsync: AppendFsync,
    /// `read-consistency`.
    pub read_consistency: ReadConsistency,
    /// `wal-sync-mark`.
    pub wal_sync_mark: bool,
    /// `io-threads`, 1 to 128; `None` for auto.
    pub io_threads: Option<u8>,
    /// `maxmemory` in bytes; 0 for no limit.
    pub maxmemory: u64,
    /// `loglevel`.
    pub loglevel: LogLevel,
    /// `logfile`; `None` for standard output.
    pub logfile: Option<PathBuf>,
}

impl Options {
    /// Reads `values` and checks what no directive can check alone.
    pub(super) fn read(values: &Values) -> Result<Self, Conflict> {
        check_derived_ports(values)?;
        let options = Self {
            bind: values.named("bind").split(' ').filter_map(BindAddress::parse).collect(),
            protected_mode: values.named("protected-mode") == "yes",
            port: nonzero(values, "port"),
            cluster_port: nonzero(values, "cluster-port"),
            peer_port: narrow(values, "peer-port"),
            admin_port: nonzero(values, "admin-port"),
            admin_hosts: values
                .named("admin-hosts")
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
            tcp_backlog: narrow(values, "tcp-backlog"),
            tcp_keepalive: seconds(values, "tcp-keepalive"),
            timeout: seconds(values, "timeout"),
            maxclients: narrow(values, "maxclients"),
            requirepass: Secret::new(values.named("requirepass")),
            proto_max_bulk_len: narrow(values, "proto-max-bulk-len"),
            node_id: values.named("node-id"),
            cluster_nodes: values.named("cluster-nodes"),
            cluster_shards: unless_auto(values, "cluster-shards"),
            replication_factor: narrow(values, "replication-factor"),
            cluster_secret: Secret::new(values.named("cluster-secret")),
            cluster_announce_hostname: given(values, "cluster-announce-hostname"),
            cluster_announce_ip: values.named("cluster-announce-ip").parse().ok(),
            cluster_announce_port: nonzero(values, "cluster-announce-port"),
            cluster_announce_cluster_port: nonzero(values, "cluster-announce-cluster-port"),
            dir: values.named("dir").into(),
            appendfsync: word(values, "appendfsync", AppendFsync::from_word),
            read_consistency: word(values, "read-consistency", ReadConsistency::from_word),
            wal_sync_mark: values.named("wal-sync-mark") == "yes",
            io_threads: unless_auto(values, "io-threads"),
            maxmemory: narrow(values, "maxmemory"),
            loglevel: word(values, "loglevel", LogLevel::from_word),
            logfile: given(values, "logfile").map(PathBuf::from),
        };
        options.check_ports()?;
        options.check_nodes()?;
        Ok(options)
    }

    /// Every door that is open has a port of its own, and peers know theirs.
    fn check_ports(&self) -> Result<(), Conflict> {
        let doors = [
            ("port", self.port),
            ("cluster-port", self.cluster_port),
            ("peer-port", Some(self.peer_port).filter(|port| *port > 0)),
            ("admin-port", self.admin_port),
        ];
        for (index, (second, port)) in doors.iter().enumerate() {
            let Some(port) = *port else { continue };
            if let Some((first, _)) = doors[..index].iter().find(|door| door.1 == Some(port)) {
                return Err(Conflict::SamePort { first, second, port });
            }
        }
        if self.peer_port == 0 && !self.cluster_nodes.is_empty() {
            return Err(Conflict::PeerPortUnknown);
        }
        Ok(())
    }

    /// This node is one of the cluster's.
    fn check_nodes(&self) -> Result<(), Conflict> {
        let names: Vec<&str> =
            node_entries(&self.cluster_nodes).filter_map(|e| Some(e.split_once('=')?.0)).collect();
        if names.is_empty() || names.contains(&self.node_id.as_str()) {
            return Ok(());
        }
        let known = shortened(&names.join(" "));
        Err(Conflict::NodeNotListed { node: self.node_id.clone(), known })
    }
}

/// A port that is derived from `port` exists.
fn check_derived_ports(values: &Values) -> Result<(), Conflict> {
    for directive in DIRECTIVES {
        let DefaultValue::AbovePort(above) = directive.default else { continue };
        if values.number(directive.name) > i64::from(u16::MAX) {
            return Err(Conflict::PortOverflow {
                name: directive.name,
                port: narrow(values, "port"),
                above,
            });
        }
    }
    Ok(())
}

fn narrow<N: TryFrom<i64>>(values: &Values, name: &str) -> N {
    let number = N::try_from(values.number(name));
    number.ok().expect("the directive's range fits the type of its option")
}

fn nonzero(values: &Values, name: &str) -> Option<u16> {
    Some(narrow(values, name)).filter(|port| *port > 0)
}

fn seconds(values: &Values, name: &str) -> Option<Duration> {
    Some(narrow(values, name)).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn unless_auto<N: TryFrom<i64>>(values: &Values, name: &str) -> Option<N> {
    (values.named(name) != "auto").then(|| narrow(values, name))
}

fn given(values: &Values, name: &str) -> Option<String> {
    Some(values.named(name)).filter(|text| !text.is_empty())
}

fn word<T>(values: &Values, name: &str, from_word: fn(&str) -> Option<T>) -> T {
    from_word(&values.named(name)).expect("the kind of a choice accepts its words only")
}
