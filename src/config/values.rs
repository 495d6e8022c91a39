//! The text of every directive, given or default: what CONFIG GET shows and what [`Options`] is read from.

use std::fmt;

use super::Options;
use super::directive::{DefaultValue, Directive};
use super::error::{ConfigError, Conflict, Origin, quoted, shortened};
use super::table::{DIRECTIVES, find, nearest};

/// A value that somebody gave.
#[derive(Clone)]
struct Given {
    text: String,
    origin: Origin,
}

/// The given values, by the row of their directive.
#[derive(Clone)]
pub(super) struct Values {
    given: Vec<Option<Given>>,
}

impl Values {
    /// Nothing is given.
    pub(super) fn new() -> Self {
        Self { given: vec![None; DIRECTIVES.len()] }
    }

    /// Takes one line or flag: a name and its values. A later one overrides an earlier.
    pub(super) fn give(&mut self, words: &[String], origin: &Origin) -> Result<(), ConfigError> {
        let (name, values) = words.split_first().map_or(("", words), |(n, v)| (n.as_str(), v));
        let directive = find(name).ok_or_else(|| unknown(name, origin))?;
        if values.is_empty() {
            let (name, takes) = (directive.name, directive.takes());
            return Err(ConfigError::NoValue { origin: origin.clone(), name, takes });
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let text =
            directive.kind.accept(&values).map_err(|_| refused(directive, &values, origin))?;
        self.put(directive, text, origin.clone());
        Ok(())
    }

    /// Keeps `text`, which the directive's kind has accepted.
    pub(super) fn put(&mut self, directive: &Directive, text: String, origin: Origin) {
        self.given[row(directive.name)] = Some(Given { text, origin });
    }

    /// The text of `directive` as CONFIG GET shows it.
    pub(super) fn text(&self, directive: &Directive) -> String {
        match (&self.given[row(directive.name)], directive.default) {
            (Some(given), _) => given.text.clone(),
            (None, DefaultValue::Text(text)) => text.to_owned(),
            (None, DefaultValue::AbovePort(above)) => match self.number("port") {
                0 => "0".to_owned(),
                port => (port + i64::from(above)).to_string(),
            },
        }
    }

    /// The text of the directive called `name`.
    pub(super) fn named(&self, name: &str) -> String {
        self.text(&DIRECTIVES[row(name)])
    }

    /// The number that the directive called `name` says; its kind must be one of numbers.
    pub(super) fn number(&self, name: &str) -> i64 {
        self.named(name).parse().expect("kinds of numbers accept nothing but an i64")
    }

    /// The options that these values make.
    pub(super) fn options(&self) -> Result<Options, ConfigError> {
        Options::read(self).map_err(|conflict| {
            let origin = self.blamed(&conflict);
            ConfigError::Conflict { origin, conflict }
        })
    }

    /// Where the value was given that a conflict is about.
    fn blamed(&self, conflict: &Conflict) -> Origin {
        let names: [&str; 2] = match conflict {
            Conflict::PortOverflow { name, .. } => ["port", name],
            Conflict::SamePort { first, second, .. } => [second, first],
            Conflict::PeerPortUnknown => ["peer-port", "cluster-nodes"],
            Conflict::NodeNotListed { .. } => ["node-id", "cluster-nodes"],
        };
        let origin = |name: &&str| self.given[row(name)].as_ref().map(|given| given.origin.clone());
        names.iter().find_map(origin).unwrap_or(Origin::Default)
    }
}

/// Names only: values may be secret.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = DIRECTIVES.iter().zip(&self.given).filter(|(_, given)| given.is_some());
        f.debug_list().entries(given.map(|(directive, _)| directive.name)).finish()
    }
}

fn row(name: &str) -> usize {
    DIRECTIVES
        .iter()
        .position(|directive| directive.name == name)
        .expect("names in this room are those of the table")
}

fn unknown(name: &str, origin: &Origin) -> ConfigError {
    let origin = origin.clone();
    if name.eq_ignore_ascii_case("include") {
        return ConfigError::Include { origin };
    }
    // `--port=7001` means port; the part behind the sign would make every name look far away.
    let stem = name.split_once('=').map_or(name, |(stem, _)| stem);
    // So is `--requirepass=secret`, and the secret must not be repeated.
    ConfigError::Unknown { origin, name: shortened(stem), nearest: nearest(stem) }
}

fn refused(directive: &Directive, values: &[&str], origin: &Origin) -> ConfigError {
    let value = if directive.is_secret() { "this text".to_owned() } else { quoted(values) };
    let (origin, name, takes) = (origin.clone(), directive.name, directive.takes());
    ConfigError::Value { origin, name, takes, value }
}
