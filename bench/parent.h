/* The minimal parent: a program started with posix_spawn(), stdout and stderr read from pipes to their ends. */
#pragma once

#include <stddef.h>

/* Microseconds from before the spawn to after the reap; a negative number when it could not run or did not end with
 * code 0. `out` (may be NULL) gets the beginning of its stdout. */
double spawn_measure(char *const argv[], char *out, size_t size);
