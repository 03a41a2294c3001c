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
int resources_settle(struct profile *profile, const bool *own, struct error *err);
/* Completes what was not given and refuses what does not fit together. By index into options: what was `given` at all,
 * and what at this profile's `own` level. */
int profile_check(const struct config *config, struct profile *profile, const bool *given, const bool *own,
                  struct error *err);
