//! What can be wrong with a configuration, each as one line: where, what, what to do.

use std::fmt;
use std::io;

use super::file::quote;
use super::limits::{FILE_BYTES_MAX, QUOTED_BYTES_MAX};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, counted from 1; standard input is called `stdin`.
    File {
        /// The file as it was named.
        path: String,
        /// The line.
        line: usize,
    },
    /// A flag.
    CommandLine,
    /// CONFIG SET.
    ConfigSet,
    /// Lowered to what the machine allows.
    Machine,
    /// Nowhere: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::CommandLine => f.write_str("command line"),
            Self::ConfigSet => f.write_str("CONFIG SET"),
            Self::Machine => f.write_str("limits of this machine"),
            Self::Default => f.write_str("defaults"),
        }
    }
}

/// Why there is no configuration, or why CONFIG SET changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file as it was named.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{path}: larger than {FILE_BYTES_MAX} bytes; is this a configuration file?")]
    TooLarge {
        /// The file as it was named.
        path: String,
    },
    /// A line has bytes that are no text.
    #[error("{origin}: not UTF-8; write the line as text")]
    NotUtf8 {
        /// The line.
        origin: Origin,
    },
    /// A quote has no end.
    #[error("{origin}: unbalanced quotes; end each with its own kind, followed by a blank")]
    Quotes {
        /// The line.
        origin: Origin,
    },
    /// Files do not include files.
    #[error("{origin}: include is not supported; put all directives into one file")]
    Include {
        /// The line or flag.
        origin: Origin,
    },
    /// There is no such directive.
    #[error("{origin}: unknown directive '{name}'; {}", advice(*nearest))]
    Unknown {
        /// The line or flag.
        origin: Origin,
        /// The name, shortened if need be.
        name: String,
        /// The directive that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A directive stands without a value.
    #[error("{origin}: {name} has no value; it takes {takes}")]
    NoValue {
        /// The line or flag.
        origin: Origin,
        /// The directive.
        name: &'static str,
        /// What it takes.
        takes: String,
    },
    /// A directive does not take this value.
    #[error("{origin}: {name} takes {takes}, not {value}")]
    Value {
        /// The line or flag.
        origin: Origin,
        /// The directive.
        name: &'static str,
        /// What it takes.
        takes: String,
        /// The value in quotes, or a placeholder for a secret.
        value: String,
    },
    /// Two values do not fit each other.
    #[error("{origin}: {conflict}")]
    Conflict {
        /// Where one of them was given.
        origin: Origin,
        /// Which.
        conflict: Conflict,
    },
    /// A word of the command line is neither file nor flag nor value.
    #[error("command line: '{word}' is not understood; write [FILE | -] [--directive value ...]")]
    NotFlag {
        /// The word, shortened if need be.
        word: String,
    },
    /// CONFIG SET of a name that does not exist. The text is Redis' own, without `ERR`.
    #[error("Unknown option or number of arguments for CONFIG SET - '{name}'")]
    SetUnknown {
        /// The name, shortened if need be.
        name: String,
    },
    /// CONFIG SET of a value that is not taken. The text is Redis' own, without `ERR`.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Set {
        /// The directive.
        name: &'static str,
        /// Why.
        reason: Rejection,
    },
}

/// Why a directive does not take a value. Where Redis has a text for it, this is that text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No number.
    #[error("argument couldn't be parsed into an integer")]
    NotInteger,
    /// Neither `auto` nor a number.
    #[error("argument must be 'auto' or an integer")]
    NotAutoOrInteger,
    /// No amount of memory.
    #[error("argument must be a memory value")]
    NotMemory,
    /// A number out of range.
    #[error("argument must be between {min} and {max} inclusive")]
    Range {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// Neither yes nor no.
    #[error("argument must be 'yes' or 'no'")]
    NotSwitch,
    /// None of the words.
    #[error("argument(s) must be one of the following: {}", .0.join(", "))]
    NotOneOf(&'static [&'static str]),
    /// No value, or several where one is due.
    #[error("wrong number of arguments")]
    WordCount,
    /// Nothing where something is due.
    #[error("argument must not be empty")]
    Empty,
    /// Too much text.
    #[error("argument must not be longer than {bytes_max} bytes")]
    TooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// Too many words.
    #[error("at most {max} arguments are allowed")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A path with a NUL byte.
    #[error("argument must not contain a NUL byte")]
    HasNul,
    /// Bytes that are no text.
    #[error("argument must be UTF-8")]
    NotUtf8,
    /// No node name.
    #[error("argument must be a node name of a-z A-Z 0-9 . _ -")]
    NotNodeName,
    /// No list of nodes.
    #[error("argument must be a list of name=host:peerport[:weight[:zone]], each name once")]
    NotNodes,
    /// No host name.
    #[error("argument must be a host name of a-z A-Z 0-9 . _ -")]
    NotHostname,
    /// No IP address.
    #[error("argument must be an IP address")]
    NotIp,
    /// No address to listen on.
    #[error("argument must be a list of IP addresses")]
    NotAddress,
    /// Another value than the only one there is.
    #[error("{because}")]
    Fixed {
        /// Why there is no other.
        because: &'static str,
    },
    /// Only a restart changes it.
    #[error("can't set immutable config")]
    Immutable,
    /// Named twice in one CONFIG SET.
    #[error("duplicate parameter")]
    Duplicate,
    /// More clients than this machine has file descriptors for.
    #[error(
        "The operating system is not able to handle the specified number of clients, try with {clients_max}"
    )]
    TooManyClients {
        /// How many it has them for.
        clients_max: u32,
    },
    /// It does not fit another value.
    #[error("{0}")]
    Conflict(Conflict),
}

/// How two values fail to fit each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// `port` leaves no room above it for a port that is derived from it.
    #[error("{name} would be port {port} + {above}, above 65535; give {name} or a lower port")]
    PortOverflow {
        /// The derived directive.
        name: &'static str,
        /// The value of `port`.
        port: u16,
        /// What is added to it.
        above: u16,
    },
    /// Two doors with one port.
    #[error("{first} and {second} are both {port}; give each its own port")]
    SamePort {
        /// One door.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Their port.
        port: u16,
    },
    /// Peers cannot find a port that the system chooses.
    #[error(
        "peer-port is 0 but cluster-nodes is given; give the peer-port that the peers connect to"
    )]
    PeerPortUnknown,
    /// This node is not part of its cluster.
    #[error("node-id {node} is not in cluster-nodes ({known}); add it there or change node-id")]
    NodeNotListed {
        /// This node.
        node: String,
        /// The names that are, shortened if need be.
        known: String,
    },
}

fn advice(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "kvorum --help lists all directives".to_owned(),
        |name| format!("did you mean '{name}'?"),
    )
}

/// `text` cut to [`QUOTED_BYTES_MAX`] and free of control characters, fit for a line of the log.
pub(super) fn shortened(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    let mut short: String = text[..end].chars().map(printable).collect();
    if end < text.len() {
        short.push_str("...");
    }
    short
}

/// `words` in quotes and shortened, as a message repeats them.
pub(super) fn quoted(words: &[&str]) -> String {
    match words {
        [word] => format!("'{}'", shortened(word)),
        _ => format!(
            "'{}'",
            shortened(&words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "))
        ),
    }
}
