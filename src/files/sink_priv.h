/* What the kinds of sinks have in common. */
#pragma once

#include "files/files.h"

struct tree_sink_ops {
    int (*feed)(struct tree_sink *sink, const uint8_t *records, size_t size);
    void (*free)(struct tree_sink *sink);
};

struct tree_sink { /* first in each kind */
    const struct tree_sink_ops *ops;
    const struct tree_check *totals;
    bool done;
    struct error error;
};
