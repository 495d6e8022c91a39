//! A machine of little memory: the process finds, where the kernel tells the limit of its control group, a number of bytes from
//! a file of the test. Nothing is held to it: it is what the process makes of the number.

use super::preload::Change;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *moved(const char *path) {
    const char *own = getenv("KVORUM_TEST_MACHINE_BYTES_FILE");
    return own && !strcmp(path, "/sys/fs/cgroup/memory.max") ? own : path;
}

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        static int (*real)(const char *, int, ...);                         \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);               \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;   \
        va_end(rest);                                                       \
        return real(moved(path), flags, mode);                              \
    }

OPEN(open)
OPEN(open64)
"#;

/// Has as much memory as the file says, in bytes.
pub(crate) const SMALL_MACHINE: Change =
    Change { name: "small_machine", source: SOURCE, variable: "KVORUM_TEST_MACHINE_BYTES_FILE" };
