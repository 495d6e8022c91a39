//! A disk that takes its time: a tiny library, compiled by `cc` and loaded before libc, that lets every `fsync` and
//! `fdatasync` of a process wait first for as many milliseconds as a file says. The file may change at any time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

/// Variable by which a process learns where its delay is written.
const DELAY_FILE: &str = "KVORUM_TEST_SYNC_DELAY_FILE";

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void delay(void) {
    const char *path = getenv("KVORUM_TEST_SYNC_DELAY_FILE");
    if (!path) return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    char text[24];
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0) return;
    text[got] = 0;
    long ms = strtol(text, 0, 10);
    struct timespec left = { ms / 1000, ms % 1000 * 1000000 };
    while (nanosleep(&left, &left)) {}
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    delay();
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    delay();
    return real(fd);
}
"#;

/// What a process whose syncs shall be slow is started with: its delay is read from `delay_file`.
pub(crate) fn environment(delay_file: &Path) -> [(&'static str, PathBuf); 2] {
    [("LD_PRELOAD", library().to_owned()), (DELAY_FILE, delay_file.to_owned())]
}

/// Lets every sync take `delay` longer from now on, in processes started with [`environment`] of `delay_file`.
pub(crate) fn set_delay(delay_file: &Path, delay: Duration) {
    // By a rename, so that nobody reads half a number.
    let new = delay_file.with_extension("new");
    fs::write(&new, delay.as_millis().to_string()).expect("a folder of the test");
    fs::rename(&new, delay_file).expect("a folder of the test");
}

/// The library, compiled once for each test process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_folder, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("kvorum-it-cc-").tempdir().expect("a folder");
        let (source, library) =
            (folder.path().join("slow_disk.c"), folder.path().join("slow_disk.so"));
        fs::write(&source, SOURCE).expect("a folder of the test");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .expect("cc is installed: a slow disk needs it");
        assert!(compiled.success(), "cc: {compiled}");
        (folder, library)
    });
    library
}
