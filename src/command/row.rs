//! Tables of commands that are no data commands: those of the node and those of the session.
//!
//! Their rooms differ in what a function is given, not in how a command and its subcommands are found.

use super::spec::Spec;
use crate::resp::ErrorReply;

/// A command with the function `F`, or a container of subcommands.
#[derive(Clone, Copy, Debug)]
pub struct Row<F: 'static> {
    /// What it declares.
    pub spec: &'static Spec,
    run: Option<F>,
    subcommands: &'static [Row<F>],
}

impl<F: Copy> Row<F> {
    /// The command that `spec` declares and `run` does.
    pub const fn new(spec: &'static Spec, run: F) -> Self {
        Self { spec, run: Some(run), subcommands: &[] }
    }

    /// A container of `subcommands`, whose specs are those of [`Spec::subcommands`]; see [`specs`].
    pub const fn container(spec: &'static Spec, subcommands: &'static [Row<F>]) -> Self {
        Self { spec, run: None, subcommands }
    }

    /// The same container, which does `run` when it is called without a subcommand.
    #[must_use]
    pub const fn bare(self, run: F) -> Self {
        Self { spec: self.spec, run: Some(run), subcommands: self.subcommands }
    }

    /// What `argv`, whose first element names this command, means: a spec that accepts it, and what to do.
    ///
    /// # Errors
    /// `ERR unknown subcommand …` and `ERR wrong number of arguments …`, in Redis' order.
    pub fn resolve(&self, argv: &[&[u8]]) -> Result<(&'static Spec, F), ErrorReply> {
        let row = match argv.get(1) {
            Some(name) if !self.subcommands.is_empty() => {
                let mut rows = self.subcommands.iter();
                rows.find(|row| row.spec.short_name().as_bytes().eq_ignore_ascii_case(name))
                    .ok_or_else(|| ErrorReply::unknown_subcommand(self.spec.name, name))?
            }
            Some(_) | None => self,
        };
        match row.run {
            Some(run) if row.spec.arity.accepts(argv.len()) => Ok((row.spec, run)),
            Some(_) | None => Err(ErrorReply::wrong_arity(row.spec.name)),
        }
    }
}

/// The row of the command called `name`, in any case. For tables too short for anything better.
pub fn find<F>(rows: &'static [Row<F>], name: &[u8]) -> Option<&'static Row<F>> {
    rows.iter().find(|row| row.spec.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The specs of `rows`, for [`Spec::subcommands`] of their container: no second list.
pub const fn specs<F, const COUNT: usize>(rows: &[Row<F>; COUNT]) -> [&'static Spec; COUNT] {
    let mut specs = [&Spec::EMPTY; COUNT];
    let mut index = 0;
    while index < COUNT {
        specs[index] = rows[index].spec;
        index += 1;
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Arity;

    type Answer = fn() -> i32;

    const GET: Spec = Spec { name: "demo|get", arity: Arity::AtLeast(3), ..Spec::EMPTY };
    const ROWS: [Row<Answer>; 1] = [Row::new(&GET, || 1)];
    const DEMO: Spec =
        Spec { name: "demo", arity: Arity::AtLeast(1), subcommands: &specs(&ROWS), ..Spec::EMPTY };
    const ALONE: Spec = Spec { name: "alone", arity: Arity::Exactly(2), ..Spec::EMPTY };
    const TABLE: &[Row<Answer>] = &[
        Row::container(&DEMO, &ROWS),
        Row::new(&ALONE, || 3),
        Row::container(&DEMO, &ROWS).bare(|| 2),
    ];

    fn run(row: &Row<Answer>, line: &str) -> Result<i32, String> {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        row.resolve(&argv).map(|(_, run)| run()).map_err(|error| error.line().to_owned())
    }

    #[test]
    fn subcommands_are_found_before_their_arity_is_checked() {
        let arity = |name| Err(format!("ERR wrong number of arguments for '{name}' command"));
        let table = [
            (0, "demo get x", Ok(1)),
            (0, "DEMO GET x y", Ok(1)),
            (0, "demo get", arity("demo|get")),
            (0, "demo", arity("demo")),
            (0, "demo zork", Err("ERR unknown subcommand 'zork'. Try DEMO HELP.".into())),
            (1, "alone get", Ok(3)),
            (1, "alone", arity("alone")),
            (2, "demo", Ok(2)),
            (2, "demo get x", Ok(1)),
        ];
        for (row, line, expected) in table {
            assert_eq!(run(&TABLE[row], line), expected, "{line}");
        }
    }

    #[test]
    fn commands_are_found_in_any_case() {
        assert_eq!(find(TABLE, b"aLone").map(|row| row.spec.name), Some("alone"));
        assert!(find(TABLE, b"alon").is_none());
        assert_eq!(DEMO.subcommands.len(), 1);
    }
}
