//! The declaration of a command: everything the house needs to know about it beside what it does.
//!
//! One [`Spec`] is what dispatch, routing, ACL, COMMAND and the documents read; there is no second list.
//! Facts (arity, flags, keys, tips) agree with Redis 7.2 and a test holds them to it; summaries are our own.

use super::acl_category::AclRule;
use super::arg::Arg;
use super::key_spec::{KeySpec, LocateKeys};

/// A command, or a subcommand, as declared beside its function.
///
/// Write `Spec { name: "get", …, ..Spec::EMPTY }`. The command's name comes first in argv, so argv of
/// `GET key` has the length 2.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name in lower case; of a subcommand the full one, `config|get`.
    pub name: &'static str,
    /// The chapter of Redis' documentation it belongs to.
    pub group: Group,
    /// The version of Redis that had it first.
    pub since: &'static str,
    /// The cluster's level from which on its log may hold the command: a replica that does not know it stops. The level at
    /// which a cluster begins, unless the command came later.
    pub level: u16,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// How its time grows, in O notation.
    pub complexity: &'static str,
    /// How many arguments it takes, its name included.
    pub arity: Arity,
    /// What dispatch must know about it.
    pub flags: &'static [Flag],
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    /// How it finds keys that [`Spec::keys`] cannot express; `None` for nearly all.
    pub locate_keys: Option<LocateKeys>,
    /// What proxies and clients should know about it.
    pub tips: &'static [Tip],
    /// ACL categories beside those that flags imply.
    pub acl: AclRule,
    /// Its arguments, for COMMAND DOCS.
    pub args: &'static [Arg],
    /// Version and change, oldest first.
    pub history: &'static [(&'static str, &'static str)],
    /// Since when it should not be used, and what instead.
    pub deprecated: Option<Deprecated>,
    /// Its subcommands, when it is a container of such.
    pub subcommands: &'static [&'static Spec],
}

impl Spec {
    /// What a spec has where it says nothing.
    pub const EMPTY: Self = Self {
        name: "",
        group: Group::Generic,
        since: "",
        level: 1,
        summary: "",
        complexity: "",
        arity: Arity::AtLeast(1),
        flags: &[],
        keys: &[],
        locate_keys: None,
        tips: &[],
        acl: AclRule::OfGroup,
        args: &[],
        history: &[],
        deprecated: None,
        subcommands: &[],
    };

    /// Whether `flag` is declared. [`Flag::MovableKeys`] follows from the key specs, see
    /// [`Spec::legacy_range`].
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether it may change keys.
    pub fn is_write(&self) -> bool {
        self.has(Flag::Write)
    }

    /// Whether it reads keys and changes none.
    pub fn is_read_only(&self) -> bool {
        self.has(Flag::ReadOnly)
    }

    /// Its own name: `get` of `config|get`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit_once('|').map_or(self.name, |(_, name)| name)
    }

    /// The subcommand called `name`, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Spec> {
        let mut subcommands = self.subcommands.iter().copied();
        subcommands.find(|spec| spec.short_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// How a proxy splits the command over shards, if it says so.
    pub fn request_policy(&self) -> Option<RequestPolicy> {
        self.tips.iter().find_map(|tip| match tip {
            Tip::Request(policy) => Some(*policy),
            Tip::Response(_) | Tip::NondeterministicOutput | Tip::NondeterministicOutputOrder => {
                None
            }
        })
    }

    /// How a proxy joins the replies of shards, if it says so.
    pub fn response_policy(&self) -> Option<ResponsePolicy> {
        self.tips.iter().find_map(|tip| match tip {
            Tip::Response(policy) => Some(*policy),
            Tip::Request(_) | Tip::NondeterministicOutput | Tip::NondeterministicOutputOrder => {
                None
            }
        })
    }
}

/// The length of argv that a command accepts, its name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// This length.
    Exactly(i8),
    /// This length or more.
    AtLeast(i8),
}

impl Arity {
    /// Whether an argv of `argc` elements is accepted.
    pub fn accepts(self, argc: usize) -> bool {
        match self {
            Self::Exactly(count) => usize::try_from(count) == Ok(argc),
            Self::AtLeast(count) => usize::try_from(count).is_ok_and(|count| argc >= count),
        }
    }

