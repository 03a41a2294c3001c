/* Shared by config.c and profile.c. */
#pragma once

#include "config/config.h"
#include "config/option.h"

void profile_release(struct profile *profile);
int profile_copy(struct profile *to, const struct profile *from, const char *agent_type);
/* Gives a built-in type its own limits and variables: 1 when there is one, 0 when not, -1 when out of memory. */
int profile_built_in(struct profile *profile);
const char *profile_built_in_name(size_t index); /* NULL after the last */
/* resourceLimits: into the profile's field, as YAML, and from there into memory and ulimits. */
int resources_set(struct config_resources *resources, const struct tree *value, const struct origin *origin,
                  struct error *err);
void resources_print(const struct config_resources *resources, struct buffer *out);

/* --- origins: origin.c -------------------------------------------------------------------------------------- */

void environment_name(const char *key, char *name, size_t size);
bool origin_given(const struct config_origin *origin);
/* "file:3", "WARMPOOL_POOL_SIZE", "--set", "built in", "default" */
void origin_print(const struct config *config, const struct config_origin *origin, const char *key, char *text,
                  size_t size);

/* --- checks that need more than one key ---------------------------------------------------------------------- */

struct check {
    const struct config *config;
    struct profile *profile; /* or the config's defaults */
    struct error *err;
    /* What becomes of an error: 0 goes on. NULL: -1. */
    int (*forgive)(void *user);
    void *user;
};

/* Has somebody set this key for this profile; or for it, or at the top level? */
bool check_own(const struct check *check, const char *key);
bool check_given(const struct check *check, const char *key);
/* Sets an error about `key` that begins with its place and the agent type; -1. */
int check_refuse(const struct check *check, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Completes what was not given and refuses what does not fit together. */
int profile_check(const struct check *check);
int resources_settle(const struct check *check);
