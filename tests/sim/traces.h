/* Arrivals: how tasks come. One trace is set by its kind and the seed. */
#pragma once

#include "sim/world.h"

enum trace_kind { TRACE_POISSON, TRACE_BURSTY, TRACE_DAILY, TRACE_FANOUT, TRACE_KINDS };
extern const char *const trace_names[TRACE_KINDS];

/* Arrivals of that kind into pool 0, task lengths included. */
void trace_use(struct world_config *config, enum trace_kind kind);
/* Everything mixed: all pools, priorities, leases, fresh containers. */
void trace_use_mixed(struct world_config *config);