    /// The number COMMAND shows: negative for "at least".
    pub const fn number(self) -> i64 {
        match self {
            Self::Exactly(count) => count as i64,
            Self::AtLeast(count) => -(count as i64),
        }
    }
}

/// The chapter of Redis' documentation a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Keys of any type.
    Generic,
    /// Strings.
    String,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Hashes.
    Hash,
    /// Publish and subscribe.
    PubSub,
    /// MULTI and its kin.
    Transactions,
    /// The connection itself.
    Connection,
    /// The server.
    Server,
    /// Lua.
    Scripting,
    /// Cardinality sketches.
    HyperLogLog,
    /// The cluster.
    Cluster,
    /// Redis Sentinel.
    Sentinel,
    /// Positions on Earth.
    Geo,
    /// Streams.
    Stream,
    /// Bits of strings.
    Bitmap,
    /// Not of Redis itself: what only kvorum has.
    Module,
}

impl Group {
    /// The name COMMAND DOCS shows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::Hash => "hash",
            Self::PubSub => "pubsub",
            Self::Transactions => "transactions",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Scripting => "scripting",
            Self::HyperLogLog => "hyperloglog",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
            Self::Geo => "geo",
            Self::Stream => "stream",
            Self::Bitmap => "bitmap",
            Self::Module => "module",
        }
    }
}

/// What dispatch must know about a command, in the order in which COMMAND lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// May change keys: goes through the log.
    Write,
    /// Reads keys, changes none.
    ReadOnly,
    /// Refused when memory is short.
    DenyOom,
    /// Comes from a module.
    Module,
    /// For operators.
    Admin,
    /// Part of Pub/Sub.
    PubSub,
    /// Refused in scripts.
    NoScript,
    /// May keep its client waiting.
    Blocking,
    /// Allowed while data is being loaded.
    Loading,
    /// Allowed where data may be out of date.
    Stale,
    /// Not shown by MONITOR.
    SkipMonitor,
    /// Not kept in the slow log.
    SkipSlowLog,
    /// Accepted for a slot that is being imported.
    Asking,
    /// Constant or logarithmic time.
    Fast,
    /// Allowed before authentication.
    NoAuth,
    /// May change something that replicas must see although it writes no key.
    MayReplicate,
    /// Exists in Sentinel too.
    Sentinel,
    /// Exists in Sentinel only.
    OnlySentinel,
    /// Its keys are optional although it has key specs.
    NoMandatoryKeys,
    /// Off unless the configuration enables it.
    Protected,
    /// Keys are where its module says.
    ModuleGetKeys,
    /// Its keys cannot be told from first, last and step alone. Derived, never declared.
    MovableKeys,
    /// Allowed while a script runs too long.
    AllowBusy,
    /// From a module that does not know clusters.
    ModuleNoCluster,
    /// Refused while data is loaded in the background.
    NoAsyncLoading,
    /// Refused in transactions.
    NoMulti,
}

impl Flag {
    /// The name COMMAND shows; `None` for flags that Redis keeps to itself.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Write => Some("write"),
            Self::ReadOnly => Some("readonly"),
            Self::DenyOom => Some("denyoom"),
            Self::Module => Some("module"),
            Self::Admin => Some("admin"),
            Self::PubSub => Some("pubsub"),
            Self::NoScript => Some("noscript"),
            Self::Blocking => Some("blocking"),
            Self::Loading => Some("loading"),
            Self::Stale => Some("stale"),
            Self::SkipMonitor => Some("skip_monitor"),
            Self::SkipSlowLog => Some("skip_slowlog"),
            Self::Asking => Some("asking"),
            Self::Fast => Some("fast"),
            Self::NoAuth => Some("no_auth"),
            Self::NoMandatoryKeys => Some("no_mandatory_keys"),
            Self::ModuleGetKeys => Some("module_getkeys"),
            Self::MovableKeys => Some("movablekeys"),
            Self::AllowBusy => Some("allow_busy"),
            Self::ModuleNoCluster => Some("module_no_cluster"),
            Self::NoAsyncLoading => Some("no_async_loading"),
            Self::NoMulti => Some("no_multi"),
            Self::MayReplicate | Self::Sentinel | Self::OnlySentinel | Self::Protected => None,
        }
    }
}

