//! A disk that takes its time: every `fsync` and `fdatasync` of a process waits first for as many milliseconds as a file says. The file may change at any time.

use super::preload::Change;

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

/// Lets every sync wait for as many milliseconds as the file says.
pub(crate) const SLOW_DISK: Change =
    Change { name: "slow_disk", source: SOURCE, variable: "KVORUM_TEST_SYNC_DELAY_FILE" };
