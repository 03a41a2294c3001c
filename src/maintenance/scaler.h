/* How many containers a pool should have. Pure: (time, pool) -> target. */
#pragma once

#include <stdint.h>

#include "pool/pool.h"

struct scaler_config {
    uint64_t interval_us; /* over which utilisation is averaged */
    uint64_t cooldown_us; /* between two changes */
    uint32_t up_percent, down_percent;
};

struct scaler_state { /* one per pool; zeroed at first */
    uint64_t busy_integral, live_integral, since_us, changed_us;
};

/* The threshold rule: mean utilisation over the interval above `up_percent` gives one container more, below
 * `down_percent` one fewer, within the pool's min and max. Returns the target to have from now on (the present one when
 * nothing changes, and always for a pinned pool) and puts the utilisation in percent, or -1 when nothing was measured,
 * into `utilization`. */
uint32_t scaler_threshold(struct scaler_state *state, const struct scaler_config *config, struct pool *pool,
                          uint64_t now_us, double *utilization);
