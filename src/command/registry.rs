//! Every command this process knows, whichever room it lives in: what COMMAND tells and ACLs will name.
//!
//! Rooms above this one have commands too. Whoever sees them all joins their specs to one registry at start and
//! hands it down: metadata travels down as a value, never up as an import.

use super::spec::Spec;

/// The specs of all commands, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    specs: Vec<&'static Spec>,
}

impl Registry {
    /// Joins `specs`.
    ///
    /// # Panics
    /// When two have one name: a client could never reach the second.
    pub fn new(specs: impl IntoIterator<Item = &'static Spec>) -> Self {
        let mut specs: Vec<_> = specs.into_iter().collect();
        specs.sort_unstable_by_key(|spec| spec.name);
        for pair in specs.windows(2) {
            assert!(pair[0].name != pair[1].name, "two commands are called {}", pair[0].name);
        }
        Self { specs }
    }

    /// All commands without subcommands, by name.
    pub fn all(&self) -> &[&'static Spec] {
        &self.specs
    }

    /// The command called `name`, or the subcommand called `container|name`, in any case.
    pub fn find(&self, name: &[u8]) -> Option<&'static Spec> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        let (command, subcommand) = match name.split_once('|') {
            Some((command, subcommand)) => (command, Some(subcommand)),
            None => (&*name, None),
        };
        let found = self.specs.binary_search_by_key(&command, |spec| spec.name).ok()?;
        let command = self.specs[found];
        subcommand.map_or(Some(command), |name| command.subcommand(name.as_bytes()))
    }

    /// The command or subcommand that `argv` calls.
    pub fn find_call(&self, argv: &[&[u8]]) -> Option<&'static Spec> {
        let command = self.find(argv.first()?).filter(|spec| !spec.name.contains('|'))?;
        match argv.get(1) {
            Some(name) if !command.subcommands.is_empty() => command.subcommand(name),
            Some(_) | None => Some(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Spec = Spec { name: "demo|get", ..Spec::EMPTY };
    const DEMO: Spec = Spec { name: "demo", subcommands: &[&GET], ..Spec::EMPTY };
    const ALONE: Spec = Spec { name: "alone", ..Spec::EMPTY };

    #[test]
    fn names_are_found_in_any_case() {
        let registry = Registry::new([&DEMO, &ALONE]);
        let found = |name: &str| registry.find(name.as_bytes()).map(|spec| spec.name);
        assert_eq!(found("DEMO"), Some("demo"));
        assert_eq!(found("Demo|Get"), Some("demo|get"));
        assert_eq!(found("alone"), Some("alone"));
        for name in ["", "dem", "demo|", "demo|set", "|get", "alone|get"] {
            assert_eq!(found(name), None, "{name}");
        }
        assert!(registry.find(b"\xff").is_none());
        let names: Vec<_> = registry.all().iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["alone", "demo"]);
    }

    #[test]
    fn calls_name_the_subcommand_apart() {
        let registry = Registry::new([&DEMO, &ALONE]);
        let found = |argv: &[&[u8]]| registry.find_call(argv).map(|spec| spec.name);
        assert_eq!(found(&[b"demo", b"GET", b"x"]), Some("demo|get"));
        assert_eq!(found(&[b"demo"]), Some("demo"));
        assert_eq!(found(&[b"alone", b"get"]), Some("alone"));
        assert_eq!(found(&[b"demo", b"zork"]), None);
        assert_eq!(found(&[b"demo|get", b"x"]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    #[should_panic(expected = "two commands are called demo")]
    fn two_commands_of_one_name_are_refused() {
        Registry::new([&DEMO, &ALONE, &DEMO]);
    }
}
