//! ACL categories: what `@read` or `@dangerous` stands for, and which ones a command is in.
//!
//! A command is in the category of its group and in those its flags imply. Few differ; they say so in
//! [`Spec::acl`]. Source: Redis docs, "ACL", "Command categories".

use super::spec::{Flag, Group, Spec};

/// One category, in the order in which Redis lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclCategory {
    /// Anything about keys whatever their type: DEL, EXPIRE, SCAN.
    Keyspace,
    /// Reads keys.
    Read,
    /// Writes keys.
    Write,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Strings.
    String,
    /// Bits of strings.
    Bitmap,
    /// Cardinality sketches.
    HyperLogLog,
    /// Positions on Earth.
    Geo,
    /// Streams.
    Stream,
    /// Publish and subscribe.
    PubSub,
    /// For operators only.
    Admin,
    /// Constant or logarithmic time.
    Fast,
    /// Everything that is not fast.
    Slow,
    /// May keep its client waiting.
    Blocking,
    /// Worth a second thought before it is granted.
    Dangerous,
    /// About the connection itself.
    Connection,
    /// MULTI and its kin.
    Transaction,
    /// Lua.
    Scripting,
}

impl AclCategory {
    /// Every category, in Redis' order.
    pub const ALL: [Self; 21] = [
        Self::Keyspace,
        Self::Read,
        Self::Write,
        Self::Set,
        Self::SortedSet,
        Self::List,
        Self::Hash,
        Self::String,
        Self::Bitmap,
        Self::HyperLogLog,
        Self::Geo,
        Self::Stream,
        Self::PubSub,
        Self::Admin,
        Self::Fast,
        Self::Slow,
        Self::Blocking,
        Self::Dangerous,
        Self::Connection,
        Self::Transaction,
        Self::Scripting,
    ];

    /// Its name with the leading `@`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Keyspace => "@keyspace",
            Self::Read => "@read",
            Self::Write => "@write",
            Self::Set => "@set",
            Self::SortedSet => "@sortedset",
            Self::List => "@list",
            Self::Hash => "@hash",
            Self::String => "@string",
            Self::Bitmap => "@bitmap",
            Self::HyperLogLog => "@hyperloglog",
            Self::Geo => "@geo",
            Self::Stream => "@stream",
            Self::PubSub => "@pubsub",
            Self::Admin => "@admin",
            Self::Fast => "@fast",
            Self::Slow => "@slow",
            Self::Blocking => "@blocking",
            Self::Dangerous => "@dangerous",
            Self::Connection => "@connection",
            Self::Transaction => "@transaction",
            Self::Scripting => "@scripting",
        }
    }

    /// The category called `name`, given with or without `@`, in any case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let name = name.strip_prefix(b"@").unwrap_or(name);
        Self::ALL
            .into_iter()
            .find(|category| category.label().as_bytes()[1..].eq_ignore_ascii_case(name))
    }
}

