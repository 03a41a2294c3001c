#include "maintenance/scaler.h"

#include <string.h>

uint32_t scaler_threshold(struct scaler_state *state, const struct scaler_config *config, struct pool *pool,
                          uint64_t now_us, double *utilization)
{
    *utilization = -1;
    if (state->since_us == 0) {
        pool_account(pool, now_us);
        *state = (struct scaler_state){.busy_integral = pool->busy_integral,
                                       .live_integral = pool->live_integral,
                                       .since_us = now_us,
                                       .changed_us = now_us};
        return pool->target;
    }
    if (now_us - state->since_us < config->interval_us)
        return pool->target;
    pool_account(pool, now_us);
    uint64_t busy = pool->busy_integral - state->busy_integral;
    uint64_t live = pool->live_integral - state->live_integral;
    state->busy_integral = pool->busy_integral;
    state->live_integral = pool->live_integral;
    state->since_us = now_us;
    if (live == 0)
        return pool->target;
    *utilization = 100.0 * (double)busy / (double)live;
    if (pool->pinned || pool->limits.on_demand || now_us - state->changed_us < config->cooldown_us)
        return pool->target;
    uint32_t target = pool->target;
    if (*utilization > config->up_percent && target < pool->limits.max)
        target++;
    else if (*utilization < config->down_percent && target > pool->limits.min)
        target--;
    if (target != pool->target)
        state->changed_us = now_us;
    return target;
}

/* --- predictive --------------------------------------------------------------------------------------------- */

#define WEIGHT_ONE  1024U
#define WEIGHT_LOSS 2U /* of 1024, per period of age */
#define MISS_SHARE                                                                                                     \
    42U /* percent of the tasks that come when all are at work; the others get one that is done before another         \
         * one could be made. Measured: `make scaling` */

static void note_demand(struct scaler_state *state, struct pool *pool, uint64_t now_us)
{
    struct scaler_period *present = &state->periods[0];
    uint32_t peak = pool->demand_peak, working = pool->count[CONTAINER_BUSY] + pool_waiting(pool);
    if (peak < working)
        peak = working;
    pool->demand_peak = 0;
    if (state->period_us == 0) {
        state->period_us = state->changed_us = now_us;
        state->arrivals_seen = 0;
        present->peak = pool->limits.size; /* what was asked for at the start counts as wanted once */
    }
    uint64_t past = (now_us - state->period_us) / SCALER_PERIOD_US;
    for (uint64_t i = 0; i < past && i < SCALER_PERIODS; i++) {
        memmove(state->periods + 1, state->periods, (SCALER_PERIODS - 1) * sizeof *state->periods);
        *present = (struct scaler_period){0};
    }
    state->period_us += past * SCALER_PERIOD_US;
    if (present->peak < peak)
        present->peak = peak;
    present->arrivals += (uint32_t)(pool->counters.arrivals - state->arrivals_seen);
    state->arrivals_seen = pool->counters.arrivals;
}

/* Weighted tasks of the memory that would not have found a container, had there been `size`. */
static uint64_t misses_with(const struct scaler_state *state, uint32_t size)
{
    uint64_t misses = 0;
    for (uint32_t i = 0; i < SCALER_PERIODS; i++)
        if (state->periods[i].peak > size)
            misses += (uint64_t)(state->periods[i].peak - size) * (WEIGHT_ONE - i * WEIGHT_LOSS);
    return misses;
}

uint32_t scaler_predictive(struct scaler_state *state, const struct scaler_config *config, struct pool *pool,
                           uint64_t now_us)
{
    note_demand(state, pool, now_us);
    if (pool->pinned || pool->limits.on_demand)
        return pool->target;
    uint64_t arrivals = 0;
    uint32_t size = pool->limits.min, working = pool->count[CONTAINER_BUSY] + pool_waiting(pool);
    for (uint32_t i = 0; i < SCALER_PERIODS; i++)
        arrivals += (uint64_t)state->periods[i].arrivals * (WEIGHT_ONE - i * WEIGHT_LOSS);
    while (size < pool->limits.max && misses_with(state, size) * MISS_SHARE > arrivals * (100 - config->hit_percent))
        size++;
    if (size < working)
        size = working < pool->limits.max ? working : pool->limits.max;
    /* Down only after a while without need of more: containers cost less to keep for a moment than to make again. */
    if (size >= pool->target) {
        state->changed_us = now_us;
        return size;
    }
    if (now_us - state->changed_us < config->cooldown_us)
        return pool->target;
    return size;
}
