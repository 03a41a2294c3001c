/* The answer to a request that turns its connection into a stream of bytes: 101, or from some engines 200 with neither
 * a length nor chunks; any other one is a refusal with a reason in its body. */
#pragma once

#include "base/buffer.h"
#include "base/error.h"

struct upgrade { /* zeroed at the beginning */
    struct buffer in;
    int status; /* 0: the head is not complete */
};

/* Takes what came. 1: the connection is a stream now, whose first `*rest` bytes are the last ones of `data`; 0: more
 * is needed; -1: refused, or not understood. */
int upgrade_feed(struct upgrade *upgrade, const void *data, size_t size, size_t *rest, struct error *err);
/* The connection ended before an answer was complete. False: in the midst of it, without a reason in `error`. */
bool upgrade_end(struct upgrade *upgrade, struct error *error);
void upgrade_free(struct upgrade *upgrade);
