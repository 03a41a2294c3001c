/* How many containers a pool should have. Pure: (time, pool) -> target. */
#pragma once

#include <stdint.h>

#include "pool/pool.h"

struct scaler_config {
    uint64_t interval_us; /* over which utilisation is averaged */
    uint64_t cooldown_us; /* between two changes */
    uint32_t up_percent, down_percent;
    uint32_t hit_percent; /* predictive: so many of a hundred tasks shall find a container */
};

#define SCALER_PERIODS   480U
#define SCALER_PERIOD_US 1000000U

struct scaler_state { /* one per pool; zeroed at first */
    uint64_t busy_integral, live_integral, since_us, changed_us;
    /* Of the last periods, the present one first: the most containers that were wanted at once, and the tasks that
     * came. */
    struct scaler_period {
        uint32_t peak, arrivals;
    } periods[SCALER_PERIODS];
    uint64_t period_us;     /* the present one's beginning */
    uint64_t arrivals_seen; /* of the pool's counter */
};

/* The threshold rule: mean utilisation over the interval above `up_percent` gives one container more, below
 * `down_percent` one fewer, within the pool's min and max. Returns the target to have from now on (the present one when
 * nothing changes, and always for a pinned pool) and puts the utilisation in percent, or -1 when nothing was measured,
 * into `utilization`. */
uint32_t scaler_threshold(struct scaler_state *state, const struct scaler_config *config, struct pool *pool,
                          uint64_t now_us, double *utilization);

/* The predictive rule: the fewest containers with which, of the tasks of the last ten minutes (recent ones count more),
 * the configured part would have found one. It looks at how many were wanted at once in each period, so bursts that
 * come again are met, and what was wanted only once long ago is let go of. Never below what is at work now. */
uint32_t scaler_predictive(struct scaler_state *state, const struct scaler_config *config, struct pool *pool,
                           uint64_t now_us);
