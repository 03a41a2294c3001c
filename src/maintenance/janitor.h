/* Which containers have served long enough. Pure: (time, pool) -> marks and a lower target. */
#pragma once

#include <stdint.h>

#include "pool/pool.h"

struct janitor_config {
    uint64_t max_age_us;      /* 0: no limit */
    uint64_t idle_timeout_us; /* 0: no limit */
};

/* When a container made at `now_us` shall expire: its maximum age less 0 to 10 %, so that a pool never expires at once.
 * 0: never. */
uint64_t janitor_expiry(const struct janitor_config *config, uint64_t now_us, uint32_t random);

/* It is past its age and not marked yet. */
bool janitor_due(const struct container *container, uint64_t now_us);

/* Marks idle containers past their age as expiring (their replacement is made first) and lowers the target, not below
 * the minimum, by those that have been idle too long; pool_surplus() then names them. Returns how many it marked or
 * gave up. */
uint32_t janitor_pass(const struct janitor_config *config, struct pool *pool, uint64_t now_us);
