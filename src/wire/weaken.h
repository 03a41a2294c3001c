/* A test that a defence holds proves little until it has failed with that defence off. In a build made for such tests
 * (meson -Dweaken=true, never installed) single defences can be switched off by name; in every other build the answer
 * is the constant false, and neither the names nor the way to say them are in the program.
 *
 * In the daemon the environment variable WARMPOOL_WEAKEN says what: "TYPE=defence,defence;TYPE=defence", "*" being
 * every agent type. It tells each container's runner by its argument `--weaken defence,defence`. */
#pragma once

#include <stdbool.h>

#ifdef WARMPOOL_WEAKEN

/* Is `defence` off for containers of `agent_type`? In the runner NULL: for this one. Any thread after the start. */
bool weakened(const char *agent_type, const char *defence);

/* What is off for an agent type, "" when nothing; static storage, good until the next call. */
const char *weaken_list(const char *agent_type);

/* The runner's own list, which has to outlive it. */
void weaken_set(const char *defences);

#else

static inline bool weakened(const char *agent_type, const char *defence)
{
    (void)agent_type;
    (void)defence;
    return false;
}

#endif
