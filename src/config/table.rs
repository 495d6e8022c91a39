//! The directives. A row here, and a field in [`Options`](super::Options), is all that a new one needs.

use super::directive::Mutability::{Runtime, Startup};
use super::directive::{DefaultValue, Directive, Section};
use super::kind::Kind;
use super::options::{AppendFsync, LogLevel, ReadConsistency};

const MIB: i64 = 1024 * 1024;
/// The greatest value of the C `int` that the kernel takes, and Redis with it.
const INT_MAX: i64 = 2_147_483_647;

/// The directive called `name`, in any case.
pub fn find(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| directive.name.eq_ignore_ascii_case(name))
}

/// The directive whose name is nearest to `name`, if any is near enough to have been meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // A longer word is no misspelling of ours, and the distance takes time for each of its letters.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let edits_max = (name.len() / 3).clamp(1, 3);
    DIRECTIVES
        .iter()
        // Swaps count as one since they are what fingers do: `prot`.
        .map(|directive| (strsim::osa_distance(&name, directive.name), directive.name))
        .min()
        .filter(|(edits, _)| *edits <= edits_max)
        .map(|(_, name)| name)
}

/// All directives, in the order of `conf/kvorum.conf`.
pub const DIRECTIVES: &[Directive] = &[
    Directive {
        name: "bind",
        section: Section::Network,
        kind: Kind::Addresses,
        unit: "",
        default: DefaultValue::Text("127.0.0.1"),
        mutability: Startup,
        doc: &[
            "The addresses that every door of this node listens on.",
            "An address after a - is optional: the node starts when the machine does not have it.",
            "* stands for all IPv4 addresses and ::* for all IPv6 addresses.",
        ],
    },
    Directive {
        name: "protected-mode",
        section: Section::Network,
        kind: Kind::Switch,
        unit: "",
        default: DefaultValue::Text("yes"),
        mutability: Runtime,
        doc: &[
            "While it is yes and requirepass is empty, clients are let in from this machine alone, by",
            "its loopback addresses, wherever bind has the doors listen: others are refused with -DENIED.",
            "Say no only where everybody who reaches the doors may read and change all keys.",
        ],
    },
    Directive {
        name: "port",
        section: Section::Network,
        kind: Kind::Port { zero: "closed" },
        unit: "",
        default: DefaultValue::Text("6379"),
        mutability: Startup,
        doc: &[
            "The plain door. Any client sees all keys here and is never redirected:",
            "what another node leads is forwarded to it.",
        ],
    },
    Directive {
        name: "cluster-port",
        section: Section::Network,
        kind: Kind::Port { zero: "closed" },
        unit: "",
        default: DefaultValue::AbovePort(1000),
        mutability: Startup,
        doc: &[
            "The cluster door, which CLUSTER SLOTS, SHARDS and NODES announce at either door.",
            "Cluster-aware clients compute slots themselves here, and are sent on with MOVED.",
            "Unless given it is port + 1000, and closed when port is.",
        ],
    },
    Directive {
        name: "peer-port",
        section: Section::Network,
        kind: Kind::Port { zero: "chosen by the system" },
        unit: "",
        default: DefaultValue::AbovePort(10_000),
        mutability: Startup,
        doc: &[
            "The door for the other nodes of the cluster.",
            "Unless given it is port + 10000, and chosen by the system when port is 0. A port that",
            "the system chooses is refused when cluster-nodes is given: peers could not find it.",
        ],
    },
    Directive {
        name: "admin-port",
        section: Section::Network,
        kind: Kind::Port { zero: "closed" },
        unit: "",
        default: DefaultValue::Text("0"),
        mutability: Startup,
        doc: &["The HTTP door for health checks, metrics and the dashboard."],
    },
    Directive {
        name: "admin-hosts",
        section: Section::Network,
        kind: Kind::Hostnames,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Startup,
        doc: &[
            "Further host names under which the admin door is asked, in the Host header of a request.",
            "Addresses, localhost, cluster-announce-hostname and the hosts of cluster-nodes are answered always,",
            "and no other name: it may be that of a web page that sends its visitors' browsers here.",
            "* answers to any name.",
        ],
    },
    Directive {
        name: "tcp-backlog",
        section: Section::Network,
        kind: Kind::Count { min: 0, max: INT_MAX },
        unit: "connections",
        default: DefaultValue::Text("511"),
        mutability: Startup,
        doc: &[
            "How many connections may wait at a door until they are accepted.",
            "The kernel lowers it to net.core.somaxconn.",
        ],
    },
    Directive {
        name: "tcp-keepalive",
        section: Section::Network,
        kind: Kind::Count { min: 0, max: INT_MAX },
        unit: "seconds",
        default: DefaultValue::Text("300"),
        mutability: Runtime,
        doc: &[
            "After so long a silence the kernel asks whether a client's machine is still there.",
            "0 never asks. A change holds for connections accepted after it.",
        ],
    },
    Directive {
        name: "timeout",
        section: Section::Clients,
        kind: Kind::Count { min: 0, max: INT_MAX },
        unit: "seconds",
        default: DefaultValue::Text("0"),
        mutability: Runtime,
        doc: &["A client that is idle for so long is disconnected. 0 lets it stay."],
    },
    Directive {
        name: "maxclients",
        section: Section::Clients,
        kind: Kind::Count { min: 1, max: 4_294_967_295 },
        unit: "clients",
        default: DefaultValue::Text("10000"),
        mutability: Runtime,
        doc: &[
            "How many clients may be connected to this node at one time; one more gets an error.",
            "Clients that are connected stay when it is lowered. The node lowers it itself, with a warning, where",
            "the limit of open files (ulimit -n) leaves fewer: the log, peers and operators come first. With",
            "very few files and many io-threads there are fewer of these, too.",
        ],
    },
    Directive {
        name: "requirepass",
        section: Section::Clients,
        kind: Kind::Secret,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Runtime,
        doc: &[
            "The password that clients give with AUTH or HELLO. Empty asks for none.",
            "CONFIG GET shows it, as in Redis. Who has not given it within 10 seconds is disconnected, and",
            "gives way to others where maxclients is reached. Wrong ones are answered one a second for each",
            "address, where others wait for their turn, too; but many addresses guess side by side: use a",
            "long one.",
        ],
    },
    Directive {
        name: "proto-max-bulk-len",
        section: Section::Clients,
        kind: Kind::Bytes { min: MIB, max: 512 * MIB },
        unit: "bytes",
        default: DefaultValue::Text("134217728"),
        mutability: Runtime,
        doc: &[
            "The longest single argument that a client may send.",
            "Redis' default is 512mb. Here every replica writes it to its log, which takes the longer",
            "the larger it is; from some 300 MB on that has disturbed elections on two cores.",
            "A change holds for connections accepted after it.",
        ],
    },
    Directive {
        name: "node-id",
        section: Section::Cluster,
        kind: Kind::NodeName,
        unit: "",
        default: DefaultValue::Text("n1"),
        mutability: Startup,
        doc: &[
            "The name of this node. It is one of the names in cluster-nodes, if those are given.",
        ],
    },
    Directive {
        name: "cluster-nodes",
        section: Section::Cluster,
        kind: Kind::Nodes,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Startup,
        doc: &[
            "All nodes of the cluster with the peer-port of each, the same text on every node:",
            "    n1=10.0.0.1:16379 n2=10.0.0.2:16379 n3=10.0.0.3:16379",
            "A weight and a zone may follow, as in n4=10.0.0.4:16379:2:west. A node of weight 2 takes",
            "twice the share of a node of weight 1. Replicas of one shard go to distinct zones first.",
            "It may be one argument in quotes or several. Empty means that this node is alone.",
        ],
    },
    Directive {
        name: "cluster-shards",
        section: Section::Cluster,
        kind: Kind::AutoCount { min: 1, max: 1024 },
        unit: "shards",
        default: DefaultValue::Text("auto"),
        mutability: Startup,
        doc: &[
            "Into how many shards the 16384 slots are cut. Each shard is a Raft group of its own, and",
            "groups are not free: auto makes about as many as there are threads that can lead one.",
            "It counts when the cluster is created, and not after that.",
        ],
    },
    Directive {
        name: "replication-factor",
        section: Section::Cluster,
        kind: Kind::Count { min: 1, max: 7 },
        unit: "replicas",
        default: DefaultValue::Text("3"),
        mutability: Startup,
        doc: &[
            "On how many nodes each shard lives; on all of them while the cluster has fewer.",
            "A shard serves while a majority of its replicas does: 3 bear the loss of one, 5 of two.",
        ],
    },
    Directive {
        name: "cluster-secret",
        section: Section::Cluster,
        kind: Kind::Secret,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Startup,
        doc: &[
            "The secret by which the nodes of a cluster know each other, the same on every node: long and random.",
            "Empty trusts whoever reaches peer-port. CONFIG GET shows only whether there is one.",
        ],
    },
    Directive {
        name: "cluster-announce-hostname",
        section: Section::Cluster,
        kind: Kind::Hostname,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Startup,
        doc: &[
            "The host name under which clients reach this node, told to those that ask for the cluster.",
        ],
    },
    Directive {
        name: "cluster-announce-ip",
        section: Section::Cluster,
        kind: Kind::Ip,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Startup,
        doc: &[
            "The address under which clients reach this node when it is not the one it listens on,",
            "as behind NAT and in containers.",
        ],
    },
    Directive {
        name: "cluster-announce-port",
        section: Section::Cluster,
        kind: Kind::Port { zero: "port itself" },
        unit: "",
        default: DefaultValue::Text("0"),
        mutability: Startup,
        doc: &["The port under which clients reach the plain door of this node."],
    },
    Directive {
        name: "cluster-announce-cluster-port",
        section: Section::Cluster,
        kind: Kind::Port { zero: "cluster-port itself" },
        unit: "",
        default: DefaultValue::Text("0"),
        mutability: Startup,
        doc: &["The port under which clients reach the cluster door of this node."],
    },
    Directive {
        name: "dir",
        section: Section::Durability,
        kind: Kind::Path,
        unit: "",
        default: DefaultValue::Text("./data"),
        mutability: Startup,
        doc: &[
            "The directory of the log, the votes and the snapshots. It is created when missing.",
            "Each node needs its own.",
        ],
    },
    Directive {
        name: "appendfsync",
        section: Section::Durability,
        kind: Kind::Choice(AppendFsync::WORDS),
        unit: "",
        default: DefaultValue::Text("everysec"),
        mutability: Startup,
        doc: &[
            "When the log is forced to the disk. A write is acknowledged once a majority of its",
            "shard's replicas has it in the log file; always waits for the disk as well.",
            "What can be lost of the writes that were acknowledged:",
            "",
            "    what fails                          always    everysec          no",
            "    the process, on one or all nodes    nothing   nothing           nothing",
            "    power of a minority of replicas     nothing   nothing           nothing",
            "    power of a majority at once         nothing   the last second   what the kernel had",
            "                                                                    not yet written",
            "",
            "A node that comes back from a power cut has no vote until it is up to date again.",
            "A majority counts as lost at once when more lose power before the first are.",
            "A node that is alone, or replication-factor 1, is its own majority.",
        ],
    },
    Directive {
        name: "read-consistency",
        section: Section::Durability,
        kind: Kind::Choice(ReadConsistency::WORDS),
        unit: "",
        default: DefaultValue::Text("lease"),
        mutability: Startup,
        doc: &[
            "How a leader makes sure that a read sees every write acknowledged before it.",
            "lease: a majority has answered lately, measured on this machine's monotonic clock. No",
            "message is sent. It relies on clocks that run at nearly the same speed.",
            "quorum: a majority answers now, one round for all reads that wait. It relies on no clock.",
        ],
    },
    Directive {
        name: "wal-sync-mark",
        section: Section::Durability,
        kind: Kind::Switch,
        unit: "",
        default: DefaultValue::Text("no"),
        mutability: Startup,
        doc: &[
            "An aid for tests: the log keeps a mark of how far it was forced to the disk, so that a test",
            "can cut off what a power loss would have taken. It costs time and gains nothing else.",
        ],
    },
    Directive {
        name: "io-threads",
        section: Section::Process,
        kind: Kind::AutoCount { min: 1, max: 128 },
        unit: "threads",
        default: DefaultValue::Text("auto"),
        mutability: Startup,
        doc: &[
            "How many threads serve clients and shards.",
            "auto takes 1 on a machine of one or two cores, else one less than there are cores.",
        ],
    },
    Directive {
        name: "loglevel",
        section: Section::Process,
        kind: Kind::Choice(LogLevel::WORDS),
        unit: "",
        default: DefaultValue::Text("notice"),
        mutability: Runtime,
        doc: &[
            "How much is logged: the level of Redis' name and those above it.",
            "debug logs events of level TRACE and above, verbose DEBUG, notice INFO, warning WARN.",
        ],
    },
    Directive {
        name: "logfile",
        section: Section::Process,
        kind: Kind::OptionalPath,
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Startup,
        doc: &["The file that the log is appended to. Empty logs to standard output."],
    },
    Directive {
        name: "maxmemory",
        section: Section::Process,
        kind: Kind::Bytes { min: 0, max: 1 << 50 },
        unit: "bytes",
        default: DefaultValue::Text("0"),
        mutability: Runtime,
        doc: &[
            "The memory that this node may take, by what its allocator has given out; 0 is no limit.",
            "Commands that may need more than is left, at the leader or any replica of their key, are",
            "refused (-OOM); reads and deletes are not. Pages and what is on its way take a third more.",
        ],
    },
    Directive {
        name: "databases",
        section: Section::Fixed,
        kind: Kind::Fixed { value: "16", because: "there are always 16 databases" },
        unit: "",
        default: DefaultValue::Text("16"),
        mutability: Startup,
        doc: &["How many databases SELECT can choose from."],
    },
    Directive {
        name: "appendonly",
        section: Section::Fixed,
        kind: Kind::Fixed {
            value: "yes",
            because: "the log is always on; appendfsync says how durable it is",
        },
        unit: "",
        default: DefaultValue::Text("yes"),
        mutability: Runtime,
        doc: &["Whether writes are logged. They always are."],
    },
    Directive {
        name: "save",
        section: Section::Fixed,
        kind: Kind::Fixed {
            value: "",
            because: "there are no save points; the log and its own snapshots keep the data",
        },
        unit: "",
        default: DefaultValue::Text(""),
        mutability: Runtime,
        doc: &["When Redis would write a dump. Snapshots are made here as the log needs them."],
    },
    Directive {
        name: "maxmemory-policy",
        section: Section::Fixed,
        kind: Kind::Fixed { value: "noeviction", because: "eviction is not supported yet" },
        unit: "",
        default: DefaultValue::Text("noeviction"),
        mutability: Runtime,
        doc: &["What is evicted when memory is short: nothing so far."],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_told_only_when_it_is_near() {
        let table = [
            ("BINDS", Some("bind")),
            ("prot", Some("port")),
            ("pot", Some("port")),
            ("pert", Some("port")),
            ("rpto", None),
            ("max-clients", Some("maxclients")),
            ("append-fsync", Some("appendfsync")),
            ("peer_port", Some("peer-port")),
            ("daemonize", None),
            ("", None),
            ("x", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }
}
