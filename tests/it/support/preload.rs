//! Tiny libraries, compiled by `cc` and loaded before libc, that change what a process sees of its machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// The library made of `source`, compiled once for each test process and `name`.
fn library(name: &'static str, source: &str) -> PathBuf {
    static LIBRARIES: Mutex<Vec<(&str, TempDir)>> = Mutex::new(Vec::new());
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let library = |folder: &TempDir| folder.path().join(name).with_extension("so");
    if let Some((_, folder)) = libraries.iter().find(|(known, _)| *known == name) {
        return library(folder);
    }
    let folder = tempfile::Builder::new().prefix("kvorum-it-cc-").tempdir().expect("a folder");
    let (code, library) = (folder.path().join(name).with_extension("c"), library(&folder));
    fs::write(&code, source).expect("a folder of the test");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &code])
        .arg("-ldl")
        .status()
        .expect("cc is installed: tests that change the machine need it");
    assert!(compiled.success(), "cc: {compiled}");
    libraries.push((name, folder));
    library
}

/// What of a machine such a library changes, by a number in a file that it reads.
#[derive(Debug)]
pub(crate) struct Change {
    /// By its name a node knows it again.
    pub(crate) name: &'static str,
    /// Its code.
    pub(crate) source: &'static str,
    /// By which the process learns where the file is.
    pub(crate) variable: &'static str,
}

/// What a process is started with that sees `changes`, each by its file in `folder`.
pub(crate) fn environment(changes: &[&Change], folder: &Path) -> Vec<(&'static str, String)> {
    let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    let libraries: Vec<_> = changes.iter().map(|it| text(library(it.name, it.source))).collect();
    let files = changes.iter().map(|it| (it.variable, text(file_of(it, folder))));
    let preload = (!libraries.is_empty()).then(|| ("LD_PRELOAD", libraries.join(":")));
    files.chain(preload).collect()
}

/// Where the number of `change` is.
pub(crate) fn file_of(change: &Change, folder: &Path) -> PathBuf {
    folder.join(change.name)
}

/// Writes `number` where such a library reads it.
pub(crate) fn set(file: &Path, number: i64) {
    // By a rename, so that nobody reads half a number.
    let new = file.with_extension("new");
    fs::write(&new, number.to_string()).expect("a folder of the test");
    fs::rename(&new, file).expect("a folder of the test");
}
