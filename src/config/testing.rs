//! Options for tests.

use std::sync::Arc;

use super::{Config, Options, Start};

/// The options that a command line of these words gives.
#[track_caller]
pub(crate) fn options(words: &[&str]) -> Arc<Options> {
    let words = words.iter().map(|word| (*word).to_owned());
    let Ok(Start::Run(config)) = Config::load(words) else { panic!("a valid configuration") };
    config.options()
}
