//! The arguments of a command as COMMAND DOCS describes them: documentation, not a parser.
//!
//! Source: Redis docs, COMMAND DOCS, "Command arguments".

/// One argument. Built by the function named after its type, refined by the methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name, unique among its siblings.
    pub name: &'static str,
    /// Its type.
    pub kind: ArgKind,
    /// The literal word before it, or which it is; empty for none.
    pub token: &'static str,
    /// The version of Redis that had it first; empty for that of its command.
    pub since: &'static str,
    /// Whether it may be left out.
    pub is_optional: bool,
    /// Whether it may be repeated.
    pub is_multiple: bool,
    /// Whether its token is repeated with it.
    pub is_multiple_token: bool,
}

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// Any bytes.
    String,
    /// A signed 64-bit integer.
    Integer,
    /// A floating point number.
    Double,
    /// A key, found by the key spec with this index.
    Key(u8),
    /// A glob.
    Pattern,
    /// A time since 1970.
    UnixTime,
    /// A literal word that stands alone.
    PureToken,
    /// One of these.
    OneOf(&'static [Arg]),
    /// All of these.
    Block(&'static [Arg]),
}

impl ArgKind {
    /// The name COMMAND DOCS shows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Double => "double",
            Self::Key(_) => "key",
            Self::Pattern => "pattern",
            Self::UnixTime => "unix-time",
            Self::PureToken => "pure-token",
            Self::OneOf(_) => "oneof",
            Self::Block(_) => "block",
        }
    }
}

impl Arg {
    const fn new(name: &'static str, kind: ArgKind) -> Self {
        Self {
            name,
            kind,
            token: "",
            since: "",
            is_optional: false,
            is_multiple: false,
            is_multiple_token: false,
        }
    }

    /// A key, found by the command's first key spec; see [`Arg::key_spec`].
    pub const fn key(name: &'static str) -> Self {
        Self::new(name, ArgKind::Key(0))
    }

    /// Any bytes.
    pub const fn string(name: &'static str) -> Self {
        Self::new(name, ArgKind::String)
    }

    /// A signed 64-bit integer.
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, ArgKind::Integer)
    }

    /// A floating point number.
    pub const fn double(name: &'static str) -> Self {
        Self::new(name, ArgKind::Double)
    }

    /// A glob.
    pub const fn pattern(name: &'static str) -> Self {
        Self::new(name, ArgKind::Pattern)
    }

    /// A time since 1970, in seconds or milliseconds as the name says.
    pub const fn unix_time(name: &'static str) -> Self {
        Self::new(name, ArgKind::UnixTime)
    }

    /// The literal word `word` alone, called `name`: `Arg::pure_token("nx", "NX")`.
    pub const fn pure_token(name: &'static str, word: &'static str) -> Self {
        Self::new(name, ArgKind::PureToken).token(word)
    }

    /// One of `choices`.
    pub const fn one_of(name: &'static str, choices: &'static [Self]) -> Self {
        Self::new(name, ArgKind::OneOf(choices))
    }

    /// All of `parts`, in order.
    pub const fn block(name: &'static str, parts: &'static [Self]) -> Self {
        Self::new(name, ArgKind::Block(parts))
    }

    /// After the literal word `word`.
    #[must_use]
    pub const fn token(mut self, word: &'static str) -> Self {
        self.token = word;
        self
    }

    /// May be left out.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }

    /// May be repeated.
    #[must_use]
    pub const fn multiple(mut self) -> Self {
        self.is_multiple = true;
        self
    }

    /// May be repeated together with its token.
    #[must_use]
    pub const fn multiple_token(mut self) -> Self {
        self.is_multiple = true;
        self.is_multiple_token = true;
        self
    }

    /// Exists since `version` of Redis, later than its command.
    #[must_use]
    pub const fn since(mut self, version: &'static str) -> Self {
        self.since = version;
        self
    }

    /// How a client writes it: `[ID id [id ...]]`.
    pub(super) fn usage(&self) -> String {
        let joined = |parts: &[Self], separator| {
            parts.iter().map(Self::usage).collect::<Vec<_>>().join(separator)
        };
        let mut text = match self.kind {
            ArgKind::PureToken => self.token.to_owned(),
            ArgKind::OneOf(choices) => joined(choices, "|"),
            ArgKind::Block(parts) => joined(parts, " "),
            ArgKind::String
            | ArgKind::Integer
            | ArgKind::Double
            | ArgKind::Key(_)
            | ArgKind::Pattern
            | ArgKind::UnixTime => self.name.to_owned(),
        };
        if self.is_multiple {
            text = format!("{text} [{text} ...]");
        }
        if !self.token.is_empty() && self.kind != ArgKind::PureToken {
            text = format!("{} {text}", self.token);
        }
        if self.is_optional { format!("[{text}]") } else { text }
    }

    /// A key found by the key spec with index `index`.
    ///
    /// # Panics
    /// When the argument is no key; at compile time in a `const`.
    #[must_use]
    pub const fn key_spec(mut self, index: u8) -> Self {
        assert!(matches!(self.kind, ArgKind::Key(_)), "only a key has a key spec");
        self.kind = ArgKind::Key(index);
        self
    }
}
