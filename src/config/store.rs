//! The configuration of a running node: loaded once, asked by CONFIG GET, changed by CONFIG SET.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::stdx::glob;

use super::Options;
use super::command_line::{self, CommandLine};
use super::directive::{Directive, Mutability};
use super::error::{ConfigError, Origin, Rejection, shortened};
use super::file;
use super::table::{DIRECTIVES, find};
use super::values::Values;

/// What the command line asks for.
#[derive(Debug)]
pub enum Start {
    /// To run a node.
    Run(Config),
    /// To print [`usage`](super::usage).
    Help,
    /// To print the version.
    Version,
}

/// The values of all directives, shared by whoever asks for them.
#[derive(Debug)]
pub struct Config {
    state: RwLock<State>,
    version: AtomicU64,
    /// `timeout`, in seconds, beside the state: it is asked for at every read from a socket, which is not to go through a
    /// lock.
    timeout_s: AtomicU64,
}

#[derive(Debug)]
struct State {
    values: Values,
    options: Arc<Options>,
    /// What `maxclients` may not exceed on this machine.
    clients_max: u32,
}

/// What a CONFIG SET changed.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The directives whose value is another one now, in the order of the command.
    pub names: Vec<&'static str>,
    /// All values after the change.
    pub options: Arc<Options>,
}

impl Config {
    /// Reads the configuration that a command line asks for; `args` are the words after the program's name.
    ///
    /// The first word names a file, or standard input as `-`, unless it begins with a dash. Flags override the file,
    /// and later ones earlier ones, whatever their order.
    ///
    /// # Errors
    /// [`ConfigError`] about the first thing that is wrong.
    pub fn load(args: impl Iterator<Item = String>) -> Result<Start, ConfigError> {
        let (path, flags) = match command_line::parse(args)? {
            CommandLine::Help => return Ok(Start::Help),
            CommandLine::Version => return Ok(Start::Version),
            CommandLine::Run { file, flags } => (file, flags),
        };
        let lines = path.map_or(Ok(Vec::new()), |path| file::read(&path))?;
        let mut values = Values::new();
        for line in &lines {
            values.give(&line.words, &line.origin)?;
        }
        for flag in &flags {
            values.give(flag, &Origin::CommandLine)?;
        }
        Ok(Start::Run(Self::new(values)?))
    }

    fn new(values: Values) -> Result<Self, ConfigError> {
        let options = Arc::new(values.options()?);
        let timeout_s = AtomicU64::new(seconds(options.timeout));
        let state = State { values, options, clients_max: u32::MAX };
        Ok(Self { state: RwLock::new(state), version: AtomicU64::new(0), timeout_s })
    }

    /// All values as they are now. A later CONFIG SET does not change what was returned.
    pub fn options(&self) -> Arc<Options> {
        Arc::clone(&self.state.read().options)
    }

