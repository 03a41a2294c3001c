/* Going down a path that somebody else named, without following a link. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* From the directory `from`, which stays open, along the components of the first `length` bytes of `path` ("." and
 * empty ones passed over, ".." refused with EINVAL). With `make`, missing directories are made. An O_PATH descriptor,
 * or -1 with errno: ENOTDIR or ELOOP where a link or a file stands. */
int path_descend(int from, const char *path, size_t length, bool make);
/* Opens one directory below another, as above. */
int path_enter(int parent, const char *name, bool make);
/* Where the last component that is a name begins, and its length; 0 when there is none. What follows it, if anything,
 * is "/" or "/.": such a path means a directory. */
size_t path_last(const char *path, size_t *length);
/* For people: why path_descend() failed. */
const char *path_error(int error);
