/* When a container is to be asked how it is, and what its answer means. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/container.h"

struct health_report { /* from a PONG; UINT64_MAX: unknown */
    uint32_t spawn_errno;
    uint64_t memory_bytes, memory_limit, pids, pids_limit;
};

/* An idle or unhealthy container that has neither answered a check nor ended a task within the interval. `answered_us`
 * is the time of its last answer. */
bool health_due(const struct container *container, uint64_t answered_us, uint64_t interval_us, uint64_t now_us);

/* NULL when healthy, else what is wrong (static storage): it cannot fork and exec, or is within 5 % of a limit though
 * idle. */
const char *health_verdict(const struct health_report *report);