    /// `timeout` as it is now: how long an idle client may stay; `None` for ever. Takes no lock.
    #[inline]
    pub fn timeout(&self) -> Option<Duration> {
        let seconds = self.timeout_s.load(Ordering::Acquire);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// How often the options have changed, for those who look again only when there is something new.
    ///
    /// Options read after a version are at least as new as it.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Bounds `maxclients` by what this machine can serve, at least 1: lowers it where it is above, and refuses from now
    /// on what is. Returns what was asked for when that was lowered.
    pub fn bound_clients(&self, clients_max: u32) -> Option<u32> {
        let mut state = self.state.write();
        state.clients_max = clients_max;
        let asked = state.options.maxclients;
        if asked <= clients_max {
            return None;
        }
        if let Some(directive) = find(MAXCLIENTS) {
            state.values.put(directive, clients_max.to_string(), Origin::Machine);
        }
        let options = Options { maxclients: clients_max, ..Options::clone(&state.options) };
        state.options = Arc::new(options);
        self.version.fetch_add(1, Ordering::Release);
        Some(asked)
    }

    /// CONFIG GET: names and values that fit any of `patterns`, sorted by name, each once.
    ///
    /// A pattern without `*`, `?` and `[` is a name, and is answered as it was spelled.
    ///
    /// What nodes keep among themselves is not shown: see `SECRET_SHOWN`.
    ///
    /// Source: Redis 7 `configGetCommand`.
    pub fn get(&self, patterns: &[impl AsRef<[u8]>]) -> Vec<(String, String)> {
        let state = self.state.read();
        let mut found = BTreeMap::new();
        for pattern in patterns {
            for (name, directive) in matching(pattern.as_ref()) {
                found.entry(name).or_insert_with(|| shown(directive, state.values.text(directive)));
            }
        }
        found.into_iter().collect()
    }

    /// CONFIG SET: takes all of `pairs`, or none.
    ///
    /// # Errors
    /// [`ConfigError::SetUnknown`] and [`ConfigError::Set`], which print as Redis' replies without `ERR`.
    ///
    /// Source: Redis 7 `configSetCommand`, also for the order of the checks.
    pub fn set<T: AsRef<[u8]>>(&self, pairs: &[(T, T)]) -> Result<Changed, ConfigError> {
        let directives = settable(pairs)?;
        let mut state = self.state.write();
        let mut values = state.values.clone();
        let mut names = Vec::new();
        for (directive, (_, value)) in directives.iter().zip(pairs) {
            let text = accept(directive, value.as_ref())
                .map_err(|reason| ConfigError::Set { name: directive.name, reason })?;
            if text != values.text(directive) {
                names.push(directive.name);
                values.put(directive, text, Origin::ConfigSet);
            }
        }
        if !names.is_empty() {
            let options = Options::read(&values).map_err(|conflict| ConfigError::Set {
                name: names[0],
                reason: Rejection::Conflict(conflict),
            })?;
            let clients_max = state.clients_max;
            if names.contains(&MAXCLIENTS) && options.maxclients > clients_max {
                let reason = Rejection::TooManyClients { clients_max };
                return Err(ConfigError::Set { name: MAXCLIENTS, reason });
            }
            self.timeout_s.store(seconds(options.timeout), Ordering::Release);
            *state = State { values, options: Arc::new(options), clients_max };
            // Inside the lock: who sees this version and then takes the lock finds these options.
            self.version.fetch_add(1, Ordering::Release);
        }
        Ok(Changed { names, options: Arc::clone(&state.options) })
    }
}

/// A `timeout` as it is kept beside the state: 0 for none.
fn seconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |timeout| timeout.as_secs())
}

/// The directive that the machine may bound.
const MAXCLIENTS: &str = "maxclients";

/// The directives that `pattern` names, under the names they are answered with.
fn matching(pattern: &[u8]) -> Vec<(String, &'static Directive)> {
    if !pattern.iter().any(|byte| b"*?[".contains(byte)) {
        let name = std::str::from_utf8(pattern).unwrap_or("");
        return find(name).map(|directive| (name.to_owned(), directive)).into_iter().collect();
    }
    DIRECTIVES
        .iter()
        .filter(|directive| glob::matches_nocase(pattern, directive.name.as_bytes()))
        .map(|directive| (directive.name.to_owned(), directive))
        .collect()
}

/// The directives of `pairs`: all known, all changeable, none twice.
fn settable<T: AsRef<[u8]>>(pairs: &[(T, T)]) -> Result<Vec<&'static Directive>, ConfigError> {
    let mut directives: Vec<&'static Directive> = Vec::new();
    for (name, _) in pairs {
        let name = String::from_utf8_lossy(name.as_ref());
        let Some(directive) = find(&name) else {
            return Err(ConfigError::SetUnknown { name: shortened(&name) });
        };
        let name = directive.name;
        if directives.iter().any(|earlier| earlier.name == name) {
            return Err(ConfigError::Set { name, reason: Rejection::Duplicate });
        }
        if directive.mutability == Mutability::Startup {
            return Err(ConfigError::Set { name, reason: Rejection::Immutable });
        }
        directives.push(directive);
    }
    Ok(directives)
}

fn accept(directive: &Directive, value: &[u8]) -> Result<String, Rejection> {
    let word = std::str::from_utf8(value).map_err(|_| Rejection::NotUtf8)?;
    directive.kind.accept(&[word])
}

/// What CONFIG GET answers for a secret that is fixed at the start, when there is one. Nodes know each other by it, and a
/// client, whatever its rights, has no use for it; Redis' own `requirepass` can be set by clients and is shown to them.
const SECRET_SHOWN: &str = "(set)";

fn shown(directive: &Directive, text: String) -> String {
    let is_hidden = directive.is_secret() && directive.mutability == Mutability::Startup;
    if is_hidden && !text.is_empty() { SECRET_SHOWN.to_owned() } else { text }
}
