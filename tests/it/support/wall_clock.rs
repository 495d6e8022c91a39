//! A wall clock of its own: a process sees the machine's, shifted by as many milliseconds as a file says. The file may
//! change at any time: the clock steps.

use super::preload::Change;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int real(clockid_t id, struct timespec *now) {
    static int (*found)(clockid_t, struct timespec *);
    if (!found) *(void **)&found = dlsym(RTLD_NEXT, "clock_gettime");
    return found(id, now);
}

/* Read anew every 5 ms. */
static long long shift_ms(void) {
    static _Atomic long long read_at = -1000, shift;
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    long long now_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    if (now_ms - atomic_load(&read_at) < 5) return atomic_load(&shift);
    atomic_store(&read_at, now_ms);
    const char *path = getenv("KVORUM_TEST_WALL_SHIFT_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return atomic_load(&shift);
    char text[24];
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got > 0) {
        text[got] = 0;
        atomic_store(&shift, strtoll(text, 0, 10));
    }
    return atomic_load(&shift);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = real(id, now);
    if (failed || id != CLOCK_REALTIME) return failed;
    long long shift = shift_ms();
    long long nanos = now->tv_nsec + shift % 1000 * 1000000;
    now->tv_sec += shift / 1000 + (nanos >= 1000000000) - (nanos < 0);
    now->tv_nsec = (nanos + 1000000000) % 1000000000;
    return 0;
}
"#;

/// Shifts the wall clock by as many milliseconds as the file says.
pub(crate) const WALL_CLOCK: Change =
    Change { name: "wall_clock", source: SOURCE, variable: "KVORUM_TEST_WALL_SHIFT_FILE" };
