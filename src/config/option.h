/* The option table as data, and what is done with a field by its type. */
#pragma once

#include "base/buffer.h"
#include "config/config.h"
#include "config/tree.h"

enum option_scope { SCOPE_GLOBAL, SCOPE_POOL, SCOPE_PROFILE };

enum option_reload { RELOAD_NOW, RELOAD_ROLL, RELOAD_RESTART };

enum option_type {
    TYPE_STRING,
    TYPE_PATH, /* absolute, or empty */
    TYPE_BOOL,
    TYPE_UINT,    /* uint32_t */
    TYPE_LONG,    /* int64_t */
    TYPE_INT,     /* int */
    TYPE_PERCENT, /* uint32_t */
    TYPE_TIME,    /* uint64_t, ms */
    TYPE_SIZE,    /* uint64_t, bytes */
    TYPE_CPUS,    /* uint32_t, thousandths */
    TYPE_LEVEL,
    TYPE_INSTANCE, /* a name, or empty */
    TYPE_TRANSPORT,
    TYPE_ENGINE,
    TYPE_POLICY,
    TYPE_RANGE,  /* uid_first, uid_count */
    TYPE_SUBNET, /* subnet_base, subnet_prefix */
    TYPE_STRINGS,
    TYPE_TYPES, /* as STRINGS, each an agent type */
    TYPE_PAIRS, /* K=V strings; added to what is there */
    TYPE_TMPFS,
    TYPE_MOUNTS,
    TYPE_ULIMITS,
    TYPE_RESOURCES, /* struct config_resources */
};

struct option {
    const char *key;
    enum option_scope scope;
    enum option_reload reload;
    enum option_type type;
    size_t offset; /* in struct config (GLOBAL) or struct profile */
    const char *standard;
    int64_t minimum, maximum;
    const char *help;
};

extern const struct option options[];
extern const size_t option_count;

/* NULL when there is none. */
const struct option *option_find(const char *key);
/* The known key nearest to a mistyped one, NULL when none is near. */
const char *option_nearest(const char *key);

/* What a message about a value begins with: "file:3: poolSize", "WARMPOOL_POOL_SIZE", "--set poolSize". */
struct origin {
    const char *name; /* of the file, NULL: `key` says it all */
    const char *key;
};

/* Reads a value into the field at `record` (the struct that the scope says). */
int option_set(const struct option *option, void *record, const struct tree *value, const struct origin *origin,
               struct error *err);
/* The same from one text, as of the environment: lists are comma-separated. */
int option_set_text(const struct option *option, void *record, const char *text, const struct origin *origin,
                    struct error *err);
/* The present value as YAML on one line. */
void option_print(const struct option *option, const void *record, struct buffer *out);
/* Do both records mean the same by this key? The order of a mapping's members does not matter. */
bool option_equal(const struct option *option, const void *a, const void *b);
/* `to` gets a copy of its own; -1 when out of memory. `to`'s field must be empty. */
int option_copy(const struct option *option, void *to, const void *from);
void option_release(const struct option *option, void *record);
/* "whole number, 1 to 1000" */
void option_allowed(const struct option *option, char *text, size_t size);
