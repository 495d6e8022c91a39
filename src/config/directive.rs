//! The shape of a directive: everything that is to be known about one name.

use super::kind::Kind;

/// One directive: a row of [`DIRECTIVES`](super::DIRECTIVES).
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// Its name, in lower case. Input may use any case.
    pub name: &'static str,
    /// The heading it stands under in `conf/kvorum.conf`.
    pub section: Section,
    /// Which values it takes.
    pub kind: Kind,
    /// What a number counts, `""` when it has no unit.
    pub unit: &'static str,
    /// Its value when nobody gives one.
    pub default: DefaultValue,
    /// When it may change.
    pub mutability: Mutability,
    /// Full sentences for operators, one entry per line.
    pub doc: &'static [&'static str],
}

/// A directive's value when none is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// This text, in the form of CONFIG GET.
    Text(&'static str),
    /// `port` plus this; 0 when `port` is 0.
    AbovePort(u16),
}

/// When a directive may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutability {
    /// Only by a restart.
    Startup,
    /// By CONFIG SET too.
    Runtime,
}

/// The headings of `conf/kvorum.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Doors and sockets.
    Network,
    /// Who may come in, and how many.
    Clients,
    /// This node and its peers.
    Cluster,
    /// What an acknowledgement means and where data lives.
    Durability,
    /// Threads and the process' log.
    Process,
    /// Directives of Redis whose value never changes here.
    Fixed,
}

impl Section {
    /// The heading's text.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Clients => "Clients",
            Self::Cluster => "Cluster",
            Self::Durability => "Durability and consistency",
            Self::Process => "Process",
            Self::Fixed => "Fixed",
        }
    }
}

impl Directive {
    /// The values it takes, to be read after "takes": "a port from 0 to 65535".
    pub fn takes(&self) -> String {
        self.kind.takes(self.unit)
    }

    /// Whether its value must be kept out of logs, the slow log and MONITOR.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// Whether its value is a constant of this program, shown for clients that ask.
    pub fn is_fixed(&self) -> bool {
        matches!(self.kind, Kind::Fixed { .. })
    }
}
