/* What the kinds of sources have in common. */
#pragma once

#include "files/files.h"

struct tree_source_ops {
    size_t (*read)(struct tree_source *source, uint8_t *out, size_t size, bool *ended);
    void (*free)(struct tree_source *source);
};

struct tree_source { /* first in each kind */
    const struct tree_source_ops *ops;
    const struct tree_encoder *totals;
    struct error error;
};