/// Which categories a command has beside those its flags imply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclRule {
    /// The category of its group; none for a container of subcommands.
    OfGroup,
    /// The category of its group and these.
    Also(&'static [AclCategory]),
    /// These instead of the category of its group.
    Only(&'static [AclCategory]),
}

/// The category that all commands of `group` share, if there is one.
///
/// Pub/Sub has none here: its category comes with [`Flag::PubSub`], which PUBSUB HELP lacks.
const fn of_group(group: Group) -> Option<AclCategory> {
    match group {
        Group::Generic => Some(AclCategory::Keyspace),
        Group::String => Some(AclCategory::String),
        Group::List => Some(AclCategory::List),
        Group::Set => Some(AclCategory::Set),
        Group::SortedSet => Some(AclCategory::SortedSet),
        Group::Hash => Some(AclCategory::Hash),
        Group::Transactions => Some(AclCategory::Transaction),
        Group::Connection => Some(AclCategory::Connection),
        Group::Scripting => Some(AclCategory::Scripting),
        Group::HyperLogLog => Some(AclCategory::HyperLogLog),
        Group::Geo => Some(AclCategory::Geo),
        Group::Stream => Some(AclCategory::Stream),
        Group::Bitmap => Some(AclCategory::Bitmap),
        Group::PubSub | Group::Server | Group::Cluster | Group::Sentinel | Group::Module => None,
    }
}

impl Spec {
    /// Whether the command is in `category`.
    pub fn is_in_category(&self, category: AclCategory) -> bool {
        self.is_declared_in(category) || self.is_implied_in(category)
    }

    /// The categories the command is in, in Redis' order.
    pub fn acl_categories(&self) -> impl Iterator<Item = AclCategory> + '_ {
        AclCategory::ALL.into_iter().filter(|&category| self.is_in_category(category))
    }

    fn is_declared_in(&self, category: AclCategory) -> bool {
        let of_group = || self.subcommands.is_empty() && of_group(self.group) == Some(category);
        match self.acl {
            AclRule::OfGroup => of_group(),
            AclRule::Also(more) => more.contains(&category) || of_group(),
            AclRule::Only(these) => these.contains(&category),
        }
    }

    fn is_implied_in(&self, category: AclCategory) -> bool {
        match category {
            AclCategory::Write => self.has(Flag::Write),
            // A script may do more than read, whatever its flag says.
            AclCategory::Read => {
                self.has(Flag::ReadOnly) && !self.is_declared_in(AclCategory::Scripting)
            }
            AclCategory::Admin | AclCategory::Dangerous => self.has(Flag::Admin),
            AclCategory::PubSub => self.has(Flag::PubSub),
            AclCategory::Blocking => self.has(Flag::Blocking),
            AclCategory::Fast => self.has(Flag::Fast),
            AclCategory::Slow => !self.is_in_category(AclCategory::Fast),
            AclCategory::Keyspace
            | AclCategory::Set
            | AclCategory::SortedSet
            | AclCategory::List
            | AclCategory::Hash
            | AclCategory::String
            | AclCategory::Bitmap
            | AclCategory::HyperLogLog
            | AclCategory::Geo
            | AclCategory::Stream
            | AclCategory::Connection
            | AclCategory::Transaction
            | AclCategory::Scripting => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(spec: &Spec) -> Vec<&'static str> {
        spec.acl_categories().map(AclCategory::label).collect()
    }

    #[test]
    fn flags_and_group_imply_categories() {
        let get =
            Spec { group: Group::String, flags: &[Flag::ReadOnly, Flag::Fast], ..Spec::EMPTY };
        assert_eq!(labels(&get), ["@read", "@string", "@fast"]);
        let config = Spec { group: Group::Server, flags: &[Flag::Admin], ..Spec::EMPTY };
        assert_eq!(labels(&config), ["@admin", "@slow", "@dangerous"]);
        let eval_ro = Spec { group: Group::Scripting, flags: &[Flag::ReadOnly], ..Spec::EMPTY };
        assert_eq!(labels(&eval_ro), ["@slow", "@scripting"]);
    }

    #[test]
    fn a_container_is_only_slow() {
        const SUB: Spec = Spec { name: "object|help", group: Group::Generic, ..Spec::EMPTY };
        let object = Spec { group: Group::Generic, subcommands: &[&SUB], ..Spec::EMPTY };
        assert_eq!(labels(&object), ["@slow"]);
        assert_eq!(labels(&SUB), ["@keyspace", "@slow"]);
    }

    #[test]
    fn rules_add_to_or_replace_the_category_of_the_group() {
        let keys = Spec {
            group: Group::Generic,
            acl: AclRule::Also(&[AclCategory::Dangerous]),
            ..Spec::EMPTY
        };
        assert_eq!(labels(&keys), ["@keyspace", "@slow", "@dangerous"]);
        let wait = Spec {
            group: Group::Generic,
            acl: AclRule::Only(&[AclCategory::Connection]),
            ..Spec::EMPTY
        };
        assert_eq!(labels(&wait), ["@slow", "@connection"]);
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(AclCategory::from_name(b"@SortedSet"), Some(AclCategory::SortedSet));
        assert_eq!(AclCategory::from_name(b"read"), Some(AclCategory::Read));
        assert_eq!(AclCategory::from_name(b""), None);
        assert_eq!(AclCategory::from_name(b"@all"), None);
    }
}