/// What proxies and clients should know about a command. Source: Redis docs, "Command tips".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tip {
    /// The same question may have another answer next time.
    NondeterministicOutput,
    /// The same question may have its answers in another order next time.
    NondeterministicOutputOrder,
    /// How to split it over shards.
    Request(RequestPolicy),
    /// How to join the replies of shards.
    Response(ResponsePolicy),
}

impl Tip {
    /// The text COMMAND shows.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NondeterministicOutput => "nondeterministic_output",
            Self::NondeterministicOutputOrder => "nondeterministic_output_order",
            Self::Request(RequestPolicy::AllNodes) => "request_policy:all_nodes",
            Self::Request(RequestPolicy::AllShards) => "request_policy:all_shards",
            Self::Request(RequestPolicy::MultiShard) => "request_policy:multi_shard",
            Self::Request(RequestPolicy::Special) => "request_policy:special",
            Self::Response(ResponsePolicy::OneSucceeded) => "response_policy:one_succeeded",
            Self::Response(ResponsePolicy::AllSucceeded) => "response_policy:all_succeeded",
            Self::Response(ResponsePolicy::AggLogicalAnd) => "response_policy:agg_logical_and",
            Self::Response(ResponsePolicy::AggLogicalOr) => "response_policy:agg_logical_or",
            Self::Response(ResponsePolicy::AggMin) => "response_policy:agg_min",
            Self::Response(ResponsePolicy::AggMax) => "response_policy:agg_max",
            Self::Response(ResponsePolicy::AggSum) => "response_policy:agg_sum",
            Self::Response(ResponsePolicy::Special) => "response_policy:special",
        }
    }
}

/// How a command is split over shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPolicy {
    /// Sent to every node.
    AllNodes,
    /// Sent to every shard.
    AllShards,
    /// Its keys are dealt out to their shards.
    MultiShard,
    /// By a rule of its own.
    Special,
}

/// How the replies of shards are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponsePolicy {
    /// The first reply that is no error.
    OneSucceeded,
    /// Any reply when none is an error, else an error.
    AllSucceeded,
    /// 1 when all are 1.
    AggLogicalAnd,
    /// 1 when one is 1.
    AggLogicalOr,
    /// The smallest.
    AggMin,
    /// The biggest.
    AggMax,
    /// The sum.
    AggSum,
    /// By a rule of its own.
    Special,
}

/// Since when a command should not be used, and what instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deprecated {
    /// The version of Redis that said so.
    pub since: &'static str,
    /// What to use instead, in words.
    pub replaced_by: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arity_counts_the_name() {
        for (arity, number, accepted, refused) in [
            (Arity::Exactly(2), 2, &[2][..], &[0, 1, 3][..]),
            (Arity::AtLeast(2), -2, &[2, 3, 1000], &[0, 1]),
        ] {
            assert_eq!(arity.number(), number);
            assert!(accepted.iter().all(|&argc| arity.accepts(argc)), "{arity:?}");
            assert!(!refused.iter().any(|&argc| arity.accepts(argc)), "{arity:?}");
        }
    }

    #[test]
    fn subcommands_are_found_by_their_short_name() {
        const GET: Spec = Spec { name: "config|get", ..Spec::EMPTY };
        const CONFIG: Spec = Spec { name: "config", subcommands: &[&GET], ..Spec::EMPTY };
        assert_eq!(CONFIG.subcommand(b"GeT").map(|spec| spec.name), Some("config|get"));
        assert!(CONFIG.subcommand(b"set").is_none());
        assert!(CONFIG.subcommand(b"config|get").is_none());
    }

    #[test]
    fn policies_are_read_from_tips() {
        let del = Spec {
            tips: &[Tip::Request(RequestPolicy::MultiShard), Tip::Response(ResponsePolicy::AggSum)],
            ..Spec::EMPTY
        };
        assert_eq!(del.request_policy(), Some(RequestPolicy::MultiShard));
        assert_eq!(del.response_policy(), Some(ResponsePolicy::AggSum));
        assert_eq!(Spec::EMPTY.request_policy(), None);
        assert_eq!(Spec::EMPTY.response_policy(), None);
    }
}
