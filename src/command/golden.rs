//! Replays the golden scripts in this process.

use super::testing::Bench;
use crate::stdx::script::Script;

#[test]
fn golden_scripts_replay() {
    for script in Script::all() {
        let mut bench = Bench::default();
        let differences = script.replay(|command| bench.run_line(command).golden());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}
